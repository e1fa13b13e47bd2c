"""Figures with their interval and number, as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from recgpt.evaluation import metrics
from recgpt.evaluation.metrics import Floats

Estimate = dict[str, Any]
"""`value`, `low` and `high` (95 %), `n` users, households or items that the interval is over; null is unknown."""
LEVEL = 0.95


def mean(per_user: Sequence[float] | Floats, *, share: bool = True) -> Estimate:
    """Average over users who have a value (others are NaN), with a bootstrap over users.

    Args:
        per_user: one value a user.
        share: values from 0 to 1. Where all are 0, or all 1, the bootstrap knows no doubt; then the interval is the
            exact one of that many users.
    """
    values = np.asarray(per_user, np.float64)
    known = values[~np.isnan(values)]
    low, high = metrics.interval(values)
    return stated(float(known.mean()) if len(known) else math.nan, low, high, len(known), share)


def share(hits: Sequence[float] | Floats, of: Sequence[float] | Floats) -> Estimate:
    """Divide two sums over users, the interval by users: what one user adds is not independent.

    >>> share([3, 1], [4, 4])["value"]
    0.5
    """
    above, below = np.asarray(hits, np.float64), np.asarray(of, np.float64)
    some = below > 0
    found = metrics.ratio(above[some], below[some])
    return stated(found.value, max(found.low, 0.0), min(found.high, 1.0), int(some.sum()), True) | {
        "hits": int(above.sum()),
        "of": int(below.sum()),
    }


def stated(value: float, low: float, high: float, count: int, is_share: bool) -> Estimate:
    """Put a figure together; the interval of a share of none, or of all, is the exact one."""
    # The exact two-sided interval of none, or all, of `count`: 1 - alpha / 2 to the power of 1 / count.
    reach = 1 - ((1 - LEVEL) / 2) ** (1 / count) if count else math.nan
    if is_share and count and value == 0:
        low, high = 0.0, reach
    elif is_share and count and value == 1:
        low, high = 1 - reach, 1.0
    return {"value": plain(value), "low": plain(low), "high": plain(high), "n": count}


def plain(value: float) -> float | None:
    """Give a number as JSON has it."""
    return None if math.isnan(value) else float(value)
