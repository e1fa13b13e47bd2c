"""The events table: each row is judged, then the usable ones are sorted and repeated ones are dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from recgpt.errors import EmptyLogError, TimestampRangeError, UnknownBehaviorError
from recgpt.logs import times
from recgpt.logs.columns import Mask, Rows, Source, clean, null_mask, ranks, show, sortable
from recgpt.logs.report import BehaviorCount, Defect, Example, note
from recgpt.schema import BEHAVIORS, EVENTS, TIMESTAMP
from recgpt.text import plural

_SHORT = 40


class Events(NamedTuple):
    """The events that a log leaves."""

    table: pa.Table
    """`schema.EVENTS`, then the extra columns."""
    rows: Rows
    """Which row of the log each one was."""
    behaviors: tuple[BehaviorCount, ...]


class _Raw(NamedTuple):
    user: pa.Array
    item: pa.Array
    behavior: pa.Array
    query: pa.Array
    position: pa.Array
    times: times.Times
    timed: bool
    """Whether the log has times at all."""


class _Named(NamedTuple):
    """The behavior of every row, as the log calls it and as recgpt does."""

    counts: tuple[BehaviorCount, ...]
    behavior: pa.Array
    null: Mask
    unknown: Mask
    itemless: Mask
    """Behaviors of the shop's own, which need no item."""


def read_events(log: Source, mapping: Mapping[str, str], time_zone: str | None, defects: list[Defect]) -> Events:
    """Give the usable events, sorted and each once; with an error in `log`, the usable ones as they came.

    What makes the log unusable stays in `log`, what is only counted goes to `defects`.
    """
    raw = _read(log, time_zone)
    if not log.rows:
        log.refuse(
            "there are no rows; expected at least one event: check the file or the query behind it", kind=EmptyLogError
        )
    named = _name(log, raw.behavior, mapping)
    left = _judge(log, raw, named, defects)
    stamp = log.raw("timestamp")
    micros = pa.array(raw.times.micros, mask=~raw.times.usable).cast(TIMESTAMP)
    became = micros if pa.types.is_timestamp(stamp.type) else stamp
    note(defects, "events", "skipped_local_time", raw.times.skipped & left, became)
    note(defects, "events", "repeated_local_time", raw.times.repeated & left, became)
    columns = {
        "user_id": raw.user,
        "timestamp": micros,
        "position": raw.position,
        "item_id": raw.item,
        "behavior": named.behavior,
        "query": raw.query,
    }
    for name in log.table.column_names:
        if name in EVENTS.names or name in log.broken:
            continue
        if not sortable(log.table.schema.field(name).type):
            defects.append(Defect("events", "unsortable_column", log.rows, True, (Example(0, show(name)),)))
        else:
            columns[name] = log.raw(name)
    rows = np.flatnonzero(left)
    taken = {name: values.take(pa.array(rows)) for name, values in columns.items()}
    names = [*EVENTS.names, *(name for name in columns if name not in EVENTS.names)]
    schema = pa.schema([*EVENTS, *(pa.field(name, taken[name].type) for name in names[len(EVENTS) :])])
    table = pa.Table.from_arrays([taken[name] for name in names], schema=schema)
    if log.errors:
        # Which rows are equal is not known before the columns are right.
        return Events(table, rows, named.counts)
    keys = [ranks(values) for values in taken.values()]
    order = np.lexsort(keys[::-1])
    same = np.ones(len(order), bool)
    same[0] = False
    for key in keys:
        ordered = key[order]
        same[1:] &= ordered[1:] == ordered[:-1]
    rows = rows[order]
    note(defects, "events", "duplicate_event", same, raw.user.take(pa.array(rows)), rows)
    return Events(table.take(pa.array(order[~same])).combine_chunks(), rows[~same], named.counts)


def _read(log: Source, time_zone: str | None) -> _Raw:
    if not log.has("query"):
        log.miss("item_id")
    if not log.has("position"):
        log.miss("timestamp")
    user, behavior = log.text("user_id", required=True), log.text("behavior", required=True)
    item, query = log.text("item_id"), clean(log.text("query"))
    position = log.integer("position")
    stamps = times.read(log, "timestamp", time_zone)
    timed = not bool(stamps.null.all())
    if not timed and log.rows and log.has("timestamp") and "timestamp" not in log.broken and not log.has("position"):
        log.refuse("column `timestamp` is all null; fill it, or give the order as a column `position`", "timestamp")
    return _Raw(user, item, behavior, query, position, stamps, timed)


def _name(log: Source, column: pa.Array, mapping: Mapping[str, str]) -> _Named:
    """Call every behavior by recgpt's name; a log of which no name is known is an error."""
    encoded = column.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    targets = [mapping.get(name) for name in names]
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    tally = Counter(dict(enumerate(np.bincount(codes[codes >= 0], minlength=len(names)).tolist())))
    counts = tuple(
        BehaviorCount(names[code], targets[code], rows)
        for code, rows in sorted(tally.items(), key=lambda entry: (-entry[1], names[entry[0]]))
    )
    if names and not any(targets):
        came = ", ".join(f"{show(entry.name)} ({plural(entry.rows, 'row')})" for entry in counts[:10])
        log.refuse(
            f"no behavior is known: there are {came}, expected {', '.join(BEHAVIORS)}; "
            f'map the names, for example behaviors={{"{names[0][:_SHORT]}": "purchase"}}',
            "behavior",
            kind=UnknownBehaviorError,
        )
    known = np.array([target is not None for target in targets] + [False])[codes]
    itemless = np.array([target is not None and target not in BEHAVIORS for target in targets] + [False])[codes]
    behavior = pa.array([target or "" for target in targets], pa.large_string()).take(encoded.indices)
    return _Named(counts, behavior, codes < 0, ~known, itemless)


def _judge(log: Source, raw: _Raw, named: _Named, defects: list[Defect]) -> Mask:
    """Count the rows that cannot be used, each by its first defect, and give the others: `(n,) bool`."""
    stamp = log.raw("timestamp")
    # Python's datetime ends with the year 9999, so a stamp beyond it is shown as its number.
    moment = stamp.cast(pa.int64()) if pa.types.is_timestamp(stamp.type) else stamp
    if raw.times.outside.any() and not raw.times.usable.any():
        row = int(np.flatnonzero(raw.times.outside)[0])
        log.refuse(
            f"every time lies outside the years 1970 to 9999 (row {row} holds {show(moment[row].as_py())}); "
            "check the unit of `timestamp` (seconds, milliseconds, microseconds)",
            "timestamp",
            kind=TimestampRangeError,
        )
    left = np.ones(log.rows, bool)
    for kind, columns, mask, values in (
        ("null_user", ("user_id",), null_mask(raw.user), raw.user),
        ("null_behavior", ("behavior",), named.null, raw.behavior),
        ("unknown_behavior", ("behavior",), named.unknown, raw.behavior),
        # An item may be missing where there is a query, and where the behavior needs none.
        (
            "null_item",
            ("item_id", "query", "behavior"),
            null_mask(raw.item) & null_mask(raw.query) & ~named.itemless,
            raw.item,
        ),
        ("unreadable_timestamp", ("timestamp",), raw.times.unreadable, stamp),
        ("timestamp_out_of_range", ("timestamp",), raw.times.outside, moment),
        ("null_timestamp", ("timestamp",), raw.times.null & raw.timed, stamp),
        ("null_position", ("position", "timestamp"), null_mask(raw.position) & (not raw.timed), raw.position),
    ):
        if log.broken.isdisjoint(columns):
            mask = mask & left
            note(defects, "events", kind, mask, values)
            left &= ~mask
    if not left.any() and not log.errors:
        why = "; ".join(
            f"{defect.meaning}: {defect.rows:,} ({defect.fix})" for defect in defects if defect.table == "events"
        )
        log.refuse(f"no row of {log.rows:,} is usable: {why}", kind=EmptyLogError)
    return left
