"""Continuous batching over one context: requests share each pass over the weights, each prefix is computed once.

Requests are sorted by their tokens. Each takes a *slot* (a sequence of the KV cache), which begins as a copy of the
longest prefix that any other slot has; a request whose prefix is still being computed waits for it. So instructions
are computed once a run, a user's history once a user, whatever the requests' order. Finished prompts stay until
their room is needed, so the next call shares with them too.

A cache is of one of two kinds. *Shared*: all sequences lie in the same cells, a copied prefix takes no room, and every
token looks at every cell, its own or not. *Apart*: each sequence has cells of its own and looks at nothing else, but a
copied prefix is copied. `crowding` says which of them a call should take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from recgpt.llm.candidates import Logits, Node, Tree, above, split
from recgpt.llm.drafts import MOST, Guesses, worthwhile
from recgpt.llm.jobs import BATCH, Job, Slot, Tokens, shared
from recgpt.llm.sampling import Matcher, sample

RETAINED = 2
"""Finished prompts that stay for sharing. Each costs attention time at every later step, so few."""
SHORT = 256
"""Finished prompts up to this many tokens stay whole: looking through the waiting jobs would cost more than they do."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a batch. `sequences` lists every sequence that it belongs to."""

    id: int
    position: int
    sequences: tuple[int, ...]
    logits: bool = False


class Model(Protocol):
    """What the scheduler needs of a model with a cache; `context.Context` in the worker."""

    vocabulary: int
    cells: int
    sequences: int
    apart: bool
    control: Tokens

    def decode(self, tokens: Sequence[Token]) -> Logits:
        """Process at most `BATCH` tokens; logits rows of those that asked, in order."""

    def copy(self, source: int, target: int, end: int) -> None:
        """Give `target`, which is empty, the first `end` positions of `source`."""

    def cut(self, sequence: int, end: int) -> None:
        """Forget a sequence's positions from `end` on."""

    def adapt(self, path: str) -> None:
        """Put a LoRA adapter before what follows, none if the path is empty."""

    def close(self) -> None:
        """Free the cache."""

    def is_end(self, token: int) -> bool:
        """Tell whether a token ends the turn."""

    def piece(self, token: int) -> bytes:
        """Decode one token."""

    def matcher(self, grammar: str) -> Matcher:
        """Start a grammar."""


class Scheduler:
    """Runs jobs; see the module's docstring."""

    def __init__(self, model: Model, *, slots: int) -> None:
        self.model = model
        self.slots = [Slot() for _ in range(slots)]
        self.scratch = list(range(slots, model.sequences))
        self._cell = 0
        self._clock = 0
        self.decodes = self.decoded = 0

    def run(
        self,
        jobs: Sequence[Job],
        *,
        started: Callable[[Job], None],
        finished: Callable[[Job, str], None],
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Work until every job has finished.

        `finished(job, how)` is called once a job: `how` is `end`, `stop` or `length` for text, `score` for scores.
        """
        waiting = sorted(jobs, key=lambda job: job.prompt.tolist(), reverse=True)
        active: list[Job] = []
        while waiting or active:
            # No more than the next batch can take: each prompt in the cache makes every step a little slower.
            while waiting and sum(_due(job) for job in active) < BATCH and self._admit(waiting[-1], waiting):
                job = waiting.pop()
                started(job)
                active.append(job)
            if not active:
                raise RuntimeError(f"a prompt of {len(waiting[-1].prompt)} tokens does not fit into the KV cache")
            if self.model.apart and not waiting:
                self._close_ranks(active)
            for job, how in self._step(active):
                active.remove(job)
                self._release(job)
                finished(job, how)
            beat()

    def adapt(self, adapter: str) -> None:
        """Change the LoRA adapter and drop every prefix: other weights would have computed another."""
        self.model.adapt(adapter)
        for row in range(len(self.slots)):
            self._cut(row, 0)

    def _admit(self, job: Job, waiting: Sequence[Job]) -> bool:
        """Give a job its slot, unless it should wait for room or for a prefix that is being computed."""
        free = [slot for slot in self.slots if slot.job is None]
        if not free:
            return False
        if not self.model.apart:
            self._trim(free, waiting)
        # At least one prompt token is computed anew, because its logits are needed.
        prompt = job.prompt[:-1]
        ready, planned, source, idle = 0, 0, -1, False
        for row, slot in enumerate(self.slots):
            common = shared(prompt, slot.plan())
            planned = max(planned, common)
            have = min(common, len(slot.tokens))
            # Of equal ones an idle slot, where copies cost something: it can go on by itself.
            if have and (have, self.model.apart and slot.job is None) > (ready, idle):
                ready, source, idle = have, row, self.model.apart and slot.job is None
        if planned > ready:
            return False
        need = len(job.prompt) - ready + job.needs()
        if not self.model.apart and not self._make_room(need, free, ready, source):
            return False
        # An empty slot if there is one, else the source itself when it is idle, else the longest unused.
        empty = None if idle else next((slot for slot in free if not len(slot.tokens)), None)
        slot = empty or min(free, key=lambda slot: (slot is not self.slots[source], slot.used))
        row = self.slots.index(slot)
        if row == source:
            self._cut(row, ready)
        else:
            self._cut(row, 0)
            if ready:
                self.model.copy(source, row, ready)
                slot.tokens, slot.cells = self.slots[source].tokens[:ready], self.slots[source].cells[:ready]
        slot.job, job.slot, job.computed, job.fresh = job, row, ready, len(job.prompt) - ready
        self._clock += 1
        slot.used = self._clock
        if job.grammar is not None:
            job.matcher = self.model.matcher(job.grammar)
        if job.temperature > 0:
            job.random = np.random.default_rng(job.seed)
        return True

    def _make_room(self, need: int, free: Sequence[Slot], ready: int, source: int) -> bool:
        """Forget idle prompts until `need` cells are free; the one that is shared from goes last, and only in part."""
        reserved = sum(
            len(slot.job.prompt) - slot.job.computed + slot.job.needs() for slot in self.slots if slot.job is not None
        )
        idle = sorted((slot for slot in free if len(slot.tokens)), key=lambda slot: slot.used)
        while self._used() + reserved + need > self.model.cells:
            victim = next((slot for slot in idle if source < 0 or slot is not self.slots[source]), None)
            if victim is None:
                if len(free) < len(self.slots) or source < 0:
                    return False
                # Alone, and the prefix that it would share sits in a longer prompt: cut that one down.
                self._cut(source, ready)
                return self._used() + need <= self.model.cells
            idle.remove(victim)
            self._cut(self.slots.index(victim), 0)
        return True

    def _close_ranks(self, active: Sequence[Job]) -> None:
        """Move the last sequences into gaps between others that finished ones left: one pass takes neighbours only.

        A pass over 2 to 4 sequences takes as long as one over 6 to 8.
        """
        first = min(job.slot for job in active)
        for job in sorted(active, key=lambda job: -job.slot):
            gap = next(row for row in range(first, job.slot + 1) if self.slots[row].job in (None, job))
            if gap == job.slot:
                return
            self._cut(gap, 0)
            self.model.copy(job.slot, gap, job.computed)
            self.model.cut(job.slot, 0)
            self.slots[gap], self.slots[job.slot] = self.slots[job.slot], self.slots[gap]
            job.slot = gap

    def _trim(self, free: Sequence[Slot], waiting: Sequence[Job]) -> None:
        """Cut finished prompts down to what a waiting job shares.

        Attention runs over every cell up to the last one in use: on two cores two histories of 1,600 tokens that nobody
        needed any more cost more than the model's weights (104 tokens a second instead of 280).
        """
        for slot in free:
            if len(slot.tokens) > SHORT:
                self._cut(self.slots.index(slot), max(shared(slot.tokens, job.prompt) for job in waiting))

    def _used(self) -> int:
        """Count distinct cells in use."""
        return len(np.unique(np.concatenate([slot.cells for slot in self.slots])))

    def _cut(self, row: int, end: int) -> None:
        slot = self.slots[row]
        if len(slot.tokens) > end:
            self.model.cut(row, end)
            slot.tokens, slot.cells = slot.tokens[:end], slot.cells[:end]

    def _release(self, job: Job) -> None:
        """Free the slot; keep its prompt for sharing, where that costs others time only among the most recent."""
        slot = self.slots[job.slot]
        slot.job = None
        self._cut(job.slot, len(job.prompt))
        if job.matcher is not None:
            job.matcher.close()
        if self.model.apart:
            return
        idle = sorted((s for s in self.slots if s.job is None and len(s.tokens)), key=lambda s: -s.used)
        for old in idle[RETAINED:]:
            self._cut(self.slots.index(old), 0)

    def _step(self, active: list[Job]) -> list[tuple[Job, str]]:
        """Make one batch of what is due, decode it, hand out the logits."""
        batch: list[Token] = []
        takers: list[tuple[Job, Node | None]] = []
        borrowed: list[int] = []
        texts = [job for job in active if job.answer and job.candidates is None]
        if self.model.apart and any(job.computed < len(job.prompt) for job in active):
            # Prompts and texts are different passes there, and a pass costs least a text when all places are taken.
            texts = []
        self._draft(texts)
        for job in texts:
            tokens = [job.answer[-1], *job.draft]
            batch += [Token(token, job.computed + at, (job.slot,), True) for at, token in enumerate(tokens)]
            takers.append((job, None))
            self._extend(job, tokens)
        for job in active:
            if job.tree is not None:
                self._branches(job, batch, takers, borrowed)
        for job in active:
            left = len(job.prompt) - job.computed
            if left > 0 and len(batch) < BATCH:
                part = job.prompt[job.computed : job.computed + BATCH - len(batch)]
                last = len(part) == left
                batch += [
                    Token(int(token), job.computed + at, (job.slot,), last and at == left - 1)
                    for at, token in enumerate(part)
                ]
                if last:
                    takers.append((job, None))
                self._extend(job, part)
        if self.model.apart:
            # Neighbours in ascending order are one pass. There are no candidates here, so a slot has one taker at most.
            batch.sort(key=lambda token: token.sequences)
            takers.sort(key=lambda taker: taker[0].slot)
        logits = self.model.decode(batch)
        self.decodes += 1
        self.decoded += len(batch)
        for sequence in borrowed:
            self.model.cut(sequence, 0)
        self.scratch += borrowed
        return self._hand_out(active, takers, logits)

    def _draft(self, texts: Sequence[Job]) -> None:
        """Guess how the texts go on, as far as it pays."""
        for job in texts:
            job.guesses = job.guesses or Guesses(np.append(job.prompt, job.answer))
            # Never past the last token that it may write, which need not be computed.
            job.draft = job.guesses.guess(min(MOST, job.room - len(job.answer) - 1))
        count = worthwhile([(job.guesses.rate, len(job.draft)) for job in texts if job.guesses])
        for job in texts:
            job.draft = job.draft[:count]
            if self.model.apart:
                # One pass has as many rows of each sequence: where a guess is missing, any token stands in.
                missing = min(count, job.room - len(job.answer) - 1) - len(job.draft)
                job.draft += [job.answer[-1]] * missing

    def _extend(self, job: Job, tokens: Sequence[int] | Tokens) -> None:
        slot = self.slots[job.slot]
        slot.tokens = np.concatenate([slot.tokens, np.asarray(tokens, np.int32)])
        slot.cells = np.concatenate([slot.cells, np.arange(self._cell, self._cell + len(tokens))])
        self._cell += len(tokens)
        job.computed += len(tokens)

    def _branches(
        self, job: Job, batch: list[Token], takers: list[tuple[Job, Node | None]], borrowed: list[int]
    ) -> None:
        """Put as many whole branches of a job's candidates into the batch as sequences and tokens allow."""
        tree = job.tree
        assert tree is not None
        end = len(job.prompt)
        while tree.next_branch < len(tree.branches):
            branch = tree.branches[tree.next_branch]
            # One sequence for each path from the branch's top to an inner node that has no inner node below.
            tips = [node for node in branch if not any(child.nexts for child in node.nexts.values())]
            if len(batch) + len(branch) > BATCH or len(tips) > len(self.scratch):
                if len(branch) > BATCH or len(tips) > len(self.scratch) + len(borrowed):
                    tree.branches[tree.next_branch : tree.next_branch + 1] = split(branch, tips)
                    continue
                return
            ids = [self.scratch.pop() for _ in tips]
            borrowed += ids
            for sequence in ids:
                self.model.copy(job.slot, sequence, end)
            owners = {id(tip): sequence for tip, sequence in zip(tips, ids, strict=True)}
            for node in branch:
                sequences = tuple(owners[id(tip)] for tip in tips if above(node, tip))
                batch.append(Token(node.token, end + node.depth, sequences, True))
                takers.append((job, node))
            tree.next_branch += 1

    def _hand_out(
        self, active: list[Job], takers: list[tuple[Job, Node | None]], logits: Logits
    ) -> list[tuple[Job, str]]:
        done: list[tuple[Job, str]] = []
        nodes: dict[int, tuple[list[Node], list[int]]] = {}
        rows = 0
        for job, node in takers:
            row, rows = rows, rows + 1 + len(job.draft)
            if node is not None:
                found = nodes.setdefault(id(job), ([], []))
                found[0].append(node)
                found[1].append(row)
            elif job.candidates is not None:
                job.tree = Tree(job.candidates)
                job.tree.observe([job.tree.root], logits[row : row + 1])
            else:
                how = self._write(job, logits[row:rows])
                if how:
                    done.append((job, how))
        for job in active:
            if job.tree is None:
                continue
            if id(job) in nodes:
                job.tree.observe(nodes[id(job)][0], logits[nodes[id(job)][1][0] : nodes[id(job)][1][-1] + 1])
            if job.tree.next_branch >= len(job.tree.branches):
                done.append((job, "score"))
        return done

    def _write(self, job: Job, logits: Logits) -> str:
        """Choose the next token, and more as long as the guesses are what was chosen; return how the answer ended."""
        draft, job.draft = job.draft, []
        for at, row in enumerate(logits):
            how = sample(self.model, job, row)
            if how:
                return how
            if job.guesses is not None:
                job.guesses.add(job.answer[-1])
            if at == len(draft) or job.answer[-1] != draft[at]:
                # What was computed after a wrong guess is void.
                job.computed -= len(draft) - at
                self._cut(job.slot, job.computed)
                break
        return ""


def _due(job: Job) -> int:
    """Count tokens that a job could put into the next batch."""
    left = len(job.prompt) - job.computed
    if job.tree is not None:
        return sum(len(branch) for branch in job.tree.branches[job.tree.next_branch :])
    return left if left > 0 else 1
