"""The human in the loop of a run's judge: calibration on labels, milestones opened and closed, who serves."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.errors import JudgeError
from recgpt.judge import Buffer, Criterion, draw, milestone, people
from recgpt.judge.calibration import Curve
from recgpt.judge.draw import Case
from recgpt.llm import prompts
from recgpt.llm.engine import Engine, Progress
from recgpt.pipeline import engines, rejudging
from recgpt.pipeline.config import Config
from recgpt.pipeline.criteria import criteria_of
from recgpt.pipeline.novelty import novel

RECENT = timedelta(days=30)
"""Outputs that came earlier before the newest one are not drawn."""


@dataclass
class Known:
    """What people taught the judge so far."""

    people: dict[tuple[str, str], str] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass
class Milestone:
    """What `recgpt judge milestone` found, as plain JSON values."""

    state: str
    """`opened` just now, `open` and waiting for labels, `closed` just now, or `not due`."""
    judge: str
    why: list[str] = field(default_factory=list)
    """Why it was opened; of one that is not due, why not."""
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By task: outputs, labels asked for, expected half width, and that of a random sample."""
    asked: int = 0
    """Samples that people are to label."""
    labeled: int = 0
    """Samples that have all their labels."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Reasons for which people skipped questions that nobody has answered, and how often."""
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Figures of the judge as it judged, by task and criterion."""
    after: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The same of the judge calibrated on these labels too, each fifth judged by what the others taught."""
    last: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Figures of the milestone before, with which `falls` compare."""
    falls: list[str] = field(default_factory=list)
    """Under which criteria it degraded."""
    withheld: dict[str, str] = field(default_factory=dict)
    """Under which criteria people decide from now on, and why."""
    overdue: bool = False
    next: str | None = None
    """Day on which the next one is due."""


def buffer_path(config: Config) -> Path:
    """Where the buffer of a run lies."""
    return config.judge.buffer or config.out / "judge" / "buffer.sqlite"


def version_of(engine: Engine, criteria: Mapping[str, Criterion]) -> str:
    """Name a judge: model, prompt and criteria. Its calibration changes with every label and is told by the events."""
    told = " ".join(one.digest for one in criteria.values())
    asks = prompts.load("judge").digest
    return f"{engine.name}/judge={asks[:12]}/criteria={hashlib.sha256(told.encode()).hexdigest()[:12]}"


def learn(
    buffer: Buffer | None,
    criteria: Mapping[str, Criterion],
    engine: Engine,
    *,
    keep: bool,
    progress: Progress | None = None,
) -> Known:
    """Calibrate the judge on labels: all up to its last milestone; before the first, but those that are to measure it.

    So a judge stays as it was measured until the next milestone, and labels given since can tell whether it degraded.
    Labeled samples are scored again by the engine at hand: the ledger has their answers, unless it is another model,
    whose scores mean something else anyway. What was learnt is written down when it is new.
    """
    labels = buffer.labels(criteria) if buffer is not None else None
    if buffer is None or labels is None or not labels.num_rows:
        return Known(missing=people.learn(schema.VERDICTS.empty_table(), {}, criteria)[1])
    said, events = people.said(labels), buffer.events()
    waiting, until = milestone.opened(events), _last_close(events)
    held = {one["sample"] for one in waiting["cases"]} if waiting else set()
    old = labels if until is None else labels.filter(pc.less_equal(labels["time"], pa.scalar(until, schema.TIMESTAMP)))
    taught = {key: word for key, word in people.said(old).items() if key[0] not in held}
    raw = rejudging.raw(buffer, {sample for sample, _ in taught}, criteria, engine, progress)
    curves, missing = people.learn(raw, taught, criteria)
    version = version_of(engine, criteria)
    told = hashlib.sha256(repr(sorted(taught.items())).encode()).hexdigest()[:16]
    last = next((one for one in reversed(buffer.events("calibrated")) if one["judge"] == version), None)
    if keep and curves and (last is None or last["labels"] != told):
        buffer.add_event(
            "calibrated",
            {"judge": version, "labels": told, "curves": {key: asdict(one) for key, one in curves.items()}},
        )
    return Known(said, curves, missing)


def withheld(buffer: Buffer | None, version: str, criteria: Mapping[str, Criterion]) -> dict[str, str]:
    """Give the criteria under which a judge does not serve, and why, by the last milestone that measured each.

    A measurement holds while model, prompt and the criterion's own file stay: what else is asked does not change it.
    """
    found: dict[str, str] = {}
    for event in buffer.events("milestone closed") if buffer else []:
        if event["judge"].rpartition("/criteria=")[0] != version.rpartition("/criteria=")[0]:
            continue
        for key, digest in event["files"].items():
            if key in criteria and criteria[key].digest == digest:
                found.pop(key, None)
                if key in event["withheld"]:
                    found[key] = event["withheld"][key]
    return found


def unsaid(verdicts: pa.Table, before: pa.Table) -> pa.Table:
    """Leave out verdicts that stand in the buffer already, so that the same command twice adds nothing."""
    names = [name for name in verdicts.schema.names if name != "as_of"]
    known = {tuple(row.values()) for row in before.select(names).to_pylist()}
    new = [tuple(row.values()) not in known for row in verdicts.select(names).to_pylist()]
    return verdicts.filter(pa.array(new, pa.bool_()))


def visit(
    config: Config,
    *,
    open_now: bool = False,
    close_now: bool = False,
    engine: Engine | None = None,
    now: datetime | None = None,
) -> Milestone:
    """Open a milestone where one is due, tell how far the open one is, or close it once its labels are there.

    Args:
        config: of the run.
        open_now: open one although none is due.
        close_now: close the open one with the labels that are there.
        engine: an open one; by default the run's own is opened and closed again.
        now: time; the clock's by default.

    Raises:
        JudgeError: the buffer has no verdicts of this judge, or no labels to close with.
    """
    criteria = criteria_of(config)
    buffer = Buffer(buffer_path(config))
    own = engines.open_engine(config.llm, config.out / "llm") if engine is None else None
    try:
        answering = engine or own
        assert answering is not None
        now = now or datetime.now(UTC)
        waiting = milestone.opened(buffer.events())
        if waiting is None:
            return _open(config, buffer, criteria, answering, now, force=open_now)
        return _close(config, buffer, criteria, answering, waiting, now, force=close_now)
    finally:
        if own is not None:
            own.close()


def notice(config: Config, *, now: datetime | None = None) -> str:
    """Say in a line when people last measured the judge, and whether that is overdue."""
    path, now = buffer_path(config), now or datetime.now(UTC)
    events = Buffer(path).events() if path.exists() else []
    every, until = timedelta(days=config.judge.every_days), _last_close(events)
    if waiting := milestone.opened(events):
        late = "OVERDUE: " if now - waiting["time"] > every else ""
        return f"{late}the milestone of {waiting['time']:%Y-%m-%d} waits for labels of {len(waiting['cases'])} samples"
    if until is None:
        return "people never measured this judge; `recgpt judge milestone` draws what they should label"
    late = "OVERDUE: " if now - until > every else ""
    return f"{late}people last measured the judge on {until:%Y-%m-%d}, the next time is {until + every:%Y-%m-%d}"


def _open(
    config: Config, buffer: Buffer, criteria: Mapping[str, Criterion], engine: Engine, now: datetime, *, force: bool
) -> Milestone:
    version = version_of(engine, criteria)
    events = buffer.events()
    closed = [one for one in events if one["kind"] == "milestone closed"]
    every = timedelta(days=config.judge.every_days)
    verdicts, said = buffer.verdicts(judge=version), people.said(buffer.labels(criteria))
    falls, fresh, until = [], {}, _last_close(events)
    newer: people.Said = {}
    if closed and until and closed[-1]["judge"] == version:
        # Labels that people gave since, a few a week, tell whether it still agrees.
        labels = buffer.labels(criteria)
        newer = people.said(labels.filter(pc.greater(labels["time"], pa.scalar(until, schema.TIMESTAMP))))
        new = novel(buffer, buffer.samples({sample for sample, _ in newer}), until)
        theirs = pa.array(sorted({sample for sample, _ in newer}), pa.large_string())
        mine = rejudging.equal_cases(verdicts.filter(pc.is_in(verdicts["sample"], theirs)))
        cases = [replace(one, novel=one.sample in new) for one in mine]
        cases = rejudging.served(buffer, cases, criteria, engine, learn(buffer, criteria, engine, keep=False).curves)
        fresh = milestone.compare(cases, newer, criteria)
        falls = milestone.degraded(milestone.measures(closed[-1]["after"]), milestone.measures(fresh))
    why = milestone.due(events, version, now=now, every=every, falls=falls)
    found = Milestone(
        "not due",
        version,
        why or (["asked for"] if force else []),
        before=fresh,
        last=dict(closed[-1]["after"]) if closed else {},
        falls=list(map(str, falls)),
        withheld=withheld(buffer, version, criteria),
        overdue=any(one.startswith("overdue") for one in why),
        next=f"{closed[-1]['time'] + every:%Y-%m-%d}" if closed else None,
    )
    if not found.why:
        assert closed, "a judge that was never measured is due"
        found.why = milestone.not_due(closed[-1], len({sample for sample, _ in newer}), every=every)
        return found
    if not verdicts.num_rows:
        raise JudgeError(f"{buffer.path} has no verdicts of {version}; let `recgpt judge run` judge something first")
    times = buffer.times()
    newest = max(times[sample] for sample in verdicts["sample"].to_pylist())
    old = {sample for sample, time in times.items() if newest - time > RECENT}
    calibrated = [one["time"] for one in buffer.events("calibrated") if one["judge"] == version]
    samples = buffer.samples(verdicts["sample"].to_pylist())
    new = novel(buffer, samples, calibrated[-1] if calibrated else None)
    drawn, plans = draw.draw(
        verdicts,
        most=config.judge.people,
        half_width=config.judge.half_width,
        novel=new,
        exclude=old | {sample for sample, _ in said},
        seed=config.seed + len(closed),
    )
    if not drawn:
        raise JudgeError(
            f"every recent output that {version} judged has labels already; raise judge.samples and let "
            "`recgpt judge run` judge more"
        )
    found.state, found.asked = "opened", len(drawn)
    found.plans = {task: asdict(plan) for task, plan in plans.items()}
    buffer.add_event(
        "milestone opened",
        {"judge": version, "why": found.why, "plans": found.plans, "falls": found.falls,
         "round": buffer.round(), "cases": [case.to_dict() for case in drawn]},
    )  # fmt: skip
    return found


def _close(
    config: Config,
    buffer: Buffer,
    criteria: Mapping[str, Criterion],
    engine: Engine,
    waiting: Mapping[str, Any],
    now: datetime,
    *,
    force: bool,
) -> Milestone:
    cases = [Case(**one) for one in waiting["cases"]]
    said = people.said(buffer.labels(criteria))
    wanted = {
        case.sample: {key for key in case.verdicts if key in criteria and not criteria[key].rule} for case in cases
    }
    labeled = sum(all((sample, key) in said for key in keys) for sample, keys in wanted.items())
    skips = buffer.skips(criteria)
    skipped = Counter(
        reason
        for sample, keys in wanted.items()
        for key in keys
        if (sample, key) not in said
        for reason in skips.get((sample, key), ())
    )
    version, events = waiting["judge"], buffer.events()
    closed = [one for one in events if one["kind"] == "milestone closed"]
    every = timedelta(days=config.judge.every_days)
    found = Milestone(
        "open", version, list(waiting["why"]), dict(waiting["plans"]), len(cases), labeled, dict(skipped),
        last=dict(closed[-1]["after"]) if closed else {}, falls=list(waiting["falls"]),
        withheld=withheld(buffer, version, criteria), overdue=now - waiting["time"] > every,
        next=f"{waiting['time'] + every:%Y-%m-%d}",
    )  # fmt: skip
    if labeled < len(cases) and not force:
        return found
    again = bool(closed) and closed[-1]["judge"] == version == version_of(engine, criteria)
    if again:
        cases = rejudging.served(buffer, cases, criteria, engine, learn(buffer, criteria, engine, keep=False).curves)
    found.before = milestone.compare(cases, said, criteria, seed=config.seed)
    if not found.before:
        raise JudgeError(
            f"the milestone of {waiting['time']:%Y-%m-%d} has no labels yet; label its {len(cases)} samples first "
            "(`recgpt judge review`)"
        )
    if version_of(engine, criteria) == version:
        found.after = milestone.compare(rejudging.crossed(buffer, cases, said, criteria, engine), said, criteria)
    else:
        found.after = found.before
    if again:
        falls = milestone.degraded(milestone.measures(closed[-1]["after"]), milestone.measures(found.before))
        found.falls = list(dict.fromkeys([*found.falls, *map(str, falls)]))
    found.withheld = milestone.serves(found.after, criteria, config.judge.accuracy, config.judge.accuracy_of)
    found.state, found.overdue, found.next = "closed", False, f"{now + every:%Y-%m-%d}"
    buffer.add_event(
        "milestone closed",
        {"judge": version, "why": found.why, "asked": len(cases), "labeled": labeled, "before": found.before,
         "after": found.after, "falls": found.falls, "withheld": found.withheld,
         "files": {key: one.digest for key, one in criteria.items()}},
    )  # fmt: skip
    # Calibrated on what people just said: from now on the judge is the one that `after` speaks of.
    learn(buffer, criteria, engine, keep=True)
    return found


def _last_close(events: Sequence[Mapping[str, Any]]) -> datetime | None:
    """Tell when the last milestone closed."""
    closed: list[datetime] = [one["time"] for one in events if one["kind"] == "milestone closed"]
    return closed[-1] if closed else None
