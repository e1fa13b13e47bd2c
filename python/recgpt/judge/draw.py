"""Which outputs people should label, and how many, so that the interval on agreement narrows fastest.

Stratified sampling with Neyman's allocation. A judge that says .5 is wrong more often than one that says .95, so
outputs are put into `STRATA` groups of equal size by the variance `p (1 - p)` of what the judge's score foresees,
averaged over the criteria that the model decides; a group gets labels in proportion to its size times the square root
of its variance. Every label then stands for as many outputs as its group has for each label, and estimates weigh by
that, so nothing is biased, whatever the scores are worth. What is novel forms groups of its own, with a floor, because
a judge that suppresses new trends looks accurate in the mean.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from recgpt import schema

STRATA = 8
SMALL = 10
"""Outputs of a group at least: in smaller ones rounding to whole labels costs more than stratifying gives."""
FLOOR = 0.02
"""Least chance of being wrong that a score is believed to have: judges are surer of themselves than they are right."""
NOVEL = 20
"""Least labels for what is novel, where there are as many."""


@dataclass(frozen=True, slots=True)
class Case:
    """One output that people are to label."""

    sample: str
    task: str
    stratum: str
    weight: float
    """Outputs that it stands for."""
    novel: bool
    verdicts: dict[str, dict[str, Any]]
    """By key of criterion: the judge's `verdict`, `passed`, `score` and `decided_by` when it was drawn."""

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a draw promises for one task."""

    outputs: int
    labels: int
    half_width: float
    """Expected half of the 95 % interval on a criterion's accuracy, if the scores mean what they say."""
    half_width_at_random: float
    """The same for as many outputs drawn at random."""


def draw(
    verdicts: pa.Table,
    *,
    most: int,
    half_width: float = 0.05,
    novel: Collection[str] = (),
    exclude: Collection[str] = (),
    seed: int = 0,
) -> tuple[list[Case], dict[str, Plan]]:
    """Draw outputs of every task.

    Args:
        verdicts: `schema.VERDICTS` of recent outputs.
        most: labels a task at most.
        half_width: wanted; no more labels are drawn than reach it.
        novel: samples with something in them that was first seen after the judge was calibrated.
        exclude: samples that people labeled before.
        seed: the same seed draws the same, whatever the order.

    Returns:
        Cases, and by task what was promised.
    """
    found: dict[str, dict[str, dict[str, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for row in schema.table(verdicts, schema.VERDICTS, name="verdicts").to_pylist():
        kept = {name: row[name] for name in ("verdict", "passed", "score", "decided_by")}
        found[row["task"]][row["sample"]][f"{row['task']}/{row['criterion']}"] = kept
    cases: list[Case] = []
    plans: dict[str, Plan] = {}
    for task, samples in found.items():
        free = {sample: own for sample, own in samples.items() if sample not in exclude}
        if not free:
            continue
        groups = _groups(free, novel, seed)
        variances = {name: sum(map(_variance, own.values())) / len(own) for name, own in groups.items()}
        sizes = {name: len(own) for name, own in groups.items()}
        labels = _enough(sizes, variances, half_width, most)
        counts = allocate(sizes, variances, labels)
        for name, own in groups.items():
            ordered = sorted(own, key=lambda sample: _draw(sample, seed))[: counts[name]]
            weight = sizes[name] / max(counts[name], 1)
            cases += [Case(sample, task, f"{task}/{name}", weight, sample in novel, own[sample]) for sample in ordered]
        total, drawn = sum(sizes.values()), sum(counts.values())
        # A random draw also has to guess how many of each group it gets: the variance of all outputs in one.
        right = sum(sizes[name] * (1 + math.sqrt(1 - 4 * variances[name])) / 2 for name in sizes) / total
        at_random = 1.96 * math.sqrt(right * (1 - right) / drawn)
        plans[task] = Plan(total, drawn, _half(sizes, variances, counts), at_random)
    return cases, plans


def allocate(sizes: dict[str, int], variances: dict[str, float], labels: int) -> dict[str, int]:
    """Share labels out: Neyman's allocation, two a group at least, no more than a group has, and the novel floor.

    >>> allocate({"sure": 100, "unsure": 100}, {"sure": 0.04, "unsure": 0.25}, 35)
    {'sure': 10, 'unsure': 25}
    """
    counts = {name: min(2, size) for name, size in sizes.items()}
    new = [name for name in sizes if name.startswith("novel")]
    room = min(labels, sum(sizes.values()))
    floor = min(NOVEL, room // 2, sum(sizes[name] for name in new))

    def add(names: list[str]) -> bool:
        """Give one label to the group that is furthest below its share."""
        open_ = [name for name in names if counts[name] < sizes[name]]
        if not open_:
            return False
        counts[max(open_, key=lambda name: sizes[name] * math.sqrt(variances[name]) / (counts[name] + 0.5))] += 1
        return True

    while sum(counts[name] for name in new) < floor and add(new):
        pass
    while sum(counts.values()) < room and add(list(sizes)):
        pass
    return counts


def _groups(
    samples: dict[str, dict[str, dict[str, Any]]], novel: Collection[str], seed: int
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Put samples into groups of about equal size, what is novel apart."""
    groups: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for kind, names in (
        ("known", [sample for sample in samples if sample not in novel]),
        ("novel", [sample for sample in samples if sample in novel]),
    ):
        ordered = sorted(names, key=lambda sample: (_variance(samples[sample]), _draw(sample, seed)))
        parts = max(1, min(STRATA, len(ordered) // SMALL))
        for part in range(parts):
            chosen = ordered[len(ordered) * part // parts : len(ordered) * (part + 1) // parts]
            if chosen:
                groups[f"{kind} {part + 1}"] = {sample: samples[sample] for sample in chosen}
    return groups


def _variance(verdicts: dict[str, dict[str, Any]]) -> float:
    """Foresee how uncertain agreement on one output is, over the criteria that the model decides."""
    scores: list[float] = [
        one["score"] for one in verdicts.values() if one["decided_by"] == "llm" and one["score"] is not None
    ]
    near: list[float] = [min(max(score, FLOOR), 1 - FLOOR) for score in scores] or [FLOOR]
    return sum(one * (1 - one) for one in near) / len(near)


def _half(sizes: dict[str, int], variances: dict[str, float], counts: dict[str, int]) -> float:
    """Half of the interval that the bootstrap will print. It is about the judge, who goes on to judge other outputs, so
    it does not shrink to nothing where all outputs at hand have labels.
    """
    total = sum(sizes.values())
    return 1.96 * math.sqrt(sum((sizes[name] / total) ** 2 * variances[name] / counts[name] for name in sizes))


def _enough(sizes: dict[str, int], variances: dict[str, float], half_width: float, most: int) -> int:
    """Find how many labels reach the wanted interval."""
    low, high = 1, min(most, sum(sizes.values()))
    while low < high:
        middle = (low + high) // 2
        if _half(sizes, variances, allocate(sizes, variances, middle)) <= half_width:
            high = middle
        else:
            low = middle + 1
    return low


def _draw(sample: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{sample}".encode()).digest()
