"""AUC of rankings: each household's own truth under its own scores, under everybody else's, and under popularity.

AUC(u, v) is the chance that a good which u bought stands above one that u did not, when the goods are ranked as the
model ranked them for v; equals count half. The own-history AUC is the mean of AUC(u, u); another household's is the
mean of AUC(u, v) over all v other than u, which costs no request more than the own and has no luck of one draw.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recgpt.alignment.report.estimates import Estimate, mean, plain
from recgpt.errors import AlignmentError
from recgpt.evaluation.metrics import Floats

DRAWS = 2000
Mask = NDArray[np.bool_]


def auc(scores: Floats, right: Mask) -> float:
    """Area under the ROC curve; NaN without a right or without a wrong one.

    >>> auc(np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, False, True, False]))
    0.875
    """
    return float(_auc(scores[None], right)[0])


def _auc(scores: Floats, right: Mask) -> Floats:
    """(n, m) scores against one truth (m,): (n,) areas."""
    above, below = scores[:, right], scores[:, ~right]
    if not above.shape[1] or not below.shape[1]:
        return np.full(len(scores), np.nan)
    higher = (above[:, :, None] > below[:, None, :]).mean(axis=(1, 2))
    equal = (above[:, :, None] == below[:, None, :]).mean(axis=(1, 2))
    return np.asarray(higher + equal / 2, np.float64)


def crossed(scores: Floats, right: Mask, counted: Mask) -> Floats:
    """Everybody's truth under everybody's scores.

    Args:
        scores: (n, m), row = whose prompt.
        right: (n, m), row = whose truth.
        counted: (n, m), row = whose truth: goods that count for it.

    Returns:
        (n, n), row = whose truth, column = whose scores; NaN rows where the truth is empty or everything.
    """
    return np.stack([_auc(scores[:, keep], truth[keep]) for truth, keep in zip(right, counted, strict=True)])


class Compared(NamedTuple):
    """AUCs as estimates; every difference is paired."""

    own: Estimate
    other: Estimate
    popularity: Estimate
    own_minus_other: Estimate
    own_minus_popularity: Estimate

    def as_dict(self) -> dict[str, Any]:
        """Give plain JSON."""
        return self._asdict()


def compare(areas: Floats, popularity: Floats, *, seed: int = 0) -> Compared:
    """Compare the own history with others' and with popularity.

    The bootstrap draws households, with all that they are: a drawn one brings its truth and its scores. So the
    interval of what other households' histories reach holds for other households, too.

    Args:
        areas: (n, n) of `crossed`.
        popularity: (n,) areas of popularity on the same truths.
        seed: of the draws.

    Raises:
        AlignmentError: fewer than two households have a truth.
    """
    keep = ~np.isnan(np.diagonal(areas))
    known, popular = areas[np.ix_(keep, keep)], popularity[keep]
    count = len(known)
    if count < 2:
        raise AlignmentError(
            f"{count} of {len(keep)} households bought something that can be ranked, and two are needed to compare "
            "one's own history with another's; judge more of them (--users)"
        )
    own = np.diagonal(known)
    random = np.random.default_rng(seed)
    # (draws, n): how often each household is drawn.
    times = random.multinomial(count, np.full(count, 1 / count), size=DRAWS).astype(np.float64)
    once = np.ones((1, count))
    others = _others(known, own, times)
    point = float(_others(known, own, once)[0])
    ends = {
        "other": (point, others),
        "own_minus_other": (float(own.mean()) - point, times @ own / count - others),
    }
    return Compared(
        own=mean(own),
        popularity=mean(popular),
        own_minus_popularity=mean(own - popular, share=False),
        **{name: _percentiles(value, drawn, count) for name, (value, drawn) in ends.items()},
    )


def _others(known: Floats, own: Floats, times: Floats) -> Floats:
    """Mean over drawn truths of the mean over the other drawn households' scores; (draws,)."""
    count = known.shape[0]
    left = count - times
    with np.errstate(invalid="ignore", divide="ignore"):
        each = (times @ known.T - times * own) / left
    # Only with a single household in the whole draw is nobody left.
    each = np.where(left > 0, each, own)
    return np.asarray((times * each).sum(axis=1) / count, np.float64)


def _percentiles(value: float, drawn: Floats, count: int) -> Estimate:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": plain(value), "low": plain(float(low)), "high": plain(float(high)), "n": count}
