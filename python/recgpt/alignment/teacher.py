"""Pre-alignment (section 2.1.2, stage 2): a teacher does the stages' own work, and what passes is learned from."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from recgpt.alignment import worlds as training_worlds
from recgpt.alignment.harvest import NOTHING, Grade, graded, harvest
from recgpt.alignment.held_out import HeldOut
from recgpt.alignment.outputs import Mode, Outputs, produce
from recgpt.alignment.run import FOLDER, save
from recgpt.alignment.sifting import Sifted, sift
from recgpt.alignment.worlds import SEED, origin_of, prepared
from recgpt.errors import AlignmentError
from recgpt.judge import Buffer
from recgpt.llm.engine import Engine
from recgpt.pipeline import config as configuration
from recgpt.pipeline import engines
from recgpt.pipeline.config import Config
from recgpt.pipeline.milestones import buffer_path
from recgpt.pipeline.watch import Watch

TEACHERS = ("world", "engine")
REASONING = 300
"""Tokens that an engine may think before an answer, where the configuration allows none."""
PAPER = (90_000, 19_000)
"""Samples that the report's teacher wrote, and how many of them were kept (section 2.1.2)."""


@dataclass(frozen=True)
class Taught:
    """What a teacher gave."""

    samples: pa.Table
    """SAMPLES."""
    sifted: list[Sifted]
    """One a log."""
    teacher: str
    """`world`, or the engine's name."""
    path: Path

    @property
    def made(self) -> int:
        """How many outputs the teacher wrote."""
        return sum(one.made for one in self.sifted)

    @property
    def left(self) -> int:
        """How many of them were kept."""
        return sum(one.left for one in self.sifted)

    def table(self) -> list[dict[str, Any]]:
        """Count outputs by task and by what became of them: `kept`, or who rejected them for what."""
        found: dict[tuple[str, str], int] = {}
        for one in self.sifted:
            for task, rows in one.kept.items():
                found[task, "kept"] = found.get((task, "kept"), 0) + len(rows)
                for reason, count in one.rejected[task].items():
                    found[task, reason] = found.get((task, reason), 0) + count
        ordered = sorted(found.items(), key=lambda pair: (list(self.sifted[0].kept).index(pair[0][0]), -pair[1]))
        return [{"task": task, "became": became, "outputs": count} for (task, became), count in ordered]


def teach(
    config: Config | str | Path,
    *,
    teacher: str = "world",
    seed: int = SEED,
    worlds: int = 1,
    users: int | None = None,
    mode: Mode = "rank",
    held_out: Collection[str] = (),
    judged: bool = False,
    engine: Engine | None = None,
    watch: Watch | None = None,
) -> Taught:
    """Let a teacher answer the stages' own prompts, reject what is not good enough, and write the rest as samples.

    Some of its outputs, rejected ones among them, are added to the run's judge buffer as `pre-alignment`; what people
    say of them on the review page overrules rules and model the next time.

    Args:
        config: of the run whose model is to be trained.
        teacher: `world`, which knows the truth behind generated worlds, or `engine`: the engine of the configuration
            on the configuration's own log, before the days that it is judged on.
        seed: `world`: of the first world.
        worlds: `world`: how many; each has its `now` at another time of the year.
        users: of all worlds together, or drawn from the log; by default the configuration's.
        mode: `world`: which prompts it answers, those of `rank` or of `generate`. An engine generates, and learns
            to rank from what it wrote.
        held_out: `engine`: users of the log who are kept for judging.
        judged: let the engine also judge, by the criteria that no rule decides.
        engine: one that is open already.
        watch: told of every stage.

    Returns:
        The samples, as they lie in `OUT/alignment/teacher.parquet`.

    Raises:
        AlignmentError: the world is the one that the run is judged on, nothing usable came, or a file cannot be
            written.
        RecGPTError: of a stage that could not go on.
    """
    settings = configuration.resolve(config)
    if teacher not in TEACHERS:
        raise AlignmentError(f"a teacher is one of {', '.join(TEACHERS)}, but it is {teacher!r}")
    if worlds < 1 or (users is not None and users < worlds):
        raise AlignmentError(f"at least one world and a user for each are needed, but there are {worlds} and {users}")
    held = HeldOut(held_out, origins=[origin_of(settings.data)] if teacher == "world" else [])
    path = settings.out / FOLDER / "teacher.parquet"
    opened = engine
    if engine is None and (judged or teacher == "engine"):
        opened = engines.open_engine(_generating(settings).llm, settings.out / "llm")
    found: list[pa.Table] = []
    sifted: list[Sifted] = []
    try:
        with writing(path):
            buffer = Buffer(buffer_path(settings))
            lessons = (
                _by_world(settings, seed=seed, worlds=worlds, users=users, mode=mode, watch=watch)
                if teacher == "world"
                else _by_engine(settings, opened, users=users, held_out=held_out, watch=watch)
            )
            for outputs, grades in lessons:
                own = sift(
                    outputs, settings, judge_engine=opened if judged else None, buffer=buffer, source="pre-alignment"
                )
                origin = origin_of(outputs.stages.config.data)
                found.append(harvest(outputs, own.kept, grades or graded(outputs, own.kept), origin=origin))
                sifted.append(own)
                if teacher == "engine":
                    held = replace(held, since=outputs.stages.now)
    finally:
        if opened is not None and engine is None:
            opened.close()
    name = "world" if teacher == "world" or opened is None else opened.name
    taught = Taught(pa.concat_tables(found), sifted, name, path)
    usable(taught)
    held.refuse(taught.samples)
    told = {"teacher": name, "mode": mode, "made": taught.made, "kept": taught.left, "outputs": taught.table()}
    save(path, taught.samples.replace_schema_metadata({"recgpt.teacher": json.dumps(told)}))
    return taught


def _by_world(
    settings: Config, *, seed: int, worlds: int, users: int | None, mode: Mode, watch: Watch | None
) -> Iterator[tuple[Outputs, Mapping[str, Grade] | None]]:
    folder = settings.out / FOLDER / "teacher"
    each = settings.data.world.users if users is None else -(-users // worlds)
    for place in range(worlds):
        config = training_worlds.world_of(settings, folder, seed=seed + place, users=each, turn=place / worlds)
        # What the truth-teller chooses, it chooses as an aligned model does.
        mining = replace(config.interests, reference=NOTHING.strip())
        stages = prepared(config.model_copy(update={"interests": mining}), watch)
        with stages.clock.stage("teacher", "answering the stages' prompts from what is true") as summary:
            outputs, grades = training_worlds.told(stages, mode=mode)
            summary.append(f"{origin_of(config.data)}: {len(outputs.texts)} texts for {len(outputs.users)} users")
        yield outputs, grades


def _by_engine(
    settings: Config, engine: Engine | None, *, users: int | None, held_out: Collection[str], watch: Watch | None
) -> Iterator[tuple[Outputs, Mapping[str, Grade] | None]]:
    assert engine is not None
    config = _generating(settings).model_copy(update={"out": settings.out / FOLDER / "teacher" / "log"})
    stages = prepared(config, watch)
    chosen = training_worlds.drawn_of(stages, count=users or settings.llm.households, held_out=held_out)
    with stages.clock.stage("teacher", f"{engine.name} answers the stages' prompts") as summary:
        outputs = produce(stages, chosen, engine, mode="generate", progress=stages.clock.watch.progress)
        summary.append(f"{len(outputs.texts)} texts for {len(chosen)} users")
    yield outputs, None


def _generating(settings: Config) -> Config:
    """Ask for written answers, with room for thinking."""
    mining = replace(settings.interests, reasoning_tokens=settings.interests.reasoning_tokens or REASONING)
    llm = settings.llm.model_copy(update={"mode": "generate"})
    return settings.model_copy(update={"interests": mining, "llm": llm})


def usable(taught: Taught) -> None:
    """Refuse samples from which nothing could be learned.

    Raises:
        AlignmentError: there are none, or ranking of a task knows right answers alone or wrong ones alone.
    """
    reasons = [f"{row['task']} {row['became']} ({row['outputs']})" for row in taught.table() if row["became"] != "kept"]
    if not taught.samples.num_rows:
        raise AlignmentError(
            f"nothing usable came from the teacher {taught.teacher}: {taught.left} of {taught.made} outputs were kept"
            + (f", the others were rejected: {', '.join(reasons[:5])}" if reasons else "")
        )
    ranking = [row for row in taught.samples.select(["subtask", "answer", "others"]).to_pylist() if row["others"]]
    for task in sorted({row["subtask"] for row in ranking}):
        own = [row for row in ranking if row["subtask"] == task]
        if all(row["answer"] == NOTHING for row in own):
            raise AlignmentError(
                f"the teacher {taught.teacher} called nothing right in {task}: ranking would only learn to reject; "
                f"rejected were {', '.join(reasons[:5]) or 'no outputs'}"
            )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell of a full disk in words; what an earlier command wrote stays.

    Raises:
        AlignmentError: in place of an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise AlignmentError(
            f"{error.filename or path.parent} cannot be written: {error.strerror or error}; {path} stays as it was, "
            "and the same command goes on when there is room"
        ) from error
