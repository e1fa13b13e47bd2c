"""Joins a bundle with a log: reads both and hands them to `recgpt.evaluation.replay`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from recgpt import datasets, evaluation, logs, serving
from recgpt.errors import InvalidConfigError
from recgpt.pipeline import source
from recgpt.pipeline.config import DataConfig, load


def data_of(what: str, *, time_zone: str | None = None, columns: dict[str, str] | None = None) -> DataConfig:
    """Give what a command line names: a run's TOML file (its `[data]`), a data set by name, or a folder.

    Raises:
        InvalidConfigError: settings beside a TOML file, which has its own.
    """
    if what.endswith(".toml"):
        if time_zone or columns:
            raise InvalidConfigError(f"{what} has its own [data]; leave --time-zone and --column out, or name a folder")
        return load(what).data
    if what in datasets.NAMES:
        return DataConfig(dataset=what)
    return DataConfig(folder=Path(what), time_zone=time_zone, columns=columns or {})


def replay(
    bundles: str | Path,
    data: DataConfig,
    *,
    now: datetime | None = None,
    k: int = 20,
    seed: int = 0,
    step: Callable[[str], None] = lambda _: None,
) -> evaluation.Replay:
    """Judge a bundle on a log, from the bundle's `now` on if no other is given; see `recgpt.evaluation.replay`.

    Raises:
        BundleError: there is no readable bundle.
        InputError: the log cannot be used, or the bundle was made after `now`.
    """
    answering = serving.Recommender.open(bundles)
    step("the log")
    read = source.dataset(data)
    known = logs.from_dataset(read)
    return evaluation.replay(
        answering,
        known.events,
        known.items,
        known.users,
        now=now,
        k=k,
        behavior=data.truth,
        seed=seed,
        step=step,
        named={"bundle": str(answering.folder), "data": read.name},
    )
