"""Intervals over users: users are what is drawn at random, not their events."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recgpt.evaluation.metrics.lists import Floats, Ints

Z = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


class Estimate(NamedTuple):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def interval(per_user: Floats, *, seed: int = 0, draws: int = 1000, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean, drawing users with replacement (Efron 1979).

    Args:
        per_user: (n,) float64 values; NaN = the user has none and is left out.
        seed: the same seed gives the same interval.
        draws: how many samples of users.
        level: the share of sample means inside the interval.

    >>> interval(np.array([1.0, 1.0, np.nan]))
    (1.0, 1.0)
    """
    values = per_user[~np.isnan(per_user)]
    if not len(values):
        return float("nan"), float("nan")
    random = np.random.default_rng(seed)
    step = max(1, 200_000 // len(values))  # many small samples at once: Python's part would be most of the time
    sizes = [min(step, draws - start) for start in range(0, draws, step)]
    means = np.concatenate([values[random.integers(len(values), size=(n, len(values)))].mean(axis=1) for n in sizes])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def ratio(above: Ints | Floats, below: Ints | Floats) -> Estimate:
    """Divide two sums over users, with a 95 % interval by the delta method (Deng, Knoblich and Lu 2018).

    With r = sum a_u / sum b_u and n users: r plus or minus 1.96 sd(a_u - r b_u) / (mean b_u sqrt(n)). It holds for
    counts that a user adds to many times, such as exposures, where a formula for single rows is too narrow, and costs
    one pass where a bootstrap of millions of users costs a thousand.

    Args:
        above: (n,) each user's part of the sum above the line.
        below: (n,) each user's part of the one below; ones give a mean.

    Returns:
        NaN for all three where the lower sum is 0; NaN ends with fewer than two users.

    >>> ratio(np.array([1, 0]), np.array([2, 2])).value
    0.25
    """
    users, total = len(below), float(np.sum(below))
    if not total:
        return Estimate(float("nan"), float("nan"), float("nan"))
    value = float(np.sum(above)) / total
    if users < 2:
        return Estimate(value, float("nan"), float("nan"))
    half = Z * float(np.std(above - value * below, ddof=1)) * users**0.5 / total
    return Estimate(value, value - half, value + half)
