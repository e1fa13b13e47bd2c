"""The three losses of section 2.3.2, on cosines divided by a temperature. Needs torch.

Each is a mean over its pairs where the paper sums, so that batch size does not change the step.
"""

from __future__ import annotations

import torch
from torch import Tensor


def contrast(positive: Tensor, others: Tensor, masked: Tensor) -> Tensor:
    """-log( exp(p) / (exp(p) + sum of exp(n) over the negatives that are not masked) ).

    Args:
        positive: (p,) float, score of each pair.
        others: (p, c) float, scores of the candidates.
        masked: (p, c) bool, true where a candidate is no negative of that pair.

    Returns:
        (p,) float.
    """
    negatives = others.masked_fill(masked, float("-inf")).logsumexp(dim=1)
    return torch.logaddexp(positive, negatives) - positive


def collaborative(
    scores: Tensor, own: Tensor, basket: Tensor, column: Tensor, weight: Tensor, correction: Tensor | None
) -> Tensor:
    """L_col: a basket's user against the candidates of the step.

    Args:
        scores: (b, c) float, h_u . h_v / temperature.
        own: (b, c) bool, items that this user acted on: never negatives.
        basket: (p,) int64, row in `scores` of each positive.
        column: (p,) int64, its candidate.
        weight: (p,) float.
        correction: (c,) float, log of how often sampling brings a candidate (log-Q), or None.
    """
    if correction is not None:
        scores = scores - correction
    negatives = scores.masked_fill(own, float("-inf")).logsumexp(dim=1)
    positive = scores[basket, column]
    loss = torch.logaddexp(positive, negatives[basket]) - positive
    return (weight * loss).sum() / weight.sum().clamp_min(1e-6)


def semantic(scores: Tensor, column: Tensor, same: Tensor, correction: Tensor | None = None) -> Tensor:
    """L_tag: a tag against the candidates of the step.

    Args:
        scores: (p, c) float, h_t . h_v / temperature.
        column: (p,) int64, the positive: the tag's own item.
        same: (p, c) bool, candidates with the same tag: never negatives.
        correction: (c,) float, log of how often sampling brings a candidate (log-Q), or None. Without it a tag finds
            the items that nobody buys: on Complete Journey tags alone (beta 0) then hit nothing.
    """
    if correction is not None:
        scores = scores - correction
    return contrast(scores[torch.arange(len(column)), column], scores, same).mean()
