"""One update of LLM_IT: the window's samples from a run's data, and the adapter that has learned them."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

import pyarrow as pa

from recgpt import interests
from recgpt.alignment import incremental
from recgpt.alignment.held_out import HeldOut
from recgpt.alignment.run import FOLDER, save
from recgpt.alignment.shop import Shop, aware
from recgpt.errors import AlignmentError
from recgpt.pipeline import config as configuration
from recgpt.pipeline import engines, source


class Trainer(Protocol):
    """What trains: `alignment.training.train`."""

    def __call__(
        self,
        samples: pa.Table,
        *,
        base: str | Path,
        out: str | Path,
        config: Any = None,
        held_out: HeldOut | None = None,
        start: str | Path | None = None,
        progress: Any = None,
    ) -> Any:
        """Learn samples from an adapter on; write the new one to `out`."""


class Updated(NamedTuple):
    """What an update left."""

    window: incremental.Window
    samples: Path
    """The samples as Parquet; the triplets beside them say what each rests on."""
    adapter: Path | None
    """The new adapter; None where only samples were asked for."""
    until: datetime


def update(
    config: configuration.Config | str | Path,
    *,
    until: datetime | None = None,
    current: str | Path | None = None,
    held_out: Collection[str] = (),
    settings: incremental.Config | None = None,
    training: Any = None,
    only_samples: bool = False,
    train: Trainer | None = None,
    progress: Any = None,
) -> Updated:
    """Build the samples of the days before `until`, and train from the current adapter on.

    The new adapter, `tags-DATE.gguf`, stands beside the current one, which stays: what serves is chosen by
    `llm.adapters`. The prompts are those of the run's own settings and mode.

    Args:
        config: of the run.
        until: the window ends before it; without a time zone it is the shop's own. By default the moment before the
            days that the run is judged on; nothing later is ever learned from.
        current: adapter to go on from; by default `llm.adapters.tags`, and where there is none the base.
        held_out: users who are kept for judging.
        settings: of the window.
        training: settings of the training.
        only_samples: do not train.
        train: None is `alignment.training.train`.
        progress: passed on to it.

    Raises:
        AlignmentError: the log has no times, the window is empty or held out, or a file cannot be written.
        InputError: the data are not usable.
        MissingExtraError: what trains is not installed.
    """
    run = configuration.resolve(config)
    data, now = source.read(run.data)
    if now is None:
        raise AlignmentError(
            "the log has no times, so that it has no last 14 days; give it a column `timestamp`, or learn from all of "
            "it with `recgpt align curriculum`"
        )
    origin = f"world/seed={run.data.world.seed}" if run.data.dataset == "world" else data.name
    shop = Shop.of(
        data,
        tokenizer=engines.tokenizer(run.llm),
        what="tags",
        origin=origin,
        pool=interests.Pool.load(run.llm.pool),
        config=run.tags,
    )
    held = HeldOut(held_out, since=now)
    end = now if until is None else until if until.tzinfo else until.replace(tzinfo=ZoneInfo(shop.zone))
    if aware(end) > now:
        raise AlignmentError(
            f"the window may end at {now.isoformat()} at the latest, because the days after it are held out "
            f"(data.test_days = {run.data.test_days}), but it was to end at {end.isoformat()}"
        )
    window = incremental.window(shop, end, held=held, mode=run.llm.mode, config=settings)
    name = f"tags-{end.astimezone(ZoneInfo(shop.zone)):%Y-%m-%d}"
    path = run.out / FOLDER / f"{name}.parquet"
    save(path, window.samples.replace_schema_metadata({"recgpt.incremental": json.dumps(window.counts)}))
    save(path.with_name(f"{name}-triplets.parquet"), incremental.listed(window.triplets))
    if only_samples:
        return Updated(window, path, None, end)
    if train is None:
        from recgpt.alignment.training import train as trainer

        train = trainer
    start = current or run.llm.adapters.get("tags")
    out = (Path(start).parent if start else run.out / FOLDER) / f"{name}.gguf"
    if start and Path(start).resolve() == out.resolve():
        raise AlignmentError(
            f"the current adapter {start} is already that of {end.date()}; choose another --until, or go on from the "
            "one before it with --adapter"
        )
    made = train(
        window.samples,
        base=engines.model_path(run.llm),
        out=out,
        config=training,
        held_out=held,
        start=start,
        progress=progress,
    )
    return Updated(window, path, made.path, end)
