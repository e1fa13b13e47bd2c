"""A run without its answers: what would be asked, counted to the token, and about how long the answers would take.

`Planned` stands where the engine stands. What the ledger knows it answers from there; for the rest it makes up answers
by chance and by the scripted engine's rule, and counts them. How many requests later stages make depends on earlier
answers, so a share of the made-up texts is empty, as a model's texts are refused by the checkers: the share of the
ledger's own texts of that stage, or else the demo's.

Speed comes from the ledger, where this model has answered this stage before. Else a few of the very requests are timed
on the real model, some seconds for each kind, and their answers thrown away: what a token costs depends on how long
the prompts are, how many share a beginning and how many are worked on together, so no constant would hold.
"""

from __future__ import annotations

import copy
import hashlib
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
from recgpt.llm.reader import Reader
from recgpt.llm.store import Spent
from recgpt.llm.tokenizer import Tokenizer
from recgpt.llm.wire import digest

PASSING = {"interests": 0.5, "tags": 0.42, "explanations": 0.08}
"""Share of first texts that the checkers let through, where the ledger does not tell: as in the demo with a 135M model
(for tags 278 of 662, for explanations 4 of 48), else half."""
NAMED = 0.3
"""Nats by which a made-up score grows with the logarithm of how often the prompt names words of the candidate. With
chance alone a plan of the demo had 33 interests instead of 50, for want of evidence; with this 49."""
ANSWERED = {"interests": 0.55, "tags": 0.37, "explanations": 0.25}
"""Tokens of a free text as a share of what it was allowed, in the demo; used where neither ledger nor sample tells."""
ANSWERED_JSON = 0.6
"""The same under a schema; not measured, a capable model fills most of its room."""
DECODING = 4.0
"""A token that is written costs as much time as so many tokens that are read: measured on a CPU, 16 texts at once."""

SAMPLE = {"score": 4000.0, "generate": 1500.0}
"""Effort of a timed sample: some seconds on two slow cores. Whoever scores reads long histories, and what one costs
depends on its neighbors in the cache: with one user in the sample, half of the time was foreseen."""
PART = 0.25
"""Most of a call that a sample takes: where there is little to do, knowing how long it takes is worth little."""

_BEGINNING = re.compile(r"\b[a-z]{4}")
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


@dataclass
class Sampled:
    """What was asked of the real model to time it."""

    rows: int = 0
    seconds: float = 0.0
    answered: dict[str, float] = field(default_factory=dict)
    """By stage, tokens of free texts as a share of what they were allowed."""
    kept: list[Tokens] = field(default_factory=list)
    """The latest prompts that the model's cache holds."""
    rates: dict[tuple[str, str], float] = field(default_factory=dict)
    """By stage and kind, seconds a unit of effort."""


class Planned:
    """Stands in for `Recorded`: same answers where they are known, made-up ones where not, and a tally by stage."""

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        *,
        tokenizer: Tokenizer | None,
        sample: bool = False,
        known: bool = True,
    ) -> None:
        """Take the engine that would answer and the ledger's folder; nothing is written there.

        Args:
            engine: gives its name, and is timed if `sample`; closed with this one.
            folder: of the ledger; need not exist.
            tokenizer: the model's own; None counts words, as the scripted engine does.
            sample: ask the engine a little where the ledger does not tell how fast it is; else the seconds of such
                stages are 0.
            known: whether answers of the ledger count; its rates do in any case.
        """
        self.engine = engine
        self.name, self.context_tokens = engine.name, engine.context_tokens
        self.stages: dict[str, Tally] = {}
        self.sampled = Sampled()
        self._reader = Reader(folder, tries=TRIES)
        self._tokenizer = tokenizer
        self._fake = FakeEngine(self._answer, _score, tokenizer=tokenizer, context_tokens=1 << 40)
        self._passing = PASSING | self._reader.passing(self.name)
        self._chat = _chat(tokenizer) if tokenizer is not None and tokenizer.chat_template else None
        self._sample = sample
        self._use = known
        self._kept: list[Tokens] = []
        """The latest prompts, which the engine's cache would still hold."""

    @property
    def calls(self) -> int:
        """Distinct requests that would be passed to the engine."""
        return sum(tally.rows - tally.reused for tally in self.stages.values())

    @property
    def reused(self) -> int:
        """Distinct requests that the ledger has already."""
        return sum(tally.reused for tally in self.stages.values())

    def with_engine(self, engine: Engine) -> Planned:
        """Return a view of this one for the engine with an adapter: its own rows in the ledger, the same tally."""
        view = copy.copy(self)
        # An adapter shares no prefix with the model's own.
        view.engine, view.name, view._kept = engine, engine.name, []
        view._passing = PASSING | self._reader.passing(engine.name)
        view._fake = FakeEngine(view._answer, _score, tokenizer=self._tokenizer, context_tokens=1 << 40)
        return view

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
        """Close ledger and engine."""
        self._reader.close()
        self.engine.close()

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
        asked = list(new.values())
        self._count(asked)
        found.update(zip(new, ask(asked), strict=True))
        if requests:
            self._tally(requests[0]).busy += time.monotonic() - begin
        return [found[key] for key in keys]

    def _answer(self, request: Request) -> str | Result:
        """Script an answer, or an empty text that no checker lets through; which, only the request decides."""
        prompt = f"{request.prompt.user}\n{request.seed}".encode("utf-8", "replace")
        draw = int.from_bytes(hashlib.sha256(prompt).digest()[:4])
        if request.schema is None and draw % 1000 >= 1000 * self._passing.get(stage_of(request), 0.5):
            return ""
        (scripted,) = FakeEngine(context_tokens=1 << 40).generate([request])
        return replace(scripted, status="ok", reason="") if request.schema is None else scripted

    def _tally(self, request: Request | ScoreRequest) -> Tally:
        return self.stages.setdefault(stage_of(request), Tally())

    def _count(self, requests: Sequence[_Request]) -> None:
        """Count tokens, and foresee the seconds of each stage and kind."""
        parts: dict[tuple[str, str], list[_Request]] = {}
        for request in requests:
            kind = "score" if isinstance(request, ScoreRequest) else "generate"
            parts.setdefault((stage_of(request), kind), []).append(request)
        for (stage, kind), part in parts.items():
            rate = self._known_rate(stage, kind)
            if rate is None:
                rate = self._sampled_rate(stage, part)
            tally = self.stages[stage]
            prompts = [self._encode(request.prompt) for request in part]
            computed = self._computed(prompts, self._kept)
            answered = [self._expected(request) for request in part]
            tally.prompt_tokens += sum(map(len, prompts))
            tally.computed_tokens += sum(computed)
            tally.answer_tokens += round(sum(answered))
            tally.seconds += rate * effort(kind, sum(computed), sum(answered))

    def _computed(self, prompts: Sequence[Tokens], kept: list[Tokens]) -> list[int]:
        """Count what is computed of each prompt, in the order in which the scheduler takes them; `kept` moves on."""
        counts = [0] * len(prompts)
        for at in sorted(range(len(prompts)), key=lambda at: prompts[at].tolist()):
            tokens = prompts[at]
            counts[at] = len(tokens) - max((shared(tokens[:-1], old) for old in kept), default=0)
            kept[:] = [tokens, *kept[:RETAINED]]
        return counts

    def _sampled_rate(self, stage: str, requests: Sequence[_Request]) -> float:
        """Time some of these requests on the real model, once a stage and kind; 0 if it may not be asked."""
        kind = "score" if isinstance(requests[0], ScoreRequest) else "generate"
        if not self._sample:
            return 0.0
        if (stage, kind) in self.sampled.rates:
            return self.sampled.rates[stage, kind]
        begin = time.monotonic()
        if not self.sampled.rows:
            self.engine.count_tokens(["loaded"])
            self.stages[stage].seconds += time.monotonic() - begin
        prompts = [self._encode(request.prompt) for request in requests]
        pairs = zip(self._computed(prompts, []), map(self._expected, requests), strict=True)
        costs = [effort(kind, *pair) for pair in pairs]
        part = _middle(costs, min(SAMPLE[kind], PART * sum(costs)))
        began = time.monotonic()
        answers = self._asked(requests[part])
        seconds = time.monotonic() - began
        answered = sum(answer.usage.answer_tokens for answer in answers)
        if kind == "generate" and answered:
            self.sampled.answered[stage] = answered / sum(map(_room, requests[part]))
        own = self._computed(prompts[part], self.sampled.kept)
        rate = seconds / effort(kind, sum(own), sum(map(self._expected, requests[part])))
        self.sampled.rates[stage, kind] = rate
        self.sampled.rows += len(answers)
        self.sampled.seconds += time.monotonic() - begin
        return rate

    def _asked(self, part: Sequence[Any]) -> Sequence[Result | ScoreResult]:
        return self.engine.score(part) if isinstance(part[0], ScoreRequest) else self.engine.generate(part)

    def _encode(self, prompt: Prompt) -> Tokens:
        if self._chat is not None:
            return np.array(self._chat.encode(prompt), np.int32)
        whole = f"{prompt.system}\n{prompt.user}\n{prompt.answer}"
        if self._tokenizer is not None:
            return self._tokenizer.encode(whole).astype(np.int32)
        return np.array([hash(word) & 0x7FFFFFFF for word in re.findall(r"\w+|[^\w\s]", whole)], np.int32)

    def _expected(self, request: _Request) -> float:
        """Tokens of candidates; or those that a text will have: the stage's own share of its room so far, else that of
        the sample, else the stated one.
        """
        if isinstance(request, ScoreRequest):
            return float(sum(self.count_tokens(request.candidates)))
        room, stage = _room(request), stage_of(request)
        own = [s for s in self._known() if s.stage == stage and s.kind == "generate" and s.room]
        if own:
            return room * sum(s.answered for s in own) / sum(s.room for s in own)
        if stage in self.sampled.answered:
            return room * self.sampled.answered[stage]
        return room * (ANSWERED_JSON if request.schema is not None else ANSWERED.get(stage, 0.5))

    def _known(self) -> list[Spent]:
        return [spent for spent in self._reader.spent() if spent.engine == self.name]

    def _known_rate(self, stage: str, kind: str) -> float | None:
        """Seconds a unit of effort, as this stage had them in the ledger; None if it had none."""
        rates = [spent for spent in self._known() if (spent.stage, spent.kind) == (stage, kind)]
        whole = sum(effort(kind, spent.computed, spent.answered) for spent in rates)
        return sum(spent.seconds for spent in rates) / whole if whole else None


def effort(kind: str, computed: float, answered: float) -> float:
    """Weigh tokens by the time they take, in tokens that are read."""
    return computed + answered * (1.0 if kind == "score" else DECODING)


def _middle(costs: Sequence[float], most: float) -> slice:
    """Take neighbors around the middle whose costs add up to `most` at most, one at least.

    >>> _middle([1.0] * 10, 4.0)
    slice(3, 7, None)
    """
    middle, spent = len(costs) // 2, 0.0
    taken: list[int] = []
    for at in sorted(range(len(costs)), key=lambda at: abs(at - middle)):
        if taken and spent + costs[at] > most:
            break
        spent += costs[at]
        taken.append(at)
    return slice(min(taken), max(taken) + 1)


def _room(request: Request | ScoreRequest) -> int:
    """Most tokens that a text may have."""
    if isinstance(request, ScoreRequest):
        return 0
    return request.max_tokens + grammar.reasoning_tokens(request.schema)


def _score(request: ScoreRequest) -> list[float]:
    """Scores by chance, a nat's worth, and by what the prompt names (`NAMED`): without a row that names it a candidate
    loses, or no row would be evidence but by chance.
    """
    prompt = hashlib.sha256(f"{request.prompt.system}\n{request.prompt.user}".encode("utf-8", "replace"))
    named = Counter(_beginnings(request.prompt.user))
    scores = []
    for candidate in request.candidates:
        draw = prompt.copy()
        draw.update(candidate.encode("utf-8", "replace"))
        shown = sum(named[word] for word in set(_beginnings(candidate)))
        scores.append(-1.0 - int.from_bytes(draw.digest()[:4]) / (1 << 32) + NAMED * math.log1p(shown))
    return scores


def _beginnings(text: str) -> list[str]:
    """First four letters of each word that has as many, so that "candle" and "candles" do not differ."""
    return _BEGINNING.findall(text.lower())


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
