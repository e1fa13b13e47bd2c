"""What lies behind a user's log before `now`, from the tables of a world: which event was for which interest."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.evidence import longest_hit, words
from recgpt.text import clean

SHOWN = 3
"""Reliable events for an interest from which on a miner can be asked to find it."""
LASTING = timedelta(days=90)
"""A long-term interest that is younger could not be told from a short-term one."""
_MARKS = re.compile(r"( #\d+)?( x\d+)?$")

Hits = Callable[[str], Collection[str]]
"""Which interests a text's words hit, by name."""


@dataclass
class Behind:
    """One user."""

    planted: dict[str, str] = field(default_factory=dict)
    """Interest -> stage, of those that at least one reliable event before `now` shows."""
    wanted: set[str] = field(default_factory=set)
    """Those of `SHOWN` events and more: what is to be found."""
    live: set[str] = field(default_factory=set)
    """Those that go on at `now`."""
    things: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Interest -> what a history may call the things done for it: briefs, categories, queries in quotes."""
    hit: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    """Interest -> (cause, true theme) of each reliable event whose words hit it."""
    texts: list[tuple[str, str]] = field(default_factory=list)
    """(text, cause) of each reliable event: for interests that no pool knows."""


def behind(
    events: pa.Table,
    truth: Mapping[str, pa.Table],
    items: pa.Table,
    briefs: pa.Table,
    users: Collection[str],
    *,
    now: datetime,
    hits: Hits,
    reliable: Sequence[str] = schema.RELIABLE,
) -> dict[str, Behind]:
    """Read the truth of some users.

    Args:
        events: EVENTS, in the order of `truth["causes"]`.
        truth: of the world.
        items: ITEMS.
        briefs: BRIEFS: how histories name the items.
        users: whose.
        now: aware.
        hits: which interests a text's words hit; for a pool, `Pool.hits` by name.
        reliable: behaviors that histories show.
    """
    facts = {row["item_id"]: row for row in truth["items"].to_pylist()}
    theme_of = {row["ware"]: row["theme"] for row in facts.values()}
    titles = dict(zip(items["item_id"].to_pylist(), items["title"].to_pylist(), strict=True))
    names = {row["item_id"]: (row["brief"], row["category"] or "") for row in briefs.to_pylist()}
    known: dict[str, Collection[str]] = {}
    wanted = pc.and_(
        pc.less(events["timestamp"], pa.scalar(now, schema.TIMESTAMP)),
        pc.and_(
            pc.is_in(events["behavior"], pa.array(reliable, pa.large_string())),
            pc.is_in(events["user_id"], pa.array(sorted(users), pa.large_string())),
        ),
    )
    log = events.filter(wanted).select(["user_id", "item_id", "query"]).to_pylist()
    found = {user: Behind() for user in users}
    count: dict[tuple[str, str], int] = defaultdict(int)
    for event, why in zip(log, truth["causes"].filter(wanted).to_pylist(), strict=True):
        one, item, cause = found[event["user_id"]], event["item_id"], why["cause"]
        text = clean((titles.get(item) if item else event["query"]) or "")
        if text not in known:
            known[text] = hits(text)
        theme = facts[item]["theme"] if item else theme_of[why["meant"]]
        for name in known[text]:
            one.hit[name].append((cause, theme))
        one.texts.append((text, cause))
        if cause == "interest":
            count[event["user_id"], why["interest"]] += 1
            one.things[why["interest"]].update(names.get(item, ()) if item else (f'"{text}"',))
    for row in truth["interests"].to_pylist():
        user, name = row["user_id"], row["interest"]
        if user not in found or not count[user, name]:
            continue
        lasting = row["stage"] == "long-term" and now - row["start"] >= LASTING
        found[user].planted[name] = "long-term" if lasting else "short-term"
        if count[user, name] >= SHOWN:
            found[user].wanted.add(name)
        if row["end"] is None or row["end"] > now:
            found[user].live.add(name)
    return found


def thing(item: str) -> str:
    """Take the marks of a history line off: ` #2` of items that share a brief, ` x3` of counts.

    >>> thing("Vela dome tent #2"), thing("Outdoor x12")
    ('Vela dome tent', 'Outdoor')
    """
    return _MARKS.sub("", item)


def hit_by_name(one: Behind, name: str) -> list[str]:
    """Causes of the events whose words hold the name of an interest that no pool knows."""
    term = words(name)
    return [cause for text, cause in one.texts if term and longest_hit(text, [term])]


def as_rows(table: pa.Table, users: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Group rows by user, every user there."""
    found: dict[str, list[dict[str, Any]]] = {user: [] for user in users}
    for row in table.to_pylist():
        if row["user_id"] in found:
            found[row["user_id"]].append(row)
    return found
