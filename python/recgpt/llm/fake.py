"""A scripted engine for tests and for the tiny pipeline: no model, the same protocol, the same checks."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recgpt.errors import EngineError
from recgpt.llm import grammar
from recgpt.llm.adapters import adapter_file
from recgpt.llm.answers import judged
from recgpt.llm.engine import Progress, Request, Result, ScoreRequest, ScoreResult, Usage
from recgpt.llm.tokenizer import Tokenizer

_WORD = re.compile(r"\w+|[^\w\s]")
_LETTERS = re.compile(r"[^\W\d_]+")
_FENCED = re.compile(r"<<<\S+\n(.*?)\n\S+>>>", re.S)
_IDLE = (["as", "well"], ["for", "the", "household"], ["and", "others"], ["and", "other", "things"], ["for", "them"])
"""Ends of the default free text: words that state no fact, which the checkers of reasons and explanations allow."""


class FakeEngine:
    """Answers from a queue, from functions, or by a stated rule; its `name` begins with `fake`.

    Without a script, a candidate's log-probability rises with the share of its words that the prompt contains and how
    often it does, free text is the end of a line of the prompt's data, without what the answer begins with, and an
    idle "as well", and JSON is the smallest instance of the schema.

    >>> from recgpt.llm.engine import Prompt
    >>> engine = FakeEngine()
    >>> engine.enqueue("tea")
    >>> engine.generate([Request(Prompt("Name a drink.", "breakfast"), max_tokens=5)])[0].text
    'tea'
    """

    def __init__(
        self,
        answer: Callable[[Request], str | Result] | None = None,
        scorer: Callable[[ScoreRequest], Sequence[float] | ScoreResult] | None = None,
        *,
        tokenizer: Tokenizer | None = None,
        context_tokens: int = 4096,
        name: str = "fake",
    ) -> None:
        """Take functions that answer; None is the rule above. Without a tokenizer, words and marks count as tokens."""
        self.name = name if name.startswith("fake") else f"fake/{name}"
        self.context_tokens = context_tokens
        self.requests: list[Request | ScoreRequest] = []
        """Every request so far."""
        self._answer = answer or _answer
        self._scorer = scorer or _score
        self._tokenizer = tokenizer
        self._answers: deque[str | Result | Exception] = deque()
        self._scores: deque[Sequence[float] | ScoreResult | Exception] = deque()

    def enqueue(self, *answers: str | Result | Exception) -> None:
        """Script the next answers of `generate`; an exception is raised there."""
        self._answers.extend(answers)

    def enqueue_scores(self, *scores: Sequence[float] | ScoreResult | Exception) -> None:
        """Script the next log-probabilities of `score`."""
        self._scores.extend(scores)

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        """Answer every request; results in the order of the requests."""
        results = []
        for request in requests:
            self.requests.append(request)
            scripted = self._answers.popleft() if self._answers else self._answer(request)
            if isinstance(scripted, Exception):
                raise scripted
            results.append(scripted if isinstance(scripted, Result) else self._result(request, scripted))
            if progress is not None:
                progress(len(results), len(requests))
        return results

    def score(self, requests: Sequence[ScoreRequest], progress: Progress | None = None) -> list[ScoreResult]:
        """Score every request's candidates; results in the order of the requests."""
        results = []
        for request in requests:
            self.requests.append(request)
            scripted = self._scores.popleft() if self._scores else self._scorer(request)
            if isinstance(scripted, Exception):
                raise scripted
            if not isinstance(scripted, ScoreResult):
                if len(scripted) != len(request.candidates):
                    raise EngineError(
                        f"{len(request.candidates)} log-probabilities were scripted for, not {len(scripted)}"
                    )
                tokens = tuple(max(1, count) for count in self.count_tokens(request.candidates))
                usage = Usage(self._prompt(request), self._prompt(request), sum(tokens))
                scripted = ScoreResult("ok", tuple(map(float, scripted)), tokens, usage=usage)
            results.append(scripted)
            if progress is not None:
                progress(len(results), len(requests))
        return results

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of plain texts."""
        if self._tokenizer is not None:
            return [int(count) for count in self._tokenizer.count(texts)]
        return [len(_WORD.findall(text)) for text in texts]

    def adapted(self, adapter: str) -> FakeEngine:
        """Return this engine under a name that holds the adapter's digest; it answers as before.

        Raises:
            ModelNotFoundError: there is no GGUF file at `adapter`.
        """
        path, digest = adapter_file(adapter)
        view = copy.copy(self)
        view.name = f"{self.name},adapter={path.name}/{digest[:16]}"
        return view

    def close(self) -> None:
        """Do nothing: there is no model."""

    def _prompt(self, request: Request | ScoreRequest) -> int:
        prompt = request.prompt
        return sum(self.count_tokens([prompt.system, prompt.user, prompt.answer]))

    def _result(self, request: Request, text: str) -> Result:
        """Cut, stop and validate a text as a real engine does."""
        for stop in request.stop:
            text = text.partition(stop)[0]
        room = request.max_tokens + grammar.reasoning_tokens(request.schema)
        (count,) = self.count_tokens([text])
        usage = Usage(self._prompt(request), self._prompt(request), min(count, room))
        if usage.prompt_tokens + room > self.context_tokens:
            return Result("unscored", "", None, f"length: the prompt has {usage.prompt_tokens} tokens", usage)
        return judged(text, request, usage, cut=count > room)


def _answer(request: Request) -> str:
    user = request.prompt.user.lower()
    if request.schema is not None:
        words = _LETTERS.findall(user) or ["nothing"]
        return json.dumps(_instance(request.schema, words, request.seed), ensure_ascii=False)
    # The data a real model would speak of: one line of the last fenced block, else the last line.
    blocks = _FENCED.findall(user)
    lines = blocks[-1].split("\n") if blocks else user.strip().split("\n")[-1:]
    draw = int.from_bytes(hashlib.sha256(f"{user}\n{request.seed}".encode("utf-8", "replace")).digest()[:4])
    begun = set(_LETTERS.findall(request.prompt.answer.lower()))
    words = [word for word in _LETTERS.findall(lines[draw % len(lines)])[-2:] or ["nothing"] if word not in begun]
    return " ".join([*words, *_IDLE[draw % len(_IDLE)]][: max(1, request.max_tokens)])


def _instance(schema: Mapping[str, Any], words: list[str], seed: int) -> Any:
    if "enum" in schema:
        return schema["enum"][seed % len(schema["enum"])]
    kind = schema["type"]
    if kind == "object":
        return {name: _instance(child, words, seed) for name, child in schema["properties"].items()}
    if kind == "array":
        return [_instance(schema["items"], words, seed + at) for at in range(max(1, schema.get("minItems", 0)))]
    if kind == "string":
        return words[seed % len(words)].ljust(schema.get("minLength", 0), "a")[: schema["maxLength"]]
    return schema["minimum"] if kind == "integer" else True


def _score(request: ScoreRequest) -> list[float]:
    prompt = Counter(_WORD.findall(f"{request.prompt.system} {request.prompt.user}".lower()))
    scores = []
    for candidate in request.candidates:
        words = _WORD.findall(candidate.lower()) or [""]
        overlap = sum(math.log1p(prompt[word]) for word in words) / len(words)
        # A hash breaks ties in a way that is stable between runs and fair between candidates.
        tie = hashlib.sha256(candidate.encode("utf-8", "replace")).digest()[0] / 25600
        scores.append(-len(words) * (4.0 / (1.0 + overlap) + tie))
    return scores
