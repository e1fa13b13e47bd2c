"""The Matthew effect: do popular items take the page? (paper section 4.2 and the right half of its figure 1)"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recgpt.errors import InvalidArrayError
from recgpt.evaluation.metrics.lists import Floats, Ints


class Matthew(NamedTuple):
    """Two curves over groups of items, from the least to the most popular, and the slope of each."""

    items: Ints
    """(g,) int64 how many items each group has."""
    popularity: Floats
    """(g,) float64 mean popularity of the group's items."""
    ctr: Floats
    """(g,) float64 exposures with a click / exposures of the group; NaN where nothing was shown."""
    page_view_rate: Floats
    """(g,) float64 the group's page views / all page views; they add up to 1. NaN without page views."""
    ctr_slope: float
    """How CTR grows with popularity: 0 = it does not, 1 = in proportion. See `matthew`."""
    page_view_slope: float
    """The same for page views an item; the one figure of the effect: 0 = equal chances, 1 = in proportion."""


def matthew(popularity: Ints, exposures: Ints, clicked: Ints, page_views: Ints, *, groups: int = 10) -> Matthew:
    """Compare items by how popular they were before.

    Items are sorted by popularity, equal ones by row, and cut into groups of as equal size as can be. The slope is that
    of the straight line through (log of mean popularity + 1, log of the rate) by least squares, each group weighing the
    same, over groups whose rate is above 0: an elasticity, which no scale of either axis changes.

    Args:
        popularity: (m,) int64 events of each item before the log begins, such as training purchases.
        exposures: (m,) int64 times shown.
        clicked: (m,) int64 exposures with a click.
        page_views: (m,) int64 clicks.
        groups: how many, at least 2 and at most m.

    Returns:
        The curves; a slope is NaN with fewer than two groups above 0, or where all are equally popular.

    >>> curve = matthew(*np.array([[0, 9, 99], [10, 10, 10], [1, 1, 1], [1, 10, 100]]), groups=3)
    >>> round(abs(curve.ctr_slope), 9), round(curve.page_view_slope, 9)
    (0.0, 1.0)
    """
    counts = [np.asarray(count) for count in (popularity, exposures, clicked, page_views)]
    if len({len(count) for count in counts}) > 1:
        raise InvalidArrayError(
            "`popularity`, `exposures`, `clicked` and `page_views` must have one value an item, but have "
            f"{', '.join(str(len(count)) for count in counts)}"
        )
    size = len(counts[0])
    if not 2 <= groups <= size:
        raise InvalidArrayError(f"`groups` must be at least 2 and at most the number of items, {size}, but is {groups}")
    order = np.argsort(counts[0], kind="stable")
    starts = np.arange(groups) * size // groups
    known, shown, hit, views = (np.add.reduceat(count[order], starts).astype(np.float64) for count in counts)
    items = np.diff(np.append(starts, size))
    mean = known / items
    ctr = np.divide(hit, shown, out=np.full(groups, np.nan), where=shown > 0)
    share = views / views.sum() if views.sum() else np.full(groups, np.nan)
    return Matthew(items, mean, ctr, share, _slope(mean, ctr), _slope(mean, share / items))


def _slope(popularity: Floats, rate: Floats) -> float:
    use = np.nan_to_num(rate) > 0
    x, y = np.log(popularity[use] + 1), np.log(rate[use])
    x = x - x.mean() if len(x) else x
    spread = float(x @ x)
    return float(x @ y) / spread if spread > 0 else float("nan")
