"""The process that holds the model: `python -m recgpt.llm.worker`, JSON lines in and out.

The first line says which model to load. Each later line is a call with a list of jobs; the answers are events:
`started` and `result` for each job, `beat` while a long step runs, then `done` with the counters. A request that
cannot be worked on gets a result with a reason. Any other failure ends the process: the parent knows which jobs had
started.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from recgpt.llm.caches import Caches
from recgpt.llm.chat import Chat
from recgpt.llm.context import Context
from recgpt.llm.jobs import BATCH, Job
from recgpt.llm.native import Model, convert, inspect
from recgpt.llm.wire import prompt_from

Emit = Callable[[dict[str, Any]], None]


class Worker:
    """A model, its chat template and its scheduler."""

    def __init__(self, load: dict[str, Any], emit: Emit) -> None:
        self.context_tokens: int = load["context_tokens"]
        self.seed: int = load["seed"]
        if load["weights"] and not os.path.exists(load["converted"]):
            convert(load["path"], load["converted"], load["weights"])
        self.model = Model(load["converted"], n_gpu_layers=load["n_gpu_layers"])
        # A context longer than the model was trained for gives noise, not an error.
        self.context_tokens = min(self.context_tokens, self.model.trained_tokens)
        self.chat = Chat(
            self.model.chat_template(), self.model.tokenize, bos=self.model.text("bos"), eos=self.model.text("eos")
        )
        self.caches = Caches(
            partial(
                Context,
                self.model,
                threads=load["threads"],
                flash_attention=load["flash_attention"],
                kv_type=load["kv_type"],
            ),
            memory,
            cells=load["cells"],
            sequences=load["sequences"],
            longest=self.context_tokens,
        )
        self.emit = emit
        self.computed = self.prompted = self.answered = 0
        self._beaten = time.monotonic()

    def counters(self) -> dict[str, int]:
        """Return what this process did so far."""
        return {
            "decodes": self.caches.decodes,
            "decoded_tokens": self.caches.decoded,
            "prompt_tokens": self.prompted,
            "computed_tokens": self.computed,
            "answer_tokens": self.answered,
        }

    def call(self, message: dict[str, Any]) -> None:
        """Answer one line."""
        if message["op"] == "count":
            counts = [len(self.model.tokenize(text)) for text in message["texts"]]
            self.emit({"event": "done", "counts": counts})
        elif message["op"] == "tokens":
            prompts = [self.chat.encode(prompt_from(prompt)) for prompt in message["prompts"]]
            texts = [self.model.tokenize(text) for text in message["texts"]]
            self.emit({"event": "done", "prompts": prompts, "texts": texts, "end": self.model.end()})
        elif message["op"] == "adapter":
            try:
                self.caches.adapt(message["path"])
                self.emit({"event": "done", "reason": ""})
            except RuntimeError as error:
                self.emit({"event": "done", "reason": str(error)})
        else:
            jobs = [self._job(index, request) for index, request in enumerate(message["requests"])]
            self._run(
                [job for job in jobs if job is not None],
                started=self._started,
                finished=self._finished,
                beat=self._beat,
            )
            self.emit({"event": "done", "stats": self.counters(), "memory": self._held()})

    def _run(self, jobs: list[Job], **events: Callable[..., None]) -> None:
        """Work on the jobs, those with the same adapter together."""
        for adapter in dict.fromkeys(job.adapter for job in jobs):
            self.caches.adapt(adapter)
            same = [job for job in jobs if job.adapter == adapter]
            self.caches.choose(same).run(same, **events)

    def _held(self) -> int:
        """Count the bytes that may be a leak."""
        return memory() - self.caches.added

    def _job(self, index: int, request: dict[str, Any]) -> Job | None:
        """Tokenize a request; None when it cannot be worked on, which has then been answered."""
        prompt = np.array(self.chat.encode(prompt_from(request["prompt"])), np.int32)
        if request["kind"] == "score":
            candidates = [self.model.tokenize(candidate) for candidate in request["candidates"]]
            job = Job(index, prompt, candidates=candidates)
            longest = max((len(candidate) for candidate in candidates), default=0)
            empty = [row for row, candidate in enumerate(candidates) if not candidate]
            if empty:
                self._refuse(job, f"schema: candidate {empty[0]} is an empty text")
                return None
        else:
            job = Job(
                index,
                prompt,
                room=request["max_tokens"],
                grammar=request["grammar"],
                stop=tuple(request["stop"]),
                temperature=request["temperature"],
                seed=(self.seed, request["seed"]),
                thoughts=request["thoughts"],
                quote=self.model.tokenize('"')[0],
            )
            longest = job.room
        job.adapter = request.get("adapter", "")
        if len(prompt) + longest > self.context_tokens or (job.candidates is not None and longest > BATCH):
            self._refuse(
                job,
                f"length: a prompt of {len(prompt)} tokens and {longest} for the answer exceed the context of "
                f"{self.context_tokens}",
            )
            return None
        if job.candidates == [] or (job.candidates is None and job.room < 1):
            self._refuse(job, "schema: a request needs candidates or max_tokens of at least 1")
            return None
        return job

    def _refuse(self, job: Job, reason: str) -> None:
        self.emit({"event": "result", "index": job.index, "reason": reason, "usage": [len(job.prompt), 0, 0]})

    def _started(self, job: Job) -> None:
        self.emit({"event": "started", "index": job.index})

    def _finished(self, job: Job, how: str) -> None:
        self.prompted += len(job.prompt)
        self.computed += job.fresh
        self.answered += len(job.answer)
        found: dict[str, Any] = {"event": "result", "index": job.index, "reason": ""}
        if job.tree is not None and job.candidates is not None:
            tokens = [len(candidate) for candidate in job.candidates]
            found |= {"logprobs": job.tree.totals.tolist(), "tokens": tokens}
            found["usage"] = [len(job.prompt), job.fresh, sum(tokens)]
        else:
            found |= {"text": job.raw.decode("utf-8", "replace"), "how": how}
            found["usage"] = [len(job.prompt), job.fresh, len(job.answer)]
        self.emit(found)

    def _beat(self) -> None:
        """Say that we live, at most once a second."""
        if time.monotonic() - self._beaten > 1:
            self._beaten = time.monotonic()
            self.emit({"event": "beat", "memory": self._held()})


def memory() -> int:
    """Return how many bytes this process holds; on Linux without the pages of the model's file, which come and go."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon"))
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most << 10


def expendable() -> None:
    """Ask the system to end this process before others when memory runs out."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("800")
    except OSError:
        return  # Not Linux, or not allowed.


def main() -> None:
    """Serve lines until standard input ends."""
    # Libraries may print: only our own copy of standard output carries the protocol.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Ctrl-C reaches the whole terminal group; the parent decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    expendable()
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        # The parent is gone, perhaps killed: leave at once, in the middle of a decode too.
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()

    def emit(event: dict[str, Any]) -> None:
        out.write(json.dumps(event) + "\n")
        out.flush()

    try:
        load = json.loads(lines.get())
        if load["check"]:
            emit({"event": "ready", **inspect(load["path"])})
            return
        worker = Worker(load, emit)
    except Exception as error:
        emit({"event": "failed", "reason": str(error) or type(error).__name__})
        return
    emit({"event": "ready", "context_tokens": worker.context_tokens, "cells": worker.caches.cells})
    while True:
        worker.call(json.loads(lines.get()))


if __name__ == "__main__":
    main()
