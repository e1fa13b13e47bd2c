"""Fair timing: methods take turns, each in its own process with its own number of threads.

    round 1: A, B, C    round 2: A, B, C    ...

Machines are shared and their speed drifts, so only figures of one rotation are compared, by medians. CPU seconds stand
beside them: where a neighbor takes cores away, wall time grows and CPU time does not.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Worker:
    """A process that runs one method; a context manager."""

    def __init__(self, folder: Path, method: str, threads: int, **settings: Any) -> None:
        self.method, self.threads, self.settings = method, threads, settings
        benches = Path(__file__).parent.parent
        path = os.pathsep.join([str(benches), os.environ.get("PYTHONPATH", str(benches.parent / "python"))])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "history_bench.worker", str(folder), method, str(threads), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "POLARS_MAX_THREADS": str(threads)},
        )
        self._answer()

    def ask(self, what: str, form: str) -> dict[str, Any]:
        assert self.process.stdin, "the pipe was asked for"
        self.process.stdin.write(json.dumps({what: form}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout, "the pipe was asked for"
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker of {self.method} ended with status {self.process.wait()}; see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin, "the pipe was asked for"
        self.process.stdin.close()
        self.process.wait()


@dataclass
class Lane:
    """One method in the rotation, and what it measured."""

    name: str
    worker: Worker
    form: str
    answers: list[dict[str, Any]] = field(default_factory=list)

    def figure(self, measure: str) -> float:
        """Give seconds: `median` or `best` of the wall times, or the median of `cpu`."""
        if measure == "best":
            return min(answer["wall"] for answer in self.answers)
        return statistics.median(answer["cpu" if measure == "cpu" else "wall"] for answer in self.answers)

    def spread(self) -> float:
        """Give the distance of the quartiles as a share of the median."""
        if len(self.answers) < 4:
            walls = [answer["wall"] for answer in self.answers]
            return (max(walls) - min(walls)) / self.figure("median")
        low, _, high = statistics.quantiles([answer["wall"] for answer in self.answers], n=4)
        return (high - low) / self.figure("median")


def rotate(lanes: Sequence[Lane], rounds: int) -> None:
    """Let the lanes take turns; a first round warms up and is not counted."""
    for number in range(rounds + 1):
        for lane in lanes:
            answer = lane.worker.ask("run", lane.form)
            if number:
                lane.answers.append(answer)


def table(title: str, lanes: Sequence[Lane], records: int) -> str:
    """Write what the rotation measured, fastest first."""
    lines = [f"{title}, {len(lanes[0].answers)} rounds, load {os.getloadavg()[0]:.1f}"]
    lines.append(
        f"  {'method':32} {'threads':>7} {'median s':>9} {'spread':>7} {'best s':>8} {'cpu s':>8} {'Mrec/s':>7}"
    )
    for lane in sorted(lanes, key=lambda lane: lane.figure("median")):
        cpu = f"{lane.figure('cpu'):8.3f}" if "cpu" in lane.answers[0] else " " * 8
        middle = lane.figure("median")
        lines.append(
            f"  {lane.name:32} {lane.worker.threads:7} {middle:9.4f} {lane.spread():7.0%} {lane.figure('best'):8.4f} "
            f"{cpu} {records / middle / 1e6:7.1f}"
        )
    return "\n".join(lines)
