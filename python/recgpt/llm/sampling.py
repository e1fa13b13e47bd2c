"""Chooses the next token of a text: greedily or by chance, within a grammar, and tells how a text ended."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from recgpt.llm.candidates import Logits

Tokens = npt.NDArray[np.int32]

TOPS = (48, 1024, 8192)
"""Tokens tried against a grammar, best first, before the whole vocabulary is masked. That takes 7.5 ms of CPU for
49,152 tokens; of interest mining's tokens every seventh is none of the best 48, every 70th none of the best 8,192."""
_THINKING = re.compile(rb'\{"reasoning": ?"(?:[^"\\]|\\.)*\\?', re.S)
"""An answer that is still within its reasoning."""


class Matcher(Protocol):
    """One grammar's state in one sequence."""

    def allowed(self, tokens: Tokens) -> Tokens:
        """Return those of `tokens` that may come next, in the given order."""

    def accept(self, token: int) -> None:
        """Advance by an allowed token."""

    def close(self) -> None:
        """Free the state."""


class Chooser(Protocol):
    """What choosing needs of a model."""

    control: Tokens

    def is_end(self, token: int) -> bool:
        """Tell whether a token ends the turn."""

    def piece(self, token: int) -> bytes:
        """Decode one token."""


class Sampled(Protocol):
    """What choosing needs of a job, and changes of it: `answer` and `raw`."""

    room: int
    stop: tuple[str, ...]
    temperature: float
    thoughts: int
    quote: int
    matcher: Matcher | None
    random: np.random.Generator | None
    answer: list[int]
    raw: bytes


def sample(model: Chooser, job: Sampled, logits: Logits) -> str:
    """Choose the next token; return how the answer ended, or nothing."""
    scores = logits.astype(np.float64) if job.random is not None else logits.copy()
    if job.random is not None:
        # The largest of logits/T + Gumbel noise is an exact sample, and stays one when a grammar strikes tokens.
        scores = scores / job.temperature + job.random.gumbel(size=len(scores))
    scores[model.control] = -np.inf
    token = int(scores.argmax())
    if job.matcher is not None:
        if 0 < job.thoughts <= len(job.answer) and _THINKING.fullmatch(job.raw):
            # Not allowed within a character of several tokens: then at the next step.
            token = next(iter(job.matcher.allowed(np.array([job.quote], np.int32)).tolist()), token)
        chosen = _allowed(job.matcher, scores, token)
        if chosen is None:
            return "end"
        token = chosen
    if model.is_end(token):
        return "end"
    if job.matcher is not None:
        job.matcher.accept(token)
    job.answer.append(token)
    job.raw += model.piece(token)
    if job.stop:
        text = job.raw.decode("utf-8", "replace")
        found = [at for at in (text.find(stop) for stop in job.stop) if at >= 0]
        if found:
            job.raw = text[: min(found)].encode("utf-8", "replace")
            return "stop"
    return "length" if len(job.answer) >= job.room else ""


def _allowed(matcher: Matcher, scores: npt.NDArray[np.floating], best: int) -> int | None:
    """Return the best token that the grammar allows: first the best, then more and more, then all."""
    if len(matcher.allowed(np.array([best], np.int32))):
        return best
    size = len(scores)
    tops = [0, *(top for top in TOPS if top < size), size]
    # One pass puts the best few, the next thousand and so on beside each other; each is asked about once.
    order = np.argpartition(scores, [size - top for top in tops[1:]]).astype(np.int32)
    for before, top in pairwise(tops):
        allowed = matcher.allowed(order[size - top : size - before])
        allowed = allowed[np.isfinite(scores[allowed])]
        if len(allowed):
            return int(allowed[scores[allowed].argmax()])
    return None
