"""Intervals of means over users."""

from __future__ import annotations

import numpy as np

from recgpt.evaluation.metrics.lists import Floats


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
    means = [values[random.integers(len(values), size=len(values))].mean() for _ in range(draws)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
