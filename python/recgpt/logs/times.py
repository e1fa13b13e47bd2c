"""Timestamps of any kind -> UTC microseconds. A local time needs a stated zone; the clock changes follow one rule.

A local time that the clock shows twice (autumn) means the first of the two; one that it skips (spring) means the
moment of the change. Both are counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recgpt.errors import InputError, InvalidConfigError, NaiveTimestampError
from recgpt.logs.columns import Mask, Source, null_mask, show

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
END = 253_402_300_800
"""The first second of the year 10000, UTC."""
_DAY = 86_400
_MONTH_AND_DAY = r"-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
_DATE = r"\d{4}" + _MONTH_AND_DAY
_CLOCK = r"([T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,6})?)?)"
_FAR = r"([+-]?[1-9]\d{4,}|-\d{4})" + _MONTH_AND_DAY
"""A date whose year four digits do not hold: a time, and outside the years that are read."""
_OFFSET = r"(Z|[+-]([01]\d|2[0-3]):?[0-5]\d)"


@dataclass(frozen=True)
class Times:
    """One column of times; every array is `(n,)`."""

    micros: npt.NDArray[np.int64]
    """Unix microseconds, UTC; 0 where `usable` is false."""
    null: Mask
    unreadable: Mask
    outside: Mask
    """Outside the years 1970 to 9999."""
    skipped: Mask
    repeated: Mask

    @property
    def usable(self) -> Mask:
        """Rows that have a time."""
        return ~(self.null | self.unreadable | self.outside)


def known_zone(time_zone: str | None, errors: list[InputError]) -> str | None:
    """Note a zone that the IANA table does not have; then UTC stands for it, so that the rest can be judged."""
    if time_zone is None:
        return None
    try:
        ZoneInfo(time_zone)
    except (KeyError, ValueError, OSError, TypeError):
        errors.append(
            InvalidConfigError(f"`time_zone` must be an IANA name such as Europe/London, but it is {show(time_zone)}")
        )
        return "UTC"
    return time_zone


def read(source: Source, column: str, time_zone: str | None) -> Times:
    """Read a column of timestamps, dates or ISO 8601 texts; a time without a zone is an error of `source`."""
    values = source.raw(column)
    kind = values.type
    if pa.types.is_timestamp(kind):
        return _stamps(source, column, values, time_zone)
    if pa.types.is_date(kind):
        return _stamps(source, column, values.cast(pa.timestamp("s" if pa.types.is_date32(kind) else "ms")), time_zone)
    if pa.types.is_large_string(kind):
        return _texts(source, column, values, time_zone)
    if not pa.types.is_null(kind):
        source.wrong(column, "timestamps", 'cast it, for example with pyarrow.timestamp("s") for unix seconds')
    none = np.zeros(source.rows, bool)
    return Times(np.zeros(source.rows, np.int64), ~none, none, none, none, none)


def _stamps(source: Source, column: str, values: pa.Array, time_zone: str | None) -> Times:
    null = null_mask(values)
    raw = values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    unit = PER_SECOND[values.type.unit]
    # Judged in its own unit, a day wide for any zone: the step to microseconds must not overflow.
    near = (raw >= -_DAY * unit) & (raw < (END + _DAY) * unit) & ~null
    raw = np.where(near, raw, 0)
    micros = raw // (unit // 1_000_000) if unit > 1_000_000 else raw * (1_000_000 // unit)
    skipped = repeated = np.zeros(len(micros), bool)
    if values.type.tz is None and near.any():
        if time_zone is None:
            row = int(np.flatnonzero(near)[0])
            value = pa.scalar(int(micros[row]), pa.timestamp("us")).as_py() if micros[row] < END * 1_000_000 else "?"
            source.refuse(
                f"column `{column}` has times without a time zone (row {row} holds {value}); "
                'state it, for example time_zone="Europe/London", or store UTC',
                kind=NaiveTimestampError,
            )
        micros, skipped, repeated = _localize(micros, near, time_zone or "UTC")
    inside = near & (micros >= 0) & (micros < END * 1_000_000)
    return Times(
        np.where(inside, micros, 0),
        null,
        np.zeros(len(null), bool),
        ~inside & ~null,
        skipped & inside,
        repeated & inside,
    )


def _localize(micros: npt.NDArray[np.int64], near: Mask, time_zone: str) -> tuple[npt.NDArray[np.int64], Mask, Mask]:
    """Local microseconds -> UTC microseconds, and where the clock skipped or repeated the time."""
    distinct, inverse = np.unique(micros, return_inverse=True)
    local = pa.array(distinct).cast(pa.timestamp("us"))
    # A repeated time has its first and its second moment; a skipped one has the microsecond before the jump and it.
    first = pc.assume_timezone(local, time_zone, ambiguous="earliest", nonexistent="earliest")
    second = pc.assume_timezone(local, time_zone, ambiguous="latest", nonexistent="latest")
    low = first.cast(pa.int64()).to_numpy(zero_copy_only=False)
    high = second.cast(pa.int64()).to_numpy(zero_copy_only=False)
    skipped = high - low == 1
    utc = np.where(skipped, high, low)
    return utc[inverse], skipped[inverse] & near, (high - low > 1)[inverse] & near


def _texts(source: Source, column: str, values: pa.Array, time_zone: str | None) -> Times:
    encoded = values.dictionary_encode()
    words = pc.utf8_trim_whitespace(encoded.dictionary)
    words = pc.replace_substring_regex(words, r"(\.\d{6})\d+", r"\1")
    parts = {}
    good = np.zeros(len(words), bool)
    for zoned, pattern in ((False, f"^{_DATE}{_CLOCK}?$"), (True, f"^{_DATE}{_CLOCK}{_OFFSET}$")):
        fits = pc.match_substring_regex(words, pattern).to_numpy(zero_copy_only=False)
        fits &= _on_calendar(words, fits)
        parts[zoned] = fits
        good |= fits
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    null = codes < 0
    if len(words):
        null |= pc.equal(words, "").to_numpy(zero_copy_only=False)[codes] & ~null
    far = pc.match_substring_regex(words, f"^{_FAR}{_CLOCK}?{_OFFSET}?$").to_numpy(zero_copy_only=False)
    n = len(codes)
    micros, none = np.zeros(n, np.int64), np.zeros(n, bool)
    outside = np.append(far, False)[codes]
    skipped, repeated, readable = none.copy(), none.copy(), outside.copy()
    for zoned, fits in parts.items():
        if not fits.any():
            continue
        stamps = pa.nulls(len(words), pa.large_string())
        stamps = pc.if_else(pa.array(fits), words, stamps).cast(pa.timestamp("us", tz="UTC" if zoned else None))
        part = _stamps(source, column, stamps.take(encoded.indices), time_zone)
        here = ~part.null
        micros = np.where(here, part.micros, micros)
        readable |= here
        outside |= part.outside
        skipped |= part.skipped
        repeated |= part.repeated
    unreadable = ~null & ~readable
    if unreadable.any() and not readable.any():
        row = int(np.flatnonzero(unreadable)[0])
        fix = "write ISO 8601, such as 2017-12-03 18:30:00 or 2017-12-03T18:30:00Z"
        source.wrong(column, "timestamps", fix, row, values[row].as_py())
    return Times(micros, null, unreadable, outside, skipped, repeated)


def _on_calendar(words: pa.Array, fits: Mask) -> Mask:
    """Where a well-formed text is a day that exists; looks one by one only if there is a February 30."""
    try:
        pc.utf8_slice_codeunits(words.filter(pa.array(fits)), 0, 10).cast(pa.date32())
    except pa.ArrowInvalid:
        return np.array([fit and _is_day(word[:10]) for fit, word in zip(fits, words.to_pylist(), strict=True)], bool)
    return np.ones(len(fits), bool)


def _is_day(word: str) -> bool:
    try:
        datetime.strptime(word, "%Y-%m-%d")
    except ValueError:
        return False
    return True
