"""Ranking metrics on ragged arrays: each gives the mean over users and every user's own value.

Notation: user u has a ranked list R_u of distinct item rows and a set T_u of truths; R_u^k is the first k of the list.
All users weigh the same. A user without truths has no value (NaN) and is left out of the mean. A negative truth row
stands for an item that the index does not hold: it can never be hit and still counts in |T_u|; different negative
rows are different items.
"""

from __future__ import annotations

import numpy as np

from recgpt.errors import InvalidArrayError
from recgpt.evaluation.metrics.lists import Ragged, Score, among, averaged, check_lists, found, places


def hit_rate(ranked: Ragged, truths: Ragged, k: int) -> Score:
    """HR@k = mean over u of [R_u^k and T_u share an item]; the indicator of the paper's HR@30 (section 2.2.2).

    >>> hit_rate(ragged([[4, 2], [1, 3]]), ragged([[2, 9], [8]]), k=2).mean
    0.5
    """
    hit, _ = found(ranked, truths, k)
    any_hit = np.bincount(ranked.owners[hit], minlength=ranked.users) > 0
    return averaged(any_hit.astype(np.float64), truths.sizes > 0)


def recall(ranked: Ragged, truths: Ragged, k: int) -> Score:
    """Recall@k = mean over u of |R_u^k and T_u| / |T_u|.

    >>> recall(ragged([[4, 2], [1, 3]]), ragged([[2, 9], [8]]), k=2).mean
    0.25
    """
    hit, sizes = found(ranked, truths, k)
    count = np.bincount(ranked.owners[hit], minlength=ranked.users)
    return averaged(count / np.maximum(sizes, 1), truths.sizes > 0)


def ndcg(ranked: Ragged, truths: Ragged, k: int) -> Score:
    """NDCG@k = mean over u of DCG / IDCG with binary gains (Järvelin and Kekäläinen 2002).

    DCG = sum over ranks i <= k with R_u[i] in T_u of 1 / log2(i + 1), i from 1;
    IDCG = sum over i from 1 to min(k, |T_u|) of 1 / log2(i + 1).

    >>> ndcg(ragged([[4, 2]]), ragged([[4]]), k=2).mean
    1.0
    >>> round(ndcg(ragged([[4, 2]]), ragged([[2]]), k=2).mean, 4)  # 1 / log2(3)
    0.6309
    """
    hit, sizes = found(ranked, truths, k)
    gains = 1.0 / np.log2(np.arange(2, k + 2))
    dcg = np.bincount(ranked.owners[hit], weights=gains[places(ranked)[hit]], minlength=ranked.users)
    ideal = np.concatenate([[0.0], np.cumsum(gains)])[np.minimum(sizes, k)]
    return averaged(dcg / np.where(sizes > 0, ideal, 1.0), truths.sizes > 0)


def mrr(ranked: Ragged, truths: Ragged, k: int) -> Score:
    """MRR@k = mean over u of 1 / (rank of the first truth in R_u^k), ranks from 1, and 0 without a hit (Voorhees 1999).

    >>> mrr(ragged([[4, 2, 3], [1]]), ragged([[3, 2], [8]]), k=3).mean
    0.25
    """
    hit, _ = found(ranked, truths, k)
    values = np.zeros(ranked.users)
    np.maximum.at(values, ranked.owners[hit], 1.0 / (places(ranked)[hit] + 1))
    return averaged(values, truths.sizes > 0)


def average_precision(ranked: Ragged, truths: Ragged, k: int) -> Score:
    """MAP@k = mean over u of AP@k, with AP@k = sum over ranks i <= k with R_u[i] in T_u of P_u(i) / |T_u|.

    P_u(i) is the share of truths among the first i. The divisor is trec_eval's (`map_cut`), all truths; where others
    divide by min(k, |T_u|), their figure is the higher one for users with more than k truths.

    >>> average_precision(ragged([[4, 2, 3]]), ragged([[4, 3]]), k=3).mean  # (1 / 1 + 2 / 3) / 2
    0.8333333333333333
    """
    hit, sizes = found(ranked, truths, k)
    so_far = np.concatenate([[0], np.cumsum(hit)])
    precision = (so_far[1:] - np.repeat(so_far[ranked.offsets[:-1]], ranked.sizes)) / (places(ranked) + 1)
    total = np.bincount(ranked.owners[hit], weights=precision[hit], minlength=ranked.users)
    return averaged(total / np.maximum(sizes, 1), truths.sizes > 0)


def exclusive_recall(fused: Ragged, alone: Ragged, truths: Ragged, k: int) -> Score:
    """Exclusive recall@k of the tag side = mean over u of |T_u and F_u^k without A_u^k| / |T_u|.

    F is the fused list, A the list of the user tower alone (beta = 1). What counts is a truth that the user meets in
    the first k places only because the tags took part; truths that the tags pushed out are not subtracted, so read it
    beside recall.

    >>> exclusive_recall(ragged([[1, 2]]), ragged([[2, 3]]), ragged([[1, 2]]), k=2).mean
    0.5
    """
    hit, sizes = found(fused, truths, k)
    check_lists(alone, k)
    if alone.users != fused.users:
        raise InvalidArrayError(f"`alone` has {alone.users} users but `fused` has {fused.users}; they must be equal")
    only = hit & ~among(fused, alone, places(alone) < k)
    count = np.bincount(fused.owners[only], minlength=fused.users)
    return averaged(count / np.maximum(sizes, 1), truths.sizes > 0)
