"""Judges labeled samples anew: without any calibration, as the judge serves, or by what all other labels taught."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from recgpt import judge
from recgpt.judge import Buffer, Criterion, Sample, people
from recgpt.judge.calibration import Curve
from recgpt.judge.draw import Case
from recgpt.llm.engine import Engine, Progress

FOLDS = 5


def crossed(
    buffer: Buffer,
    cases: list[Case],
    said: Mapping[tuple[str, str], str],
    criteria: Mapping[str, Criterion],
    engine: Engine,
) -> list[Case]:
    """Judge the cases anew, each fifth with a calibration on all labels but its own."""
    asked = {case.sample for case in cases}
    known = raw(buffer, asked | {sample for sample, _ in said}, criteria, engine, None)
    ordered = sorted(asked, key=lambda sample: hashlib.sha256(sample.encode()).digest())
    judged: dict[str, dict[str, dict[str, Any]]] = {}
    samples = buffer.samples(asked)
    for fold in range(FOLDS):
        held = set(ordered[fold::FOLDS])
        taught = {key: word for key, word in said.items() if key[0] not in held}
        curves, _ = people.learn(known, taught, criteria)
        judged |= _judged([samples[sample] for sample in sorted(held)], criteria, engine, curves)
    return _with(cases, judged)


def served(
    buffer: Buffer,
    cases: list[Case],
    criteria: Mapping[str, Criterion],
    engine: Engine,
    curves: Mapping[str, Curve],
) -> list[Case]:
    """Judge the cases anew as the judge serves now: what the buffer has may be older than its calibration."""
    samples = buffer.samples({case.sample for case in cases})
    return _with(cases, _judged(list(samples.values()), criteria, engine, curves))


def _judged(
    own: Sequence[Sample], criteria: Mapping[str, Criterion], engine: Engine, curves: Mapping[str, Curve]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Give calibrated verdicts, by sample and criterion."""
    found = judge.judge(
        own,
        criteria,
        engine=engine if scores(engine) else None,
        calibration=curves,
        thresholds={key: curve.threshold for key, curve in curves.items()},
    )
    return {case.sample: case.verdicts for case in equal_cases(found.table)}


def _with(cases: list[Case], judged: Mapping[str, Mapping[str, dict[str, Any]]]) -> list[Case]:
    """Put newer verdicts into cases; what rules decided stays, because what they looked at is not in the buffer."""
    return [
        replace(case, verdicts={
            key: one if one["decided_by"] == "rule" else judged[case.sample].get(key, one)
            for key, one in case.verdicts.items()
        })
        for case in cases
    ]  # fmt: skip


def equal_cases(verdicts: pa.Table) -> list[Case]:
    """Make cases of equal weight of verdicts."""
    found: dict[str, Case] = {}
    for row in verdicts.to_pylist():
        case = found.setdefault(row["sample"], Case(row["sample"], row["task"], row["task"], 1.0, False, {}))
        kept = {name: row[name] for name in ("verdict", "passed", "score", "decided_by")}
        case.verdicts[f"{row['task']}/{row['criterion']}"] = kept
    return list(found.values())


def scores(engine: Engine) -> bool:
    """Tell whether an engine gives log-probabilities; only some servers do not."""
    return bool(getattr(getattr(engine, "engine", engine), "scores", True))


def raw(
    buffer: Buffer, wanted: set[str], criteria: Mapping[str, Criterion], engine: Engine, progress: Progress | None
) -> pa.Table:
    """Score samples of the buffer without any calibration."""
    own = list(buffer.samples(wanted).values())
    return judge.judge(own, criteria, engine=engine if scores(engine) else None, progress=progress).table
