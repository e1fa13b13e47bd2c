"""What is asked of a run, and the workers that do it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .rotation import Worker
from .worker import save
from .workload import Workload


@dataclass(frozen=True)
class Plan:
    """What is asked of a run."""

    records: int
    rounds: int
    threads: int
    full: bool
    model: Path | None


@contextmanager
def stored(work: Workload) -> Iterator[Path]:
    """Put a log where workers find it."""
    with tempfile.TemporaryDirectory() as folder:
        save(work, Path(folder))
        yield Path(folder)


def start(plan: Plan, folder: Path, method: str, threads: int, **settings: Any) -> Worker:
    """Start a worker; ours counts by the plan's model."""
    if method == "ours":
        settings["model"] = str(plan.model) if plan.model else None
    return Worker(folder, method, threads, **settings)


def has(package: str) -> bool:
    """Tell whether a peer is installed, aloud if not."""
    found = find_spec(package) is not None
    if not found:
        print(f"  {package} is not installed: pip install 'recgpt[bench]'")
    return found
