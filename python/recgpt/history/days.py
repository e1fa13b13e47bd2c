"""When local days begin, by Python's own time zone data."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END_US = 253_402_300_800_000_000
"""The first microsecond of the year 10000."""
NO_DAY = -(2**31)
"""The day number of an event without a time."""
_DAY = 86_400
_FEW_YEARS = 200
"""So many years are looked up without asking which of them occur, which takes three copies of the log's moments."""

Shifts = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""From each of these UTC seconds on, local time is ahead by so many seconds."""


def shifts(zone: ZoneInfo, first: int, last: int) -> Shifts:
    """Give the offsets of a zone between two UTC seconds, of whole years.

    They are Python's own: a zone is asked at each noon and midnight, and to the second where those differ.
    """
    return _join(zone, range(_year(first), _year(last) + 1), first)


def local_days(seconds: npt.NDArray[np.int64], zone: ZoneInfo) -> npt.NDArray[np.int64]:
    """Give each UTC second its local day, counted from 1970-01-01."""
    if not len(seconds):
        return seconds
    first, last = int(seconds.min()), int(seconds.max())
    years = list(range(_year(first), _year(last) + 1))
    if len(years) > _FEW_YEARS:
        years = (np.unique(seconds.astype("datetime64[s]").astype("datetime64[Y]").astype(int)) + 1970).tolist()
    starts, offsets = _join(zone, years, first)
    shift = offsets
    if len(starts) > 1:
        shift = offsets[np.maximum(np.searchsorted(starts, seconds, side="right") - 1, 0)]
    days: npt.NDArray[np.int64] = (seconds + shift) // _DAY
    return days


def _join(zone: ZoneInfo, years: Iterable[int], first: int) -> Shifts:
    fixed = zone.utcoffset(None)
    found = [] if fixed is None else [(first, round(fixed.total_seconds()))]
    for year in years if fixed is None else ():
        for pair in _shifts_of_year(zone, year):
            # The step into the next year may come before what that year says itself.
            if not found or (found[-1][0] < pair[0] and found[-1][1] != pair[1]):
                found.append(pair)
    starts, offsets = np.array(found, np.int64).T.copy()
    return starts, offsets


def _year(second: int) -> int:
    return (EPOCH + timedelta(seconds=second)).year


@lru_cache(maxsize=4096)
def _shifts_of_year(zone: ZoneInfo, year: int) -> list[tuple[int, int]]:
    start = (datetime(year, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(seconds=1)
    found = [(start, _offset(start, zone))]
    # Past the end of the year, so that a change in its last hours is not missed.
    for second in range(start + _DAY // 2, start + 367 * _DAY, _DAY // 2):
        if (shift := _offset(second, zone)) != found[-1][1]:
            change = _change(second - _DAY // 2, second, found[-1][1], zone)
            found.append((change, _offset(change, zone)))
            if found[-1][1] != shift:
                found.append((second, shift))
    return found


def _offset(second: int, zone: ZoneInfo) -> int:
    # Local time must stay a Python date, so the last days of the year 9999 take the offset of two days before.
    moment = EPOCH + timedelta(seconds=min(second, END_US // 1_000_000 - 2 * _DAY))
    shift = moment.astimezone(zone).utcoffset()
    assert shift is not None, "an aware datetime has an offset"
    return round(shift.total_seconds())


def _change(before: int, after: int, shift: int, zone: ZoneInfo) -> int:
    """Find the first second whose offset is no longer `shift`."""
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if _offset(middle, zone) == shift else (before, middle)
    return after
