"""Validate, normalize and sort the three tables; every defect is counted and named (RecGPT section 2.1.1, input)."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt.datasets import Dataset
from recgpt.errors import (
    EmptyLogError,
    InvalidConfigError,
    InvalidTableError,
    NaiveTimestampError,
    TimestampRangeError,
    UnknownBehaviorError,
)
from recgpt.logs import times
from recgpt.logs.catalogue import complete, everyone, read_items, read_users
from recgpt.logs.columns import Rows, Source, clean, null_mask, ranks, show, sortable
from recgpt.logs.report import KINDS, BehaviorCount, Defect, Example, Report, note
from recgpt.schema import BEHAVIORS, EVENTS, ITEMS, TIMESTAMP, ArrowStream

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
        InvalidTableError: naming every missing column and every column of a wrong type, in all three tables at once.
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
    times.check_zone(time_zone)
    mapping = _mapping(behaviors or {})
    log = Source(events, "events")
    catalogue = Source(items, "items") if items is not None else None
    people = Source(users, "users") if users is not None else None
    defects: list[Defect] = []

    naive: NaiveTimestampError | None = None
    raw: _Raw | None = None
    try:
        raw = _read_events(log, time_zone)
    except NaiveTimestampError as error:
        naive = error  # told after the structural defects, which are named all at once
    item_table = read_items(catalogue, defects) if catalogue is not None and catalogue.rows else None
    user_table = read_users(people, defects) if people is not None and people.rows else None
    wrong = [(source.name, defect) for source in (log, catalogue, people) if source for defect in source.defects]
    if wrong:
        raise InvalidTableError("; ".join(f"`{name}`: {defect}" for name, defect in wrong))
    if naive is not None:
        raise naive
    assert raw is not None  # else a NaiveTimestampError was raised above
    if log.rows == 0:
        raise EmptyLogError("`events` has no rows; expected at least one event: check the file or the query behind it")

    event_table, rows, counts = _events(log, raw, mapping, defects)
    added = {"items": 0, "users": 0}
    user_table, added["users"] = everyone(user_table, event_table, rows, defects)
    if item_table is None:
        ids = pc.unique(event_table.column("item_id").drop_null()).sort()
        item_table = complete(pa.table({"item_id": ids}), ITEMS)
        added["items"] = item_table.num_rows
    else:
        item_ids = event_table.column("item_id").combine_chunks()
        strange = ~null_mask(item_ids) & ~pc.is_in(item_ids, item_table.column("item_id")).to_numpy(False)
        note(defects, "events", "item_not_in_items", strange, item_ids, rows)

    stamps = pc.min_max(event_table.column("timestamp")).as_py()
    report = Report(
        rows_in={
            "events": log.rows,
            "items": catalogue.rows if catalogue else 0,
            "users": people.rows if people else 0,
        },
        rows_out={"events": event_table.num_rows, "items": item_table.num_rows, "users": user_table.num_rows},
        rows_added=added,
        defects=tuple(sorted(defects, key=lambda defect: list(KINDS).index(defect.kind))),
        behaviors=counts,
        first=_utc(stamps["min"]),
        last=_utc(stamps["max"]),
        time_zone=time_zone,
    )
    return Logs(event_table, item_table, user_table, report)


class _Raw(NamedTuple):
    user: pa.Array
    item: pa.Array
    behavior: pa.Array
    query: pa.Array
    position: pa.Array
    times: times.Times
    timed: bool
    """Whether the log has times at all."""


def _read_events(log: Source, time_zone: str | None) -> _Raw:
    if not log.has("query"):
        log.miss("item_id")
    if not log.has("position"):
        log.miss("timestamp")
    user, behavior = log.text("user_id", required=True), log.text("behavior", required=True)
    item, query = log.text("item_id"), clean(log.text("query"))
    position = log.integer("position")
    stamps = times.read(log, "timestamp", time_zone)
    timed = not bool(stamps.null.all())
    if not timed and log.rows and log.has("timestamp") and not log.has("position"):
        log.defects.append("column `timestamp` is all null; fill it, or give the order as a column `position`")
    return _Raw(user, item, behavior, query, position, stamps, timed)


def _mapping(behaviors: Mapping[str, str]) -> dict[str, str]:
    """recgpt's names and the user's; a target is one of recgpt's, or one that maps to itself."""
    own = {name for name, target in behaviors.items() if name == target}
    for name, target in behaviors.items():
        if target in BEHAVIORS:
            continue
        if target not in own:
            near = difflib.get_close_matches(target, BEHAVIORS, 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UnknownBehaviorError(
                f"`behaviors` maps {show(name)} to {show(target)}, which is not one of {', '.join(BEHAVIORS)}{hint}; "
                f"to keep a behavior of your own, add {show(target)} -> {show(target)} too"
            )
        if not _OWN_NAME.fullmatch(target):
            raise InvalidConfigError(
                f"`behaviors` keeps {show(target)}, but a name must be 1 to 32 of a to z, 0 to 9 and _, "
                "and begin with a letter"
            )
    return {**{name: name for name in BEHAVIORS}, **behaviors}


def _events(
    log: Source, raw: _Raw, mapping: Mapping[str, str], defects: list[Defect]
) -> tuple[pa.Table, Rows, tuple[BehaviorCount, ...]]:
    """Leave out what cannot be used, sort, drop duplicates. Gives the table, its rows' old numbers, the names."""
    encoded = raw.behavior.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    targets = [mapping.get(name) for name in names]
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    tally = Counter(dict(enumerate(np.bincount(codes[codes >= 0], minlength=len(names)).tolist())))
    counts = tuple(
        BehaviorCount(names[code], targets[code], rows)
        for code, rows in sorted(tally.items(), key=lambda entry: (-entry[1], names[entry[0]]))
    )
    if names and not any(targets):
        came = ", ".join(f"{show(entry.name)} ({entry.rows:,} rows)" for entry in counts[:10])
        raise UnknownBehaviorError(
            f"no behavior of `events` is known: it has {came}, expected {', '.join(BEHAVIORS)}; "
            f'map the names, for example behaviors={{"{names[0][:_SHORT]}": "purchase"}}'
        )
    known = np.array([target is not None for target in targets] + [False])[codes]
    itemless = np.array([target is not None and target not in BEHAVIORS for target in targets] + [False])[codes]
    behavior = pa.array([target or "" for target in targets], pa.large_string()).take(encoded.indices)

    left = np.ones(log.rows, bool)
    stamp = log.raw("timestamp")
    for kind, mask, values in (
        ("null_user", null_mask(raw.user), raw.user),
        ("null_behavior", codes < 0, raw.behavior),
        ("unknown_behavior", ~known, raw.behavior),
        ("null_item", null_mask(raw.item) & null_mask(raw.query) & ~itemless, raw.item),
        ("unreadable_timestamp", raw.times.unreadable, stamp),
        ("timestamp_out_of_range", raw.times.outside, stamp.cast(pa.int64()) if _is_stamp(stamp) else stamp),
        ("null_timestamp", raw.times.null & raw.timed, stamp),
        ("null_position", null_mask(raw.position) & (not raw.timed), raw.position),
    ):
        mask = mask & left
        note(defects, "events", kind, mask, values)
        left &= ~mask
    if raw.times.outside.any() and not raw.times.usable.any():
        example = next(defect.examples[0] for defect in _with_examples(defects, raw, stamp))
        raise TimestampRangeError(
            f"every time of `events` lies outside the years 1970 to 9999 (row {example.row} holds {example.value}); "
            "check the unit of `timestamp` (seconds, milliseconds, microseconds)"
        )
    if not left.any():
        why = ", ".join(
            f"{defect.rows:,} {defect.meaning} ({defect.fix})" for defect in defects if defect.table == "events"
        )
        raise EmptyLogError(f"none of the {log.rows:,} events is usable: {why}")
    micros = pa.array(raw.times.micros, mask=~raw.times.usable).cast(TIMESTAMP)
    became = micros if _is_stamp(stamp) else stamp
    note(defects, "events", "skipped_local_time", raw.times.skipped & left, became)
    note(defects, "events", "repeated_local_time", raw.times.repeated & left, became)
    columns = {
        "user_id": raw.user,
        "timestamp": micros,
        "position": raw.position,
        "item_id": raw.item,
        "behavior": behavior,
        "query": raw.query,
    }
    for name in log.table.column_names:
        if name in EVENTS.names:
            continue
        if not sortable(log.table.schema.field(name).type):
            defects.append(Defect("events", "unsortable_column", log.rows, True, (Example(0, show(name)),)))
        else:
            columns[name] = log.raw(name)
    rows = np.flatnonzero(left)
    taken = {name: values.take(pa.array(rows)) for name, values in columns.items()}
    keys = [ranks(values) for values in taken.values()]
    order = np.lexsort(keys[::-1])
    same = np.ones(len(order), bool)
    same[0] = False
    for key in keys:
        ordered = key[order]
        same[1:] &= ordered[1:] == ordered[:-1]
    rows = rows[order]
    note(defects, "events", "duplicate_event", same, raw.user.take(pa.array(rows)), rows)
    kept = pa.array(order[~same])
    names_out = [*EVENTS.names, *(name for name in columns if name not in EVENTS.names)]
    schema = pa.schema([*EVENTS, *(pa.field(name, taken[name].type) for name in names_out[len(EVENTS) :])])
    table = pa.Table.from_arrays([taken[name].take(kept) for name in names_out], schema=schema)
    return table, rows[~same], counts


_SHORT = 40


def _is_stamp(values: pa.Array) -> bool:
    # Python's datetime ends with the year 9999, so a stamp beyond it is shown as its number.
    return bool(pa.types.is_timestamp(values.type))


def _with_examples(defects: list[Defect], raw: _Raw, stamp: pa.Array) -> list[Defect]:
    """The out-of-range defect, also where rows left out earlier for another reason hid it."""
    found = [defect for defect in defects if defect.kind == "timestamp_out_of_range"]
    if not found:
        values = stamp.cast(pa.int64()) if _is_stamp(stamp) else stamp
        note(found, "events", "timestamp_out_of_range", raw.times.outside, values)
    return found


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment is not None else None
