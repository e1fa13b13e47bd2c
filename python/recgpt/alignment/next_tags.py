"""What LLM_IT is asked at any moment of a log, and what was bought next: its training samples, and how to judge it.

    shop = Shop.of(datasets.load("completejourney"), tokenizer=tokenizer)
    judged = held_out(shop, now)                                  # 240 users whom no training may see
    table = samples(ask_all(shop, draw(shop, now, held=judged)), candidates(shop, now), seed=0)
    asked = ask(shop, judged, now)                                # the same prompts at `now`, and what was bought then
    requests = [request(one, candidates(shop, now)) for one in asked]
    control = [request(one, candidates(shop, now)) for one in swapped(asked)]   # another user's history

The prompt is the stage's own (`recgpt.tags.prompts`). Its interests are by rule: the pool interests that match the
compressed history best (`recgpt.interests.matched`), without a model. What is ranked is a product type (`categories`)
or one of the catalogue's tags (`tags`), in small letters as tags are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import behaviors, history, interests, schema, tags
from recgpt.alignment.held_out import HeldOut
from recgpt.alignment.samples import SAMPLES, TASK
from recgpt.alignment.shop import Shop, aware
from recgpt.errors import AlignmentError, UnknownUserError
from recgpt.llm.engine import Prompt, ScoreRequest
from recgpt.llm.prompts import load
from recgpt.pipeline import households

DAYS = 14
"""How long after the prompt something may be bought to be a right answer."""
MONTH = timedelta(days=30)
FIRST = timedelta(days=60)
"""No prompt is from the first days of a log: there is no history yet."""
_LIKED = 8
"""Interests in a prompt, at most."""


class Asked(NamedTuple):
    """One user at one moment."""

    user: str
    at: datetime
    prompt: Prompt
    bought: tuple[str, ...]
    """Names of what was bought from then on for `DAYS`, in the order of the first purchase."""
    recent: frozenset[str]
    """Names of what was bought in the 30 days before."""
    interests: tuple[str, ...] = ()
    """As the prompt names them."""


def candidates(shop: Shop, before: datetime, *, most: int = 160) -> dict[str, int]:
    """Count what was bought before a moment; the most bought names first, equals by name."""
    counts = _names(shop, shop.bought(shop.begun, before))
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most])


def held_out(shop: Shop, now: datetime, *, count: int = 240, min_events: int = 100, seed: int = 0) -> list[str]:
    """Draw users on whom an aligned model is judged: with a long history before `now`, who buy in the days after.

    As in a run, they are drawn from equal strata of history length, users with attributes first.
    """
    known = shop.events.filter(pc.less(shop.events["timestamp"], pa.scalar(aware(now), schema.TIMESTAMP)))
    among = pc.unique(shop.bought(now, now + timedelta(days=DAYS))["user_id"])
    kept = behaviors.extract(known)
    return households.draw(kept, shop.users, among, count=count, min_events=min_events, seed=seed)


def draw(
    shop: Shop,
    until: datetime,
    *,
    held: Collection[str] = (),
    cuts: int = 20,
    users: int = 60,
    min_events: int = 30,
    seed: int = 0,
) -> dict[datetime, list[str]]:
    """Choose moments spread over the log, local midnights at least `DAYS` before `until`, and users for each.

    Args:
        shop: the log.
        until: nothing from here on may be learned from.
        held: users who are kept for judging.
        cuts: how many moments.
        users: how many at each.
        min_events: fewest events that a user has before.
        seed: decides who.

    Raises:
        AlignmentError: the log is too short.
    """
    zone = ZoneInfo(shop.zone)
    first, last = shop.begun + FIRST, aware(until) - timedelta(days=DAYS)
    if first > last:
        raise AlignmentError(
            f"{shop.origin} begins at {shop.begun:%Y-%m-%d}: no moment lies {FIRST.days} days after that and {DAYS} "
            f"days before {until:%Y-%m-%d}, so there is nothing to learn from"
        )
    moments = [first + (last - first) * step / max(cuts - 1, 1) for step in range(cuts)]
    days = [moment.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0) for moment in moments]
    random = np.random.default_rng(seed)
    return {day: seen_and_bought(shop, day, users, random, held=held, min_events=min_events) for day in days}


def seen_and_bought(
    shop: Shop,
    at: datetime,
    users: int,
    random: np.random.Generator,
    *,
    held: Collection[str] = (),
    min_events: int = 30,
) -> list[str]:
    """Draw users with a history before a moment who bought in the days after."""
    before = shop.events.filter(pc.less(shop.events["timestamp"], pa.scalar(aware(at), schema.TIMESTAMP)))
    counts = before.group_by("user_id").aggregate([("behavior", "count")])
    long = counts.filter(pc.greater_equal(counts["behavior_count"], min_events))["user_id"].to_pylist()
    after = set(pc.unique(shop.bought(at, at + timedelta(days=DAYS))["user_id"]).to_pylist())
    eligible = sorted((set(long) & after) - set(held))
    return [eligible[row] for row in random.permutation(len(eligible))[:users]]


def ask(shop: Shop, users: Sequence[str], at: datetime) -> list[Asked]:
    """Write the stage's own prompt for each user as of a moment, and note what was bought just before and after.

    Args:
        shop: the log.
        users: in this order.
        at: with time zone; the prompt shows the shop's own date.

    Raises:
        UnknownUserError: the log does not know one of them.
    """
    if not users:
        return []
    if strange := sorted(set(users) - set(shop.users["user_id"].to_pylist())):
        raise UnknownUserError(f"the users of {shop.origin} have no {strange[0]!r} ({len(strange)} such in all)")
    local = aware(at).astimezone(ZoneInfo(shop.zone))
    ids = pa.array(users, pa.large_string())
    own = shop.events.filter(pc.is_in(shop.events["user_id"], value_set=ids))
    texts = history.compress(
        behaviors.extract(own), shop.briefs, now=local, tokenizer=shop.tokenizer, time_zone=shop.zone
    )
    liked = interests.matched(texts, pool=shop.pool, most=_LIKED)
    written = prompts(shop, users, at, liked)
    after = _by_user(shop, shop.bought(at, at + timedelta(days=DAYS)), ids)
    before = _by_user(shop, shop.bought(at - MONTH, at), ids)
    return [
        Asked(
            user,
            local,
            written[user],
            tuple(after.get(user, ())),
            frozenset(before.get(user, ())),
            tuple(liked.get(user, ())),
        )
        for user in users
    ]


def prompts(
    shop: Shop,
    users: Sequence[str],
    at: datetime,
    liked: Mapping[str, Sequence[str]],
    *,
    quantity: Mapping[str, int] | None = None,
) -> dict[str, Prompt]:
    """Write the stage's prompts as of a moment: of mode `rank`, or of `generate` where `quantity` says how many tags.

    Args:
        shop: the log.
        users: in this order.
        at: with time zone.
        liked: each user's interests.
        quantity: of `tags.prompts`.
    """
    ids = pa.array(users, pa.large_string())
    return tags.prompts(
        shop.users.take(pc.index_in(ids, value_set=shop.users["user_id"].combine_chunks())),
        interest_rows(liked),
        shop.events,
        shop.item_tags,
        now=aware(at).astimezone(ZoneInfo(shop.zone)),
        count_tokens=lambda texts: [int(count) for count in shop.tokenizer.count(texts)],
        quantity=quantity,
        config=shop.config,
    )


def ask_all(shop: Shop, moments: Mapping[datetime, Sequence[str]]) -> list[Asked]:
    """Ask at several moments."""
    return [one for at, users in moments.items() for one in ask(shop, users, at)]


def swapped(asked: Sequence[Asked], *, seed: int = 0) -> list[Asked]:
    """Give each user the whole prompt of another user of the same moment: the control that shows what history is worth.

    Raises:
        AlignmentError: somebody is alone at a moment.
    """
    random = np.random.default_rng(seed)
    out = list(asked)
    for at in dict.fromkeys(one.at for one in asked):
        rows = [row for row, one in enumerate(asked) if one.at == at]
        if len(rows) < 2:
            raise AlignmentError(f"only one user was asked at {at}, so that no other's history could be swapped in")
        circle = random.permutation(rows).tolist()
        for row, other in zip(circle, [*circle[1:], circle[0]], strict=True):
            out[row] = asked[row]._replace(prompt=asked[other].prompt)
    return out


def request(asked: Asked, names: Iterable[str]) -> ScoreRequest:
    """Ask an engine how likely each name is next."""
    return ScoreRequest(asked.prompt, tuple(f" {name}" for name in names), key=f"next/{asked.user}")


def samples(
    asked: Sequence[Asked],
    counts: Mapping[str, int],
    *,
    origin: str,
    held: HeldOut,
    answers: int = 12,
    others: int = 30,
    by_popularity: float = 0.5,
    fresh: bool = False,
    only: Mapping[str, Collection[str]] | None = None,
    days: int = DAYS,
    seed: int = 0,
) -> pa.Table:
    """Make ranking samples: one row a right answer, all rows of a prompt with the same wrong ones.

    A row's `at` is the end of the days in which its answers were bought: they are behavior that it shows.

    Args:
        asked: prompts with what was bought.
        counts: the candidates and how often each was bought.
        origin: of the log.
        held: who may not be among them.
        answers: most right answers a prompt, drawn where there are more.
        others: wrong answers a prompt, of what was not bought in these days.
        by_popularity: this share of them is drawn as often as it is bought, so that a bestseller is wrong as often as
            it is right; the rest evenly, so that popularity still counts for something.
        fresh: only what was not bought in the 30 days before, right or wrong.
        only: names that may be right, by user; what else was bought is neither right nor wrong.
        days: in which it was bought.
        seed: of the draws.

    Returns:
        SAMPLES; prompts without a right or without a wrong answer have no rows.

    Raises:
        AlignmentError: nothing is left, or somebody held out is among them.
    """
    random = np.random.default_rng(seed)
    digest = load("tags_rank").digest
    made: list[dict[str, Any]] = []
    for one in asked:
        open_to = [name for name in counts if not (fresh and name in one.recent)]
        may = set(open_to) if only is None else set(open_to) & set(only.get(one.user, ()))
        right = [name for name in one.bought if name in may]
        wrong = sorted(set(open_to) - set(one.bought))
        if not right or not wrong:
            continue
        chosen = [right[row] for row in sorted(random.permutation(len(right))[:answers].tolist())]
        drawn = [f" {name}" for name in _wrong(wrong, counts, others, by_popularity, random)]
        made += [
            {
                "subtask": "tags", "level": TASK, "system": one.prompt.system, "prompt": one.prompt.user,
                "beginning": one.prompt.answer, "answer": f" {name}", "others": drawn, "user_id": one.user,
                "at": one.at + timedelta(days=days, microseconds=-1), "origin": origin, "prompt_digest": digest,
            }
            for name in chosen
        ]  # fmt: skip
    if not made:
        raise AlignmentError(
            f"of {len(asked)} prompts none has both something that was bought and something that was not among the "
            f"{len(counts)} candidates, so there is nothing to learn; take more users, days or candidates"
        )
    table = schema.rows(made, SAMPLES)
    held.refuse(table)
    return table


def _wrong(
    wrong: Sequence[str], counts: Mapping[str, int], most: int, by_popularity: float, random: np.random.Generator
) -> list[str]:
    """Draw wrong answers, each once, in a random order."""
    most = min(most, len(wrong))
    weights = np.array([counts[name] for name in wrong], np.float64)
    popular = min(round(most * by_popularity), int((weights > 0).sum()))
    first = (
        random.choice(len(wrong), popular, replace=False, p=weights / weights.sum()) if popular else np.zeros(0, int)
    )
    rest = np.setdiff1d(np.arange(len(wrong)), first)
    rows = np.concatenate([first, random.choice(rest, most - popular, replace=False)])
    return [wrong[row] for row in random.permutation(rows)]


def interest_rows(liked: Mapping[str, Sequence[str]]) -> pa.Table:
    """Write interests that a rule found as the table that the tags stage reads."""
    return schema.rows(
        [
            {"user_id": user, "rank": rank, "interest": name, "listed": True, "stage": "long-term", "evidence": [],
             "source": "rule"}
            for user, names in liked.items()
            for rank, name in enumerate(names, 1)
        ],
        schema.INTERESTS,
    )  # fmt: skip


def _names(shop: Shop, bought: pa.Table) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in bought["item_id"].value_counts().to_pylist():
        if name := shop.name_of.get(row["values"]):
            counts[name] += row["counts"]
    return counts


def _by_user(shop: Shop, bought: pa.Table, ids: pa.Array) -> dict[str, dict[str, None]]:
    """Each user's names in the order of the first purchase."""
    own = bought.filter(pc.is_in(bought["user_id"], value_set=ids))
    found: dict[str, dict[str, None]] = {}
    for user, item in zip(own["user_id"].to_pylist(), own["item_id"].to_pylist(), strict=True):
        if name := shop.name_of.get(item):
            found.setdefault(user, {})[name] = None
    return found
