"""The curriculum of a run: from the data that its configuration names, without what it is judged on."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recgpt import interests
from recgpt.alignment.curriculum import Curriculum, arrange, build
from recgpt.alignment.facts import Facts
from recgpt.alignment.held_out import HeldOut
from recgpt.alignment.subtasks import SUBTASKS
from recgpt.errors import AlignmentError
from recgpt.pipeline import config as configuration
from recgpt.pipeline import source

FOLDER = "alignment"


def curriculum(
    config: configuration.Config | str | Path,
    *,
    scale: float = 1.0,
    seed: int = 0,
    only: Iterable[str] | None = None,
    order: str = "topological",
    held_out: Collection[str] = (),
) -> tuple[Curriculum, Path]:
    """Build the samples of a run's data and write them to `OUT/alignment/curriculum.parquet` with what they came from.

    Nothing of the days that the run is judged on (`data.test_days`) is learned from.

    Args:
        config: of the run.
        scale: the report's counts are multiplied by it.
        seed: decides what is drawn, and the order of equals.
        only: some of the subtasks.
        order: `topological` or `shuffled`.
        held_out: users who are kept for judging.

    Returns:
        The samples in that order, and the file.

    Raises:
        AlignmentError: the log has no times, there is nothing to learn from, or the file cannot be written.
        InputError: the data are not usable.
    """
    settings = configuration.resolve(config)
    data, now = source.read(settings.data)
    if now is None:
        raise AlignmentError(
            "the log has no times, so that nobody could say what was known before the days that a run is judged on; "
            "give it a column `timestamp`"
        )
    origin = f"world/seed={settings.data.world.seed}" if settings.data.dataset == "world" else data.name
    held = HeldOut(held_out, since=now)
    pool = interests.Pool.load(settings.llm.pool)
    built = build(Facts.of(data, held_out=held, origin=origin, pool=pool), scale=scale, seed=seed, only=only)
    built = Curriculum(arrange(built.samples, order, seed=seed), built.counts)
    held.refuse(built.samples)
    said = {"origin": origin, "since": now.isoformat(), "order": order, "scale": scale, "seed": seed}
    path = settings.out / FOLDER / "curriculum.parquet"
    save(path, built.samples.replace_schema_metadata({"recgpt.curriculum": json.dumps(said)}))
    return built, path


def save(path: Path, samples: pa.Table) -> None:
    """Write under another name first: who reads meanwhile, or after a full disk, has the old samples whole.

    Raises:
        AlignmentError: the file cannot be written.
    """
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(samples, partial)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise AlignmentError(f"{path} cannot be written: {error.strerror or error}; what was there stays") from error


def listed(built: Curriculum) -> list[dict[str, Any]]:
    """Give a row for each subtask: level, samples made, asked for, and of the report."""
    return [{"subtask": name, "level": SUBTASKS[name].level, **asdict(count)} for name, count in built.counts.items()]
