"""Local calendar days of UTC timestamps, by Python's own time zone data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END_US = 253_402_300_800_000_000
"""The first microsecond of the year 10000."""
NO_DAY = -(2**31)
"""The day number of an event without a time."""
_DAY_US = 86_400_000_000


def local_days(times: np.ma.MaskedArray[Any, Any], zone: ZoneInfo) -> npt.NDArray[np.int32]:
    """Give each UTC microsecond its local day, counted from 1970-01-01: `(n,) int32`; masked times get -2**31.

    The offsets are Python's own: a zone is asked at each noon and midnight of the days that have events, and to the
    second where those differ.
    """
    dated = ~np.ma.getmaskarray(times)
    known = np.ma.getdata(times)[dated].astype(np.int64)
    days = np.full(times.shape, NO_DAY, np.int32)
    if not len(known):
        return days
    # From each of these seconds on, the shift beside it holds for all events before the next one.
    starts: list[int] = []
    shifts: list[int] = []
    for day in np.unique(known // _DAY_US).tolist():
        for second in (day * 86_400, day * 86_400 + 43_200, day * 86_400 + 86_400):
            if starts and starts[-1] == second:
                continue
            shift = _offset(second, zone)
            if starts and shifts[-1] != shift and second - starts[-1] <= 43_200:
                starts.append(_change(starts[-1], second, shifts[-1], zone))
                shifts.append(shift)
            if not starts or starts[-1] < second:
                starts.append(second)
                shifts.append(shift)
    found = np.searchsorted(np.array(starts, np.int64), known // 1_000_000, side="right") - 1
    days[dated] = (known + np.array(shifts, np.int64)[found] * 1_000_000) // _DAY_US
    return days


def _offset(second: int, zone: ZoneInfo) -> int:
    # Local time must stay a Python date, so the last days of the year 9999 take the offset of two days before.
    moment = EPOCH + timedelta(seconds=min(second, END_US // 1_000_000 - 2 * 86_400))
    shift = moment.astimezone(zone).utcoffset()
    assert shift is not None, "an aware datetime has an offset"
    return round(shift.total_seconds())


def _change(before: int, after: int, shift: int, zone: ZoneInfo) -> int:
    """Find the first second whose offset is no longer `shift`."""
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if _offset(middle, zone) == shift else (before, middle)
    return after
