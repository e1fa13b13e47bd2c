"""Annotators measured by gold questions: who errs more often than a careful person slips, by a stated rule.

Somebody is called careless after `LEAST` wrong gold answers or more, and as many as a careful person, who slips in
`HONEST` of them, would give with a chance below `ALPHA` (exact binomial test). A wrong answer is another word than
gold's. `power` says how surely somebody is found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

import pyarrow as pa

from recgpt import schema
from recgpt.judge.buffer import ADJUDICATED, GOLD

HONEST = 0.005
"""Gold questions are clear ones: a careful person slips in one of two hundred."""
ALPHA = 0.05
LEAST = 2
"""Anybody may hit the wrong key once."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One annotator."""

    annotator: str
    samples: int
    labels: int
    seconds: float | None
    """Median of a sample's; None where nobody took the time."""
    gold: int
    """Gold questions answered."""
    wrong: int
    """Of those, answered with another word."""
    p: float
    """Chance that a careful person errs as often."""
    careless: bool


def tail(wrong: int, of: int, rate: float) -> float:
    """Give the chance of so many errors or more.

    >>> round(tail(1, 2, 0.5), 2)
    0.75
    """
    return sum(math.comb(of, count) * rate**count * (1 - rate) ** (of - count) for count in range(wrong, of + 1))


def limit(of: int) -> int:
    """Give the number of wrong answers from which somebody is called careless, of so many.

    >>> limit(50), limit(100)
    (2, 3)
    """
    found = LEAST
    while tail(found, of, HONEST) >= ALPHA:
        found += 1
    return found


def power(rate: float, of: int) -> float:
    """Give the chance that somebody who errs at this rate is called careless after so many gold answers.

    >>> round(power(0.05, 50), 2), round(power(0.05, 100), 2), round(power(0.005, 100), 3)
    (0.72, 0.88, 0.014)
    """
    return tail(limit(of), of, rate)


def standings(labels: pa.Table) -> list[Standing]:
    """Measure every annotator, careless ones first.

    Args:
        labels: `schema.LABELS`, those that stand.
    """
    rows = schema.table(labels, schema.LABELS, name="labels").to_pylist()
    right = {(row["sample"], row["criterion"]): row["verdict"] for row in rows if row["annotator"] == GOLD}
    people: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        if row["annotator"] != GOLD and not row["annotator"].startswith(ADJUDICATED):
            people.setdefault(row["annotator"], []).append(row)
    found = []
    for who, own in people.items():
        asked = [row for row in own if (row["sample"], row["criterion"]) in right]
        wrong = sum(row["verdict"] != right[str(row["sample"]), str(row["criterion"])] for row in asked)
        times: dict[object, float] = {}
        for row in own:
            if isinstance(row["seconds"], float):
                times[row["sample"]] = times.get(row["sample"], 0.0) + row["seconds"]
        found.append(
            Standing(
                annotator=who,
                samples=len({row["sample"] for row in own}),
                labels=len(own),
                seconds=median(times.values()) if times else None,
                gold=len(asked),
                wrong=wrong,
                p=tail(wrong, len(asked), HONEST),
                careless=wrong >= limit(len(asked)),
            )
        )
    return sorted(found, key=lambda one: (not one.careless, one.p, one.annotator))
