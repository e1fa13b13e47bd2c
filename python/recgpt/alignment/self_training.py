"""Self-training (section 2.1.2, stage 3): a model learns from those of its own outputs that rules and judges pass.

Each round asks for several tries, keeps what passes, trains, and goes through a gate on users from whom nothing is
learned: a round that does not help them, or whose answers lost their variety, is refused, and the model stays as it
was. Every step that ended stands in a log, so that the same command goes on after a kill.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from recgpt.alignment import gate, worlds
from recgpt.alignment.harvest import graded, harvest
from recgpt.alignment.held_out import HeldOut
from recgpt.alignment.outputs import Mode, Outputs, produce
from recgpt.alignment.recording import Trying
from recgpt.alignment.rounds import Log
from recgpt.alignment.run import FOLDER, save
from recgpt.alignment.sifting import Sifted, sift
from recgpt.alignment.teacher import writing
from recgpt.alignment.truth import Truth
from recgpt.alignment.worlds import SEED, origin_of, prepared
from recgpt.errors import AlignmentError
from recgpt.judge import Buffer
from recgpt.llm import Recorded
from recgpt.llm.adapters import adapt, adapter_file
from recgpt.llm.engine import Engine
from recgpt.pipeline import config as configuration
from recgpt.pipeline import engines
from recgpt.pipeline.config import Config
from recgpt.pipeline.milestones import buffer_path
from recgpt.pipeline.run import Stages
from recgpt.pipeline.watch import Watch

TRIES = 3
TEMPERATURE = 0.7
USERS = 24
GATE = 24
"""Users of the gate, who are never learned from."""
PAPER = 21_100
"""Samples that the report's models wrote for themselves (section 2.1.2)."""
_SEEDS = 1000
"""Between the seeds of two rounds."""


class HasPath(Protocol):
    """What a training gives back."""

    @property
    def path(self) -> Path:
        """The adapter."""


Train = Callable[..., HasPath]
"""`recgpt.alignment.training.train`, or what stands in for it."""


@dataclass(frozen=True)
class SelfTrained:
    """What came of the rounds."""

    rounds: pa.Table
    """`rounds.ROUNDS`."""
    adapter: Path | None
    """The best one: that of the last round that was accepted, or the one that was begun with."""
    before: gate.Measured
    """The model that was begun with, on the users of the gate."""
    after: gate.Measured
    """The best one, on the same users."""
    folder: Path


@dataclass(frozen=True)
class _School:
    """Who is learned from, and who says whether it helped."""

    pupils: Stages
    users: list[str]
    judges: Stages
    gate: list[str]
    truth: Truth | None
    held: HeldOut


def self_train(
    config: Config | str | Path,
    *,
    rounds: int = 1,
    tries: int = TRIES,
    temperature: float = TEMPERATURE,
    users: int = USERS,
    gate_users: int = GATE,
    seed: int = SEED,
    base: str | Path | None = None,
    start: str | Path | None = None,
    held_out: Collection[str] = (),
    judged: bool = False,
    fresh: bool = False,
    train: Train | None = None,
    settings: Any = None,
    engine: Recorded | None = None,
    watch: Watch | None = None,
) -> SelfTrained:
    """Let a model learn from its own outputs, round by round.

    In a world the pupils are shoppers of the world of `seed`, and the gate's are those of the next one; in a log both
    are drawn from the users who are not held out, and nobody is both.

    Args:
        config: of the run whose model is trained; its mode decides which outputs.
        rounds: how many in all, those of earlier calls included.
        tries: how often each question is asked: once as the stage does, the others sampled.
        temperature: of the sampled tries.
        users: from whose outputs is learned.
        gate_users: whom a round has to help.
        seed: of tries, of the world, and of the gate's interval.
        base: the model that is trained; by default the configuration's.
        start: the adapter to begin with; by default the configuration's, if it has one for all stages.
        held_out: users of the log who are kept for judging.
        judged: let the model also judge, by the criteria that no rule decides.
        fresh: forget the rounds of earlier calls.
        train: `recgpt.alignment.training.train` by default.
        settings: `recgpt.alignment.training.Config` of each round.
        engine: an open ledger of the model without adapter.
        watch: told of every step.

    Raises:
        AlignmentError: too few users or tries, the log of rounds belongs to other settings, or a file cannot be
            written.
        RecGPTError: of a stage or of the training that could not go on.
    """
    own = configuration.resolve(config)
    if rounds < 1 or tries < 1 or users < 1 or gate_users < 2:
        raise AlignmentError(
            "self-training needs at least one round, one try, one user and two users of the gate, but it got "
            f"{rounds}, {tries}, {users} and {gate_users}"
        )
    begun = Path(start) if start is not None else _configured(own)
    bare = own.model_copy(update={"llm": own.llm.model_copy(update={"adapters": {}})})
    folder = own.out / FOLDER / "self"
    said = {
        "tries": tries, "temperature": temperature, "users": users, "gate_users": gate_users, "seed": seed,
        "mode": own.llm.mode, "origin": origin_of(own.data), "judged": judged, "start": begun and _digest(begun),
        "held_out": HeldOut(held_out).digest(), "training": repr(settings),
    }  # fmt: skip
    opened = engine if engine is not None else engines.open_engine(own.llm, own.out / "llm")
    try:
        with writing(folder):
            for old in folder.glob("round-*") if fresh else ():
                # A training would go on from another one's state.
                shutil.rmtree(old)
            log = Log(folder, said, fresh=fresh)
            school = _school(
                bare, folder, users=users, gate_users=gate_users, seed=seed, held_out=held_out, watch=watch
            )
            before, after, adapter = _Rounds(
                bare, school, log, folder, opened, begun, train=train or _train, settings=settings, tries=tries,
                temperature=temperature, seed=seed, judged=judged, mode=own.llm.mode, base=base,
            ).through(rounds)  # fmt: skip
            return SelfTrained(log.rounds(), adapter, before, after, folder)
    finally:
        if engine is None:
            opened.close()


class _Rounds:
    """One self-training: what it knows, and the step at hand."""

    def __init__(
        self,
        config: Config,
        school: _School,
        log: Log,
        folder: Path,
        engine: Recorded,
        start: Path | None,
        *,
        train: Train,
        settings: Any,
        tries: int,
        temperature: float,
        seed: int,
        judged: bool,
        mode: Mode,
        base: str | Path | None,
    ) -> None:
        self.base = base
        self.config, self.school, self.log, self.folder, self.engine = config, school, log, folder, engine
        self.start, self.train, self.settings = start, train, settings
        self.tries, self.temperature, self.seed, self.judged, self.mode = tries, temperature, seed, judged, mode
        self.buffer = Buffer(buffer_path(config))

    def through(self, rounds: int) -> tuple[gate.Measured, gate.Measured, Path | None]:
        """Go through the rounds that have not ended."""
        adapter, known = self.start, self.log.find("measured", 0)
        if known is None:
            known = {"kind": "measured", "round": 0, "measured": self._measured(adapter).plain()}
            self.log.add(known)
        before = best = gate.Measured(**known["measured"])
        for number in range(1, rounds + 1):
            line = self.log.find("round", number)
            if line is None:
                line = self._round(number, adapter, best)
                self.log.add(line)
                self.log.rounds()
            if line["accepted"]:
                adapter, best = Path(line["adapter"]), gate.Measured(**line["measured"])
        return before, best, adapter

    def _round(self, number: int, adapter: Path | None, best: gate.Measured) -> dict[str, Any]:
        folder = self.folder / f"round-{number}"
        file, learned = folder / "samples.parquet", self.log.find("samples", number)
        if learned is None or not file.is_file():
            learned = self._samples(number, adapter, file)
            self.log.add(learned)
        line: dict[str, Any] = {**learned, "kind": "round", "accepted": False, "parts": {}, "variety": {}}
        samples = pq.read_table(file)
        if not samples.num_rows:
            return line | {"why": f"nothing to learn from: all of {learned['made']} outputs were rejected"}
        clock = self.school.pupils.clock
        with clock.stage(f"round {number}", f"learning from {samples.num_rows} samples") as summary:
            trained = self.train(
                samples,
                base=self.base or engines.model_path(self.config.llm),
                out=folder / "adapter.gguf",
                config=self.settings,
                held_out=self.school.held,
                start=adapter,
                progress=lambda done, total, *_: clock.watch.progress(done, total),
            )
            summary.append(str(trained.path))
        after = self._measured(trained.path)
        verdict = gate.compare(best, after, seed=self.seed)
        return line | {
            "accepted": verdict.passed, "why": verdict.why, "gain": verdict.gain, "low": verdict.low,
            "high": verdict.high, "users": verdict.users, "parts": after.parts, "variety": after.variety,
            "measured": after.plain(), "adapter": str(trained.path),
        }  # fmt: skip

    def _samples(self, number: int, adapter: Path | None, file: Path) -> dict[str, Any]:
        """Ask for every try, and write down what passes."""
        engine, stages = self._engine(adapter), self.school.pupils
        tables: list[pa.Table] = []
        sifted: list[Sifted] = []
        for turn in range(self.tries):
            asked = Trying(
                engine, temperature=self.temperature, seed=self.seed + _SEEDS * number + turn
            ) if turn else engine  # fmt: skip
            with stages.clock.stage(f"round {number}", f"try {turn + 1} of {self.tries}") as summary:
                outputs, own = self._outputs(stages, self.school.users, asked, source=True)
                summary.append(f"{own.left} of {own.made} outputs kept")
            tables.append(harvest(outputs, own.kept, graded(outputs, own.kept), origin=origin_of(stages.config.data)))
            sifted.append(own)
        samples = _distinct(pa.concat_tables(tables))
        self.school.held.refuse(samples)
        save(file, samples)
        rejected = sum((count for one in sifted for count in one.rejected.values()), start=Counter())
        made, kept = sum(one.made for one in sifted), sum(one.left for one in sifted)
        return {
            "kind": "samples", "round": number, "made": made, "kept": kept, "samples": samples.num_rows,
            "rejected": dict(rejected.most_common()),
        }  # fmt: skip

    def _measured(self, adapter: Path | None) -> gate.Measured:
        stages = self.school.judges
        with stages.clock.stage(
            "gate", f"asking {len(self.school.gate)} users from whom nothing is learned"
        ) as summary:
            outputs, own = self._outputs(stages, self.school.gate, self._engine(adapter), source=False)
            found = gate.measure(outputs, own, self.school.truth)
            summary.append(", ".join(f"{name} {value:.2f}" for name, value in found.parts.items()))
        return found

    def _outputs(self, stages: Stages, users: Sequence[str], engine: Engine, *, source: bool) -> tuple[Outputs, Sifted]:
        outputs = produce(stages, users, engine, mode=self.mode, progress=stages.clock.watch.progress)
        own = sift(
            outputs,
            self.config,
            judge_engine=self.engine if self.judged else None,
            # People are not asked about the gate's users: what they say would be learned from.
            buffer=self.buffer if source else None,
            source="self-training",
            progress=stages.clock.watch.progress,
        )
        return outputs, own

    def _engine(self, adapter: Path | None) -> Engine:
        return self.engine if adapter is None else adapt(self.engine, str(adapter))


def _school(
    config: Config,
    folder: Path,
    *,
    users: int,
    gate_users: int,
    seed: int,
    held_out: Collection[str],
    watch: Watch | None,
) -> _School:
    """Prepare the histories of those who are learned from and of those who judge."""
    if config.data.dataset == "world":
        size = config.data.world.users
        own, other = (
            prepared(worlds.world_of(config, folder, seed=seed + turn, users=size, turn=0.0), watch) for turn in (0, 1)
        )
        held = HeldOut(origins=[origin_of(config.data), origin_of(other.config.data)])
        drawn = worlds.drawn_of(own, count=users, held_out=()), worlds.drawn_of(other, count=gate_users, held_out=())
        return _School(own, drawn[0], other, drawn[1], worlds.truth_of(other), held)
    stages = prepared(config.model_copy(update={"out": folder / "log"}), watch)
    found = worlds.drawn_of(stages, count=users + gate_users, held_out=held_out)
    # They are sorted by the length of their histories: the gate gets some of every length.
    judges = found[:: max(1, len(found) // gate_users)][:gate_users]
    pupils = [user for user in found if user not in set(judges)]
    if not pupils or len(judges) < 2:
        raise AlignmentError(
            f"{len(found)} users can be drawn, but {users} to learn from and {gate_users} for the gate were asked for; "
            "lower llm.min_events, or ask for fewer"
        )
    return _School(stages, pupils, stages, judges, None, HeldOut({*held_out, *judges}, since=stages.now))


def _configured(config: Config) -> Path | None:
    """Give the adapter that the configuration has for all stages.

    Raises:
        AlignmentError: it has several.
    """
    distinct = sorted(set(config.llm.adapters.values()))
    if len(distinct) > 1:
        raise AlignmentError(
            f"one adapter learns all stages, but llm.adapters names {', '.join(distinct)}; name one with --start"
        )
    return Path(distinct[0]) if distinct else None


def _distinct(samples: pa.Table) -> pa.Table:
    """Leave out samples that several tries gave, and keep those of one prompt together."""
    groups: dict[tuple[str, str], dict[tuple[str, ...], dict[str, Any]]] = {}
    for row in samples.to_pylist():
        groups.setdefault((row["prompt"], row["beginning"]), {})[(row["answer"], *row["others"])] = row
    return pa.Table.from_pylist([row for group in groups.values() for row in group.values()], samples.schema)


def _digest(path: Path) -> str:
    return adapter_file(path)[1]


def _train(samples: pa.Table, **given: Any) -> HasPath:
    """Train for real; imported late, because it needs `recgpt[train]`."""
    from recgpt.alignment.training import train

    return train(samples, **given)
