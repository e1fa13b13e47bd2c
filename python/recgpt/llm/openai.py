"""Engine for any OpenAI-compatible server: llama-server, vLLM, and others by OpenAI's own dialect.

Requests go out in the order of their prompts, a bounded number at once, so that a server with a prefix cache sees equal
beginnings together. A request that fails is tried again; one that keeps failing is `unscored` with a reason
`engine: ...`, and the ledger asks it again in the next run. A server that is gone ends the call with an error.
"""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import PurePath
from typing import Any, Literal, TypeVar, get_args

from recgpt.errors import EngineError, InvalidConfigError
from recgpt.llm.dialects import FOR_ALL, NO_SCORES, Ask, Dialect
from recgpt.llm.engine import Progress, Request, Result, ScoreRequest, ScoreResult, Usage, tell
from recgpt.llm.handshake import connect
from recgpt.llm.remote import Failed, Malformed, Refused, Remote, spread
from recgpt.llm.scoring import Scoring, Step
from recgpt.llm.tokenizer import Tokenizer

DialectName = Literal["auto", "llama-server", "vllm", "openai"]
COUNTERS = ("prompt_tokens", "computed_tokens", "answer_tokens")
"""Sums over all requests, as the `llama_cpp` engine has them."""
OURS = frozenset({"model", "messages", "prompt", "stream", "n", "stop", "seed", "response_format", "grammar"})
"""Fields that `extra` must leave alone."""
IN_A_ROW = 16
"""So many requests that fail one after another, or twice `concurrency` if that is more, end the call."""

_Found = TypeVar("_Found")


class OpenAI:
    """Implements `recgpt.llm.engine.Engine` over HTTP.

    Scoring needs a server that gives log-probabilities of texts that we choose: llama-server and vLLM do.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str = "",
        dialect: DialectName = "auto",
        api_key_env: str | None = None,
        context_tokens: int = 4096,
        concurrency: int = 16,
        timeout: float = 600.0,
        tries: int = 8,
        tokenizer: Tokenizer | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Check the arguments; the server is asked at the first use.

        Args:
            url: The server's address, with or without `/v1`.
            model: Name under which the server serves the model; empty where it serves one.
            dialect: `auto` asks the server's list of models who owns them.
            api_key_env: Name of the environment variable with the key. The key itself is kept out of everything.
            context_tokens: Longest prompt plus answer; less where the server says less.
            concurrency: Most requests at the server at once.
            timeout: Seconds for one try of one request.
            tries: How often a request is sent at most.
            tokenizer: Counts tokens here; None asks the server, and where it cannot tell counts bytes, which is never
                too few.
            extra: More fields for every request, for example `{"reasoning_effort": "low"}`; part of the ledger key.

        Raises:
            InvalidConfigError: an argument is out of range, or the key's variable is empty.
            MissingExtraError: httpx2 is not installed.
        """
        if dialect not in get_args(DialectName):
            raise InvalidConfigError(f"dialect is {', '.join(get_args(DialectName))}, not {dialect!r}")
        for name, value, low, high in (
            ("context_tokens", context_tokens, 64, 1 << 24),
            ("concurrency", concurrency, 1, 1024),
            ("timeout", timeout, 0.01, 86400.0),
            ("tries", tries, 1, 20),
        ):
            if not low <= value <= high:
                raise InvalidConfigError(f"{name} must be from {low} to {high}, not {value}")
        self._extra = dict(extra or {})
        try:
            json.dumps(self._extra, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidConfigError(f"extra holds what JSON cannot: {error}") from None
        if taken := sorted(OURS & self._extra.keys()):
            raise InvalidConfigError(f"extra must leave {', '.join(taken)} to the engine")
        self._server = Remote(url, api_key_env=api_key_env, timeout=timeout, tries=tries, connections=concurrency)
        self._model, self._kind, self._context, self._concurrency = model, dialect, context_tokens, concurrency
        self.hands_over = True
        """A server is kept busy by all requests of a call at once; answers go to the ledger as they come."""
        self._tokenizer = tokenizer
        self._adapter = ""
        self._sums = dict.fromkeys(COUNTERS, 0)
        self._lock = threading.RLock()

    @cached_property
    def _dialect(self) -> Dialect:
        """Ask the server who it is."""
        return connect(self._server, self._kind, self._model, self._context, self._extra, self._adapter)

    @property
    def dialect(self) -> str:
        """Which dialect is spoken."""
        return self._dialect.name

    @property
    def scores(self) -> bool:
        """Whether `score` works with this server."""
        return self._dialect.scores

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus answer, in tokens."""
        return self._dialect.context_tokens

    @cached_property
    def name(self) -> str:
        """Dialect, model and settings that can change an answer. Neither the address nor the key."""
        dialect = self._dialect
        extra = json.dumps(self._extra, sort_keys=True)
        marks = hashlib.sha256(f"{dialect.identity}\n{extra}".encode()).hexdigest()[:16]
        return f"openai/{dialect.name}/{PurePath(dialect.model).name}/{marks}/context={dialect.context_tokens}" + (
            f",adapter={self._adapter}" if self._adapter else ""
        )

    @property
    def stats(self) -> dict[str, int]:
        """Sums by the names in `COUNTERS`, and `sent` and `repeated` HTTP requests."""
        return {**self._sums, "sent": self._server.sent, "repeated": self._server.repeated}

    def adapted(self, adapter: str) -> OpenAI:
        """Return this engine with a LoRA adapter that the server has loaded; both share connections and sums.

        Args:
            adapter: vLLM: the name under `--lora-modules`. llama-server: the file name that was given to `--lora`.

        Raises:
            ModelNotFoundError: the server has no such adapter.
        """
        view = copy.copy(self)
        view._adapter = adapter
        for name in ("_dialect", "name"):
            view.__dict__.pop(name, None)
        assert view._dialect  # Asks the server, so that a missing adapter is refused before any work.
        return view

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        """Answer every request; results in the order of the requests.

        Raises:
            EngineError: the server cannot be reached, or refuses us altogether.
            SchemaError: a schema lies outside the subset.
        """

        def one(ask: Ask, request: Request) -> Result:
            result = self._dialect.generate(ask, request)
            # A value too: JSON can spell a key in ways in which the text does not show it.
            if self._server.holds_key(f"{result.text} {json.dumps(result.value, ensure_ascii=False)}"):
                return Result("unscored", "", None, "engine: the answer held the API key", result.usage)
            return result

        order = _order(requests)
        results: dict[int, Result] = {}

        def finished(at: int, result: Result) -> None:
            results[order[at]] = result
            self._add(result.usage)
            tell(progress, order[at], result, len(results), len(requests))

        self._spread(
            [partial(one, request=requests[at]) for at in order],
            finished,
            lambda reason: Result("unscored", "", None, reason),
        )
        return [results[at] for at in range(len(requests))]

    def score(self, requests: Sequence[ScoreRequest], progress: Progress | None = None) -> list[ScoreResult]:
        """Score every request's candidates; results in the order of the requests.

        Each token of the candidates' common tree costs one short request, whose prompt the server has in its cache.

        Raises:
            EngineError: the server gives no log-probabilities of texts that we choose, or cannot be reached.
        """
        if requests and not self.scores:
            raise EngineError(NO_SCORES)
        order = _order(requests)
        works: dict[int, Scoring] = {}
        results: dict[int, ScoreResult] = {}

        def prepare(ask: Ask, request: ScoreRequest) -> Scoring:
            dialect = self._dialect
            prompt = dialect.encode(ask, request.prompt)
            candidates = [dialect.tokenize(ask, candidate) for candidate in request.candidates]
            longest, reason = max(map(len, candidates), default=0), ""
            if len(prompt) + longest > self.context_tokens:
                reason = (
                    f"length: a prompt of {len(prompt)} tokens and {longest} for the answer exceed the context of "
                    f"{self.context_tokens}"
                )
            return Scoring(prompt, candidates, reason)

        def end(at: int) -> None:
            results[at] = works[at].result()
            self._add(results[at].usage)
            tell(progress, at, results[at], len(results), len(requests))

        def prepared(at: int, work: Scoring) -> None:
            works[order[at]] = work
            if not work.steps:
                end(order[at])

        self._spread(
            [partial(prepare, request=requests[at]) for at in order],
            prepared,
            lambda reason: Scoring([], [], reason),
        )
        steps = [(at, step) for at in order for step in works[at].steps]

        def one(ask: Ask, at: int, step: Step) -> tuple[float, int] | str:
            return self._dialect.step(ask, [*works[at].prompt, *step[:-1]], step[-1])

        def finished(index: int, found: tuple[float, int] | str) -> None:
            at, step = steps[index]
            if works[at].take(step, found):
                end(at)

        self._spread([partial(one, at=at, step=step) for at, step in steps], finished, lambda reason: reason)
        return [results[at] for at in range(len(requests))]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of plain texts: here where there is a tokenizer, else by the server."""
        tokenizer = self._tokenizer
        if tokenizer is None and not self.scores:
            tokenizer = Tokenizer.bytes()
        if tokenizer is not None:
            return [int(count) for count in tokenizer.count(texts)]
        counts = [0] * len(texts)

        def one(ask: Ask, text: str) -> int:
            return len(self._dialect.tokenize(ask, text))

        def finished(at: int, count: int) -> None:
            counts[at] = count

        def lost(reason: str) -> int:
            raise EngineError(f"the server cannot count tokens: {reason}")

        self._spread([partial(one, text=text) for text in texts], finished, lost)
        return counts

    def close(self) -> None:
        """Close the connections. Closing twice is allowed."""
        self._server.close()

    def __enter__(self) -> OpenAI:
        """Return the engine."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _add(self, usage: Usage) -> None:
        for name in COUNTERS:
            self._sums[name] += getattr(usage, name)

    def _spread(
        self,
        tasks: Sequence[Callable[[Ask], _Found]],
        finished: Callable[[int, _Found], None],
        lost: Callable[[str], _Found],
    ) -> None:
        """Run tasks at the server; what fails for good becomes `lost(reason)`, or an error when all fails."""
        halt = threading.Event()
        health = _Health(max(IN_A_ROW, 2 * self._concurrency))

        def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
            return self._server.call(path, body, halt)

        def guarded(task: Callable[[Ask], _Found]) -> _Found:
            try:
                found = task(ask)
            except Malformed as malformed:
                reason = f"engine: {malformed}"[:300]
            except Refused as refused:
                if refused.status in FOR_ALL:
                    raise EngineError(f"the server {self._server.url} refuses: {refused}") from None
                reason = f"engine: {refused}"[:300]
            except Failed as failed:
                # A server that still answers others was brought down, or kept waiting, by this request alone.
                if not failed.answered and not self._server.alive():
                    raise EngineError(f"the server {self._server.url} cannot be reached: {failed}") from None
                reason = f"engine: {failed}"[:300]
            else:
                health.succeeded()
                return found
            if health.failed():
                raise EngineError(
                    f"the server {self._server.url} failed {health.limit} requests in a row; the last: {reason}"
                )
            return lost(reason)

        with self._lock:
            assert self._dialect  # Connects once, before the threads do.
            spread([partial(guarded, task) for task in tasks], self._concurrency, finished, halt)


class _Health:
    """Counts failures in a row, from many threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._row = 0
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        """Begin a new row."""
        with self._lock:
            self._row = 0

    def failed(self) -> bool:
        """Count a failure; tell whether it was one too many."""
        with self._lock:
            self._row += 1
            return self._row >= self.limit


def _order(requests: Sequence[Request] | Sequence[ScoreRequest]) -> list[int]:
    """Sort by prompt, so that equal beginnings reach the server together."""
    prompts = [request.prompt for request in requests]
    return sorted(range(len(prompts)), key=lambda at: (prompts[at].system, prompts[at].user, prompts[at].answer))
