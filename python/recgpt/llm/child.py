"""The model's process and its pipes, seen from the parent."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import recgpt
from recgpt.errors import EngineError

WORKER = ("-P", "-m", "recgpt.llm.worker")
"""Arguments of the child's interpreter."""
LONGEST = 1 << 26
"""Bytes of one event, at most; a child that sends more without an end of line has lost its mind."""


class Crash(Exception):
    """The child ended or fell silent."""


class Child:
    """The process and its pipes."""

    def __init__(self, settings: dict[str, Any], patience: float) -> None:
        self.stats: dict[str, int] = {}
        self.memory: int | None = None
        """Bytes that the process held after its latest call."""
        self.memory_at_first: int | None = None
        """Bytes that it held after its first call: the model, its cache, and the buffers that one call makes."""
        self._patience = patience
        # A file, not a pipe: nobody reads it until the end, and a full pipe would stop the child.
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        package = str(Path(recgpt.__file__).parent.parent)
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, *WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self._buffer = b""
        self._ended = weakref.finalize(self, _end, self.process, self._errors)
        try:
            self._send(settings)
            event = self._receive()
        except Crash as crash:
            self.end()
            raise EngineError(f"the model {settings['path']} cannot be loaded: {crash}") from crash
        except BaseException:
            self.end()
            raise
        if event["event"] != "ready":
            self.end()
            raise EngineError(f"the model {settings['path']} cannot be loaded: {event.get('reason', event)}")
        self.ready = event
        """What the child said of the model when it was loaded."""

    def call(self, message: dict[str, Any], handle: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Send one line and handle events until it is done."""
        self._send(message)
        while True:
            event = self._receive()
            if event["event"] == "done":
                self.stats = event.get("stats", self.stats)
                self.memory = event.get("memory")
                self.memory_at_first = self.memory_at_first or self.memory
                return event
            handle(event)

    def grown(self, memory: int | None) -> int:
        """Return by how many bytes `memory` exceeds what the process held after its first call; 0 if not known."""
        return memory - self.memory_at_first if memory and self.memory_at_first else 0

    def end(self) -> None:
        """Kill the process and free its pipes; once."""
        self._ended()

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        pipe, left = self.process.stdin.fileno(), memoryview(json.dumps(message).encode() + b"\n")
        # A stopped child reads nothing: a plain write of more than the pipe holds would wait for ever.
        os.set_blocking(pipe, False)
        try:
            while left:
                with selectors.DefaultSelector() as selector:
                    selector.register(pipe, selectors.EVENT_WRITE)
                    if not selector.select(self._patience):
                        raise self._crash(f"it read nothing in {self._patience:.0f} s")
                left = left[os.write(pipe, left) :]
        except OSError as error:
            raise self._crash("it ended") from error

    def _receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        while b"\n" not in self._buffer:
            with selectors.DefaultSelector() as selector:
                selector.register(self.process.stdout, selectors.EVENT_READ)
                if not selector.select(self._patience):
                    raise self._crash(f"no sign of life in {self._patience:.0f} s")
            block = os.read(self.process.stdout.fileno(), 1 << 20)
            if not block:
                raise self._crash("it ended")
            self._buffer += block
            if len(self._buffer) > LONGEST:
                raise self._crash(f"it sent more than {LONGEST} bytes without an end of line")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise self._crash(f"it sent {line[:60]!r}, which is no event")
        return event

    def _crash(self, how: str) -> Crash:
        """Describe the end: signal or exit code, and the last words."""
        if how == "it ended":
            try:
                code = self.process.wait(timeout=10)
                how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
                if code == -signal.SIGKILL:
                    how += " (which the system also sends when memory runs out)"
            except subprocess.TimeoutExpired:
                how = "it closed its pipe"
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 300))
        words = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return Crash(f"{how}{': ' + words[-1] if words else ''}")


def _end(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, errors):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                continue  # Unsent bytes of a dead child.
