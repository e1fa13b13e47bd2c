"""Reads the log that a configuration names, and sets the moment before which everything happens."""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa

from recgpt import datasets, evaluation, logs
from recgpt.datasets import Dataset
from recgpt.errors import InvalidConfigError
from recgpt.pipeline.config import DataConfig


def read(data: DataConfig) -> tuple[Dataset, datetime]:
    """Read the data set, and set `now`."""
    if data.folder is not None:
        found = datasets.read(data.folder, time_zone=data.time_zone, behaviors=data.behaviors, columns=data.columns)
    else:
        found = datasets.load(str(data.dataset))
    # Everything happens strictly before `now`, so that the whole log is one moment more than its last event.
    now = evaluation.cut(logs.from_dataset(found).events, days=data.test_days) + timedelta(
        microseconds=not data.test_days
    )
    # Read twice where prices depend on `now`: they may only come from sales before it.
    return (datasets.load("completejourney", now=now) if data.dataset == "completejourney" else found), now


def check_truth(future: pa.Table, data: DataConfig) -> None:
    """Refuse a run that could judge nothing before it costs anything.

    Raises:
        InvalidConfigError: no event of the held-out days is of the behavior that counts.
    """
    if data.test_days and data.truth not in future["behavior"].to_pylist():
        came = ", ".join(sorted(set(future["behavior"].to_pylist())))
        raise InvalidConfigError(
            f"the last {data.test_days} days of the log hold no `{data.truth}` to judge on, but {came}; "
            "set data.truth to one of them, or data.test_days to 0 to judge nothing"
        )
