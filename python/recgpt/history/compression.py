"""The compression itself: tables in, one text a user out; and a text back into triples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import _core, schema
from recgpt.errors import EmptyLogError, InputError, InvalidConfigError, NaiveTimestampError, TimestampRangeError
from recgpt.history.catalogue import Catalogue, prepared
from recgpt.history.crossing import cross
from recgpt.history.days import EPOCH
from recgpt.llm.tokenizer import Tokenizer

LAYOUTS = ("sequence", "item", "sequence-by-bucket", "item-by-bucket", "item-split", "by-bucket")
"""Which things share a line: contexts with equal items, or items with equal contexts; anywhere, or in one bucket. Then
`item` without the lines whose labels would cost more tokens than their items once more in each bucket; and in each
bucket whichever of the two by bucket costs less."""

MAX_THREADS = 1024
"""More than any machine has cores; each one starts at once and has memory of its own."""

UNDATED = "undated"
"""Written for an event without a time."""

_LINE = re.compile(r"(?:r\d+ )?(?P<contexts>\S+ \([^)]+\)(?:, \S+ \([^)]+\))*) \| (?P<entries>.+)")
_CONTEXT = re.compile(r"(\S+) \(([^)]+)\)")


def compress(
    kept: schema.ArrowStream,
    briefs: schema.ArrowStream | Catalogue,
    *,
    now: datetime,
    tokenizer: Tokenizer,
    keep: Sequence[str] | None = None,
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
    Items without a category and queries are not folded. The fewest steps are taken after which the text fits, so with a
    larger budget no event is shown less exactly.

    Args:
        kept: reliable events, `schema.EVENTS`; their order does not matter. Ids may also be whole numbers, and any text
            a dictionary: such columns cross to the kernel without a copy.
        briefs: `schema.BRIEFS`, or the `catalogue` of them, which is worth it from the second call on. An item that is
            not there is written as `item <id>`; how many were is in the result's schema metadata under
            `recgpt.missing_briefs`.
        now: time-zone-aware; an event at or after it is not seen.
        tokenizer: counts the tokens; the counts are exact.
        keep: behaviors to read, for example `schema.RELIABLE`; the kernel skips all others, so that a log need not be
            filtered first. None for all.
        budget: most tokens a text may have; None for no limit.
        time_zone: IANA name of the zone in which days begin.
        layout: one of `LAYOUTS`, or `cheapest`: per user the one of the first five with the fewest tokens; ties go to
            the first. With `stable` that is `by-bucket`, because in the first two and the fifth a new month moves early
            lines, and a choice for a whole text may change with any day.
        counts: write ` x3` after what happened three times in one context.
        long_labels: `2017-12-03` instead of `17-12-03` (years outside 2000 to 2099 always have four digits).
        stable: days only in the month of `now`, else months, and nothing of the open month shares a line with the rest;
            so all lines of closed months stay byte-identical while days are added within a month, and, in the layouts
            by bucket, for ever: a new month, a new year and any later `now` only append to them. Undated events stand
            in the open part. Holds for texts that the budget did not cut, and as long as no event comes late.
        row_ids: begin each line with `r<line number> `.
        threads: None for one a core.
        categories: what items fold into: a mapping or a table of `item_id, category`; default: the column of `briefs`.

    Returns:
        `schema.HISTORY`, by user_id (whole numbers by value), the same for any number of threads. Inside a line things
        stand in the order in which the user first met them: by second, then by position, then by item id (whole numbers
        by value). A user without an event before `now` is absent. In the receipt, `tokens_in` counts one line an event,
        `YYYY-MM-DD (behavior) | brief`.

    Raises:
        EmptyLogError: no event lies before `now`.
        InvalidConfigError: `budget`, `layout`, `time_zone` or `threads` does not fit.
        InvalidTableError: a table does not fit, an item has two briefs, or a behavior has a separator in its name.
        NaiveTimestampError: `now` or the timestamps carry no time zone.
        TimestampRangeError: a timestamp lies outside the years 1970 to 9999, or more than 136 years before `now`.
    """
    zone = check_options(budget, layout, time_zone, threads, keep)
    check_now(now, zone)
    events = read_events(kept, "kept")
    if not events.num_rows:
        raise EmptyLogError(
            "`kept` must hold at least one reliable event, but it has 0 rows; give `behaviors.extract` the behaviors "
            "that the log has (`reliable=`), or map their names when it is read"
        )
    briefs = prepared(briefs, tokenizer, categories)
    log = cross(events, briefs, now=now, zone=zone, keep=keep)
    chunks = _core.compress_history(
        log.batches,
        log.meanings,
        log.nothing,
        briefs.core,
        log.extra,
        log.behaviors,
        tokenizer.core,
        clock=log.clock,
        days=log.days,
        today=(now.astimezone(zone).date() - EPOCH.date()).days,
        budget=budget,
        layout=None if layout == "cheapest" else LAYOUTS.index(layout),
        counts=counts,
        long_labels=long_labels,
        stable=stable,
        row_ids=row_ids,
        threads=threads or 0,
    )
    if not chunks:
        raise EmptyLogError(
            f"`kept` must hold reliable events before now ({now}), but all {len(events)} lie at or after it"
            + (f" or are none of {', '.join(keep)}" if keep is not None else "")
        )
    return _table(chunks, log.users).replace_schema_metadata({"recgpt.missing_briefs": str(log.missing)})


def _table(chunks: list[Any], users: pa.Array | int) -> pa.Table:
    codes, offsets, texts, tokens, receipts, layouts = zip(*chunks, strict=True)
    code = pa.array(np.concatenate(codes))
    ids = users.take(code) if isinstance(users, pa.Array) else pc.add(code, users).cast(pa.large_string())
    columns = [pa.array(column) for column in np.concatenate(receipts).reshape(-1, 7).T.copy()]
    columns.append(pa.array(LAYOUTS, pa.large_string()).take(pa.array(np.concatenate(layouts))))
    text = [
        pa.LargeStringArray.from_buffers(len(offset) - 1, pa.py_buffer(offset), pa.py_buffer(text))
        for offset, text in zip(offsets, texts, strict=True)
    ]
    return pa.Table.from_arrays(
        [
            ids,
            pa.chunked_array(text),
            pa.array(np.concatenate(tokens)),
            pa.StructArray.from_arrays(columns, fields=list(schema.RECEIPT)),
        ],
        schema=schema.HISTORY,
    )


_TIMES = re.compile(r"(?P<entry>.*?)(?: x(?P<times>\d+))?", re.S)


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
    return set(multiset(text))


def multiset(text: str) -> Counter[tuple[str, str, str]]:
    """Read a history back with how often each triple happened, as it says where it was written with `counts=True`.

    Raises:
        InputError: a line is not a history line.

    >>> multiset("17-11 (purchase) | Tea x3, Milk")[("17-11", "purchase", "Tea")]
    3
    """
    found: Counter[tuple[str, str, str]] = Counter()
    for number, line in enumerate(text.split("\n") if text else [], 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise InputError(
                f"line {number} must read like `17-12-03 (purchase, cart) | Tea, Milk`, but it is {line[:80]!r}"
            )
        entries = [_TIMES.fullmatch(entry) for entry in match["entries"].split(", ")]
        for label, behaviors in _CONTEXT.findall(match["contexts"]):
            for behavior in behaviors.split(", "):
                for entry in entries:
                    if entry is not None:
                        found[label, behavior, entry["entry"]] += int(entry["times"] or 1)
    return found


def check_options(
    budget: int | None, layout: str, time_zone: str, threads: int | None, keep: Sequence[str] | None
) -> ZoneInfo:
    """Refuse options that do not fit, and look the time zone up."""
    for name, value, least, most in (("budget", budget, 0, 2**64 - 1), ("threads", threads, 1, MAX_THREADS)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most):
            raise InvalidConfigError(
                f"`{name}` must be None or a whole number from {least} to {most}, but it is {value!r}; None stands for "
                + ("no limit" if name == "budget" else "one a core")
            )
    if isinstance(keep, str):
        raise InvalidConfigError(f"`keep` must be a list of behaviors, but it is the text {keep!r}; write [{keep!r}]")
    if layout not in (*LAYOUTS, "cheapest"):
        raise InvalidConfigError(f"`layout` must be one of {', '.join((*LAYOUTS, 'cheapest'))}, but it is {layout!r}")
    try:
        return ZoneInfo(time_zone)
    except (KeyError, ValueError, OSError, TypeError, AttributeError) as error:
        raise InvalidConfigError(
            f"`time_zone` must be an IANA name such as Europe/Berlin, but it is {time_zone!r} (or this machine has no "
            "time zone data: pip install tzdata)"
        ) from error


def check_now(now: datetime, zone: ZoneInfo) -> None:
    """Refuse a moment that is none, has no time zone, or falls outside the calendar in the shop's zone."""
    if not isinstance(now, datetime):
        raise InvalidConfigError(f"`now` must be a datetime with a time zone, but it is {now!r}")
    if now.tzinfo is None:
        raise NaiveTimestampError(f"`now` must carry a time zone, but it is {now}; for example now.replace(tzinfo=UTC)")
    try:
        now.astimezone(zone)
    except OverflowError as error:
        raise TimestampRangeError(f"`now` must lie in the years 1 to 9999 in {zone}, but it is {now}") from error


def read_events(kept: schema.ArrowStream, name: str) -> pa.Table:
    """Judge the columns; whole numbers as ids and dictionaries stay what they are: they cross without a copy."""
    came: Any = kept if isinstance(kept, pa.Table) or not hasattr(kept, "__arrow_c_stream__") else pa.table(kept)

    def wanted(field: pa.Field) -> pa.Field:
        if not isinstance(came, pa.Table) or came.column_names.count(field.name) != 1:
            return field
        kind = came.schema.field(field.name).type
        number = pa.types.is_integer(kind) and field.name in ("user_id", "item_id")
        words = pa.types.is_dictionary(kind) and field.type == pa.large_string()
        # Arrow does not count rows whose dictionary value is null as null, so such a dictionary is looked up here.
        words = words and not any(chunk.dictionary.null_count for chunk in came[field.name].chunks)
        return field.with_type(kind) if number or words else field

    # Columns that may be absent stay absent: filling 5 million rows with nulls takes longer than compressing them.
    absent = {"query", "position"} - set(getattr(came, "column_names", ()))
    fields = [wanted(field) for field in schema.EVENTS if field.name not in absent]
    return schema.table(came, pa.schema(fields), name=name)
