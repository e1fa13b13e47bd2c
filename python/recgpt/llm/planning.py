"""A run without the model: what would be asked, counted to the token, and about how long the answers would take.

`Planned` stands where the engine stands. What the ledger knows it answers from there; for the rest it makes up answers
by the scripted engine's rule and counts them. How many requests later stages make depends on earlier answers, so a
share of the made-up texts is empty, as a model's texts are refused by the checkers.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from recgpt.llm import grammar
from recgpt.llm.batch import RETAINED
from recgpt.llm.chat import Chat
from recgpt.llm.engine import Engine, Progress, Prompt, Request, Result, ScoreRequest, ScoreResult
from recgpt.llm.fake import FakeEngine
from recgpt.llm.jobs import Tokens, shared
from recgpt.llm.ledger import TRIES, stage_of
from recgpt.llm.store import Reader, Spent
from recgpt.llm.tokenizer import Tokenizer
from recgpt.llm.wire import digest

PASSING = 0.5
"""Share of free texts that the checkers let through; an assumption, not a measurement."""
ANSWERED = {"interests": 0.52, "tags": 0.37, "explanations": 0.22}
"""Tokens of a free text as a share of what it was allowed, in the demo; used until the ledger has its own figures."""
ANSWERED_JSON = 0.6
"""The same under a schema; not measured, a capable model fills most of its room."""
DECODING = 4.0
"""A token that is written costs as much time as so many tokens that are read: measured on a CPU, 16 texts at once."""

_WORDS = re.compile(r"<\|[^|<>]*\|>|</?s>")
_Request = TypeVar("_Request", Request, ScoreRequest)
_Answer = TypeVar("_Answer", Result, ScoreResult)


@dataclass(slots=True)
class Tally:
    """What one stage would ask."""

    rows: int = 0
    """Distinct requests of each call."""
    reused: int = 0
    """Those that the ledger has."""
    prompt_tokens: int = 0
    """Whole prompts of those that it does not have."""
    computed_tokens: int = 0
    """Their tokens that are not shared."""
    answer_tokens: int = 0
    """Candidates' tokens exactly, texts' as expected."""
    seconds: float = 0.0
    """About how long the model would take; 0 without any rate."""
    busy: float = 0.0
    """Seconds that the counting took, which a real run does not spend."""


class Planned:
    """Stands in for `Recorded`: same answers where they are known, made-up ones where not, and a tally by stage."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        context_tokens: int,
        tokenizer: Tokenizer | None,
        measure: Callable[[], list[Spent]] | None = None,
        known: bool = True,
    ) -> None:
        """Take the engine's name and the ledger's folder; neither is changed.

        Args:
            name: of the engine that would answer.
            folder: of the ledger; need not exist.
            context_tokens: longest prompt plus answer.
            tokenizer: the model's own; None counts words, as the scripted engine does.
            measure: gives rates when the ledger has none for this engine; None leaves the seconds at 0.
            known: whether answers of the ledger count; its rates do in any case.
        """
        self.name, self.context_tokens = name, context_tokens
        self.calls = self.reused = 0
        self.stages: dict[str, Tally] = {}
        self._reader = Reader(folder, tries=TRIES)
        self._tokenizer = tokenizer
        self._fake = FakeEngine(_answer, tokenizer=tokenizer, context_tokens=1 << 40)
        self._chat = _chat(tokenizer) if tokenizer is not None and tokenizer.chat_template else None
        self._measure = measure
        self._use = known
        self._kept: list[Tokens] = []
        """The latest prompts, which the engine's cache would still hold."""
        self._rates: list[Spent] | None = None

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        """Answer every request from the ledger or by rule."""
        return self._plan(requests, self._fake.generate, Result)

    def score(self, requests: Sequence[ScoreRequest], progress: Progress | None = None) -> list[ScoreResult]:
        """Score every request from the ledger or by rule."""
        return self._plan(requests, self._fake.score, ScoreResult)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of plain texts."""
        return self._fake.count_tokens(texts)

    def close(self) -> None:
        """Close the ledger."""
        self._reader.close()

    def _plan(
        self,
        requests: Sequence[_Request],
        ask: Callable[[Sequence[_Request]], list[_Answer]],
        kind: type[_Answer],
    ) -> list[_Answer]:
        begin = time.monotonic()
        keys = [digest(self.name, request) for request in requests]
        found: dict[str, _Answer] = {}
        new: dict[str, _Request] = {}
        for key, request in zip(keys, requests, strict=True):
            if key in found or key in new:
                continue
            known = self._reader.find(key) if self._use else None
            if isinstance(known, kind):
                found[key] = known
                self._tally(request).reused += 1
            else:
                new[key] = request
            self._tally(request).rows += 1
        self.reused += len(found)
        self.calls += len(new)
        asked = list(new.values())
        self._count(asked)
        found.update(zip(new, ask(asked), strict=True))
        if requests:
            self._tally(requests[0]).busy += time.monotonic() - begin
        return [found[key] for key in keys]

    def _tally(self, request: Request | ScoreRequest) -> Tally:
        return self.stages.setdefault(stage_of(request), Tally())

    def _count(self, requests: Sequence[_Request]) -> None:
        """Count tokens: prompts in the order in which the scheduler takes them, each less what it shares."""
        prompts = sorted(((self._encode(request.prompt), at) for at, request in enumerate(requests)), key=_tokens)
        work: dict[tuple[str, str], list[float]] = {}
        for tokens, at in prompts:
            request, tally = requests[at], self._tally(requests[at])
            computed = len(tokens) - max((shared(tokens[:-1], kept) for kept in self._kept), default=0)
            self._kept = [tokens, *self._kept[:RETAINED]]
            if isinstance(request, ScoreRequest):
                kind, answered = "score", float(sum(self.count_tokens(request.candidates)))
            else:
                kind, answered = "generate", self._expected(request)
            tally.prompt_tokens += len(tokens)
            tally.computed_tokens += computed
            tally.answer_tokens += round(answered)
            own = work.setdefault((stage_of(request), kind), [0.0])
            own[0] += effort(kind, computed, answered)
        for (stage, kind), (amount,) in work.items():
            self.stages[stage].seconds += amount * self._seconds_of(stage, kind)

    def _encode(self, prompt: Prompt) -> Tokens:
        if self._chat is not None:
            return np.array(self._chat.encode(prompt), np.int32)
        whole = f"{prompt.system}\n{prompt.user}\n{prompt.answer}"
        if self._tokenizer is not None:
            return self._tokenizer.encode(whole).astype(np.int32)
        return np.array([hash(word) & 0x7FFFFFFF for word in re.findall(r"\w+|[^\w\s]", whole)], np.int32)

    def _expected(self, request: Request) -> float:
        """Tokens that a text will have: the stage's own share of its room so far, else the stated one."""
        room = request.max_tokens + grammar.reasoning_tokens(request.schema)
        stage = stage_of(request)
        own = [s for s in self._known() if s.stage == stage and s.kind == "generate" and s.room]
        if own:
            return room * sum(s.answered for s in own) / sum(s.room for s in own)
        return room * (ANSWERED_JSON if request.schema is not None else ANSWERED.get(stage, 0.5))

    def _known(self) -> list[Spent]:
        return [spent for spent in self._reader.spent() if spent.engine == self.name]

    def _seconds_of(self, stage: str, kind: str) -> float:
        """Seconds a unit of effort: as this stage had them, else any stage, else as measured now."""
        known = [spent for spent in self._known() if spent.kind == kind]
        rates = [spent for spent in known if spent.stage == stage] or known
        if not rates:
            if self._rates is None:
                self._rates = self._measure() if self._measure is not None else []
            rates = [spent for spent in self._rates if spent.kind == kind]
        whole = sum(effort(kind, spent.computed, spent.answered) for spent in rates)
        return sum(spent.seconds for spent in rates) / whole if whole else 0.0


def effort(kind: str, computed: float, answered: float) -> float:
    """Weigh tokens by the time they take, in tokens that are read."""
    return computed + answered * (1.0 if kind == "score" else DECODING)


def measure(engine: Engine) -> list[Spent]:
    """Ask the real engine a little, so that its speed on this machine is known: some seconds once it is loaded."""
    words = ["bread", "milk", "tent", "lantern", "soap", "pencil", "carrot", "yarn", "kettle", "ladder"]

    def text(seed: int, count: int) -> str:
        return " ".join(words[(seed * 7 + at * at) % len(words)] for at in range(count))

    engine.count_tokens(["loaded"])
    scores = [
        ScoreRequest(Prompt("Say what is wanted.", text(n, 400)), tuple(f" {text(k, 2)}" for k in range(20)))
        for n in range(3)
    ]
    texts = [Request(Prompt(f"Say it shortly. {text(0, 100)}", text(n, 20)), 10, seed=n) for n in range(16)]
    spent = []
    for kind, ask in (("score", lambda: engine.score(scores)), ("generate", lambda: engine.generate(texts))):
        begin = time.monotonic()
        answers: Sequence[Any] = ask()
        seconds = time.monotonic() - begin
        computed = sum(answer.usage.computed_tokens for answer in answers)
        answered = sum(answer.usage.answer_tokens for answer in answers)
        spent.append(Spent(engine.name, "", kind, len(answers), computed, answered, 0, seconds))
    return spent


def _answer(request: Request) -> str | Result:
    """The scripted answer, or an empty text that no checker lets through; which, only the request decides."""
    draw = int.from_bytes(
        hashlib.sha256(f"{request.prompt.user}\n{request.seed}".encode("utf-8", "replace")).digest()[:4]
    )
    if request.schema is None and draw % 1000 >= 1000 * PASSING:
        return ""
    (scripted,) = FakeEngine(context_tokens=1 << 40).generate([request])
    return replace(scripted, status="ok", reason="") if request.schema is None else scripted


def _tokens(pair: tuple[Tokens, int]) -> list[int]:
    tokens: list[int] = pair[0].tolist()
    return tokens


def _chat(tokenizer: Tokenizer) -> Chat:
    def tokenize(text: str, *, special: bool) -> list[int]:
        if not special:
            return [int(token) for token in tokenizer.encode(text)]
        # Which number a control token has does not matter for counting, only that it is one token.
        tokens: list[int] = []
        for place, part in enumerate(_WORDS.split(text)):
            tokens += [0] * bool(place) + [int(token) for token in tokenizer.encode(part)]
        return tokens

    return Chat(tokenizer.chat_template, tokenize)
