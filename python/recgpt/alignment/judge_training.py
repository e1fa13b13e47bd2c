"""Judge training (section 3): an adapter from rebalanced labels, compared with its base on a round it never saw."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from recgpt import schema
from recgpt.alignment import judge_figures, training, world_labels
from recgpt.alignment.held_out import HeldOut
from recgpt.alignment.run import FOLDER
from recgpt.alignment.samples import SAMPLES, TASK
from recgpt.alignment.worlds import SEED, origin_of
from recgpt.errors import AlignmentError
from recgpt.evaluation.report import save
from recgpt.judge import Buffer, Criterion
from recgpt.judge import training as labels
from recgpt.llm.adapters import adapt
from recgpt.llm.prompts import load
from recgpt.pipeline import config as configuration
from recgpt.pipeline import engines
from recgpt.pipeline.criteria import criteria_of
from recgpt.pipeline.milestones import buffer_path
from recgpt.pipeline.watch import Clock, Silent, Watch

SOURCES = ("people", "world")
SETTINGS = training.Config(
    rank=8, alpha=16, row_tokens=512, step_tokens=2500, shuffle=True, learning_rate=1e-3, threads=1, save_every=5
)
Train = Callable[..., training.Trained]


@dataclass(frozen=True)
class Lesson:
    """What a judge learns, and what it is measured on."""

    samples: pa.Table
    """SAMPLES: a label each, answered by a word of the scale, which comes before the others."""
    found: labels.TrainingSet
    buffer: Buffer
    annotators: list[str]
    """Whose labels are measured on."""


def lesson(
    buffer: Buffer,
    criteria: Mapping[str, Criterion],
    *,
    origin: str,
    rounds: Collection[int] | None = None,
    users: Collection[str] = (),
    per_class: int | None = None,
    half_life: float = 1.0,
    seed: int = 0,
) -> Lesson:
    """Make samples of a buffer's labels, in equal numbers of every class.

    Args:
        buffer: of labels.
        criteria: by key.
        origin: the name of the log that the outputs are of; labels of a planted world carry their own.
        rounds: that are kept for measuring; the last labeled one by default.
        users: who are kept for judging; nothing is learned from outputs about them.
        per_class: labels of each class and criterion; by default as many as its rarest class has.
        half_life: rounds after which half as much of a round is kept.
        seed: decides what is drawn.

    Raises:
        AlignmentError: a sample is of a world or a user that is held out.
        JudgeError: there are no labels, or of one class only.
    """
    standing = buffer.labels(criteria).to_pylist()
    if rounds is None and standing:
        rounds = [max(row["round"] for row in standing)]
    found = labels.gather(
        buffer, criteria, held_out=rounds or (), users=users, per_class=per_class, half_life=half_life, seed=seed
    )
    notes = {row["sample"]: row["note"] for row in standing if row["annotator"] == world_labels.WORLD}
    samples = _samples(found.chosen, buffer, criteria, notes, origin)
    # Worlds below the training seeds are there to judge on, whichever of them this run names.
    HeldOut(users, origins=[f"world/seed={one}" for one in range(SEED)]).refuse(samples)
    return Lesson(samples, found, buffer, sorted(set(found.held_out["annotator"].to_pylist())))


def _samples(
    chosen: pa.Table, buffer: Buffer, criteria: Mapping[str, Criterion], notes: Mapping[str, str], origin: str
) -> pa.Table:
    whose = {one.id: one.user_id for one in buffer.samples(chosen["sample"].to_pylist()).values()}
    digest, rows = load("judge").digest, []
    for row in chosen.to_pylist():
        system, user, answer = (one["content"] for one in row["messages"])
        scale = criteria[row["criterion"]].scale
        rows.append(
            {
                "subtask": "judge",
                "level": TASK,
                "system": system,
                "prompt": user,
                "beginning": answer.removesuffix(f" {row['verdict']}"),
                "answer": f" {row['verdict']}",
                "others": [f" {word}" for word in scale if word != row["verdict"]],
                "user_id": whose[row["sample"]],
                "at": None,
                "origin": notes.get(row["sample"], origin),
                "prompt_digest": digest,
            }
        )
    return schema.rows(rows, SAMPLES)


def make(
    config: configuration.Config | str | Path,
    out: str | Path,
    *,
    base: str | Path,
    source: str = "people",
    rounds: Sequence[int] | None = None,
    users: Collection[str] = (),
    per_class: int | None = None,
    half_life: float = 1.0,
    settings: training.Config = SETTINGS,
    seed: int = SEED,
    worlds: int = 3,
    shoppers: int = 120,
    train: Train = training.train,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Train a judge and compare it with its base; the figures go to `OUT/alignment/judge.json` for the report.

    Args:
        config: of the run whose buffer and engine are used.
        out: the adapter to write, `NAME.gguf`.
        base: what is trained; the engine's model.
        source: `people`: the labels of the run's buffer; `world`: labels by the truth of planted worlds.
        rounds: of the buffer, kept for measuring; the last by default. With `world` it is the judging world.
        users: who are kept for judging.
        per_class: labels of each class and criterion; by default as many as its rarest class has.
        half_life: rounds after which half as much of a round is kept.
        settings: of the training.
        seed: `world`: of the first training world.
        worlds: `world`: how many.
        shoppers: `world`: of all training worlds together.
        train: trains.
        watch: told of every step.

    Returns:
        `about`, Table 9's figures by task, and `criteria` (`judge_figures.figures`), with the `file` they are in.

    Raises:
        AlignmentError: what would be learned is held out, nothing is left to measure on, or of the training.
        JudgeError: there are no labels, or of one class only.
        RecGPTError: of an engine or a stage that could not go on; what was answered is kept.
    """
    run, path, clock = configuration.resolve(config), Path(out), Clock(watch or Silent())
    if source not in SOURCES:
        raise AlignmentError(f"labels are of {' or '.join(SOURCES)}, but it is {source!r}")
    criteria, place = criteria_of(run), run.out / FOLDER / "judge"
    place.mkdir(parents=True, exist_ok=True)
    if source == "world":
        buffer = world_labels.buffer(run, place, criteria, seed=seed, count=worlds, users=shoppers, watch=watch)
        rounds = [world_labels.JUDGED]
    else:
        buffer = Buffer(buffer_path(run))
    taught = lesson(
        buffer, criteria, origin=origin_of(run.data), rounds=rounds, users=users,
        per_class=per_class, half_life=half_life, seed=run.seed,
    )  # fmt: skip
    held, known = taught.found.held_out, taught.found.classes()
    # What was not learned is not measured: both judges would be the base there.
    held = held.filter(pa.array([one in known for one in held["criterion"].to_pylist()], pa.bool_()))
    if not held.num_rows:
        raise AlignmentError(
            f"nothing in {buffer.path} is left to measure on: of {', '.join(known)} no label is in the rounds that are "
            "held out; let people label another round, or hold out another one (--hold-out-round)"
        )
    engine = engines.open_engine(run.llm, place / "llm")
    try:
        said = {"base": _asked(held, buffer, criteria, engine, clock, "base")}
        with clock.stage("training", f"{len(taught.samples)} labels, {path}") as summary:
            trained = _there(path, taught.samples, settings) or train(
                taught.samples, base=base, out=path, config=settings,
                held_out=HeldOut(users, origins=[f"world/seed={one}" for one in range(SEED)]),
                progress=lambda done, total, said: clock.watch.progress(done, total),
            )  # fmt: skip
            summary.append(str(trained.path))
        said["aligned"] = _asked(held, buffer, criteria, adapt(engine, str(path)), clock, "aligned")
    finally:
        engine.close()
    forward, backward = ({name: both[at] for name, both in said.items()} for at in (0, 1))
    found = {
        "about": {
            "annotators": taught.annotators,
            "engine": engine.name,
            "adapter": {"file": path.name, "sha256": trained.manifest.get("sha256")},
            "config": asdict(settings),
            "learned": known,
            "origins": sorted(set(taught.samples["origin"].to_pylist())),
            "held_out": {"rounds": sorted(set(held["round"].to_pylist())), "labels": held.num_rows},
            "left_out": taught.found.left_out,
        },
        **judge_figures.figures(held, criteria, forward, backward),
    }
    file = save(run.out / FOLDER / "judge.json", json.dumps(found, ensure_ascii=False, indent=1))
    return found | {"file": str(file)}


def _there(path: Path, samples: pa.Table, settings: training.Config) -> training.Trained | None:
    """Give the adapter that an interrupted command left, if it is of these samples and settings."""
    try:
        manifest = json.loads(training.manifest_of(path).read_text(encoding="utf-8"))
        same = manifest["samples"]["sha256"] == training.digest_of(samples) and manifest["config"] == asdict(settings)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return training.Trained(path, manifest) if same and path.is_file() else None


def _asked(
    held: pa.Table, buffer: Buffer, criteria: Mapping[str, Criterion], engine: Any, clock: Clock, name: str
) -> tuple[judge_figures.Verdicts, judge_figures.Verdicts]:
    """Ask in both orders of the words."""
    samples = buffer.samples(held["sample"].to_pylist())
    with clock.stage(f"judge {name}", f"asking about {held.num_rows} held-out labels, in both orders") as summary:
        both = tuple(
            judge_figures.ask(held, samples, criteria, engine, backward=backward, progress=clock.watch.progress)
            for backward in (False, True)
        )
        summary.append(f"{len(both[0])} verdicts")
    return both[0], both[1]
