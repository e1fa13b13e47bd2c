"""Reads the log that a configuration names, and sets the moment before which everything happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import behaviors, datasets, evaluation, logs, schema
from recgpt.datasets import Dataset, world
from recgpt.errors import EmptyLogError, InvalidConfigError
from recgpt.pipeline.config import BehaviorsConfig, DataConfig

UNDATED = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for `now` where a stage wants one and a log without times has none: all its events come before any moment."""


READING = 3
"""Steps that `read` tells of."""


def dataset(data: DataConfig) -> Dataset:
    """Open the data set that a configuration names."""
    if data.folder is not None:
        return datasets.read(data.folder, time_zone=data.time_zone, behaviors=data.behaviors, columns=data.columns)
    if data.dataset == "world":
        return datasets.load("world", now=_end(data), **asdict(data.world))
    return datasets.load(str(data.dataset))


def _end(data: DataConfig) -> datetime:
    """A world's `now`: what its truth says is wanted next holds from a midnight on; known before anything is made."""
    return world.START + timedelta(days=data.world.days - data.test_days)


def read(data: DataConfig, step: Callable[[], None] = lambda: None) -> tuple[Dataset, datetime | None]:
    """Read the data set, and set `now`; None if the log has no times.

    Raises:
        InvalidConfigError: the days held out are the whole log.
    """
    found = dataset(data)
    if data.dataset == "world":
        for _ in range(READING):
            step()
        return found, _end(data)
    step()
    events = logs.from_dataset(found).events
    step()
    if events["timestamp"].null_count == len(events):
        step()
        return found, None
    span = pc.max(events["timestamp"]).as_py() - pc.min(events["timestamp"]).as_py()
    if data.test_days and timedelta(days=data.test_days) >= span:
        raise InvalidConfigError(
            f"data.test_days is {data.test_days}, but the log spans {span.total_seconds() / 86400:,.1f} days, so that "
            "nothing would be left to learn from; set it to less, or to 0 to judge nothing"
        )
    # Everything happens strictly before `now`, so that the whole log is one moment more than its last event.
    now = evaluation.cut(events, days=data.test_days) + timedelta(microseconds=not data.test_days)
    # Read twice where prices depend on `now`: they may only come from sales before it.
    if data.dataset == "completejourney":
        found = datasets.load("completejourney", now=now)
    step()
    return found, now


def reliable(events: pa.Table, wanted: BehaviorsConfig) -> pa.Table:
    """Keep the reliable behaviors.

    Raises:
        EmptyLogError: there is none, so that nobody has a history.
    """
    kept = behaviors.extract(events, reliable=wanted.reliable, rules=wanted.rules)
    if kept.num_rows:
        return kept
    counted = sorted(events["behavior"].value_counts().to_pylist(), key=lambda row: -row["counts"])
    came = ", ".join(f"{row['values']} ({row['counts']:,})" for row in counted[:8])
    raise EmptyLogError(
        f"the log needs at least one reliable behavior ({', '.join(wanted.reliable)}), but it has only {came}; name "
        "what they mean in [data.behaviors], or list them in behaviors.reliable"
    )


def split(events: pa.Table, now: datetime | None, data: DataConfig) -> tuple[pa.Table, pa.Table]:
    """Give what a run may see, and what it is judged on.

    Raises:
        InvalidConfigError: nothing held out is of the behavior that counts, so that nothing could be judged.
    """
    if now is not None:
        past = pc.less(events["timestamp"], pa.scalar(now, schema.TIMESTAMP))
    elif data.test_days:
        past = pa.array(~evaluation.leave_last_out(events, behavior=data.truth))
    else:
        past = pa.array(np.ones(len(events), np.bool_))
    known, future = events.filter(past), events.filter(pc.invert(past))
    if data.test_days and now is None and not future.num_rows:
        raise InvalidConfigError(
            f"the log has no times, and no user has a `{data.truth}` at two positions, so that the last could be held "
            "out; set data.truth to another behavior, or data.test_days to 0 to judge nothing"
        )
    if data.test_days and data.truth not in future["behavior"].to_pylist():
        came = ", ".join(sorted(set(future["behavior"].to_pylist())))
        raise InvalidConfigError(
            f"the last {data.test_days} days of the log hold no `{data.truth}` to judge on, but {came}; "
            "set data.truth to one of them, or data.test_days to 0 to judge nothing"
        )
    return known, future


def held_out(now: datetime | None, data: DataConfig, users: int) -> str:
    """Say in words what a run was judged on."""
    if now is None:
        return f"{users:,} users' last `{data.truth}` was left out"
    return f"{users:,} users bought in the {data.test_days} days after"
