"""The log on its way to the kernel: Arrow buffers as they are, and what their values mean.

Columns of whole numbers and of dictionaries cross without a copy; strings are made dictionaries first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.errors import InvalidTableError, TimestampRangeError
from recgpt.history.catalogue import Catalogue, Codes, Texts, flat, named
from recgpt.history.days import END_US, EPOCH, NO_DAY, Shifts, local_days, shifts
from recgpt.history.wording import plain

NOTHING = "-"
"""Written for an event with neither item nor query."""
OTHER = "other"
"""Behaviors folded together."""

NO_TIME = -1
"""In the place of a missing time; earlier than any moment."""
NO_POSITION = int(np.iinfo(np.int64).min)
"""In the place of a missing position."""

Longs = npt.NDArray[np.int64]
Meaning = tuple[int, Codes | None, int]
"""Base, map and size: a value means `map[value - base]`, or without a map `value - base`, which is below size."""
_SPAN_US = (2**32 - 1) * 1_000_000


class Encoded(NamedTuple):
    """One column as whole numbers."""

    values: pa.ChunkedArray
    meaning: Meaning


class Crossing(NamedTuple):
    """What the kernel is given."""

    users: pa.Array | int
    """The id of each user code, ascending; or the number that code 0 stands for."""
    batches: list[Any]
    meanings: tuple[Meaning, Meaning, Meaning, Meaning]
    nothing: int
    extra: Texts
    behaviors: list[str]
    clock: tuple[int, int] | None
    days: Shifts
    missing: int


def cross(
    events: pa.Table, catalogue: Catalogue, *, now: datetime, zone: ZoneInfo, keep: Sequence[str] | None
) -> Crossing:
    """Lay out a log for the kernel."""
    users, user = code_users(events["user_id"])
    behaviors, behavior = code_behaviors(events["behavior"], keep)
    item, missing = code_items(events["item_id"], catalogue)
    query, asked = code_queries(events, len(catalogue.core) + len(missing))
    nothing = len(catalogue.core) + len(missing) + len(asked)
    now_us = (now - EPOCH) // timedelta(microseconds=1)
    stamp = events["timestamp"]
    clock: tuple[int, int] | None = None
    if stamp.null_count or _has_values(events, "position"):
        moments, seen, days = _ranks(events, _wanted(behavior), now_us, zone)
    else:
        moments, seen = stamp.cast(pa.int64()), None
        clock = (now_us, max(0, now_us - _SPAN_US) // 1_000_000)
        oldest = (pc.min(moments).as_py() or 0) // 1_000_000 if zone.utcoffset(None) is None else 0
        days = shifts(zone, min(max(oldest, clock[1]), now_us // 1_000_000), now_us // 1_000_000)
    columns = {"user": user.values, "behavior": behavior.values, "item": item.values}
    if query is not None:
        columns["query"] = query.values
    table = pa.table(columns)
    if seen is not None:
        table = table.filter(seen)
    table = table.add_column(1, "moment", moments)
    none: Meaning = (0, None, 0)
    return Crossing(
        users,
        [_views(batch) for batch in table.to_batches()],
        (user.meaning, behavior.meaning, item.meaning, query.meaning if query is not None else none),
        nothing,
        flat([*map(named, missing), *(f'"{text}"' for text in asked), NOTHING]),
        behaviors,
        clock,
        days,
        len(missing),
    )


def _views(batch: pa.RecordBatch) -> tuple[Any, ...]:
    user, moment, behavior, item, *query = batch.columns
    return (_values(user), _values(moment), _values(behavior), _nullable(item), _nullable(query[0]) if query else None)


def _values(array: pa.Array) -> npt.NDArray[Any]:
    """Look at the values, those of nulls included, without a copy."""
    return np.frombuffer(array.buffers()[1], array.type.to_pandas_dtype())[array.offset : array.offset + len(array)]


def _nullable(array: pa.Array) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[np.uint8], int] | None]:
    if not array.null_count:
        return _values(array), None
    return _values(array), (np.frombuffer(array.buffers()[0], np.uint8), array.offset)


def _has_values(events: pa.Table, name: str) -> bool:
    return name in events.column_names and events[name].null_count < events.num_rows


def _dictionary(column: pa.ChunkedArray) -> tuple[pa.Array, pa.ChunkedArray]:
    """Give the values of a column and where each row finds its own; only rows are null."""
    if pa.types.is_dictionary(column.type) and any(chunk.dictionary.null_count for chunk in column.chunks):
        column = schema.cast(column, pa.large_string())
    if not pa.types.is_dictionary(column.type):
        column = schema.cast(column, pa.large_string()).dictionary_encode()
    column = column.unify_dictionaries()
    if not column.num_chunks:
        return pa.array([], pa.large_string()), pa.chunked_array([], pa.int32())
    indices = pa.chunked_array([chunk.indices for chunk in column.chunks])
    return schema.cast(pa.chunked_array([column.chunk(0).dictionary]), pa.large_string()).combine_chunks(), indices


def _codes(values: pa.Array, among: pa.Array) -> Codes:
    """Give each value its place among others, which must have it."""
    found: Codes = pc.index_in(values, value_set=among).to_numpy()
    return found


def code_users(column: pa.ChunkedArray) -> tuple[pa.Array | int, Encoded]:
    """Give users their codes, and the id of each code or the number that code 0 stands for."""
    if pa.types.is_integer(column.type) and len(column):
        ends = pc.min_max(column).as_py()
        span = ends["max"] - ends["min"] + 1
        # The kernel counts by code, so gaps cost memory and time, but less than looking each id up.
        if span <= 4 * len(column) + 65_536 and column.type != pa.uint64():
            return ends["min"], Encoded(column, (ends["min"], None, span))
        encoded = column.dictionary_encode().unify_dictionaries()
        numbers = encoded.chunk(0).dictionary
        indices = pa.chunked_array([chunk.indices for chunk in encoded.chunks])
        order = pc.array_sort_indices(numbers)
        codes = np.empty(len(order), np.int32)
        codes[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
        users = numbers.take(order).cast(pa.large_string())
        return users, Encoded(indices, (0, codes, len(users)))
    values, indices = _dictionary(column)
    users = values.unique()
    users = users.take(pc.array_sort_indices(users))
    return users, Encoded(indices, (0, _codes(values, users), len(users)))


def code_behaviors(column: pa.ChunkedArray, keep: Sequence[str] | None) -> tuple[list[str], Encoded]:
    """Give behaviors their codes, -1 to those that are not wanted, and the name of each code."""
    values, indices = _dictionary(column)
    came: list[str] = values.to_pylist()
    kept = set(came) if keep is None else set(came) & set(keep)
    names = behavior_names(kept)
    code = {name: row for row, name in enumerate(names) if name in kept}
    return names, Encoded(indices, (0, np.array([code.get(name, -1) for name in came], np.int32), len(names)))


def behavior_names(kept: Collection[str]) -> list[str]:
    """Judge the names of behaviors and put them into the order of a line; the last one is what rare ones become.

    Raises:
        InvalidTableError: a name cannot stand in a line, or there are too many.
    """
    wrong = [name for name in kept if not name.strip() or set(name) & set(',()|"\n\r')]
    if wrong:
        raise InvalidTableError(
            f"`kept` is not usable: behavior {wrong[0]!r} is empty or has a comma, bracket, bar, quote or line break, "
            "which a history line needs for itself; map it to another name"
        )
    kept = set(kept)
    if len(kept | {OTHER}) > 32:
        raise InvalidTableError(
            f"`kept` may have at most 31 kinds of behavior beside `{OTHER}`, but it has {len(kept - {OTHER})}; "
            "map rare ones to one name"
        )
    place = {name: row for row, name in enumerate(schema.RELIABLE)}
    return [*sorted(kept - {OTHER}, key=lambda name: (place.get(name, len(place)), name)), OTHER]


def code_items(column: pa.ChunkedArray, catalogue: Catalogue) -> tuple[Encoded, list[str]]:
    """Give items their entries, and the ids of those without a brief, which come after the catalogue, by id."""
    size = len(catalogue.core)
    if pa.types.is_integer(column.type) and column.type != pa.uint64() and (numbers := catalogue.numbers) is not None:
        base, entries = numbers
        ends = pc.min_max(column).as_py()
        span = len(catalogue.ids) if entries is None else len(entries)
        known = ends["min"] is None or (base <= ends["min"] and ends["max"] < base + span)
        if known and (entries is None or entries.min() >= 0):
            return Encoded(column, (base, entries, size if entries is not None else span)), []
    values, indices = _dictionary(column)
    entry = _entries(values, catalogue)
    unknown: Any = values.filter(entry.is_null()).unique()
    unknown = unknown.take(pc.array_sort_indices(unknown))
    missing = pc.index_in(values, value_set=unknown).to_numpy(zero_copy_only=False)
    codes = entry.fill_null(-1).to_numpy(zero_copy_only=False)
    codes = np.where(codes >= 0, codes, size + np.nan_to_num(missing)).astype(np.int32)
    return Encoded(indices, (0, codes, size + len(unknown))), unknown.to_pylist()


def _entries(values: pa.Array, catalogue: Catalogue) -> pa.Array:
    """Look ids up. As numbers in a table that is there, because a set of all ids takes longer to make than the call."""
    numbers, table = schema.whole_numbers(values), catalogue.numbers
    if numbers is None or table is None:
        return pc.index_in(values, value_set=catalogue.ids)
    base, entries = table
    # Ids far off would wrap, so they are brought near first, to where nothing is known either.
    size = len(catalogue.ids) if entries is None else len(entries)
    place = np.clip(numbers.to_numpy(), base - 1, base + size) - base
    inside = (place >= 0) & (place < size)
    found = place if entries is None else entries[np.where(inside, place, 0)]
    return pa.array(found, pa.int32(), mask=~inside | (found < 0))


def code_queries(events: pa.Table, first: int) -> tuple[Encoded | None, list[str]]:
    """Give queries their entries from `first` on, in the order of their cleaned texts."""
    if not events["item_id"].null_count or not _has_values(events, "query"):
        return None, []
    values, indices = _dictionary(events["query"])
    texts = [plain(text) for text in values.to_pylist()]
    distinct = {text: first + row for row, text in enumerate(sorted({text for text in texts if text}))}
    nothing = first + len(distinct)
    codes = np.array([distinct.get(text, nothing) for text in texts], np.int32)
    return Encoded(indices, (0, codes, nothing + 1)), list(distinct)


def _wanted(behavior: Encoded) -> npt.NDArray[np.bool_] | None:
    """Tell which rows have a wanted behavior; None: all."""
    code = behavior.meaning[1]
    if code is None or np.all(code >= 0):
        return None
    wanted: npt.NDArray[np.bool_] = code[behavior.values.to_numpy()] >= 0
    return wanted


def _ranks(
    events: pa.Table, wanted: npt.NDArray[np.bool_] | None, now_us: int, zone: ZoneInfo
) -> tuple[pa.ChunkedArray, pa.Array, Shifts]:
    """Order events by second and position, those without a time first; give who is seen, their ranks, and days by rank.

    Only those are ranked, because ranking a log takes eight times the memory of its moments.
    """
    time, position = read_moments(events, "kept")
    seen = time < now_us
    if wanted is not None:
        seen &= wanted
    second, position = time[seen], position[seen]
    second[second != NO_TIME] //= 1_000_000
    rank, days = ranked(second, position, zone)
    return pa.chunked_array([pa.array(rank)]), pa.array(seen), days


def read_moments(events: pa.Table, name: str, wanted: npt.NDArray[np.bool_] | None = None) -> tuple[Longs, Longs]:
    """Give UTC microseconds and positions, `NO_TIME` and `NO_POSITION` where missing.

    Raises:
        TimestampRangeError: a wanted timestamp lies outside the years 1970 to 9999.
    """
    stamp = events["timestamp"]
    time = _longs(stamp, NO_TIME)
    wrong = (time < 0) | (time >= END_US)
    if stamp.null_count:
        wrong &= stamp.is_valid().to_numpy()
    outside = np.flatnonzero(wrong if wanted is None else wrong & wanted)
    if len(outside):
        raise TimestampRangeError(
            f"`{name}.timestamp` must lie in the years 1970 to 9999, but row {outside[0]} is {time[outside[0]]} us "
            "since 1970; check the unit of the timestamps"
        )
    if _has_values(events, "position"):
        return time, _longs(events["position"], NO_POSITION)
    return time, np.full(len(time), NO_POSITION)


def _longs(column: pa.ChunkedArray, missing: int) -> Longs:
    """Read whole numbers, without a copy where none is missing: here each copy is as much as a log's moments."""
    column = column.cast(pa.int64())
    if column.null_count:
        column = column.fill_null(missing)
    found: Longs = column.chunk(0).to_numpy() if column.num_chunks == 1 else column.to_numpy()
    return found


def ranked(second: Longs, position: Longs, zone: ZoneInfo) -> tuple[Longs, Shifts]:
    """Order moments by UTC second (-1: undated) and position; give each its rank, and from which rank on which day."""
    if not len(second):
        return second, (np.zeros(1, np.int64), np.full(1, NO_DAY, np.int64))
    later = second[1:] > second[:-1]
    same = second[1:] == second[:-1]
    if np.all(later | (same & (position[1:] >= position[:-1]))):
        # In order already, as most logs are.
        new = np.concatenate([[True], later | (position[1:] != position[:-1])])
        first = np.flatnonzero(new)
        rank = np.cumsum(new) - 1
    else:
        order = np.lexsort((position, second))
        new = np.concatenate([[True], (np.diff(second[order]) != 0) | (np.diff(position[order]) != 0)])
        first = order[new]
        rank = np.zeros(len(second), np.int64)
        rank[order] = np.cumsum(new) - 1
    day = np.full(len(first), NO_DAY, np.int64)
    dated = second[first] >= 0
    day[dated] = local_days(second[first][dated], zone)
    starts = np.flatnonzero(np.concatenate([[True], np.diff(day) != 0])).astype(np.int64)
    return rank, (starts, day[starts])
