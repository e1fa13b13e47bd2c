"""What sways a judge that should not: the order in which a scale is named, the length of a text, what a text demands.

Each figure compares the judge with itself, so nobody has to label anything: a verdict that turns when the words of its
scale are named the other way round, or when the output ends in a demand, was not about the output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from recgpt.judge.criteria import Criterion
from recgpt.judge.judging import Calibrated, Judged, judge
from recgpt.judge.sample import Sample
from recgpt.llm.engine import Engine, Progress

SWAYED = 0.05
"""Share of turned verdicts from which a card calls position or injections a known failure."""
STEEP = 0.3
"""Spearman's coefficient between length and score from which it calls length one."""


@dataclass(frozen=True, slots=True)
class Swayed:
    """How far one criterion's verdicts hang on what they should not hang on."""

    verdicts: int
    """Of the model; others are not asked."""
    position: float | None
    """Share that turns when the words of the scale, and their examples, are named worst first."""
    length: float | None
    """Spearman's coefficient between an output's length in characters and its score; None where either is all equal."""
    injections: float | None
    """Share that turns when a demand stands behind the output."""


def attacks() -> list[str]:
    """Give our demands (`prompts/rules/attacks.txt`); `benches/judge.py` has five hundred others."""
    text = (resources.files("recgpt") / "prompts" / "rules" / "attacks.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("# ")]


def measure(
    samples: Sequence[Sample],
    criteria: Mapping[str, Criterion],
    *,
    engine: Engine,
    demands: Sequence[str] | None = None,
    calibration: Mapping[str, Calibrated] | None = None,
    thresholds: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Judge every sample three times: as it is, with the scale named backward, and with a demand behind its output.

    Args:
        samples: a sample gets one demand, in turn.
        criteria: by key; those of rules are left out.
        engine: the one that judges.
        demands: `attacks()` by default.
        calibration: as in `judging.judge`: the judge is measured as it serves.
        thresholds: likewise.
        progress: called with (done, total) requests of each of the three.

    Returns:
        `Swayed` as plain values, by key of criterion.
    """
    asked = {key: one for key, one in criteria.items() if not one.rule}
    ask: Callable[..., Judged] = partial(
        judge, criteria=asked, engine=engine, calibration=calibration, thresholds=thresholds, progress=progress
    )
    plain = ask(samples)
    turned, forced = ask(samples, backward=True), ask(injected(samples, demands or attacks()))
    position, injections, spearman = turns(plain, turned), turns(plain, forced), lengths(plain, samples)
    return {
        key: asdict(Swayed(count, share, spearman[key], injections.get(key, (0, None))[1]))
        for key, (count, share) in position.items()
    }


def injected(samples: Sequence[Sample], demands: Sequence[str]) -> list[Sample]:
    """Put a demand behind each sample's output, one after the other and over again."""
    found = []
    for place, one in enumerate(samples):
        *others, (label, output) = one.fields.items()
        text = f"{output} {demands[place % len(demands)]}"
        found.append(Sample(one.task, dict([*others, (label, text)]), user_id=one.user_id, ruled=one.ruled))
    return found


def turns(one: Judged, other: Judged) -> dict[str, tuple[int, float]]:
    """Count by criterion what both judged, and the share of it that passes in one and fails in the other.

    Args:
        one: verdicts.
        other: of as many samples in the same order.
    """
    found: dict[str, list[bool]] = {}
    for row, beside in zip(one.table.to_pylist(), other.table.to_pylist(), strict=True):
        if row["decided_by"] == "llm" and None not in (row["passed"], beside["passed"]):
            found.setdefault(f"{row['task']}/{row['criterion']}", []).append(row["passed"] != beside["passed"])
    return {key: (len(own), sum(own) / len(own)) for key, own in found.items()}


def lengths(judged: Judged, samples: Sequence[Sample]) -> dict[str, float | None]:
    """Correlate, by criterion, scores with the length of what was judged (Spearman)."""
    long = {one.id: len(list(one.fields.values())[-1]) for one in samples}
    pairs: dict[str, list[tuple[float, float]]] = {}
    for row in judged.table.to_pylist():
        if row["decided_by"] == "llm" and row["score"] is not None:
            pairs.setdefault(f"{row['task']}/{row['criterion']}", []).append((long[row["sample"]], row["score"]))
    return {key: spearman(*zip(*own, strict=True)) for key, own in pairs.items()}


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Correlate ranks; None where all of one side are equal.

    >>> spearman([1, 2, 3], [10, 20, 15]), spearman([1, 1], [1, 2])
    (0.5, None)
    """
    one, other = _ranks(np.asarray(first, np.float64)), _ranks(np.asarray(second, np.float64))
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return round(float(np.corrcoef(one, other)[0, 1]), 12)


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rank with ties at their mean, as Spearman's coefficient wants it."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place], np.float64)
