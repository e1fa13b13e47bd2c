"""Finished LLM calls, kept exactly once: the same command continues after a kill.

A call is keyed by the SHA-256 of engine name and whole request, so a changed prompt, schema, model or seed is a
new call. Finished answers go to disk a shard at a time (`recgpt.llm.store`); what an interruption loses is asked
again. The model may be asked twice, a result is stored once.

An answer that was cut off, declines, leaks, or is no valid JSON under its schema is asked for again, sampled with
another seed, at most `RETRIES` times; then it is quarantined: stored as unscored with its first text and reason, and
never asked again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from recgpt.llm.engine import Engine, Progress, Request, Result, ScoreRequest, ScoreResult, Usage
from recgpt.llm.reader import Reader, Status
from recgpt.llm.store import Row, Spent, Store
from recgpt.llm.wire import digest, request_to, result_to

RETRIES = 2
"""How often an unusable answer is asked for again, with a different seed."""
TRIES = 1 + RETRIES
"""How often a request that broke the engine is tried, over all runs, before its failure is final."""
RETRY_TEMPERATURE = 0.7
"""Least temperature of a retry: greedy decoding would give the same answer whatever the seed."""
SECONDS = 5.0
"""About how much work an interruption may lose."""

_COUNTERS = frozenset({"calls", "reused", "retried"})
"""Counters of a ledger; those of its views are the same."""
_SEED_STEP = 7919
"""Between the seeds of two tries; stages number their own samples 0, 1, 2, so a prime far from those."""

_Request = TypeVar("_Request", Request, ScoreRequest)
_Answer = TypeVar("_Answer", Result, ScoreResult)


class Recorded:
    """An engine that asks `engine` only what the ledger in `folder` does not know yet."""

    def __init__(self, engine: Engine, folder: str | Path) -> None:
        """Open or make the ledger, and lock it.

        Raises:
            LedgerError: another run holds the lock, or the ledger is damaged, of a newer format or not writable.
        """
        self.engine = engine
        self.name, self.context_tokens = engine.name, engine.context_tokens
        self.calls = 0
        """Distinct requests that were passed to the engine. A double inside one call is asked once and copied."""
        self.reused = 0
        """Distinct requests of each call that the ledger had already; doubles inside a call count neither here."""
        self.retried = 0
        """Requests passed to the engine once more because their answer was unusable."""
        self.folder = Path(folder)
        self._store = Store(self.folder, tries=TRIES)

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        """Answer every request; results in the order of the requests."""
        return self._answer(requests, self._generate, Result, progress, least=32)

    def score(self, requests: Sequence[ScoreRequest], progress: Progress | None = None) -> list[ScoreResult]:
        """Score every request's candidates; results in the order of the requests."""
        return self._answer(requests, self.engine.score, ScoreResult, progress, least=8)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of plain texts."""
        return self.engine.count_tokens(texts)

    def close(self) -> None:
        """Close engine and ledger. Closing twice is allowed."""
        self.engine.close()
        self._store.close()

    def __enter__(self) -> Recorded:
        """Return the engine."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def quarantined(self) -> dict[str, str]:
        """Return digest and reason of the requests that failed `TRIES` times."""
        return self._store.quarantined()

    def apart(self, label: str) -> Recorded:
        """Return a view that knows no answers but those asked for under this label, so that asking can be timed."""
        return View(self, self.engine, label)

    def seconds(self) -> float:
        """Return how long the engine took for all that was kept under this name, all runs together."""
        return self._store.seconds(self.name)

    def _answer(
        self,
        requests: Sequence[_Request],
        ask: Callable[[Sequence[_Request], Progress | None], list[_Answer]],
        kind: type[_Answer],
        progress: Progress | None,
        *,
        least: int,
    ) -> list[_Answer]:
        keys = [digest(self.name, request) for request in requests]
        found: dict[str, _Answer] = {}
        waiting: dict[str, _Request] = {}
        for key, request in zip(keys, requests, strict=True):
            if key in found or key in waiting:
                continue
            known = self._store.find(key)
            if isinstance(known, kind):
                found[key] = known
            else:
                waiting[key] = request
        self.reused += len(found)
        done: int = sum(key in found for key in keys)
        if progress is not None and done:
            progress(done, len(requests))
        stages = dict.fromkeys(map(stage_of, requests))
        self._store.expect([(key, stage_of(request)) for key, request in waiting.items()], stages=stages)

        todo, size = list(waiting.items()), least
        if getattr(self.engine, "hands_over", False):
            # Answers come one by one, so nothing is lost by giving all at once, and no place of a batch stays empty.
            size = len(todo)
        while todo:
            part, todo = todo[:size], todo[size:]

            def inner(count: int, before: int = done) -> None:
                if progress is not None:
                    progress(before + count, len(requests))

            begin = time.monotonic()
            keeper = _Keeper(part, self._keep, inner)
            try:
                answers = ask([request for _, request in part], keeper)
            except BaseException:
                keeper.flush()
                raise
            self.calls += len(part)
            keeper.rest(answers)
            found.update(zip((key for key, _ in part), answers, strict=True))
            done += len(part)
            # Larger shards while they are quick: a batch that is always full is the faster one.
            size = max(least, min(1024, int(size * SECONDS / max(time.monotonic() - begin, 0.01))))
        if progress is not None and done < len(requests):
            progress(len(requests), len(requests))
        return [found[key] for key in keys]

    def _generate(self, requests: Sequence[Request], progress: Progress | None) -> list[Result]:
        """Ask, and ask again for what is unusable; a usage counts all tries."""
        answers = self.engine.generate(requests, progress)
        for attempt in range(1, RETRIES + 1):
            rows = [row for row, answer in enumerate(answers) if unusable(answer)]
            if not rows:
                break
            self.retried += len(rows)
            for row, again in zip(rows, self.engine.generate([other(requests[r], attempt) for r in rows]), strict=True):
                usage = _sum(answers[row].usage, again.usage)
                answers[row] = replace(again if again.status == "ok" else answers[row], usage=usage)
        return answers

    def _keep(self, part: list[tuple[str, _Request]], answers: Sequence[Result | ScoreResult], seconds: float) -> None:
        """Keep finished answers, and count the failures of the others."""
        rows: list[Row] = []
        tries: list[tuple[str, int, str, str]] = []
        for (key, request), answer in zip(part, answers, strict=True):
            stage = stage_of(request)
            if answer.status == "unscored" and answer.reason.startswith("engine"):
                tries.append((key, self._store.tried(key) + 1, answer.reason, stage))
                if tries[-1][1] < TRIES:
                    continue
            elif unusable(answer):
                tries.append((key, TRIES, answer.reason, stage))
            wire = request_to(request)
            prompt = hashlib.sha256(json.dumps(wire["prompt"]).encode()).hexdigest()
            data = {"digest": key, "kind": wire["kind"], "key": request.key, "engine": self.name}
            data |= {"prompt_digest": prompt, "seed": wire.get("seed", 0), "result": json.dumps(result_to(answer))}
            rows.append(Row(data, stage, answer.status))
        self._store.keep(rows, tries, self._spent([request for _, request in part], answers, seconds))

    def _spent(
        self, requests: Sequence[_Request], answers: Sequence[Result | ScoreResult], seconds: float
    ) -> list[Spent]:
        """Share the seconds of one call of the engine among its stages, by requests; nearly always it is one."""
        kind = "score" if requests and isinstance(requests[0], ScoreRequest) else "generate"
        rows, computed, answered, room = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
        for request, answer in zip(requests, answers, strict=True):
            stage = stage_of(request)
            rows[stage] += 1
            computed[stage] += answer.usage.computed_tokens
            answered[stage] += answer.usage.answer_tokens
            room[stage] += request.max_tokens if isinstance(request, Request) else answer.usage.answer_tokens
        return [
            Spent(self.name, s, kind, n, computed[s], answered[s], room[s], seconds * n / len(requests))
            for s, n in rows.items()
        ]


class View(Recorded):
    """A ledger under another name: an engine with an adapter, or a label. It writes and counts with its base."""

    def __init__(self, base: Recorded, engine: Engine, label: str = "") -> None:
        own = {name: value for name, value in vars(base).items() if name not in _COUNTERS}
        name = f"{base.name},{label}" if label else engine.name
        self.__dict__.update(own, _base=base, engine=engine, name=name)

    def __getattr__(self, name: str) -> Any:
        if name in _COUNTERS:
            return getattr(self.__dict__["_base"], name)
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _COUNTERS:
            setattr(self.__dict__["_base"], name, value)
        else:
            super().__setattr__(name, value)


class _Keeper:
    """A progress that keeps answers as they come, a shard about every `SECONDS`; see `engine.Arrivals`."""

    def __init__(
        self,
        part: Sequence[tuple[str, Request | ScoreRequest]],
        keep: Callable[[list[Any], list[Result | ScoreResult], float], None],
        told: Callable[[int], None],
    ) -> None:
        self._part, self._keep, self._told = part, keep, told
        self._left = set(range(len(part)))
        self._came: dict[int, Result | ScoreResult] = {}
        self._since = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Tell how far the call is."""
        self._told(done)

    def arrived(self, index: int, answer: Result | ScoreResult) -> None:
        """Take one answer. What is asked again, or counts as a failure of the engine, waits for the end of the call."""
        if not unusable(answer) and not answer.reason.startswith("engine"):
            self._came[index] = answer
            if time.monotonic() - self._since >= SECONDS:
                self.flush()

    def rest(self, answers: Sequence[Result | ScoreResult]) -> None:
        """Keep all that has not been kept yet."""
        self._came = {index: answers[index] for index in sorted(self._left)}
        self.flush()

    def flush(self) -> None:
        """Write what came as one shard."""
        now = time.monotonic()
        if self._came:
            self._keep([self._part[index] for index in self._came], list(self._came.values()), now - self._since)
        self._left -= self._came.keys()
        self._came, self._since = {}, now


def status(folder: str | Path) -> list[Status]:
    """Tell how far each stage's requests are, also while a run is at work; an empty list where there is no ledger."""
    reader = Reader(Path(folder), tries=TRIES)
    try:
        return reader.status()
    finally:
        reader.close()


def clear(folder: str | Path) -> None:
    """Forget every answer; what answering took stays, for estimates. Nothing happens where there is no ledger.

    Raises:
        LedgerError: a run is at work there; nothing was forgotten.
    """
    if not Path(folder).is_dir():
        return
    store = Store(Path(folder), tries=TRIES)
    try:
        store.clear()
    finally:
        store.close()


def stage_of(request: Request | ScoreRequest) -> str:
    """Return the stage that asks: the first part of the key."""
    return request.key.partition("/")[0]


def unusable(answer: Result | ScoreResult) -> bool:
    """Tell whether an answer should be asked for again: cut, declined, leaking, or not what the schema says.

    A prompt that does not fit (`length: ...`) would not fit again.
    """
    if not isinstance(answer, Result) or answer.status == "ok":
        return False
    return answer.reason == "length" or answer.reason.startswith(("parse", "schema", "refusal", "leak"))


def other(request: Request, attempt: int) -> Request:
    """Return the same request with another seed, sampled."""
    warm = max(request.temperature, RETRY_TEMPERATURE)
    return replace(request, seed=request.seed + _SEED_STEP * attempt, temperature=warm)


def _sum(one: Usage, two: Usage) -> Usage:
    return Usage(
        one.prompt_tokens + two.prompt_tokens,
        one.computed_tokens + two.computed_tokens,
        one.answer_tokens + two.answer_tokens,
    )
