"""Is a difference more than chance? Tests over users, and what a sample of a size can find at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from recgpt.errors import InvalidArrayError
from recgpt.evaluation.metrics.intervals import Estimate, Z, interval
from recgpt.evaluation.metrics.lists import Floats

POWER = 0.8416212335729143
"""The 80 % point of the normal distribution: a true change of the detectable size is found in 4 of 5 tests."""


class Paired(NamedTuple):
    """Two rankers on the same users."""

    difference: Estimate
    """Mean of first minus second, with its interval by drawing users (`interval`)."""
    p: float
    """How often signs drawn at random give a mean as far from 0; 1 where nobody differs."""
    users: int
    """Users with a value of both."""
    better: int
    """Users for whom the first is better."""
    worse: int


def paired(first: Floats, second: Floats, *, seed: int = 0, draws: int = 9999) -> Paired:
    """Compare user by user: Fisher's randomization test (1935; Smucker, Allan and Carterette 2007).

    Args:
        first: (n,) values; NaN = none.
        second: (n,) the other ranker's, of the same users.
        seed: of signs and intervals.
        draws: how often signs are drawn; p is at least 1 / (draws + 1).

    >>> found = paired(np.array([1.0, 1, 1, 1, 1, 1, 0, 1]), np.zeros(8))
    >>> found.difference.value, found.better, found.worse, round(found.p, 2)  # all seven alike: 2 of 2 ** 7 signs
    (0.875, 7, 0, 0.02)
    """
    if len(first) != len(second):
        raise InvalidArrayError(f"`first` has {len(first)} users but `second` has {len(second)}; they must be equal")
    gap = (first - second)[~np.isnan(first - second)]
    if not len(gap):
        return Paired(Estimate(math.nan, math.nan, math.nan), math.nan, 0, 0, 0)
    mean = float(gap.mean())
    moved = gap[gap != 0]
    random = np.random.default_rng(seed)
    as_far = 0
    size = max(1, 4_000_000 // max(1, len(moved)))
    for start in range(0, draws, size):
        # Eight signs a byte: with a number a sign, drawing took most of a replay's tests.
        drawn = random.integers(0, 256, (min(size, draws - start), -(-len(moved) // 8)), dtype=np.uint8)
        plus = np.unpackbits(drawn, axis=1, count=len(moved))
        as_far += int((np.abs(2 * (plus @ moved) - moved.sum()) >= abs(moved.sum()) - 1e-9).sum())
    low, high = interval(gap, seed=seed)
    p = (as_far + 1) / (draws + 1)
    return Paired(Estimate(mean, low, high), p, len(gap), int((gap > 0).sum()), int((gap < 0).sum()))


def holm(chances: Sequence[float]) -> list[float]:
    """Adjust p-values of tests that were made together (Holm 1979): their largest wrong claim keeps its level.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(chances)), key=chances.__getitem__)
    adjusted, highest = [0.0] * len(chances), 0.0
    for place, row in enumerate(order):
        highest = max(highest, min(1.0, chances[row] * (len(chances) - place)))
        adjusted[row] = highest
    return adjusted


class Change(NamedTuple):
    """From one arm to the other, users of both drawn apart."""

    lift: Estimate
    """Second / first - 1."""
    p: float
    """Two-sided, of no difference."""
    detectable: float
    """The smallest relative change that a test of this size finds in 4 of 5 cases at 5 %."""


def change(first: Estimate, second: Estimate) -> Change | None:
    """Give the relative lift with the 95 % interval of Fieller 1954, which holds 0 exactly where p is above .05.

    With estimates a and b and standard errors s and t: all r with |b - r a| <= 1.96 sqrt(t^2 + r^2 s^2), minus 1; p
    from (b - a) / sqrt(s^2 + t^2); detectable (1.96 + 0.84) sqrt(s^2 + t^2) / a. The usual b / a - 1 plus or minus
    1.96 sqrt(t^2 + (b / a)^2 s^2) / a said "-216 % to 2726 %" of a difference whose p was 1e-16.

    Returns:
        None where it cannot be said: the first arm's figure is 0, or an arm is too small to have an interval. The ends
        are NaN where a itself is not told from 0.

    >>> found = change(Estimate(0.10, 0.0804, 0.1196), Estimate(0.12, 0.1004, 0.1396))
    >>> [round(end, 3) for end in found.lift], round(found.p, 4)
    ([0.2, -0.068, 0.564], 0.1573)
    """
    s, t = ((one.high - one.low) / (2 * Z) for one in (first, second))
    a, b = first.value, second.value
    if not a or not all(math.isfinite(one) for one in (a, b, s, t)):
        return None
    known, root = a**2 - (Z * s) ** 2, (a * b) ** 2 - (a**2 - (Z * s) ** 2) * (b**2 - (Z * t) ** 2)
    low, high = math.nan, math.nan
    if known > 0:
        low, high = ((a * b + sign * math.sqrt(max(root, 0.0))) / known - 1 for sign in (-1, 1))
    both = math.hypot(s, t)
    p = math.erfc(abs(b - a) / both / math.sqrt(2)) if both else float(a == b)
    return Change(Estimate(b / a - 1, low, high), p, (Z + POWER) * both / abs(a))


def sample_ratio(first: int, second: int, *, share: float = 0.5) -> float:
    """Chance that users drawn with `share` into the first arm split so unevenly: chi-square with one degree of freedom.

    Below .001 the split itself is broken and no figure of the test can be trusted (Fabijan et al. 2019).

    >>> round(sample_ratio(5000, 5200), 4)
    0.0477
    """
    total = first + second
    if not 0 < share < 1 or not total:
        raise InvalidArrayError(
            f"`share` must lie between 0 and 1 and users be there, but it is {share} of {total} users"
        )
    expected = share * total, (1 - share) * total
    square = (first - expected[0]) ** 2 / expected[0] + (second - expected[1]) ** 2 / expected[1]
    return math.erfc(math.sqrt(square / 2))
