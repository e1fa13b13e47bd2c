"""What the scheduler works on: requests as tokens, and the sequences of the cache that hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from recgpt.llm.candidates import Tree
from recgpt.llm.drafts import Guesses
from recgpt.llm.sampling import Matcher

Tokens = npt.NDArray[np.int32]

BATCH = 512
"""Most tokens of one pass over the weights."""


@dataclass(eq=False)
class Job:
    """One request in work: `candidates` for a score, otherwise `room` tokens of text."""

    index: int
    prompt: Tokens
    room: int = 0
    grammar: str | None = None
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: tuple[int, ...] = (0,)
    candidates: list[list[int]] | None = None
    adapter: str = ""
    thoughts: int = 0
    """Tokens for a `reasoning` that comes first; where they end, so does it, and the answer keeps its own room."""
    quote: int = -1
    """The token that ends a text in JSON."""

    slot: int = -1
    computed: int = 0
    fresh: int = 0
    matcher: Matcher | None = None
    random: np.random.Generator | None = None
    answer: list[int] = field(default_factory=list)
    raw: bytes = b""
    tree: Tree | None = None
    guesses: Guesses | None = None
    draft: list[int] = field(default_factory=list)
    """Guessed tokens in the batch that is being computed."""

    def needs(self) -> int:
        """Cells that it takes beyond its prompt."""
        if self.candidates is None:
            return self.room
        return min(sum(len(candidate) for candidate in self.candidates), BATCH)


def shared(a: Tokens, b: Tokens) -> int:
    """Return the length of the longest common prefix."""
    size = min(len(a), len(b))
    differs = np.flatnonzero(a[:size] != b[:size])
    return int(differs[0]) if len(differs) else size


def crowding(prompts: Sequence[Tokens], slots: int) -> float:
    """Estimate how many times as many cells as its own each token would look at in a shared cache.

    That many prompts of neighbours, as `Scheduler` takes them, lie there together.
    """
    ordered = sorted(prompts, key=lambda prompt: prompt.tolist())
    total = sum(map(len, ordered))
    fresh = total - sum(shared(a, b) for a, b in pairwise(ordered))
    return 1 + (min(slots, len(ordered)) - 1) * fresh / total


@dataclass(eq=False)
class Slot:
    """One sequence of the cache: the tokens it holds, the cells they lie in, who uses it."""

    tokens: Tokens = field(default_factory=lambda: np.empty(0, np.int32))
    cells: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    job: Job | None = None
    used: int = 0

    def plan(self) -> Tokens:
        """Tokens that it holds or soon will."""
        return self.tokens if self.job is None else self.job.prompt
