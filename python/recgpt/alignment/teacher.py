"""Pre-alignment (section 2.1.2, stage 2): a teacher does the stages' own work, and what passes is learned from."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import interests
from recgpt.alignment.harvest import RIGHT, WRONG, Grade, harvest
from recgpt.alignment.held_out import HeldOut
from recgpt.alignment.outputs import Mode, Outputs, produce
from recgpt.alignment.run import FOLDER, save
from recgpt.alignment.sifting import Sifted, sift
from recgpt.alignment.truth import Truth
from recgpt.alignment.truth_teller import TruthTeller
from recgpt.errors import AlignmentError
from recgpt.evaluation.planted.behind import behind
from recgpt.judge import Buffer
from recgpt.llm.engine import Engine
from recgpt.pipeline import config as configuration
from recgpt.pipeline import engines, preflight, source
from recgpt.pipeline.config import Config, DataConfig
from recgpt.pipeline.milestones import buffer_path
from recgpt.pipeline.run import Stages
from recgpt.pipeline.watch import Clock, Silent, Watch
from recgpt.tags import item_tags

TEACHERS = ("world", "engine")
TRAINING_SEEDS = 100
"""Worlds of this seed and above are for training, by default; smaller ones for judging."""
PAPER = (90_000, 19_000)
"""Samples that the report's teacher wrote, and how many were kept (section 2.1.2)."""


@dataclass(frozen=True)
class Taught:
    """What a teacher gave."""

    samples: pa.Table
    """SAMPLES."""
    sifted: list[Sifted]
    """One a world, or one."""
    teacher: str
    path: Path

    def rejected(self) -> dict[str, int]:
        """Count rejected outputs by task and reason, the most frequent first."""
        found: dict[str, int] = {}
        for one in self.sifted:
            for task, reasons in one.rejected.items():
                for reason, count in reasons.items():
                    found[f"{task}: {reason}"] = found.get(f"{task}: {reason}", 0) + count
        return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def teach(
    config: Config | str | Path,
    *,
    teacher: str = "world",
    seed: int = TRAINING_SEEDS,
    worlds: int = 1,
    users: int | None = None,
    mode: Mode = "rank",
    held_out: Collection[str] = (),
    judging_engine: Engine | None = None,
    engine: Engine | None = None,
    watch: Watch | None = None,
) -> Taught:
    """Let a teacher answer the stages' own prompts, reject what is not good enough, and write the rest as samples.

    Args:
        config: of the run whose model is to be trained.
        teacher: `world`, which knows the truth behind generated worlds, or `engine`, the engine of the configuration
            (or `engine`) on the configuration's own log.
        seed: of the first world.
        worlds: how many; each has its `now` at another time of the year.
        users: of all worlds together, or drawn from the log; by default those of the configuration.
        mode: `rank` or `generate`: which prompts are answered. An engine always generates.
        held_out: users of the log who are kept for judging.
        judging_engine: answers the criteria that no rule decides; without one, rules and people decide.
        engine: a teacher that is open already.
        watch: told of every stage.

    Raises:
        AlignmentError: the world is the one that the run is judged on, nothing usable came, or a file cannot be
            written.
        RecGPTError: of a stage that could not go on.
    """
    settings = configuration.resolve(config)
    if teacher not in TEACHERS:
        raise AlignmentError(f"a teacher is one of {', '.join(TEACHERS)}, but it is {teacher!r}")
    folder = settings.out / FOLDER / "teacher"
    buffer = Buffer(buffer_path(settings))
    tables: list[pa.Table] = []
    sifted: list[Sifted] = []
    held = HeldOut(origins=[origin_of(settings.data)] if settings.data.dataset == "world" else [])
    if teacher == "world":
        if worlds < 1:
            raise AlignmentError(f"worlds must be at least 1, but it is {worlds}")
        name = "world"
        each = -(-(users or settings.data.world.users * worlds) // worlds)
        for place in range(worlds):
            own = _world(settings, folder, seed + place, users=each, turn=place / worlds)
            if origin_of(own.data) in held.origins or own.data.world.seed == settings.data.world.seed:
                raise AlignmentError(
                    f"the world of seed {own.data.world.seed} is the one that this run is judged on; teach from "
                    f"another, by default from seed {TRAINING_SEEDS} on"
                )
            outputs, grades = from_world(own, mode=mode, watch=watch)
            found = sift(outputs, settings, judging_engine=judging_engine, buffer=buffer, source="pre-alignment")
            tables.append(harvest(outputs, found.kept, grades, origin=origin_of(own.data)))
            sifted.append(found)
    else:
        ...
    samples = pa.concat_tables(tables)
    held.refuse(samples)
    path = settings.out / FOLDER / "teacher.parquet"
    taught = Taught(samples, sifted, name, path)
    usable(taught)
    told = {"teacher": name, "made": sum(one.made for one in sifted), "kept": sum(one.left for one in sifted)}
    save(path, samples.replace_schema_metadata({"recgpt.teacher": json.dumps(told | {"rejected": taught.rejected()})}))
    return taught


def origin_of(data: DataConfig) -> str:
    """Name a log as samples carry it."""
    return f"world/seed={data.world.seed}" if data.dataset == "world" else str(data.dataset or data.folder)


def _world(settings: Config, folder: Path, seed: int, *, users: int, turn: float) -> Config:
    """Turn a configuration to a world of its own; `turn` is the part of a year by which its `now` is later."""
    base = settings.data.world
    world = replace(base, seed=seed, users=users, days=base.days + round(365 * turn))
    data = DataConfig(dataset="world", test_days=settings.data.test_days or 14, world=world)
    llm = settings.llm.model_copy(update={"pool": None})  # the truth names interests of our pool
    return settings.model_copy(update={"out": folder / f"seed-{seed}", "data": data, "llm": llm})


def from_world(config: Config, *, mode: Mode, watch: Watch | None = None) -> tuple[Outputs, dict[str, Grade]]:
    """Let the truth-teller answer for every user of a world."""
    stages = prepared(config, watch)
    assert stages.now is not None  # a world has times
    users, pool = stages.users["user_id"].to_pylist(), interests.Pool.load()
    known = behind(
        stages.data.events,
        stages.data.truth,
        stages.items,
        stages.briefs,
        users,
        now=stages.now,
        hits=lambda text: [pool.interests[at].name for at in pool.hits(text)],
        reliable=config.behaviors.reliable,
    )
    truth = Truth.of(stages.data.truth, known, item_tags(stages.items))
    teller = TruthTeller(truth, name=origin_of(config.data), pool=pool, count=stages.tokenizer.count)
    outputs = produce(stages, users, teller, mode=mode, choosing_all=True, progress=stages.clock.watch.progress)
    return outputs, {
        "interests": lambda user, name: RIGHT if name in truth.planted(user) else WRONG,
        "tags": truth.standing,
    }


def prepared(config: Config, watch: Watch | None) -> Stages:
    """Run the stages up to the histories."""
    config.out.mkdir(parents=True, exist_ok=True)
    stages = Stages(config, Clock(watch or Silent()))
    stages.through(("logs", "behaviors", "history"), "history")
    return stages


def usable(taught: Taught) -> None:
    """Refuse samples from which nothing could be learned.

    Raises:
        AlignmentError: there are none, or ranking knows only right answers or only wrong ones.
    """
    if not taught.samples.num_rows:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in list(taught.rejected().items())[:5])
        raise AlignmentError(
            f"nothing usable came from the teacher {taught.teacher}: all of {sum(one.made for one in taught.sifted)} "
            f"outputs were rejected, most of them for {reasons or 'no stated reason'}"
        )
