"""The aligned default: which samples each stage's adapter learns from, and how; made by `recgpt align default`.

Two sources, because each has what the other lacks: a real log for what people buy next, where no truth about their
interests is known, and planted worlds, whose truth-teller answers every stage's own prompts.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from recgpt.alignment import next_tags, teacher, training
from recgpt.alignment.held_out import HeldOut
from recgpt.alignment.run import FOLDER, save
from recgpt.alignment.samples import SAMPLES
from recgpt.alignment.shop import Shop
from recgpt.errors import AlignmentError
from recgpt.llm import Tokenizer
from recgpt.pipeline import config as configuration
from recgpt.pipeline import source
from recgpt.pipeline.config import Config, HistoryConfig

WORLDS, SHOPPERS = 4, 320
"""Worlds and shoppers of all of them together that the truth-teller speaks of."""
HISTORY_TOKENS = 450
"""Budget of the histories in what is learned: what a prompt costs is what decides how many there can be."""


class Lesson(NamedTuple):
    """A part of what one adapter learns."""

    source: str
    """`world` or `log`."""
    task: str
    ranking: bool
    prompts: int | None
    """Distinct prompts, drawn by the seed; None takes all."""


@dataclass(frozen=True)
class Recipe:
    """What one adapter learns, and how."""

    lessons: tuple[Lesson, ...]
    config: training.Config


_SHARED = training.Config(
    rank=8, alpha=16, row_tokens=512, step_tokens=2500, shuffle=True, learning_rate=1e-3, threads=1, save_every=5
)
RECIPES: Mapping[str, Recipe] = {
    "interests": Recipe((Lesson("world", "interests", True, 200), Lesson("world", "interests", False, 150)), _SHARED),
    "tags": Recipe(
        (
            Lesson("log", "tags", True, 600),
            Lesson("world", "tags", True, 180),
            Lesson("world", "tags", False, 500),
        ),
        _SHARED,
    ),
    "explanations": Recipe((Lesson("world", "explanations", False, None),), _SHARED),
}
"""By stage; sized so that all three are trained in about two hours on one core."""


def make(
    config: Config | str | Path,
    out: str | Path,
    *,
    base: str | Path,
    only: Iterable[str] | None = None,
    recipes: Mapping[str, Recipe] = RECIPES,
    watch: Any = None,
) -> dict[str, training.Trained | None]:
    """Make the adapters of a run: samples first, then each training; what is there already is not made again.

    Args:
        config: of a run on a log with times; its days and users that are judged, and its world, are held out.
        out: the folder of the adapters, STAGE.gguf and STAGE.json each.
        base: what is trained.
        only: some of the stages.
        recipes: what each adapter learns.
        watch: told of every step.

    Returns:
        What each training left; None where the adapter was there.

    Raises:
        AlignmentError: an unknown stage, or of the samples or the training.
        RecGPTError: of a stage that could not go on.
    """
    settings, folder = configuration.resolve(config), Path(out)
    wanted = list(recipes) if only is None else list(only)
    if unknown := sorted(set(wanted) - set(recipes)):
        raise AlignmentError(f"there are adapters for {', '.join(recipes)}, not for {', '.join(unknown)}")
    found: dict[str, training.Trained | None] = {}
    for name in wanted:
        path = folder / f"{name}.gguf"
        found[name] = None
        if path.exists() and training.manifest_of(path).exists():
            continue
        recipe = recipes[name]
        sources = {lesson.source for lesson in recipe.lessons}
        tables = {one: _source(one, settings, base, watch) for one in sorted(sources)}
        held = held_out(settings, base) if "log" in sources else HeldOut(origins=[_judging(settings)])
        samples = mixed(recipe.lessons, tables)
        if watch is not None:
            watch.begin("training", name)
        found[name] = training.train(
            samples,
            base=base,
            out=path,
            config=recipe.config,
            held_out=held,
            progress=None if watch is None else lambda done, total, said: watch.progress(done, total),
        )
        if watch is not None:
            watch.end(name, f"{len(samples):,} samples, {path}")
    return found


def mixed(lessons: Iterable[Lesson], tables: Mapping[str, pa.Table], *, seed: int = 0) -> pa.Table:
    """Draw the prompts of each lesson, with all their samples.

    Raises:
        AlignmentError: a source has nothing for a lesson.
    """
    parts = []
    for lesson in lessons:
        table = tables[lesson.source].select(SAMPLES.names).cast(SAMPLES)
        kinds = [bool(others) == lesson.ranking for others in table["others"].to_pylist()]
        fits = [kind and task == lesson.task for kind, task in zip(kinds, table["subtask"].to_pylist(), strict=True)]
        own = table.filter(pa.array(fits, pa.bool_()))
        keys = list(zip(*(own[name].to_pylist() for name in ("system", "prompt", "beginning")), strict=True))
        if not keys:
            raise AlignmentError(
                f"the {lesson.source} has no {'ranking' if lesson.ranking else 'text'} samples of {lesson.task}"
            )
        distinct = list(dict.fromkeys(keys))
        most = len(distinct) if lesson.prompts is None else min(lesson.prompts, len(distinct))
        kept = set(random.Random(seed).sample(distinct, most))
        parts.append(own.filter(pa.array([key in kept for key in keys], pa.bool_())))
    return pa.concat_tables(parts)


def held_out(config: Config, base: str | Path) -> HeldOut:
    """Name who and what the default is judged on: households of the log, its last days, and the judging world."""
    shop, now = _shop(config, base)
    return HeldOut(next_tags.held_out(shop, now), since=now, origins=[_judging(config)], log=shop.origin)


def _judging(config: Config) -> str:
    return f"world/seed={config.data.world.seed}"


def _source(name: str, config: Config, base: str | Path, watch: Any) -> pa.Table:
    path = config.out / FOLDER / ("teacher.parquet" if name == "world" else "next_tags.parquet")
    if path.exists():
        return pq.read_table(path)
    if name == "world":
        world = config.data.model_copy(update={"dataset": "world", "folder": None})
        short = config.model_copy(update={"data": world, "history": HistoryConfig(budget=HISTORY_TOKENS)})
        return teacher.teach(short, worlds=WORLDS, users=SHOPPERS, watch=watch).samples
    if watch is not None:
        watch.begin("samples", "what was bought next, at twenty moments of the log")
    shop, now = _shop(config, base)
    held = replace(HeldOut(next_tags.held_out(shop, now)), since=now)
    asked = next_tags.ask_all(shop, next_tags.draw(shop, now, held=held.users))
    table = next_tags.samples(asked, next_tags.candidates(shop, now), origin=shop.origin, held=held)
    save(path, table)
    return table


def _shop(config: Config, base: str | Path) -> tuple[Shop, Any]:
    data, now = source.read(config.data)
    if now is None:
        raise AlignmentError("the log has no times, so that nobody could say what was bought next; give it `timestamp`")
    return Shop.of(data, tokenizer=_tokenizer(base)), now


def _tokenizer(base: str | Path) -> Tokenizer:
    """Take the base's tokenizer where it is a GGUF file; else bytes, which are never too few."""
    return Tokenizer.from_gguf(base) if Path(base).is_file() else Tokenizer.bytes()
