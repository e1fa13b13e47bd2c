"""The KV caches of one model, and which of them a call takes: one that requests share, or cells apart for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from recgpt.llm.batch import Scheduler
from recgpt.llm.context import PADDING, Context
from recgpt.llm.jobs import Job, crowding

FOLDS = 4.0
"""Above this `crowding` texts are written apart. A foreign cell costs a fourth of an own one, because sequences that
lie together are multiplied at once: .0025 and .011 ms a cell and token (one thread, SmolLM2-135M, 16 sequences)."""
ROOM = 16
"""The cache apart has room for so many requests of the longest kind, and for more shorter ones. From 16 sequences on a
CPU is not faster (16, 32 and 48 wrote 208, 205 and 210 tokens a second), but the end of a call, when few are left, is
shorter."""
FEWEST = 4


class Make(Protocol):
    """Makes a context, with the settings that all of a model's share."""

    def __call__(self, *, cells: int, sequences: int = ..., apart: bool = ...) -> Context:
        """Allocate a cache."""


class Caches:
    """Schedulers by kind of cache. The one apart is made when a call first asks for it, as long as that call needs."""

    def __init__(self, make: Make, memory: Callable[[], int], *, cells: int, sequences: int, longest: int) -> None:
        """Allocate the shared cache.

        Args:
            make: Makes a context.
            memory: Tells how many bytes this process holds.
            cells: Cells of the shared cache.
            sequences: Most requests in work at once.
            longest: Most tokens of a request, answer included.
        """
        self._make = make
        self._memory = memory
        self._sequences = sequences
        self._room = ROOM * longest
        self._together = Scheduler(make(cells=cells), slots=sequences)
        self._apart: Scheduler | None = None
        self._longest = 0
        self._adapter = ""
        self._decodes = self._decoded = 0
        self.added = 0
        """Bytes of the cache apart: no leak, though the process grew by them after it had begun."""

    @property
    def cells(self) -> int:
        """Cells of the shared cache."""
        return self._together.model.cells

    @property
    def decodes(self) -> int:
        """Batches so far."""
        return self._decodes + self._together.decodes + (self._apart.decodes if self._apart else 0)

    @property
    def decoded(self) -> int:
        """Tokens in them."""
        return self._decoded + self._together.decoded + (self._apart.decoded if self._apart else 0)

    def adapt(self, adapter: str) -> None:
        """Change the LoRA adapter; what was computed with another one is forgotten."""
        if adapter != self._adapter:
            for scheduler in filter(None, (self._together, self._apart)):
                scheduler.adapt(adapter)
            self._adapter = adapter

    def choose(self, jobs: Sequence[Job]) -> Scheduler:
        """Return the scheduler that these jobs run fastest on. Candidates branch, which only shared cells can do."""
        if any(job.candidates is not None for job in jobs):
            return self._together
        if crowding([job.prompt for job in jobs], self._sequences) <= FOLDS:
            return self._together
        longest = max(len(job.prompt) + job.room for job in jobs)
        if self._apart is None or longest > self._longest:
            self._allocate(-(-longest // PADDING) * PADDING)
        return self._apart or self._together

    def _allocate(self, cells: int) -> None:
        """Make the cache apart anew, with fewer sequences where memory is short; none where it is very short."""
        before = self._memory() - self.added
        if self._apart is not None:
            self._decodes, self._decoded = self._decodes + self._apart.decodes, self._decoded + self._apart.decoded
            self._apart.model.close()
            self._apart = None
        streams = min(self._sequences, max(FEWEST, self._room // cells))
        while self._apart is None and streams >= FEWEST:
            try:
                self._apart = Scheduler(self._make(cells=cells, sequences=streams, apart=True), slots=streams)
            except RuntimeError:
                streams //= 2
        if self._apart is not None:
            # Outside of the try: texts without their adapter would be another model's.
            self._apart.adapt(self._adapter)
        self._longest = cells
        self.added = self._memory() - before
