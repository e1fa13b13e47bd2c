"""An engine that remembers what it was asked and what came of it: a stage's own prompts, ready to be learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from recgpt.llm.engine import Engine, Progress, Request, Result, ScoreRequest, ScoreResult


class Recording:
    """Passes everything on to `engine`, and keeps it.

    The prompts of a stage come from running the stage, never from a second piece of code that writes them; so training
    sees the tokens that serving sees.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name, self.context_tokens = engine.name, engine.context_tokens
        self.written: list[tuple[Request, Result]] = []
        """Texts, in the order of the questions."""
        self.scored: list[tuple[ScoreRequest, ScoreResult]] = []
        """Scores, likewise."""

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        """Answer every request; results in the order of the requests."""
        results = self.engine.generate(requests, progress)
        self.written += zip(requests, results, strict=True)
        return results

    def score(self, requests: Sequence[ScoreRequest], progress: Progress | None = None) -> list[ScoreResult]:
        """Score every request's candidates; results in the order of the requests."""
        results = self.engine.score(requests, progress)
        self.scored += zip(requests, results, strict=True)
        return results

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of plain texts."""
        return self.engine.count_tokens(texts)

    def close(self) -> None:
        """Free the model."""
        self.engine.close()


class Trying:
    """Asks `engine` for other answers than the first ones: sampled, from seeds of their own. Scores stay the same."""

    def __init__(self, engine: Engine, *, temperature: float, seed: int) -> None:
        self.engine, self.temperature, self.seed = engine, temperature, seed
        self.name, self.context_tokens = engine.name, engine.context_tokens

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        """Answer every request; results in the order of the requests."""
        other = [
            replace(one, temperature=max(one.temperature, self.temperature), seed=one.seed + self.seed)
            for one in requests
        ]
        return self.engine.generate(other, progress)

    def score(self, requests: Sequence[ScoreRequest], progress: Progress | None = None) -> list[ScoreResult]:
        """Score every request's candidates; results in the order of the requests."""
        return self.engine.score(requests, progress)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of plain texts."""
        return self.engine.count_tokens(texts)

    def close(self) -> None:
        """Free the model."""
        self.engine.close()
