"""The default engine: a GGUF model in a supervised child process, many sequences at once.

llama.cpp ends its process when it meets a bad grammar, a damaged file or its own bugs, so it lives in a child. A
crash costs the requests in flight: they are tried again one by one, and what still fails is `unscored` with a
reason `engine: ...`. The rest of the call goes on.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from recgpt.errors import EngineError, InvalidConfigError, MissingExtraError, ModelNotFoundError
from recgpt.llm import grammar
from recgpt.llm.adapters import Adapted
from recgpt.llm.answers import judged
from recgpt.llm.child import Child, Crash
from recgpt.llm.engine import Progress, Prompt, Request, Result, ScoreRequest, ScoreResult, Usage, tell
from recgpt.llm.models import cores
from recgpt.llm.wire import prompt_to, request_to

TRIES = 2
"""How often a request that was in flight in a crash is tried again, alone."""
COUNTERS = ("decodes", "decoded_tokens", "prompt_tokens", "computed_tokens", "answer_tokens")
"""`llama_decode` calls, the tokens in them, and of all requests: prompt tokens, those not shared, answer tokens."""

_Answer = TypeVar("_Answer", Result, ScoreResult)


class _Grown(Exception):
    """The child holds more memory than it may."""


class Tokens(NamedTuple):
    """What `LlamaCpp.tokens` gives, in the order of what was asked."""

    prompts: list[list[int]]
    texts: list[list[int]]
    end: int
    """The token that ends the assistant's turn; -1 where the model has none."""


class LlamaCpp:
    """Implements `recgpt.llm.engine.Engine` on llama-cpp-python's low-level interface.

    Candidates of a `ScoreRequest` are tokenized apart from the prompt, so they begin at a token boundary: where words
    are separated by spaces, begin each with one. Answers under a schema are the whole JSON text: leave
    `Prompt.answer` empty there, or keep JSON out of it.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        context_tokens: int = 4096,
        threads: int | None = None,
        sequences: int = 32,
        n_gpu_layers: int = 0,
        flash_attention: bool | None = None,
        kv_type: Literal["f32", "f16", "bf16", "q8_0"] | None = None,
        weights: Literal["q8_0", "f16", "bf16", "f32"] | None = None,
        seed: int = 0,
        patience: float = 600.0,
        memory_growth: int = 1 << 30,
    ) -> None:
        """Check the arguments; the child starts at the first call.

        Args:
            path: A GGUF file with a chat template.
            context_tokens: Longest prompt plus answer; the KV cache has twice as many cells.
            threads: None takes all cores. On a machine whose cores others use, fewer are faster: llama.cpp's threads
                wait for each other at every step.
            sequences: Most requests in work at once, 1 to 128.
            n_gpu_layers: Layers on the GPU; -1 is all.
            flash_attention: None is off on the CPU, where its rounding depends on what else is in the batch (up to 0.26
                nats on a candidate of 3 tokens; without it scores are equal to 1e-6 alone and in company) and where it
                was not faster; on the GPU None lets llama.cpp decide.
            kv_type: Numbers of the KV cache. `q8_0` halves it; it needs flash attention and turns it on. `f32` rounds
                least. None is f16, but bf16 on a CPU with weights in bf16: then processors that multiply bf16 read
                long prompts 1.1 to 1.3 times and write 1.2 to 1.35 times as fast.
            weights: Convert the file's weights once, into the user's cache folder; None uses the file as it is. Never
                adds knowledge, but where a small model was quantized to a format without fast kernels, prompts run
                1.5 to 1.9 times faster, as bf16 2.5 to 3.2 times where llama.cpp was built for AVX-512 with bf16
                (`make setup` does so where the processor has it), and f16 to f32 round less.
            seed: Joined with each request's own.
            patience: Seconds without a sign of life after which the child is ended.
            memory_growth: Bytes by which the child may grow after its first call; then a fresh one takes its place.

        Raises:
            ModelNotFoundError: there is no GGUF file at `path`.
            MissingExtraError: llama-cpp-python is not installed.
            InvalidConfigError: an argument is out of range.
        """
        self.path = Path(path)
        if not self.path.is_file():
            came = "that is a folder" if self.path.is_dir() else "there is no such file"
            raise ModelNotFoundError(f"a GGUF model was expected at {path}, but {came}; check the path")
        with self.path.open("rb") as file:
            magic = file.read(4)
        if magic != b"GGUF":
            raise ModelNotFoundError(f"{path} does not begin with the bytes GGUF but with {magic!r}; give a GGUF model")
        if find_spec("llama_cpp") is None:
            raise MissingExtraError("this engine needs llama-cpp-python: pip install 'recgpt[llama]'")
        if kv_type not in (None, "f32", "f16", "bf16", "q8_0"):
            raise InvalidConfigError(f"kv_type is None, f32, f16, bf16 or q8_0, not {kv_type!r}")
        if weights not in (None, "q8_0", "f16", "bf16", "f32"):
            raise InvalidConfigError(f"weights is None, q8_0, f16, bf16 or f32, not {weights!r}")
        if kv_type is None:
            kv_type = "bf16" if weights == "bf16" and n_gpu_layers == 0 else "f16"
        if kv_type == "q8_0" and flash_attention is False:
            raise InvalidConfigError(
                "kv_type q8_0 needs flash_attention: llama.cpp cannot quantize the cache without it"
            )
        if flash_attention is None and n_gpu_layers == 0:
            flash_attention = kv_type == "q8_0"
        for name, value, low, high in (
            ("context_tokens", context_tokens, 64, 1 << 20),
            ("threads", 1 if threads is None else threads, 1, 1024),
            ("sequences", sequences, 1, 128),
            ("memory_growth", memory_growth, 1, 1 << 50),
        ):
            if not low <= value <= high:
                raise InvalidConfigError(f"{name} must be from {low} to {high}, not {value}")
        self.context_tokens, self.hands_over = context_tokens, True
        self.restarts = 0
        """How often the child had to be started again after a crash."""
        self.recycled = 0
        """How often a child was replaced because its memory had grown."""
        self._settings: dict[str, Any] = {
            "path": str(self.path.resolve()),
            "context_tokens": context_tokens,
            "cells": 2 * context_tokens,
            "threads": threads or cores(),
            "sequences": sequences,
            "n_gpu_layers": n_gpu_layers,
            "flash_attention": flash_attention,
            "kv_type": kv_type,
            "weights": weights,
            "seed": seed,
            "check": False,
        }
        self._patience = patience
        self._memory_growth = memory_growth
        self._child: Child | None = None
        self._past = dict.fromkeys(COUNTERS, 0)
        self._lock = threading.Lock()

    @cached_property
    def _digest(self) -> str:
        """SHA-256 of the file."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        return digest.hexdigest()

    @cached_property
    def name(self) -> str:
        """File hash and settings that can change an answer."""
        settings = self._settings
        return (
            f"llama_cpp/{self.path.name}/{self._digest[:16]}/context={settings['context_tokens']},"
            f"kv={settings['kv_type']},flash={settings['flash_attention']},gpu={settings['n_gpu_layers']},"
            f"weights={settings['weights']},seed={settings['seed']}"
        )

    @property
    def stats(self) -> dict[str, int]:
        """Counts since the beginning, by the names in `COUNTERS`; a call lost in a crash is not counted."""
        now = self._child.stats if self._child else {}
        return {key: self._past[key] + now.get(key, 0) for key in COUNTERS}

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while none runs."""
        return self._child.process.pid if self._child else None

    @property
    def computed_path(self) -> Path:
        """The file that is computed with: `path`, or with `weights` its conversion in the user's cache folder."""
        if not self._settings["weights"]:
            return self.path
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recgpt" / "models"
        return cache / f"{self._digest[:32]}-{self._settings['weights']}.gguf"

    def check(self) -> int:
        """Let llama.cpp read the file's header in a child of its own; the weights are not loaded.

        Returns:
            The longest prompt plus answer that this engine and this model can take.

        Raises:
            EngineError: the file is damaged, cut off, of an architecture that this llama.cpp does not know, or carries
                no chat template.
        """
        child = Child({**self._settings, "check": True}, self._patience)
        child.end()
        return min(self.context_tokens, int(child.ready["trained_tokens"]))

    def generate(
        self, requests: Sequence[Request], progress: Progress | None = None, *, adapter: str = ""
    ) -> list[Result]:
        """Answer every request; results in the order of the requests. `adapter` is the path of a LoRA adapter.

        Raises:
            EngineError: the model cannot be loaded.
            SchemaError: a schema lies outside the subset.
        """
        lines = []
        for request in requests:
            line = request_to(request) | {"adapter": adapter}
            line["grammar"] = grammar.to_gbnf(request.schema) if request.schema else None
            line["thoughts"] = grammar.reasoning_tokens(request.schema)
            line["max_tokens"] += line["thoughts"]
            del line["schema"]
            lines.append(line)

        def read(index: int, event: dict[str, Any]) -> Result:
            text, reason, usage = event.get("text", ""), event["reason"], Usage(*event["usage"])
            if reason:
                return Result("unscored", text, None, reason, usage)
            return judged(text, requests[index], usage, cut=event["how"] == "length")

        return self._call(lines, read, lambda reason: Result("unscored", "", None, reason), progress)

    def score(
        self, requests: Sequence[ScoreRequest], progress: Progress | None = None, *, adapter: str = ""
    ) -> list[ScoreResult]:
        """Score every request's candidates; results in the order of the requests. Adapter, errors: as `generate`."""

        def read(_: int, event: dict[str, Any]) -> ScoreResult:
            usage = Usage(*event["usage"])
            if event["reason"]:
                return ScoreResult("unscored", reason=event["reason"], usage=usage)
            totals = tuple(event["logprobs"])
            if not all(total <= 0.01 for total in totals):  # NaN fails this too.
                return ScoreResult("unscored", reason="engine: the model gave log-probabilities that are none")
            return ScoreResult("ok", totals, tuple(event["tokens"]), usage=usage)

        lines = [request_to(request) | {"adapter": adapter} for request in requests]
        return self._call(lines, read, lambda reason: ScoreResult("unscored", reason=reason), progress)

    def adapted(self, adapter: str | Path) -> Adapted:
        """Return this engine with a LoRA adapter, a GGUF file; both share the model's process.

        Raises:
            ModelNotFoundError: there is no GGUF file at `adapter`.
        """
        return Adapted(self, adapter)

    def load_adapter(self, path: str) -> None:
        """Let the child load an adapter, so that one that does not fit is an error before any work.

        Raises:
            EngineError: it is damaged, made for another model, or ended the child.
        """
        with self._lock:
            try:
                done = self._running().call({"op": "adapter", "path": path}, lambda event: None)
            except Crash as crash:
                self._crashed()
                raise EngineError(f"the adapter {path} ended the model's process: {crash}") from crash
        if done["reason"]:
            raise EngineError(f"the adapter {path} cannot be used: {done['reason']}")

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of plain texts; control tokens in them count as plain text."""
        return list(self._ask({"op": "count", "texts": list(texts)})["counts"])

    def prompt_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """Count the tokens of whole prompts, chat template included."""
        return list(map(len, self.tokens(prompts, ()).prompts))

    def tokens(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> Tokens:
        """Encode whole prompts, chat template included, and plain texts that continue them, as answering does."""
        done = self._ask({"op": "tokens", "prompts": [prompt_to(prompt) for prompt in prompts], "texts": list(texts)})
        return Tokens(done["prompts"], done["texts"], done["end"])

    def close(self) -> None:
        """End the child. Closing twice is allowed, and a later call starts a new one."""
        if self._child is not None:
            self._past = self.stats
            self._child.end()
            self._child = None

    def __enter__(self) -> LlamaCpp:
        """Return the engine."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            for last in (False, True):
                try:
                    return self._running().call(message, lambda event: None)
                except Crash as crash:
                    self._crashed()
                    if last:
                        raise EngineError(f"the model's process ended while it read texts: {crash}") from crash
                except BaseException:
                    self.close()
                    raise
        raise AssertionError

    def _running(self) -> Child:
        if self._child is None:
            settings = {**self._settings, "converted": str(self.computed_path)}
            # Right after a crash the machine may be short of memory: loading is tried again before a run ends for it.
            for pause in (1, 5, None) if self.restarts else (None,):
                try:
                    self._child = Child(settings, self._patience)
                    break
                except EngineError:
                    if pause is None:
                        raise
                    time.sleep(pause)
        assert self._child is not None
        return self._child

    def _crashed(self) -> None:
        self.close()
        self.restarts += 1

    def _recycle(self) -> None:
        self.close()
        self.recycled += 1

    def _call(
        self,
        lines: list[dict[str, Any]],
        read: Callable[[int, dict[str, Any]], _Answer],
        poison: Callable[[str], _Answer],
        progress: Progress | None,
    ) -> list[_Answer]:
        """Send requests, survive crashes, return every answer."""
        answers: dict[int, _Answer] = {}

        def work(indices: list[int]) -> tuple[list[int], str]:
            """Send some requests; return those in flight when the child crashed, and how."""
            flying: set[int] = set()
            before, child = len(answers), self._running()

            def handle(event: dict[str, Any]) -> None:
                try:
                    if event["event"] == "started":
                        flying.add(indices[event["index"]])
                    elif event["event"] == "result":
                        index = indices[event["index"]]
                        answers[index] = read(index, event)
                        flying.discard(index)
                    elif len(answers) > before and child.grown(event.get("memory")) > self._memory_growth:
                        # A beat. Only after some answer: a request that takes this much alone would begin for ever.
                        raise _Grown
                except (KeyError, IndexError, TypeError, ValueError) as error:
                    # Memory that a bug of the model overwrote can hold anything.
                    raise Crash(f"it sent an event that cannot be read ({error!r})") from error
                if event["event"] == "result":
                    tell(progress, index, answers[index], len(answers), len(lines))

            try:
                child.call({"op": "run", "requests": [lines[index] for index in indices]}, handle)
            except Crash as crash:
                self._crashed()
                return sorted(flying) or [index for index in indices if index not in answers], str(crash)
            except _Grown:
                self._recycle()
                return [], ""
            except BaseException:
                # Ctrl-C, or a progress callback that raised: the child is in the middle of something, so it goes.
                self.close()
                raise
            left = [index for index in indices if index not in answers]
            if left:
                self._crashed()
                return left, "it left requests unanswered"
            if child.grown(child.memory) > self._memory_growth:
                self._recycle()
            return [], ""

        with self._lock:
            while len(answers) < len(lines):
                suspects, how = work([index for index in range(len(lines)) if index not in answers])
                for index in suspects:
                    for _ in range(TRIES):
                        if index not in answers:
                            _, how = work([index])
                    if index not in answers:
                        answers[index] = poison(f"engine: the model's process ended {TRIES + 1} times: {how}"[:300])
                        tell(progress, index, answers[index], len(answers), len(lines))
        return [answers[index] for index in range(len(lines))]
