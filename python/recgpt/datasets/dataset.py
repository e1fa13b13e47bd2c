"""What a data set is, and the ones that can be loaded by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import pyarrow as pa

from recgpt.errors import DatasetNotFoundError

NAMES = ("completejourney", "world")


@dataclass(frozen=True)
class Dataset:
    """Tables as `recgpt.logs.normalize` accepts them, and what has to be said about them."""

    name: str
    events: pa.Table
    items: pa.Table
    """No rows where a folder has no items file: `recgpt.logs` then makes them from the events."""
    users: pa.Table
    """No rows where a folder has no users file."""
    reviews: pa.Table | None = None
    time_zone: str | None = None
    """IANA zone of the shop: of times that carry none, and of its calendar. None: not stated."""
    notes: str = ""
    """Where the data come from and what may be claimed from them."""
    behaviors: Mapping[str, str] = field(default_factory=dict)
    """Own event names -> recgpt's."""
    truth: Mapping[str, pa.Table] = field(default_factory=dict)
    """What is true behind the log, for generated worlds only; see `datasets/world/truth.py`."""


def load(name: str, **options: Any) -> Dataset:
    """Load a data set by name.

    Args:
        name: `completejourney` (options: `now`) or `world` (options: of `datasets.world.Config`, and `now`).
        **options: what the data set's own `load` takes.

    Raises:
        DatasetNotFoundError: if there is no such data set, or its package is not installed.
    """
    if name not in NAMES:
        raise DatasetNotFoundError(
            f"there is no data set {name!r}; expected {' or '.join(NAMES)}; for your own use datasets.read(folder)"
        )
    data: Dataset = import_module(f"recgpt.datasets.{name}").load(**options)
    return data
