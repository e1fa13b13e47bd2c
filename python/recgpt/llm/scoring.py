"""One score request at a server that forces one token at a time: the tree of its candidates, and what came back."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from recgpt.llm.engine import ScoreResult, Usage

Step = tuple[int, ...]
"""A candidate's first tokens: the last one is scored after the others."""


class Scoring:
    """Collects the log-probabilities of all steps; steps that candidates share are asked once."""

    def __init__(self, prompt: Sequence[int], candidates: Sequence[Sequence[int]], reason: str = "") -> None:
        self.prompt = list(prompt)
        self.candidates = [tuple(candidate) for candidate in candidates]
        self.reason = reason
        empty = [row for row, candidate in enumerate(self.candidates) if not candidate]
        if not self.candidates and not reason:
            self.reason = "schema: a request needs candidates"
        elif empty:
            self.reason = f"schema: candidate {empty[0]} is an empty text"
        self.steps: list[Step] = []
        """Sorted, so that what begins alike is asked one after another."""
        if not self.reason:
            self.steps = sorted({one[:end] for one in self.candidates for end in range(1, len(one) + 1)})
        self._left = len(self.steps)
        self._found: dict[Step, float] = {}
        self._computed = 0

    def take(self, step: Step, found: tuple[float, int] | str) -> bool:
        """Keep what came of a step, or the reason why nothing did; tell whether it was the last one."""
        if isinstance(found, str):
            self.reason = self.reason or found
        else:
            self._found[step] = found[0]
            self._computed += found[1]
        self._left -= 1
        return self._left == 0

    def result(self) -> ScoreResult:
        """Add up."""
        tokens = tuple(map(len, self.candidates))
        usage = Usage(len(self.prompt), self._computed, sum(tokens) if self.steps else 0)
        reason = self.reason or self._absurd()
        if reason:
            return ScoreResult("unscored", reason=reason, usage=usage)
        totals = tuple(math.fsum(self._found[one[:end]] for end in range(1, len(one) + 1)) for one in self.candidates)
        return ScoreResult("ok", totals, tokens, usage=usage)

    def _absurd(self) -> str:
        """Look for siblings whose probabilities exceed 1: a server that reports what its own samplers left over."""
        sums: dict[Step, float] = defaultdict(float)
        for step, logprob in self._found.items():
            sums[step[:-1]] += math.exp(logprob)
        if any(total > 1.01 for total in sums.values()):
            return "engine: the server's probabilities exceed 1: it must report the model's own (raw logprobs)"
        return ""
