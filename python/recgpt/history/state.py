"""Histories that grow day by day and always equal a full compression."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recgpt import schema
from recgpt.errors import TimestampRangeError
from recgpt.history.catalogue import Catalogue, prepared
from recgpt.history.compression import LAYOUTS, check_now, check_options, read_events
from recgpt.history.crossing import NO_POSITION
from recgpt.history.meetings import Index, Past
from recgpt.history.memory import NONE, Cut, Memory, Part
from recgpt.history.saving import read, write
from recgpt.history.seams import SPAN_US, Closed, Kernel, Now, check_seams
from recgpt.history.vocabulary import Rows, Vocabulary, joined, nobody
from recgpt.llm.tokenizer import Tokenizer


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
        self._zone = check_options(budget, layout, time_zone, threads, keep)
        briefs = prepared(briefs, tokenizer, categories)
        check_seams(tokenizer)
        self._budget = budget
        self._vocabulary = Vocabulary(briefs, keep)
        row = None if layout == "cheapest" else LAYOUTS.index(layout)
        self._kernel = Kernel(self._vocabulary, layout=row, counts=counts, long_labels=long_labels, threads=threads)
        self._made_with = {
            "catalogue": briefs.digest,
            "tokenizer": tokenizer.name,
            "keep": None if keep is None else sorted(keep),
            "budget": budget,
            "time_zone": time_zone,
            "layout": layout,
            "counts": counts,
            "long_labels": long_labels,
        }
        self._no_moment = Now(0, self._zone, 0, 0, 0)
        self._memory = Memory(self._vocabulary, self._no_past())

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
                After these errors the state is as it was. After any other one it still has all events of earlier calls,
                `table` is empty, and the next `add` compresses everybody anew.
        """
        check_now(now, self._zone)
        memory = self._memory
        then, moment = memory.now, Now.of(now, self._zone)
        table = read_events(events, "events")
        new = nobody()
        if table.num_rows:
            new = self._vocabulary.code(table)
        known = [new, memory.future]
        if then is None or then.us > moment.us or then.first != moment.first:
            known += [memory.open, memory.past.rows, *memory.past.late]
        rows = joined(known)
        seen = rows.time < moment.us
        ranks = table["timestamp"].null_count > 0 or bool(np.any(new.position != NO_POSITION))
        memory.ranks |= ranks
        self._check_reach(rows.take(seen), moment)
        if table.num_rows:
            memory.numbers &= pa.types.is_integer(table["user_id"].type)
        before = [memory.future, memory.open, memory.past.rows, *memory.past.late]
        try:
            return self._step(rows, seen, moment, anew=len(known) > 2)
        except BaseException:
            # Half of the parts may be of yesterday and half of today.
            memory.forget(joined(before), self._no_past())
            raise

    def _step(self, rows: Rows, seen: npt.NDArray[np.bool_], now: Now, *, anew: bool) -> pa.Table:
        memory = self._memory
        memory.future, rows, memory.now = rows.take(~seen), rows.take(seen), now
        opens = now.opens(rows.time)
        closed, opened = rows.take(~opens), rows.take(opens)
        users = len(self._vocabulary.names)
        if anew:
            memory.past = Past(closed, self._vocabulary, now)
            memory.open, memory.cut = opened, {}
            memory.closed_part, memory.open_part = Part(users), Part(users)
            self._close(memory.past.rows, now)
        else:
            memory.closed_part.grow(users)
            memory.open_part.grow(users)
            memory.open = joined([memory.open, opened])
            if len(closed.user):
                memory.past.add(closed, users)
                self._close(memory.past.of(np.unique(closed.user).astype(np.intp)), now)
        changed = np.unique(rows.user).astype(np.intp)
        self._open_up(changed, now)
        return self._table(changed)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the state into a folder; one that is there is replaced in one step.

        Raises:
            OSError: the folder cannot be written.
        """
        write(Path(folder), self._memory, self._made_with)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        briefs: schema.ArrowStream | Catalogue,
        *,
        tokenizer: Tokenizer,
        **options: Any,
    ) -> State:
        """Read a saved state, to go on with it.

        Args:
            folder: where it was saved.
            briefs: the same as then, as all other arguments of the constructor, which follow as `options`. Only
                `threads` may differ. With another catalogue texts of closed months would be others too.
            tokenizer: the same as then.

        Raises:
            BundleError: the folder holds no state, a damaged one, or one of another version.
            InvalidConfigError: the state was made with another catalogue, tokenizer or option; the message names it.
        """
        state = cls(briefs, tokenizer=tokenizer, **options)
        state._memory = read(Path(folder), state._vocabulary, state._made_with, state._no_moment)
        return state

    def table(self) -> pa.Table:
        """Give everybody's history, as `compress` would of all events: `schema.HISTORY`."""
        return self._table(self._memory.users())

    def __len__(self) -> int:
        """Count the users."""
        return len(self._memory.users())

    def _no_past(self) -> Past:
        return Past(nobody(), self._vocabulary, self._no_moment)

    def _check_reach(self, rows: Rows, now: Now) -> None:
        """Refuse what lies so far back that the kernel would, before anything is changed."""
        memory = self._memory
        oldest = min(int(rows.time.min(initial=now.us)), memory.oldest)
        if not memory.ranks and oldest // 1_000_000 < (now.us - SPAN_US) // 1_000_000:
            raise TimestampRangeError(
                f"`events.timestamp` must be at most 136 years before now, but one is {oldest} us since 1970"
            )
        memory.oldest = oldest

    def _close(self, rows: Rows, now: Now) -> None:
        memory = self._memory
        if len(rows.user):
            closed: Closed = self._kernel.closed(rows, now)
            memory.closed_part.put(closed.made, np.column_stack([closed.tokens_in, closed.tokens]))

    def _open_up(self, users: Index, now: Now) -> None:
        """Write the open part of some users, and from all events the texts that do not fit the budget."""
        memory = self._memory
        if not len(users):
            return
        wanted = np.zeros(len(self._vocabulary.names), bool)
        wanted[users] = True
        rows = memory.open.take(wanted[memory.open.user])
        if len(rows.user):
            met = memory.past.met(rows, self._vocabulary, now)
            memory.open_part.put(self._kernel.open(rows, met, now))
        for user in users.tolist():
            memory.cut.pop(user, None)
        if self._budget is None:
            return
        over = users[memory.receipts(users)[:, 1] > self._budget]
        if len(over):
            wanted[:] = False
            wanted[over] = True
            every = joined([memory.past.of(over), memory.open.take(wanted[memory.open.user])])
            made = self._kernel.whole(every, now, self._budget)
            columns = zip(made.texts, made.receipts.tolist(), made.layouts.tolist(), strict=True)
            memory.cut.update(zip(made.users.tolist(), map(Cut._make, columns), strict=True))

    def _table(self, users: Index) -> pa.Table:
        memory = self._memory
        names = self._vocabulary.names
        key = int if memory.numbers else str
        users = np.array(sorted(users.tolist(), key=lambda user: key(names[user])), np.intp)
        receipts = memory.receipts(users)
        closed, opened = memory.closed_part, memory.open_part
        layouts = np.where(closed.layouts[users] != NONE, closed.layouts[users], opened.layouts[users])
        parts: list[bytes] = []
        ends = np.zeros(len(users) + 1, np.int64)
        for row, user in enumerate(users.tolist()):
            before, after = closed.texts[user], opened.texts[user]
            both = [before, b"\n", after] if before and after else [before, after]
            if user in memory.cut:
                text, receipts[row], layouts[row] = memory.cut[user]
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
