"""Multi-dimension rejection sampling: what stages' rules, a judge's criteria and people reject is no sample.

Section 2.1.2 and Tables 1, 3 and 6: an output is kept only if it passes every criterion of its task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import judge
from recgpt.alignment.outputs import Outputs
from recgpt.judge import Buffer, Criterion, Sample, people
from recgpt.judge.review import Store
from recgpt.llm.engine import Engine, Progress
from recgpt.pipeline import judging, milestones
from recgpt.pipeline.config import Config
from recgpt.pipeline.criteria import criteria_of
from recgpt.pipeline.reviewing import contexts

Source = Literal["pre-alignment", "self-training"]


@dataclass
class Sifted:
    """What was kept, and why the rest was not."""

    kept: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By task, rows of its table."""
    rejected: dict[str, Counter[str]] = field(default_factory=dict)
    """By task: who rejected and why -> how many outputs."""

    @property
    def made(self) -> int:
        """How many outputs there were."""
        return self.left + sum(sum(own.values()) for own in self.rejected.values())

    @property
    def left(self) -> int:
        """How many of them were kept."""
        return sum(map(len, self.kept.values()))


def sift(
    outputs: Outputs,
    config: Config,
    *,
    judge_engine: Engine | None = None,
    buffer: Buffer | None = None,
    source: Source,
    progress: Progress | None = None,
) -> Sifted:
    """Reject by the stages' rules (done by then), by the criteria, and by people, who overrule both.

    Args:
        outputs: of an engine, whose tables lie in the folder of their stages.
        config: of the run, for its criteria and how many samples people are shown.
        judge_engine: answers what no rule can; without one only rules and people decide.
        buffer: where people's labels stand; some of these outputs, kept and rejected, are added for the next.
        source: what the buffer calls them.
        progress: called with (done, total) requests of the judge.
    """
    criteria, tables = criteria_of(config), judging.Tables(outputs.stages.config)
    pairs = {task: judging.written(tables, task) for task in judge.TASKS}
    samples = list({sample.id: sample for own in pairs.values() for _, sample in own}.values())
    said = people.said(buffer.labels(criteria)) if buffer is not None else {}
    curves = {}
    if judge_engine is not None:
        curves = milestones.learn(buffer, criteria, judge_engine, keep=False, progress=progress).curves
    judged = judge.judge(
        samples,
        criteria,
        engine=judge_engine,
        calibration=curves,
        thresholds={key: curve.threshold for key, curve in curves.items()},
        progress=progress,
    )
    faults = _faults(judged.table, said, criteria, strict=judge_engine is not None)
    found = Sifted()
    for task, own in pairs.items():
        found.kept[task] = [row for row, sample in own if sample.id not in faults]
        found.rejected[task] = Counter(faults[sample.id] for _, sample in own if sample.id in faults)
        found.rejected[task].update(_by_stage(outputs, task))
    if buffer is not None:
        version = milestones.version_of(judge_engine, criteria) if judge_engine is not None else "rules"
        most = config.judge.samples
        _show(buffer, tables, samples, faults, judged.table, criteria, version=version, source=source, most=most)
    return found


def _faults(
    verdicts: pa.Table, said: Mapping[tuple[str, str], str], criteria: Mapping[str, Criterion], *, strict: bool
) -> dict[str, str]:
    """Give the first reason for which each rejected sample was rejected; people's word counts before any other."""
    found: dict[str, str] = {}
    for row in verdicts.to_pylist():
        key = f"{row['task']}/{row['criterion']}"
        by, passed = row["decided_by"], row["passed"]
        if (word := said.get((row["sample"], key))) is not None:
            by, passed = "people", word in criteria[key].passes
        if passed is None and strict:
            by, passed = "unscored", False
        if passed is False and row["sample"] not in found:
            found[row["sample"]] = f"{by}: {row['criterion']}"
    return found


def _by_stage(outputs: Outputs, task: str) -> Counter[str]:
    """Count what the stage itself did not let through, by the word before the colon of its reason."""
    rejections = getattr(outputs, task).rejections
    return Counter(f"stage: {row['reason'].split(':')[0]}" for row in rejections.to_pylist())


def _show(
    buffer: Buffer,
    tables: judging.Tables,
    samples: Sequence[Sample],
    faults: Mapping[str, str],
    judged: pa.Table,
    criteria: Mapping[str, Criterion],
    *,
    version: str,
    source: Source,
    most: int,
) -> None:
    """Put some outputs of each task before people: half of them rejected ones, as far as there are."""
    shown: list[Sample] = []
    for task in judge.TASKS:
        own = sorted((one for one in samples if one.task == task), key=lambda one: one.id)
        bad = [one for one in own if one.id in faults][: most // 2]
        shown += [*bad, *(one for one in own if one.id not in faults)][:most]
    ids, rounds = {one.id for one in shown}, buffer.round()
    buffer.add_samples(shown, source=source, round=rounds)
    own = judged.filter(pa.array([one in ids for one in judged["sample"].to_pylist()], pa.bool_()))
    own = own.filter(pc.is_valid(own["passed"]))
    new = milestones.unsaid(own, buffer.verdicts(judge=version))
    buffer.add_verdicts(new, criteria, judge=version, round=rounds)
    Store(buffer, criteria).add_contexts(contexts(tables, shown))
