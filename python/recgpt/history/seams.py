"""The closed and the open part of histories, compressed apart and so that they can be put together exactly.

With `stable=True` no line of a closed month depends on the open month. The open part depends on the closed one in one
way: things stand, and things with equal texts are numbered, in the order in which the user first met them, which may be
long ago. So the open events are compressed together with a stand-in for the closed part: one event of the month before
for each closed thing that matters, in the order of meeting. In every layout they make one line, which is cut off again.
What that line takes in tokens, a line break included, is measured by compressing it once more before a closing event
whose cost is known.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recgpt import _core
from recgpt.errors import TokenizerError
from recgpt.history.crossing import NO_POSITION, NO_TIME, Longs, behavior_names, ranked
from recgpt.history.days import EPOCH, Shifts, local_days, shifts
from recgpt.history.vocabulary import Ints, Rows, Vocabulary, joined
from recgpt.llm.tokenizer import Tokenizer

SPAN_US = (2**32 - 1) * 1_000_000
"""How far back the kernel's clock reaches."""
_SMALL = 1 << 15
"""Records that one thread takes at a time; fewer need no second one."""


class Now(NamedTuple):
    """A moment and its month in the shop's time zone."""

    us: int
    zone: ZoneInfo
    today: int
    first: int
    """Local day numbers of the month's first day, and of the next month's."""
    end: int

    @classmethod
    def of(cls, now: datetime, zone: ZoneInfo) -> Now:
        """Look a moment up in the calendar."""
        date = now.astimezone(zone).date()
        month = np.datetime64(date, "M")
        first, end = (int(day.astype("datetime64[D]").astype(int)) for day in (month, month + 1))
        return cls((now - EPOCH) // timedelta(microseconds=1), zone, (date - EPOCH.date()).days, first, end)

    def opens(self, time: Longs) -> npt.NDArray[np.bool_]:
        """Tell which times belong to the part that still changes: this month and the undated."""
        found: npt.NDArray[np.bool_] = time == NO_TIME
        # Local time is less than two days away from UTC, so most times need no look at the zone.
        second = time // 1_000_000
        near = np.flatnonzero((second >= (self.first - 2) * 86_400) & (second < (self.end + 2) * 86_400))
        day = local_days(second[near], self.zone)
        found[near] = (day >= self.first) & (day < self.end)
        return found


class Made(NamedTuple):
    """Texts of some users, by user code."""

    users: npt.NDArray[np.intp]
    texts: list[bytes]
    tokens: Longs
    receipts: npt.NDArray[np.int64]
    """Seven numbers a user: tokens in, tokens out, events, full, coarsened, folded, dropped."""
    layouts: npt.NDArray[np.int8]


class Closed(NamedTuple):
    """The closed part of some users."""

    made: Made
    tokens: Longs
    """With a line break after it."""
    tokens_in: Longs
    """Of one line an event, with a line break after it."""


class _Line(NamedTuple):
    """When events are, in the kernel's terms."""

    moments: Longs
    after: int
    """A moment of today after all of them."""
    clock: tuple[int, int] | None
    days: Shifts


def check_seams(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer whose tokens go on over a line break, because parts could not be counted apart.

    Raises:
        TokenizerError: naming the pieces.
    """
    left = [f"{end}\n" for end in ("Tea", "2%", "a)", '"tea"', "-", "é", "茶", "Tea #2", "Tea x3", "12", "!")]
    right = ["17-12-03 (cart) | Tea", "17-12", "9870", "2017-12-03 (cart) |", "undated (cart) | Tea"]
    pairs = [(before, after) for before in left for after in right]
    apart = tokenizer.count([piece for pair in pairs for piece in pair]).reshape(-1, 2).sum(axis=1)
    wrong = np.flatnonzero(apart != tokenizer.count(["".join(pair) for pair in pairs]))
    if len(wrong):
        raise TokenizerError(
            f"a history state needs a tokenizer that begins a new token after a line break, but the counts of "
            f"{tokenizer.name} do not add up for {pairs[wrong[0]]}; use history.compress"
        )


class Kernel:
    """Compresses rows of a vocabulary."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        layout: int | None,
        counts: bool,
        long_labels: bool,
        threads: int | None,
    ) -> None:
        self.vocabulary = vocabulary
        self.layout, self.counts, self.long_labels, self.threads = layout, counts, long_labels, threads

    def whole(self, rows: Rows, now: Now, budget: int | None) -> Made:
        """Compress users from all their events."""
        return self._run(rows, _line(rows, now), now, budget=budget)

    def closed(self, rows: Rows, now: Now) -> Closed:
        """Compress closed parts, as whole texts and as beginnings of texts."""
        line = _line(rows, now)
        made = self._run(rows, line, now)
        ends = self._closing(made.users.astype(np.int32))
        moments = np.concatenate([line.moments, np.full(len(ends.user), line.after)])
        followed = self._run(joined([rows, ends]), line._replace(moments=moments), now)
        tokens_in = followed.receipts[:, 0]
        return Closed(made, followed.tokens[:-1] - followed.tokens[-1], tokens_in[:-1] - tokens_in[-1])

    def open(self, rows: Rows, met: Rows, now: Now) -> Made:
        """Compress open parts.

        Args:
            rows: open events.
            met: closed events that stand for the closed part, by user and in the order of meeting.
            now: the moment.
        """
        second = np.where(rows.time == NO_TIME, NO_TIME, rows.time // 1_000_000)
        rank, (starts, days) = ranked(second, rows.position, now.zone)
        place = np.arange(len(met.user)) - np.searchsorted(met.user, met.user)
        before = int(place.max()) + 1 if len(place) else 0
        met = met._replace(behavior=np.zeros_like(met.behavior))
        users = len(self.vocabulary.names)
        cut = np.zeros((users + 1, 2), np.int64)
        if before:
            starts, days = np.r_[0, starts + before], np.r_[now.first - 1, days]
            ends = self._closing(np.unique(met.user))
            moments = np.concatenate([place, np.full(len(ends.user), before)])
            line = _Line(moments, before, None, (np.array([0, before]), np.array([now.first - 1, now.today])))
            beginning = self._run(joined([met, ends]), line, now)
            numbers = np.column_stack([beginning.tokens, beginning.receipts[:, 0]])
            cut[beginning.users] = numbers - numbers[-1]
        stands_in = np.zeros(users, bool)
        stands_in[met.user] = True
        made = self._run(
            joined([met, rows]), _Line(np.concatenate([place, rank + before]), 0, None, (starts, days)), now
        )
        texts = [
            text[text.index(b"\n") + 1 :] if has else text
            for text, has in zip(made.texts, stands_in[made.users].tolist(), strict=True)
        ]
        receipts = made.receipts.copy()
        receipts[:, :2] -= cut[made.users][:, ::-1]
        receipts[:, 2:4] = np.bincount(rows.user, minlength=users)[made.users][:, None]
        return made._replace(texts=texts, tokens=receipts[:, 1], receipts=receipts)

    def _closing(self, users: Ints) -> Rows:
        """Give each user, and one user of whom nothing else is known, an event that is about nothing."""
        user = np.append(users, np.int32(len(self.vocabulary.names)))
        size = len(user)
        none, nothing = np.zeros(size, np.int32), np.full(size, self.vocabulary.first, np.int32)
        return Rows(user, np.full(size, NO_TIME), np.full(size, NO_POSITION), none, nothing)

    def _run(self, rows: Rows, line: _Line, now: Now, *, budget: int | None = None) -> Made:
        names = behavior_names(self.vocabulary.behaviors)
        place = {name: row for row, name in enumerate(names)}
        behaviors = np.array([place[name] for name in self.vocabulary.behaviors], np.int32)
        users, user = _compact(rows.user)
        entries, extra, nothing = self.vocabulary.entries(rows.thing)
        size = nothing + 1
        chunks = _core.compress_history(
            [(user, line.moments, rows.behavior, (entries, None), None)],
            ((0, None, len(users)), (0, behaviors, len(names)), (0, None, size), (0, None, 0)),
            nothing,
            self.vocabulary.catalogue.core,
            extra,
            names,
            self.vocabulary.catalogue.tokenizer.core,
            clock=line.clock,
            days=line.days,
            today=now.today,
            budget=budget,
            layout=self.layout,
            counts=self.counts,
            long_labels=self.long_labels,
            stable=True,
            row_ids=False,
            threads=1 if len(rows.user) < _SMALL else self.threads or 0,
        )
        texts: list[bytes] = []
        for _, offsets, text, *_ in chunks:
            buffers = [None, pa.py_buffer(offsets), pa.py_buffer(text)]
            texts += pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers).to_pylist()
        codes, _, _, tokens, receipts, layouts = (np.concatenate(column) for column in zip(*chunks, strict=True))
        numbers = tokens.astype(np.int64)
        return Made(users[codes], texts, numbers, receipts.reshape(-1, 7), layouts.astype(np.int8))


def _compact(user: Ints) -> tuple[npt.NDArray[np.intp], Ints]:
    """Give the users of some rows, and each row's place among them."""
    if len(user) < _SMALL:
        users, place = np.unique(user, return_inverse=True)
        return users.astype(np.intp), place.astype(np.int32)
    present = np.zeros(int(user.max()) + 1, bool)
    present[user] = True
    return np.flatnonzero(present), (np.cumsum(present, dtype=np.int32) - 1)[user]


def _line(rows: Rows, now: Now) -> _Line:
    undated = rows.time == NO_TIME
    origin, last = max(0, now.us - SPAN_US) // 1_000_000, now.us // 1_000_000
    if np.any(rows.time < origin * 1_000_000) or np.any(rows.position != NO_POSITION):
        second = np.where(undated, NO_TIME, rows.time // 1_000_000)
        moments, (starts, days) = ranked(second, rows.position, now.zone)
        after = int(moments.max()) + 1
        return _Line(moments, after, None, (np.r_[starts, after], np.r_[days, now.today]))
    oldest = int(rows.time.min()) // 1_000_000 if now.zone.utcoffset(None) is None else 0
    return _Line(rows.time, now.us, (now.us + 1, origin), shifts(now.zone, min(max(oldest, origin), last), last))
