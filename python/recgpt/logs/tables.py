"""Validate, normalize and sort the three tables; every defect is counted and named (RecGPT section 2.1.1, input)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt.datasets import Dataset
from recgpt.errors import InputError, InvalidConfigError, UnknownBehaviorError, together
from recgpt.logs import times
from recgpt.logs.catalogue import complete, read_items, read_users, strangers, with_everyone
from recgpt.logs.columns import Source, show
from recgpt.logs.report import KINDS, Defect, Report
from recgpt.logs.rows import read_events
from recgpt.schema import BEHAVIORS, ITEMS, USERS, ArrowStream

# A behavior's name enters history lines such as `17-12 (purchase, cart)`, so it holds no separator.
_OWN_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


class Logs(NamedTuple):
    """The three tables of recgpt, and the account of how they came to be."""

    events: pa.Table
    """`schema.EVENTS`, then the log's extra columns; sorted by user, time, position, item, behavior."""
    items: pa.Table
    """`schema.ITEMS`, one row an item, sorted by id."""
    users: pa.Table
    """`schema.USERS`, one row a user, sorted by id; everyone who is in `events` is here."""
    report: Report


def from_dataset(data: Dataset) -> Logs:
    """Normalize a data set with the time zone and the behavior names that it states."""
    return normalize(data.events, data.items, data.users, time_zone=data.time_zone, behaviors=data.behaviors)


def normalize(
    events: ArrowStream,
    items: ArrowStream | None = None,
    users: ArrowStream | None = None,
    *,
    time_zone: str | None = None,
    behaviors: Mapping[str, str] | None = None,
) -> Logs:
    """Bring a shop's tables to recgpt's, leaving out only what is counted in the report.

    Args:
        events: `user_id`, `behavior`, `timestamp` or `position`, `item_id` and/or `query`; other columns are kept.
        items: `item_id`, `title` and the optional columns of `schema.ITEMS`. None or no rows: made from the events.
        users: `user_id` and `attributes`. None or no rows: made from the events.
        time_zone: IANA zone of times that carry none.
        behaviors: own event names -> recgpt's; `{"coupon": "coupon"}` keeps a behavior of the shop's own, which then
            needs no item.

    Returns:
        The tables and the report. Shuffling or repeating the rows of `events` changes nothing in the tables.

    Raises:
        InvalidTableError: if columns are missing or of a wrong type; and whenever there are errors of several kinds:
            one message names all of them in all three tables, and what would only be counted.
        InvalidConfigError: if the zone does not exist or a behavior name cannot stand in a history line.
        NaiveTimestampError: if times carry no zone and none is stated.
        TimestampRangeError: if every time lies outside the years 1970 to 9999.
        UnknownBehaviorError: if no behavior of the log is known, or one is mapped to an unknown name.
        EmptyLogError: if no event is left.

    >>> import pyarrow as pa
    >>> log = pa.table({"user_id": [7], "item_id": [3], "behavior": ["buy"], "timestamp": ["2017-12-03T18:30:00Z"]})
    >>> normalize(log, behaviors={"buy": "purchase"}).events.column("behavior").to_pylist()
    ['purchase']
    """
    errors: list[InputError] = []
    mapping = _mapping(behaviors or {}, errors)
    zone = times.known_zone(time_zone, errors)
    log = Source(events, "events")
    catalogue = Source(ITEMS.empty_table() if items is None else items, "items")
    people = Source(USERS.empty_table() if users is None else users, "users")
    defects: list[Defect] = []

    event_table, rows, counts = read_events(log, mapping, zone, defects)
    user_ids, item_ids = (event_table.column(name).combine_chunks() for name in ("user_id", "item_id"))
    item_table, user_table, unlisted = ITEMS.empty_table(), USERS.empty_table(), np.ones(len(rows), bool)
    # A table without rows is one that the shop does not keep: it is made from the events.
    if catalogue.rows:
        item_table = read_items(catalogue, defects)
        if "item_id" not in catalogue.broken:
            strangers(item_ids, item_table, "item_id", rows, defects)
    if people.rows:
        user_table = read_users(people, defects)
        if "user_id" not in people.broken:
            unlisted = strangers(user_ids, user_table, "user_id", rows, defects)
    errors += [error for source in (log, catalogue, people) for error in source.errors]
    if errors:
        raise together(errors, [f"`{defect.table}`: {defect.line()}" for defect in defects])

    listed = {"items": item_table.num_rows, "users": user_table.num_rows}
    if unlisted.any():
        user_table = with_everyone(user_table, user_ids.filter(pa.array(unlisted)))
    if not catalogue.rows:
        item_table = complete(pa.table({"item_id": pc.unique(item_ids.drop_null()).sort()}), ITEMS)

    stamps = pc.min_max(event_table.column("timestamp")).as_py()
    report = Report(
        rows_in={source.name: source.rows for source in (log, catalogue, people)},
        rows_out={"events": event_table.num_rows, "items": item_table.num_rows, "users": user_table.num_rows},
        rows_added={"items": item_table.num_rows - listed["items"], "users": user_table.num_rows - listed["users"]},
        defects=tuple(sorted(defects, key=lambda defect: list(KINDS).index(defect.kind))),
        behaviors=counts,
        first=_utc(stamps["min"]),
        last=_utc(stamps["max"]),
        time_zone=time_zone,
    )
    return Logs(event_table, item_table, user_table, report)


def _mapping(behaviors: Mapping[str, str], errors: list[InputError]) -> dict[str, str]:
    """recgpt's names and the user's; a target is one of recgpt's, or one that maps to itself."""
    own = {name for name, target in behaviors.items() if name == target}
    for name, target in behaviors.items():
        if target in BEHAVIORS:
            continue
        if target not in own:
            near = difflib.get_close_matches(target, BEHAVIORS, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            errors.append(
                UnknownBehaviorError(
                    f"`behaviors` maps {show(name)} to {show(target)}, which is not one of {', '.join(BEHAVIORS)}"
                    f"{hint}; to keep a behavior of your own, add {show(target)} -> {show(target)} too"
                )
            )
        elif not _OWN_NAME.fullmatch(target):
            errors.append(
                InvalidConfigError(
                    f"`behaviors` keeps {show(target)}, but a name must be 1 to 32 of a to z, 0 to 9 and _, "
                    "and begin with a letter"
                )
            )
    return {**{name: name for name in BEHAVIORS}, **behaviors}


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment is not None else None
