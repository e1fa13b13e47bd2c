"""One arm of a test: its log of exposures, judged, without repeats, in the order in which people saw it.

What is wrong with a log is either an error, when nothing could be computed from it, or a named `Caution` that stands
in every form of the result. Nothing is repaired without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv, parquet

from recgpt import schema
from recgpt.errors import (
    DatasetNotFoundError,
    EmptyLogError,
    InvalidArrayError,
    InvalidTableError,
    NaiveTimestampError,
    TimestampRangeError,
)
from recgpt.evaluation.metrics import Ints
from recgpt.schema import ArrowStream

NEEDED = ("user_id", "item_id", "timestamp", "click")
NUMBERS = {"cart": np.int64, "dwell": np.float64, "propensity": np.float64, "other_propensity": np.float64}
TEXTS = ("seller", "tier", "page")
OPTIONAL = ("position", *NUMBERS, "is_ad", "clicked_at", *TEXTS)
WANTED = {*NEEDED, *OPTIONAL, "category", "brand", "title", "count", "behavior"}
LEAST_CHANCE = 1e-100
"""Propensities other than 0 begin here: the squares of smaller ones, or of one over them, are no numbers any more."""
LATE = timedelta(days=7)
"""Shops count a click for an exposure for at most so long; what comes later was written by another clock."""
SKEWED = 0.5
"""If more than this share of clicks lies before its exposure, the clocks are at fault and not single rows."""


class Caution(NamedTuple):
    """Something that a reader of the figures must know."""

    name: str
    """One word for it, the same in every form of the result."""
    text: str
    """What was found, in which arm, and what was done about it."""


class Catalogue(NamedTuple):
    """What is known of the items, as codes; -1 stands for none."""

    ids: pa.Array
    """(m,) text."""
    category: Ints
    brand: Ints
    title: list[str]


@dataclass(frozen=True)
class Arm:
    """Rows in the order of user, page and position; no row stands there twice. (n,) arrays beside each other."""

    name: str
    user_ids: pa.Array
    """(u,) text; `user` points into it."""
    user: Ints
    item: Ints
    """Row of the catalogue, -1 for an item that it does not have."""
    time: Ints
    """Microseconds since 1970, UTC."""
    page: Ints
    """Ascending number of the page: rows of one user with the same `page`, or at the same moment."""
    click: Ints
    is_ad: NDArray[np.bool_]
    more: dict[str, NDArray[Any]]
    """The optional columns that the log has, by name, beside `page`, `is_ad` and `clicked_at`; texts as codes."""
    labels: dict[str, NDArray[np.str_]]
    """What the codes of `seller` and `tier` stand for."""
    cautions: tuple[Caution, ...]

    def without(self, users: NDArray[np.bool_]) -> Arm:
        """Give the arm without some of its users: (u,) true for those to leave out."""
        keep, number = ~users[self.user], np.cumsum(~users) - 1
        columns = {name: getattr(self, name)[keep] for name in ("item", "time", "page", "click", "is_ad")}
        more = {name: values[keep] for name, values in self.more.items()}
        ids = self.user_ids.filter(pa.array(~users))
        return Arm(
            self.name, ids, number[self.user[keep]], **columns, more=more, labels=self.labels, cautions=self.cautions
        )


def read(source: str | Path | ArrowStream) -> pa.Table:
    """Read a Parquet or CSV file, or take a table.

    Raises:
        DatasetNotFoundError: there is no such file.
        InvalidTableError: it cannot be read, or has a column twice.
    """
    if not isinstance(source, str | Path):
        table = source if isinstance(source, pa.Table) else pa.table(source)
        _single(table.column_names, "a table")
        return table
    path = Path(source)
    if not path.is_file():
        raise DatasetNotFoundError(f"an exposure log was expected at {path}, but there is no file; give Parquet or CSV")
    try:
        if path.suffix == ".csv":
            text = dict.fromkeys(("user_id", "item_id", *TEXTS), pa.large_string())
            table = csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=text))
            _single(table.column_names, str(path))
            return table
        with parquet.ParquetFile(path) as file:
            return file.read(columns=_single(file.schema_arrow.names, str(path)))
    except (pa.ArrowException, OSError) as error:
        raise InvalidTableError(f"{path} cannot be read: {error}; write it again as Parquet or CSV") from error


def _single(names: list[str], where: str) -> list[str]:
    """Choose the columns that the desk reads; each must be there once."""
    chosen = [name for name in names if name in WANTED]
    if twice := sorted({name for name in chosen if chosen.count(name) > 1}):
        raise InvalidTableError(f"{where} has more than one column {', '.join(twice)}; keep or rename all but one")
    return chosen


def texts(name: str, log: pa.Table, column: str) -> pa.ChunkedArray:
    """Read a column of ids or names as text.

    Raises:
        InvalidTableError: it is no text, or not UTF-8.
    """
    return schema.table(log.select([column]), pa.schema([pa.field(column, pa.large_string())]), name=name)[column]


def catalogue(items: ArrowStream | None, *logs: pa.Table) -> Catalogue:
    """Code the catalogue; without one, the items of the logs are all that is known."""
    if items is None:
        ids = [pc.unique(texts("exposures", log, "item_id")) for log in logs if "item_id" in log.schema.names]
        known = pc.unique(pa.chunked_array(ids, pa.large_string())).drop_null()
        nothing = np.full(len(known), -1, dtype=np.int64)
        return Catalogue(known, nothing, nothing, [""] * len(known))
    table = schema.table(items, schema.ITEMS, name="items")
    codes: list[Ints] = []
    for name in ("category", "brand"):
        column = table[name].combine_chunks().dictionary_encode().indices.fill_null(-1)
        codes.append(column.to_numpy(zero_copy_only=False).astype(np.int64))
    titles = [title or "" for title in table["title"].to_pylist()]
    return Catalogue(table["item_id"].combine_chunks(), codes[0], codes[1], titles)


def load(name: str, log: pa.Table, known: Catalogue, *, now: datetime | None = None) -> Arm:
    """Judge one arm's log.

    Args:
        name: how messages and figures call it.
        log: `user_id`, `item_id` (text or whole numbers), `timestamp` (with a zone), `click` (truth values or counts);
            optional `position` (from any number on), `cart`, `dwell` (seconds), `is_ad`, `clicked_at`, `page` (what was
            shown together; else what one user was shown at one moment), `seller`, `tier`, `propensity` (with which the
            arm's own policy showed this item here) and `other_propensity` (with which the other arm's would have).
        known: the catalogue.
        now: what lies after it is a clock that runs ahead; the present if left out.

    Raises:
        InvalidTableError: a column is missing or cannot be read, or an id, time or propensity is missing.
        NaiveTimestampError: times carry no zone.
        EmptyLogError: no rows.
        InvalidArrayError: a propensity outside (0, 1], a negative count or dwell time.
    """
    missing = [column for column in NEEDED if column not in log.column_names]
    if missing:
        raise InvalidTableError(
            f"arm {name}: an exposure log needs {', '.join(NEEDED)}, but has no {', '.join(missing)} (it has "
            f"{', '.join(log.column_names) or 'nothing'}); rename yours"
        )
    if not log.num_rows:
        raise EmptyLogError(f"arm {name} has no exposures and so no users; check the file or the query behind it")
    for column in ("user_id", "item_id", "timestamp"):
        if log[column].null_count:
            row = int(np.flatnonzero(~log[column].is_valid().to_numpy())[0])
            raise InvalidTableError(f"arm {name}: `{column}` must not be null, but row {row} is; drop it")
    ids = {column: texts(f"arm {name}", log, column) for column in ("user_id", "item_id")}
    for column, values in ids.items():
        blank = pc.equal(pc.utf8_trim_whitespace(values), "")
        if empty := pc.sum(blank).as_py():
            row = pc.index(blank, True).as_py()
            raise InvalidTableError(
                f"arm {name}: `{column}` must not be empty, but {empty:,} rows are, row {row} first: all of them would "
                "be one; drop them or give them ids"
            )
    users = ids["user_id"].combine_chunks().dictionary_encode()
    user = users.indices.to_numpy().astype(np.int64)
    item = pc.index_in(ids["item_id"], value_set=known.ids).fill_null(-1)
    item = item.to_numpy().astype(np.int64)
    time = _time(name, log, "timestamp")
    click = _numbers(name, log, "click", np.int64)
    more: dict[str, NDArray[Any]] = {
        column: _numbers(name, log, column, kind) for column, kind in NUMBERS.items() if column in log.column_names
    }
    labels: dict[str, NDArray[np.str_]] = {}
    if "position" in log.column_names:
        more["position"] = _numbers(name, log, "position", np.int64)
    for column in ("seller", "tier"):
        if column in log.column_names:
            said = texts(f"arm {name}", log, column).fill_null("(none)").combine_chunks().dictionary_encode()
            more[column] = said.indices.to_numpy()
            labels[column] = np.array(said.dictionary.to_pylist(), dtype=np.str_)
    is_ad = np.zeros(len(user), dtype=np.bool_)
    if "is_ad" in log.column_names:
        is_ad = _numbers(name, log, "is_ad", np.int64) > 0
    cautions: list[Caution] = []
    now = now or datetime.now(UTC)
    if "clicked_at" in log.column_names:
        early = _early(name, log, time, click, now, cautions)
        for gone in (click, *(more[column] for column in ("cart", "dwell") if column in more)):
            gone[early] = 0
    _clocks(name, time, now, cautions)
    page = _codes(name, log, "page") if "page" in log.column_names else time
    place = more.get("position", np.zeros(len(user), dtype=np.int64))
    order = np.lexsort((time, item, place, page, user))
    keys = np.stack([user[order], page[order], place[order], item[order], time[order]])
    first = np.append(True, (keys[:, 1:] != keys[:, :-1]).any(axis=0))
    # Without positions two places of a page cannot be told apart, so that only the same item there is a repeat.
    if repeats := int(len(first) - first.sum()):
        share = repeats / len(first)
        cautions.append(
            Caution(
                "duplicate_exposures",
                f"arm {name}: {repeats:,} of {len(first):,} rows ({share:.1%}) repeat a user, item, moment and "
                "position; each was counted once, with the most clicks, carts and seconds of its copies",
            )
        )
    unknown = int((item[order][first] < 0).sum())
    if unknown:
        cautions.append(
            Caution(
                "unknown_items",
                f"arm {name}: {unknown:,} of {int(first.sum()):,} exposures are of items that the catalogue does "
                "not have; they count for clicks, carts and seconds, and have no category, brand or popularity",
            )
        )
    starts = np.flatnonzero(first)
    seen = user[order][first], page[order][first]
    turn = np.append(True, (seen[0][1:] != seen[0][:-1]) | (seen[1][1:] != seen[1][:-1]))

    def once(values: NDArray[Any], *, most: bool = False) -> NDArray[Any]:
        return np.maximum.reduceat(values[order], starts) if most else values[order][first]

    return Arm(
        name=name,
        user_ids=users.dictionary,
        user=seen[0],
        item=once(item),
        time=once(time),
        page=np.cumsum(turn) - 1,
        click=once(click, most=True),
        is_ad=once(is_ad),
        more={column: once(values, most=column in ("cart", "dwell")) for column, values in more.items()},
        labels=labels,
        cautions=tuple(cautions),
    )


def _early(
    name: str, log: pa.Table, time: Ints, click: Ints, now: datetime, cautions: list[Caution]
) -> NDArray[np.bool_]:
    """Clicks that came before what was clicked was shown: (n,) bool; and name those that came too late."""
    missing = np.iinfo(np.int64).max
    at = _time(name, log, "clicked_at", missing=missing)
    early = (at < time) & (click > 0)
    dated = (click > 0) & (at != missing)
    # As floats: the difference of far times would wrap.
    behind = int((dated & (at.astype(np.float64) - time > LATE / timedelta(microseconds=1))).sum())
    ahead = int((dated & (at > int(now.timestamp() * 1_000_000))).sum())
    told = f"of {int(dated.sum()):,} clicks with a time"
    if behind:
        text = f"arm {name}: {behind:,} {told} came more than {LATE.days} days after their exposure; two clocks differ"
        cautions.append(Caution("clock_skew", f"{text}; they were counted on the day of the exposure"))
    if ahead:
        text = f"arm {name}: {ahead:,} {told} lie in the future of {now:%Y-%m-%d %H:%M %Z}; a clock runs ahead"
        cautions.append(Caution("clock_skew", f"{text}; they were counted on the day of the exposure"))
    count, clicks = int(early.sum()), int((click > 0).sum())
    if count:
        text = (
            f"arm {name}: {count:,} of {clicks:,} clicks came before their exposure; they were not counted, nor what "
            "followed them"
        )
        cautions.append(Caution("clicks_before_exposures", text))
    if count > SKEWED * clicks:
        late = timedelta(microseconds=int(np.median(time[early] - at[early])))
        text = f"arm {name}: most clicks lie before their exposure, half of them by {late} or more; two clocks differ"
        cautions.append(Caution("clock_skew", text))
    return early


def _clocks(name: str, time: Ints, now: datetime, cautions: list[Caution]) -> None:
    ahead = int((time > int(now.timestamp() * 1_000_000)).sum())
    if ahead:
        text = f"arm {name}: {ahead:,} of {len(time):,} exposures lie in the future of {now:%Y-%m-%d %H:%M %Z}"
        cautions.append(Caution("clock_skew", f"{text}; a clock runs ahead, and days may be wrong"))


_END = 253_402_300_800_000_000
"""The first microsecond of the year 10000."""


def _time(name: str, log: pa.Table, column: str, missing: int | None = None) -> Ints:
    values = log[column]
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    if any(one(values.type) for one in text):
        try:
            values = values.cast(pa.timestamp("us", "UTC"))
        except pa.ArrowInvalid as error:
            raise InvalidTableError(
                f"arm {name}: `{column}` must be a time with a zone, such as 2025-06-17T08:00Z, but: {error}"
            ) from None
    if not pa.types.is_timestamp(values.type):
        raise InvalidTableError(f"arm {name}: `{column}` must be a time with a zone, but it is {values.type}; cast it")
    if values.type.tz is None:
        raise NaiveTimestampError(
            f"arm {name}: `{column}` carries no time zone; state it, for example with pyarrow.compute.assume_timezone"
        )
    micros = schema.cast(values, schema.TIMESTAMP).cast(pa.int64())
    far = pc.fill_null(pc.or_(pc.less(micros, 0), pc.greater_equal(micros, _END)), False)
    if count := pc.sum(far).as_py():
        row = pc.index(far, True).as_py()
        raise TimestampRangeError(
            f"arm {name}: `{column}` must lie in the years 1970 to 9999, but {count:,} rows do not: row {row} is "
            f"{micros[row].as_py()} microseconds from 1970; check the unit"
        )
    numbers: Ints = (micros if missing is None else micros.fill_null(missing)).to_numpy()
    return numbers


def _numbers(name: str, log: pa.Table, column: str, kind: Any) -> NDArray[Any]:
    """Whole numbers, truth values or floats; missing ones are none, but for propensities."""
    target = pa.int64() if kind is np.int64 else pa.float64()
    try:
        values = log[column].cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidTableError(f"arm {name}: `{column}` must hold numbers, but: {error}; mend the column") from None
    chance = column.endswith("propensity")
    if (chance or column == "position") and values.null_count > 0:
        raise InvalidTableError(
            f"arm {name}: `{column}` is missing in {values.null_count:,} of {len(values):,} rows; give it for "
            "all or none"
        )
    numbers: NDArray[Any] = values.fill_null(0).to_numpy().astype(kind)
    wrong = (numbers < 0) & (column != "position")
    if chance:
        wrong = ~((numbers >= LEAST_CHANCE) & (numbers <= 1)) & ((numbers != 0) | (column == "propensity"))
    if kind is np.float64:
        wrong = wrong | ~np.isfinite(numbers)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        within = f"{LEAST_CHANCE:g} to 1 (or be 0, but not the own one)" if chance else "0 up, finite"
        raise InvalidArrayError(f"arm {name}: `{column}` must lie from {within}, but row {row} is {numbers[row]}")
    return numbers


def _codes(name: str, log: pa.Table, column: str) -> Ints:
    encoded = texts(f"arm {name}", log, column).fill_null("").combine_chunks().dictionary_encode()
    codes: Ints = encoded.indices.to_numpy().astype(np.int64)
    return codes
