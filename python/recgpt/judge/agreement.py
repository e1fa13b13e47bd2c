"""How far a judge agrees with people: Table 9's figures, kappa, and intervals over samples.

Precision, recall and F1 are of the class "passes"; `by_class` has them for every verdict, and the averages over classes
are said by name: `macro` counts each class alike, `weighted` each by its size among people's labels, which is what the
explanation row of Table 9 must be (its recall equals its accuracy).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FIGURES = ("precision", "recall", "f1")
DRAWS = 1000
"""Bootstrap samples of an interval."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Precision, recall and F1 of one class, or an average over classes; None where nothing is divided by."""

    precision: float | None
    recall: float | None
    f1: float | None
    count: int
    """Labels of people with this class."""
    intervals: dict[str, tuple[float, float] | None]
    """95 % of `precision`, `recall` and `f1`, percentile bootstrap over samples; None where no draw has the figure."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A judge against people on the same samples."""

    count: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    """95 %, percentile bootstrap over samples."""
    kappa: float | None
    """Cohen's kappa; None where both always say the same single word, so that chance explains everything."""
    kappa_interval: tuple[float, float] | None
    by_class: dict[str, Scores]
    macro: Scores
    weighted: Scores


def agreement(
    people: Sequence[str],
    judge: Sequence[str],
    *,
    weights: Sequence[float] | None = None,
    strata: Sequence[str] | None = None,
    seed: int = 0,
) -> Agreement:
    """Compare verdicts on the same samples.

    Args:
        people: what people said.
        judge: what the judge said, in the same order.
        weights: how many outputs each sample stands for; 1 by default. Counts stay counts of labels.
        strata: from which part of the outputs each sample was drawn; the bootstrap draws within them.
        seed: of the intervals.

    Raises:
        ValueError: different lengths, or nothing to compare.

    >>> found = agreement(["Yes", "Yes", "No", "No"], ["Yes", "No", "No", "No"])
    >>> found.accuracy, found.kappa, found.by_class["Yes"].recall
    (0.75, 0.5, 0.5)
    """
    if len(people) != len(judge) or not len(people):
        raise ValueError(f"two equally long lists of verdicts were expected, but they have {len(people)}, {len(judge)}")
    names = sorted({*people, *judge})
    place = {name: row for row, name in enumerate(names)}
    pairs = np.array([[place[one], place[other]] for one, other in zip(people, judge, strict=True)])
    weigh = np.ones(len(pairs)) if weights is None else np.asarray(weights, np.float64)
    if len(weigh) != len(pairs) or not np.all(weigh > 0) or (strata is not None and len(strata) != len(pairs)):
        raise ValueError(f"{len(pairs)} weights above 0 and as many strata were expected")
    table = _table(pairs, weigh, len(names))
    random = np.random.default_rng(seed)
    parts = (
        [np.arange(len(pairs))]
        if strata is None
        else [np.flatnonzero(np.asarray(strata) == one) for one in dict.fromkeys(strata)]
    )
    draws = np.empty((DRAWS, len(names), len(names)))
    for row in range(DRAWS):
        drawn = np.concatenate([part[random.integers(len(part), size=len(part))] for part in parts])
        draws[row] = _table(pairs[drawn], weigh[drawn], len(names))
    kappas = [one for one in map(_kappa, draws) if one is not None]
    sizes = np.bincount(pairs[:, 0], minlength=len(names))
    found, spread = _figures(table[None]), _figures(draws)
    return Agreement(
        count=len(pairs),
        accuracy=float(np.trace(table) / table.sum()),
        accuracy_interval=_interval([float(np.trace(one) / one.sum()) for one in draws]),
        kappa=_kappa(table),
        kappa_interval=_interval(kappas) if kappas else None,
        by_class={name: _scores(found[:, :, row], spread[:, :, row], int(sizes[row])) for name, row in place.items()},
        macro=_scores(_average(found, None), _average(spread, None), len(pairs)),
        weighted=_scores(_average(found, table[None]), _average(spread, draws), len(pairs)),
    )


def _table(pairs: npt.NDArray[np.int64], weights: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Count: row = people, column = judge."""
    counted = np.bincount(pairs[:, 0] * size + pairs[:, 1], weights, minlength=size * size)
    return np.asarray(counted, np.float64).reshape(size, size)


def _kappa(table: npt.NDArray[np.float64]) -> float | None:
    total = table.sum()
    chance = float((table.sum(axis=0) * table.sum(axis=1)).sum() / total**2)
    return None if chance > 1.0 - 1e-12 else float((np.trace(table) / total - chance) / (1.0 - chance))


def _figures(tables: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Give precision, recall and F1 of every class.

    Args:
        tables: (n, classes, classes), row = people, column = judge.

    Returns:
        (3, n, classes); NaN where nothing is divided by.
    """
    hit = np.diagonal(tables, axis1=1, axis2=2)
    said, true = tables.sum(axis=1), tables.sum(axis=2)
    with np.errstate(invalid="ignore"):
        return np.stack([hit / said, hit / true, 2 * hit / (said + true)])


def _average(figures: npt.NDArray[np.float64], tables: npt.NDArray[np.float64] | None) -> npt.NDArray[np.float64]:
    """Average over classes, weighed by their size among people's labels or all alike; (3, n).

    A class without a figure counts as 0, as it does in scikit-learn.
    """
    weights = np.ones(figures.shape[1:]) if tables is None else tables.sum(axis=2)
    return np.asarray((np.nan_to_num(figures) * weights).sum(axis=2) / weights.sum(axis=1), np.float64)


def _scores(figures: npt.NDArray[np.float64], draws: npt.NDArray[np.float64], count: int) -> Scores:
    """Put one class, or an average, together: (3, 1) figures and (3, n) of the bootstrap."""
    values: list[float | None] = [None if np.isnan(one) else float(one) for one in figures[:, 0]]
    known = [row[~np.isnan(row)] for row in draws]
    intervals = {
        name: _interval(row) if len(row) and value is not None else None
        for name, row, value in zip(FIGURES, known, values, strict=True)
    }
    return Scores(values[0], values[1], values[2], count, intervals)


def _interval(values: Sequence[float] | npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(np.asarray(values), [0.025, 0.975])
    return float(low), float(high)
