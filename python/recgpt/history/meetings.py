"""Closed events by user, and which event was the first about each thing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recgpt.history.crossing import NO_POSITION, Longs
from recgpt.history.days import local_days, shifts
from recgpt.history.seams import Now
from recgpt.history.vocabulary import Rows, Vocabulary, joined, nobody

Index = npt.NDArray[np.intp]


def in_order(rows: Rows, now: Now) -> Rows:
    """Sort closed events by user, and those of a user by bucket, second and position."""
    second = rows.time // 1_000_000
    keys = [rows.position] if np.any(rows.position != NO_POSITION) else []
    keys.append(second)
    if (buckets := _buckets(second, now)) is not None:
        keys.append(buckets)
    # Sorting by 16 bits takes a tenth of the time.
    user = rows.user.astype(np.uint16) if len(rows.user) and rows.user.max() < 1 << 16 else rows.user
    if len(keys) == 1 and np.all(second[1:] >= second[:-1]):
        return rows.take(np.argsort(user, kind="stable"))
    return rows.take(np.lexsort((*keys, user)))


def _buckets(second: Longs, now: Now) -> Longs | None:
    """Order closed buckets, where a clock set back on the first of a month makes them other than seconds do."""
    if not len(second) or now.zone.utcoffset(None) is not None:
        return None
    starts, offsets = shifts(now.zone, int(second.min()), int(second.max()))
    days = np.array([starts[1:] - 1 + offsets[:-1], starts[1:] + offsets[1:]]) // 86_400
    before, after = _months(days)
    if not np.any(before > after):
        return None
    return _months(local_days(second, now.zone))


def _months(days: Longs) -> Longs:
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


class Meetings(NamedTuple):
    """Where each user's first event about each thing stands, by user and class of equal texts."""

    keys: Longs
    rows: Index

    @classmethod
    def of(cls, rows: Rows, vocabulary: Vocabulary) -> Meetings:
        """Find the first events of rows in order."""
        pair = _key(rows.user, rows.thing)
        order = np.argsort(pair, kind="stable")
        new = np.diff(pair[order]) != 0
        first = order[np.r_[np.ones(min(1, len(order)), bool), new]]
        keys = _key(rows.user[first], vocabulary.classes(rows.thing[first]))
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], first[order])

    def find(self, rows: Rows, vocabulary: Vocabulary) -> Index:
        """Give the first events about all things that are, or are called, like those of other rows of the same user."""
        wanted = np.unique(_key(rows.user, vocabulary.classes(rows.thing)))
        low = np.searchsorted(self.keys, wanted, "left")
        return self.rows[spans(low, np.searchsorted(self.keys, wanted, "right"))]


def _key(user: npt.NDArray[np.int32], thing: npt.NDArray[np.int32]) -> Longs:
    return user.astype(np.int64) << 32 | thing


def spans(starts: Index, ends: Index) -> Index:
    """Give the numbers from each start up to its end."""
    sizes = ends - starts
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(sizes.sum())


class Past:
    """The closed events of everybody: sorted once, and beside them those that came late."""

    def __init__(
        self,
        rows: Rows,
        vocabulary: Vocabulary,
        now: Now,
        *,
        meetings: Meetings | None = None,
        late: Rows | None = None,
    ) -> None:
        """Sort rows of which `meetings` are not known; else they are sorted already."""
        self.rows = rows if meetings is not None else in_order(rows, now)
        users = len(vocabulary.names)
        self.offsets = np.searchsorted(self.rows.user, np.arange(users + 1))
        self.meetings = Meetings.of(self.rows, vocabulary) if meetings is None else meetings
        self.late: list[Rows] = []
        self.stale = np.zeros(users, bool)
        """Users with late events; where they met what is looked up anew."""
        if late is not None and len(late.user):
            self.add(late, users)

    def all_late(self) -> Rows:
        """Give the late events."""
        return joined([nobody(), *self.late])

    def add(self, rows: Rows, users: int) -> None:
        """Take late events; there are so many users by now."""
        self.late.append(rows)
        self.stale = np.r_[self.stale, np.zeros(users - len(self.stale), bool)]
        self.stale[rows.user] = True

    def of(self, users: Index) -> Rows:
        """Give all closed events of some users."""
        known = users[users < len(self.offsets) - 1]
        parts = [self.rows.take(spans(self.offsets[known], self.offsets[known + 1]))]
        parts += [rows.take(np.isin(rows.user, users)) for rows in self.late]
        return joined(parts)

    def met(self, rows: Rows, vocabulary: Vocabulary, now: Now) -> Rows:
        """Give the closed events that matter to open ones, by user and in the order of meeting."""
        stale = np.zeros(len(rows.user), bool)
        known = rows.user < len(self.stale)
        stale[known] = self.stale[rows.user[known]]
        found = [self.rows.take(self.meetings.find(rows.take(~stale), vocabulary))]
        if stale.any():
            theirs = in_order(self.of(np.unique(rows.user[stale]).astype(np.intp)), now)
            found.append(theirs.take(Meetings.of(theirs, vocabulary).find(rows.take(stale), vocabulary)))
        met = joined(found)
        # Of one second and position, the smaller entry is met first.
        met = met.take(np.argsort(vocabulary.entries(met.thing)[0], kind="stable"))
        return in_order(met, now)
