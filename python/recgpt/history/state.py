"""Histories that grow day by day and always equal a full compression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.errors import InvalidConfigError, TimestampRangeError
from recgpt.history.catalogue import Catalogue, catalogue
from recgpt.history.compression import LAYOUTS, check_options, read_events
from recgpt.history.days import END_US
from recgpt.history.meetings import Index, Past
from recgpt.history.seams import SPAN_US, Closed, Kernel, Made, Now
from recgpt.history.vocabulary import NO_POSITION, Rows, Vocabulary, joined, nobody
from recgpt.llm.tokenizer import Tokenizer

NONE = -1
"""The layout of a part that a user does not have."""


class Part:
    """One part of everybody's text, by user code."""

    def __init__(self, users: int) -> None:
        self.texts: list[bytes] = [b""] * users
        self.receipts = np.zeros((users, 7), np.int64)
        self.followed = np.zeros((users, 2), np.int64)
        """Tokens in and out with a line break after the part."""
        self.layouts = np.full(users, NONE, np.int8)

    def grow(self, users: int) -> None:
        """Make room for new users."""
        more = Part(users - len(self.texts))
        self.texts += more.texts
        self.receipts = np.concatenate([self.receipts, more.receipts])
        self.followed = np.concatenate([self.followed, more.followed])
        self.layouts = np.concatenate([self.layouts, more.layouts])

    def put(self, made: Made, followed: npt.NDArray[np.int64] | None = None) -> None:
        """Replace the part of some users."""
        for user, text in zip(made.users.tolist(), made.texts, strict=True):
            self.texts[user] = text
        self.receipts[made.users] = made.receipts
        self.layouts[made.users] = made.layouts
        if followed is not None:
            self.followed[made.users] = followed


class Order(NamedTuple):
    """What decides the order of users: numbers go by value where `compress` would see few gaps between them."""

    numbers: bool
    least: int
    most: int
    rows: int

    def add(self, column: pa.ChunkedArray) -> Order:
        """Look at the ids of more rows."""
        numbers = self.numbers and pa.types.is_integer(column.type) and column.type != pa.uint64()
        if not numbers:
            return Order(False, 0, 0, self.rows + len(column))
        ends = pc.min_max(column).as_py()
        least, most = (min(self.least, ends["min"]), max(self.most, ends["max"])) if self.rows else ends.values()
        return Order(True, least, most, self.rows + len(column))

    def by_value(self) -> bool:
        """Tell whether ids are ordered as numbers."""
        return self.numbers and self.most - self.least + 1 <= 4 * self.rows + 65_536


class State:
    """Everybody's compressed history, kept up to date at the cost of what is new.

    The result always equals `history.compress(all events, ..., stable=True)`, bit for bit: texts, tokens and receipts.
    A day's new events cost their users' open month and the writing of their texts; no other user and no closed month is
    looked at. Only `stable=True` allows that, because without it the passing of a day moves edges of everybody's
    buckets.

    What costs more: with the first `add` in another month, or with a `now` that goes back, everybody is compressed
    anew; with events that arrive after their month was closed, their users' closed months are; and a user whose text
    does not fit `budget` is compressed from all events at each change, because the ladder weighs them all.

    Args:
        briefs: `schema.BRIEFS`, or the `catalogue` of them.
        tokenizer: counts the tokens.
        keep, budget, time_zone, layout, counts, long_labels, threads, categories: as in `compress`. Row ids are not
            offered: they would change in the open lines whenever a closed line comes late.

    Raises:
        InvalidConfigError: an option does not fit.
        InvalidTableError: `briefs` do not fit.
        TokenizerError: counts of the tokenizer's pieces do not add up, so that parts cannot be counted apart.
    """

    def __init__(
        self,
        briefs: schema.ArrowStream | Catalogue,
        *,
        tokenizer: Tokenizer,
        keep: Sequence[str] | None = None,
        budget: int | None = None,
        time_zone: str = "UTC",
        layout: str = "cheapest",
        counts: bool = False,
        long_labels: bool = False,
        threads: int | None = None,
        categories: Mapping[str, str] | schema.ArrowStream | None = None,
    ) -> None:
        self._zone = check_options(budget, layout, time_zone, threads)
        if not isinstance(briefs, Catalogue):
            briefs = catalogue(briefs, tokenizer=tokenizer, categories=categories)
        elif briefs.tokenizer is not tokenizer or categories is not None:
            raise InvalidConfigError(
                "`tokenizer` must be the one that the catalogue was made with, and `categories` go into it: "
                "history.catalogue(briefs, tokenizer=tokenizer, categories=categories)"
            )
        self._budget = budget
        self._vocabulary = Vocabulary(briefs, keep)
        row = None if layout == "cheapest" else LAYOUTS.index(layout)
        self._kernel = Kernel(self._vocabulary, layout=row, counts=counts, long_labels=long_labels, threads=threads)
        self._order = Order(True, 0, 0, 0)
        self._now: Now | None = None
        self._past = Past(nobody(), self._vocabulary, Now(0, self._zone, 0, 0, 0))
        self._open, self._future = nobody(), nobody()
        self._closed_part, self._open_part = Part(0), Part(0)
        self._oldest = END_US
        self._ranks = False
        """Whether events have had positions or no time; the kernel then reaches back as far as one likes."""
        self._cut: dict[int, tuple[bytes, list[int], int]] = {}
        """Users whose text the budget cut: text, receipt, layout."""

    def add(self, events: schema.ArrowStream, *, now: datetime) -> pa.Table:
        """Take new events and go to a later moment.

        Args:
            events: those that came since the last call, `schema.EVENTS`, in any order; none is fine. Events at or after
                `now` are kept until their time comes.
            now: time-zone-aware.

        Returns:
            `schema.HISTORY` of the users whose history changed, in the order of `table`; of everybody where everybody
            was compressed anew (after a step back in time, who is not there has no event any more).

        Raises:
            InvalidTableError: the table does not fit, or a behavior has a separator in its name.
            NaiveTimestampError: `now` or the timestamps carry no time zone.
            TimestampRangeError: a timestamp lies outside the years 1970 to 9999, or more than 136 years before `now`.
        """
        check_options(None, "cheapest", "UTC", None, now=now)
        then, moment = self._now, Now.of(now, self._zone)
        table = read_events(events, "events")
        new = nobody()
        if table.num_rows:
            new = self._vocabulary.code(table)
        known = [new, self._future]
        if then is None or then.us > moment.us or then.first != moment.first:
            known += [self._open, self._past.rows, *self._past.late]
        rows = joined(known)
        seen = rows.time < moment.us
        ranks = table["timestamp"].null_count > 0 or bool(np.any(new.position != NO_POSITION))
        self._ranks |= ranks
        self._check_reach(rows.take(seen), moment)
        if table.num_rows:
            self._order = self._order.add(table["user_id"])
        self._future, rows, self._now = rows.take(~seen), rows.take(seen), moment
        opens = moment.opens(rows.time)
        closed, opened = rows.take(~opens), rows.take(opens)
        users = len(self._vocabulary.names)
        if len(known) > 2:
            self._past = Past(closed, self._vocabulary, moment)
            self._open, self._cut = opened, {}
            self._closed_part, self._open_part = Part(users), Part(users)
            self._close(self._past.rows, moment)
        else:
            self._closed_part.grow(users)
            self._open_part.grow(users)
            self._open = joined([self._open, opened])
            if len(closed.user):
                self._past.add(closed, users)
                self._close(self._past.of(np.unique(closed.user).astype(np.intp)), moment)
        changed = np.unique(rows.user).astype(np.intp)
        self._open_up(changed, moment)
        return self._table(changed)

    def table(self) -> pa.Table:
        """Give everybody's history, as `compress` would of all events: `schema.HISTORY`."""
        some = (self._closed_part.layouts != NONE) | (self._open_part.layouts != NONE)
        return self._table(np.flatnonzero(some))

    def __len__(self) -> int:
        """Count the users."""
        some = (self._closed_part.layouts != NONE) | (self._open_part.layouts != NONE)
        return int(some.sum())

    def _check_reach(self, rows: Rows, now: Now) -> None:
        """Refuse what lies so far back that the kernel would, before anything is changed."""
        oldest = min(int(rows.time.min(initial=now.us)), self._oldest)
        if not self._ranks and oldest // 1_000_000 < (now.us - SPAN_US) // 1_000_000:
            raise TimestampRangeError(
                f"`events.timestamp` must be at most 136 years before now, but one is {oldest} us since 1970"
            )
        self._oldest = oldest

    def _close(self, rows: Rows, now: Now) -> None:
        if len(rows.user):
            closed: Closed = self._kernel.closed(rows, now)
            self._closed_part.put(closed.made, np.column_stack([closed.tokens_in, closed.tokens]))

    def _open_up(self, users: Index, now: Now) -> None:
        """Write the open part of some users, and from all events the texts that do not fit the budget."""
        if not len(users):
            return
        wanted = np.zeros(len(self._vocabulary.names), bool)
        wanted[users] = True
        rows = self._open.take(wanted[self._open.user])
        if len(rows.user):
            met = self._past.met(rows, self._vocabulary, now)
            for made in self._kernel.open(rows, met, self._closed_part.layouts, now):
                self._open_part.put(made)
        for user in users.tolist():
            self._cut.pop(user, None)
        if self._budget is None:
            return
        over = users[self._receipts(users)[:, 1] > self._budget]
        if len(over):
            wanted[:] = False
            wanted[over] = True
            every = joined([self._past.of(over), self._open.take(wanted[self._open.user])])
            made = self._kernel.whole(every, now, self._budget)
            columns = zip(made.texts, made.receipts.tolist(), made.layouts.tolist(), strict=True)
            self._cut.update(zip(made.users.tolist(), columns, strict=True))

    def _receipts(self, users: Index) -> npt.NDArray[np.int64]:
        closed, opened = self._closed_part, self._open_part
        receipts: npt.NDArray[np.int64] = closed.receipts[users] + opened.receipts[users]
        both = (closed.layouts[users] != NONE) & (opened.layouts[users] != NONE)
        receipts[both, :2] += (closed.followed - closed.receipts[:, :2])[users[both]]
        return receipts

    def _table(self, users: Index) -> pa.Table:
        names = self._vocabulary.names
        key = int if self._order.by_value() else str
        users = np.array(sorted(users.tolist(), key=lambda user: key(names[user])), np.intp)
        receipts = self._receipts(users)
        closed, opened = self._closed_part, self._open_part
        layouts = np.where(closed.layouts[users] != NONE, closed.layouts[users], opened.layouts[users])
        parts: list[bytes] = []
        ends = np.zeros(len(users) + 1, np.int64)
        for row, user in enumerate(users.tolist()):
            before, after = closed.texts[user], opened.texts[user]
            both = [before, b"\n", after] if before and after else [before, after]
            if user in self._cut:
                text, receipts[row], layouts[row] = self._cut[user]
                both = [text]
            parts += both
            ends[row + 1] = ends[row] + sum(map(len, both))
        # One copy of all; an array made of Python objects would copy and judge them twice.
        texts = pa.LargeStringArray.from_buffers(len(users), pa.py_buffer(ends), pa.py_buffer(b"".join(parts)))
        columns = [pa.array(column) for column in receipts.T.copy()]
        columns.append(pa.array(LAYOUTS, pa.large_string()).take(pa.array(layouts)))
        table = pa.Table.from_arrays(
            [
                pa.array([names[user] for user in users.tolist()], pa.large_string()),
                texts,
                pa.array(receipts[:, 1].astype(np.uint32)),
                pa.StructArray.from_arrays(columns, fields=list(schema.RECEIPT)),
            ],
            schema=schema.HISTORY,
        )
        return table.replace_schema_metadata({"recgpt.missing_briefs": str(len(self._vocabulary.missing))})
