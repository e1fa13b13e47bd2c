"""How a run tells what it is doing. The library prints nothing; the command line hands in a watch that does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from time import perf_counter
from typing import Protocol


class Watch(Protocol):
    """Told of every stage; shows it, or not."""

    def begin(self, stage: str, doing: str) -> None:
        """Tell that a stage starts."""

    def progress(self, done: int, total: int) -> None:
        """Tell how far the running stage is, in its own units."""

    def end(self, stage: str, summary: str) -> None:
        """Tell that a stage is done, with one line of figures."""


class Silent:
    """A watch that shows nothing."""

    def begin(self, stage: str, doing: str) -> None:
        """Say nothing."""

    def progress(self, done: int, total: int) -> None:
        """Say nothing."""

    def end(self, stage: str, summary: str) -> None:
        """Say nothing."""


class Clock:
    """Seconds by stage, and the watch told of each."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.seconds: dict[str, float] = {}

    def steps(self, total: int) -> Callable[[], None]:
        """Tell of a stage that knows how many steps it has; each call of the answer is one step more."""
        done = count(1)
        self.watch.progress(0, total)
        return lambda: self.watch.progress(next(done), total)

    @contextmanager
    def stage(self, name: str, doing: str) -> Iterator[list[str]]:
        """Time one stage; the block appends its summary lines to the list it is given."""
        self.watch.begin(name, doing)
        summary: list[str] = []
        started = perf_counter()
        yield summary
        self.seconds[name] = round(self.seconds.get(name, 0.0) + perf_counter() - started, 2)
        self.watch.end(name, "; ".join(summary))
