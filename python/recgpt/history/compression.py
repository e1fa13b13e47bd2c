"""The compression itself: tables in, one text a user out; and a text back into triples."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recgpt import _core, schema
from recgpt.errors import (
    EmptyLogError,
    InputError,
    InvalidConfigError,
    InvalidTableError,
    NaiveTimestampError,
    TimestampRangeError,
)
from recgpt.history.days import END_US, EPOCH, local_days
from recgpt.history.entries import codes, entry_columns
from recgpt.llm.tokenizer import Tokenizer

LAYOUTS = ("sequence", "item", "sequence-by-bucket", "item-by-bucket")
"""Which things share a line: contexts with equal items, or items with equal contexts; anywhere, or in one bucket."""

UNDATED, OTHER = "undated", "other"
"""Written for: an event without a time; behaviors folded together."""

_LINE = re.compile(r"(?:r\d+ )?(?P<contexts>\S+ \([^)]+\)(?:, \S+ \([^)]+\))*) \| (?P<entries>.+)")
_CONTEXT = re.compile(r"(\S+) \(([^)]+)\)")


def compress(
    kept: schema.ArrowStream,
    briefs: schema.ArrowStream,
    *,
    now: datetime,
    tokenizer: Tokenizer,
    budget: int | None = None,
    time_zone: str = "UTC",
    layout: str = "cheapest",
    counts: bool = False,
    long_labels: bool = False,
    stable: bool = False,
    row_ids: bool = False,
    threads: int | None = None,
    categories: Mapping[str, str] | schema.ArrowStream | None = None,
) -> pa.Table:
    """Write each user's reliable events as one text of at most `budget` tokens.

    What is given up for the budget, each step only after the ones before it: days become months, oldest first; months
    become years, oldest first, save the last three; the rarest behaviors become `other`; the items of a category become
    one count (`Dairy x12`) where there are two or more, oldest bucket first and there the fullest category first;
    triples are dropped, those with the fewest events first and among them the oldest; an empty text is the last rung.
    Items without a category and queries are not folded. A larger budget never drops more nor leaves less in full.

    Args:
        kept: reliable events, `schema.EVENTS`; their order does not matter. Without `counts` an exact
            repeat is one event.
        briefs: `schema.BRIEFS`. An item that is not there is written as `item <id>`; how many were is in the result's
            schema metadata under `recgpt.missing_briefs`.
        now: time-zone-aware; an event at or after it is not seen.
        tokenizer: counts the tokens; the counts are exact.
        budget: most tokens a text may have; None for no limit.
        time_zone: IANA name of the zone in which days begin.
        layout: one of `LAYOUTS`, or `cheapest`: per user the one with the fewest tokens; ties go to the first.
        counts: write ` x3` after what happened three times in one context.
        long_labels: `2017-12-03` instead of `17-12-03` (years outside 2000 to 2099 always have four digits).
        stable: days only in the month of `now`, months back to the January before, else years, and nothing of the open
            month shares a line with the rest; so all lines of closed months stay byte-identical while days are added
            within a month. Undated events stand in the open part. Holds for texts that the budget did not cut.
        row_ids: begin each line with `r<line number> `.
        threads: None for one a core.
        categories: what items fold into: a mapping or a table of `item_id, category`; default: the column of `briefs`.

    Returns:
        `schema.HISTORY`, by user_id, the same for any number of threads. A user without an event before `now` is
        absent. In the receipt, `tokens_in` counts one line an event, `YYYY-MM-DD (behavior) | brief`.

    Raises:
        EmptyLogError: no event lies before `now`.
        InvalidConfigError: `budget`, `layout`, `time_zone` or `threads` does not fit.
        InvalidTableError: a table does not fit, an item has two briefs, or a behavior has a separator in its name.
        NaiveTimestampError: `now` or the timestamps carry no time zone.
        TimestampRangeError: a timestamp lies outside the years 1970 to 9999.
    """
    zone = _check(now, budget, layout, time_zone, threads)
    events, times = _seen(kept, now)
    days = local_days(times, zone)
    users, user = codes(events["user_id"])
    order = np.argsort(user, kind="stable")
    offsets = np.searchsorted(user[order], np.arange(len(users) + 1)).astype(np.int64)
    names, behavior = _behaviors(events["behavior"])
    entry, entries, missing = entry_columns(events, schema.table(briefs, schema.BRIEFS, name="briefs"), categories)
    undated = np.iinfo(np.int64).min
    position = events["position"].fill_null(undated).to_numpy()
    text_offsets, text, tokens, receipts, layouts = _core.compress_history(
        (
            offsets,
            days[order],
            times.filled(undated)[order],
            np.ascontiguousarray(position[order]),
            behavior[order],
            entry[order],
        ),
        entries,
        names,
        tokenizer.core,
        today=(now.astimezone(zone).date() - EPOCH.date()).days,
        budget=budget,
        layout=None if layout == "cheapest" else LAYOUTS.index(layout),
        counts=counts,
        long_labels=long_labels,
        stable=stable,
        row_ids=row_ids,
        threads=threads or 0,
    )
    columns = [pa.array(column) for column in receipts.reshape(-1, 7).T.copy()]
    columns.append(pa.array(LAYOUTS, pa.large_string()).take(pa.array(layouts)))
    return pa.Table.from_arrays(
        [
            users,
            pa.LargeStringArray.from_buffers(len(users), pa.py_buffer(text_offsets), pa.py_buffer(text)),
            pa.array(tokens),
            pa.StructArray.from_arrays(columns, fields=list(schema.RECEIPT)),
        ],
        schema=schema.HISTORY.with_metadata({"recgpt.missing_briefs": str(missing)}),
    )


def expand(text: str) -> set[tuple[str, str, str]]:
    """Read a history back: its (bucket label, behavior, entry) triples.

    An entry is a brief, with its ` #2` if two items share one, or a query in its quotes, so that the query "tea" and an
    item called tea stay apart. Row ids and counts are left out. For a text that no budget cut these are exactly the
    triples of the events.

    Raises:
        InputError: a line is not a history line.

    >>> sorted(expand('r1 17-11 (purchase, cart) | Tea, "oat milk"'))[:2]
    [('17-11', 'cart', '"oat milk"'), ('17-11', 'cart', 'Tea')]
    """
    triples = set()
    for number, line in enumerate(text.split("\n") if text else [], 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise InputError(
                f"line {number} must read like `17-12-03 (purchase, cart) | Tea, Milk`, but it is {line[:80]!r}"
            )
        entries = [re.sub(r" x\d+$", "", entry) for entry in match["entries"].split(", ")]
        for label, behaviors in _CONTEXT.findall(match["contexts"]):
            triples |= {(label, behavior, entry) for behavior in behaviors.split(", ") for entry in entries}
    return triples


def _check(now: datetime, budget: int | None, layout: str, time_zone: str, threads: int | None) -> ZoneInfo:
    if now.tzinfo is None:
        raise NaiveTimestampError(f"`now` must carry a time zone, but it is {now}; for example now.replace(tzinfo=UTC)")
    for name, value, least in (("budget", budget, 0), ("threads", threads, 1)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise InvalidConfigError(f"`{name}` must be None or a whole number from {least} up, but it is {value!r}")
    if layout not in (*LAYOUTS, "cheapest"):
        raise InvalidConfigError(f"`layout` must be one of {', '.join((*LAYOUTS, 'cheapest'))}, but it is {layout!r}")
    try:
        return ZoneInfo(time_zone)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidConfigError(
            f"`time_zone` must be an IANA name such as Europe/Berlin, but it is {time_zone!r} (or this machine has no "
            "time zone data: pip install tzdata)"
        ) from error


def _seen(kept: schema.ArrowStream, now: datetime) -> tuple[pa.Table, np.ma.MaskedArray[Any, Any]]:
    raw: Any = kept if isinstance(kept, pa.Table) or not hasattr(kept, "__arrow_c_stream__") else pa.table(kept)
    events = schema.table(raw, schema.EVENTS, name="kept")
    if not events.num_rows:
        raise EmptyLogError("`kept` must hold at least one reliable event, but it has 0 rows; check the behavior names")
    stamp = events["timestamp"]
    times = np.ma.MaskedArray(stamp.cast(pa.int64()).fill_null(0).to_numpy(), mask=stamp.is_null().to_numpy())
    # Where there is no time, 0 stands below the mask: inside the range, and before any `now`.
    outside = np.flatnonzero((times.data < 0) | (times.data >= END_US))
    if len(outside):
        raise TimestampRangeError(
            f"`kept.timestamp` must lie in the years 1970 to 9999, but row {outside[0]} is {times[outside[0]]} us "
            f"since 1970 ({len(outside)} such rows); check the unit of the timestamps"
        )
    now_us = (now - EPOCH) // timedelta(microseconds=1)
    seen = (times.data < now_us) | np.ma.getmaskarray(times)
    if not seen.any():
        raise EmptyLogError(f"`kept` must hold events before now ({now}), but all {len(times)} lie at or after it")
    return events.filter(pa.array(seen)), times[seen]


def _behaviors(column: pa.ChunkedArray) -> tuple[list[str], npt.NDArray[np.int32]]:
    values, code = codes(column)
    came: list[str] = values.to_pylist()
    wrong = [name for name in came if not name.strip() or set(name) & set(',()|"\n\r')]
    if wrong:
        raise InvalidTableError(
            f"`kept` is not usable: behavior {wrong[0]!r} is empty or has a comma, bracket, bar, quote or line break, "
            "which a history line needs for itself; map it to another name"
        )
    place = {name: row for row, name in enumerate(schema.RELIABLE)}
    names = [*sorted(set(came) - {OTHER}, key=lambda name: (place.get(name, len(place)), name)), OTHER]
    return names, np.array([names.index(name) for name in came], np.int32)[code]
