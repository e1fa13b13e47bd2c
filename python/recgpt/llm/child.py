"""The model's process and its pipes, seen from the parent."""

from __future__ import annotations

import json
import os
import selectors
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


class Crash(Exception):
    """The child ended or fell silent."""


class Child:
    """The process and its pipes."""

    def __init__(self, settings: dict[str, Any], patience: float) -> None:
        self.stats: dict[str, int] = {}
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
            raise EngineError(f"the model {settings['path']} cannot be loaded: {event['reason']}")

    def call(self, message: dict[str, Any], handle: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Send one line and handle events until it is done."""
        self._send(message)
        while True:
            event = self._receive()
            if event["event"] == "done":
                self.stats = event.get("stats", self.stats)
                return event
            handle(event)

    def end(self) -> None:
        """Kill the process and free its pipes; once."""
        self._ended()

    def _send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
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
        line, _, self._buffer = self._buffer.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        return event

    def _crash(self, how: str) -> Crash:
        """Describe the end: signal or exit code, and the last words."""
        if how == "it ended":
            code = self.process.wait()
            how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
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
