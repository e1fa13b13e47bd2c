"""What lists show beside hits: how much of the catalogue, how evenly, how alike, how new, how often the same again.

Notation as in `ranking`: R_u^k is the first k of user u's list. m items, n users.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recgpt.errors import InvalidArrayError
from recgpt.evaluation.metrics.lists import Floats, Ints, Ragged, Score, averaged, check_lists, places


def distinct_categories(ranked: Ragged, categories: Ints, k: int) -> Score:
    """Categories@k = mean over u of the number of distinct categories in R_u^k.

    With lists of what users were shown this is the paper's EICD, with lists of what they clicked its CICD (section
    4.2); `exposures.Engagement` has both for a log.

    Args:
        ranked: the lists; a user with an empty list has 0.
        categories: (m,) int64 category code of each item row; negative = the item has none and adds nothing.
        k: how many of each list count.

    >>> distinct_categories(ragged([[0, 1, 2]]), np.array([5, 5, 6]), k=3).mean
    2.0
    """
    check_lists(ranked, k)
    shown = places(ranked) < k
    codes = np.asarray(categories, dtype=np.int64)[ranked.values[shown]]
    pairs = np.stack([ranked.owners[shown], codes], axis=1)[codes >= 0]
    counts = np.bincount(np.unique(pairs, axis=0)[:, 0], minlength=ranked.users).astype(np.float64)
    return Score(float(counts.mean()) if len(counts) else float("nan"), counts)


def coverage(ranked: Ragged, items: int, k: int) -> float:
    """Coverage@k = the share of the m items that stand in the first k places of anybody.

    >>> coverage(ragged([[0, 1], [1, 3]]), items=4, k=1)
    0.5
    """
    return float((_shown(ranked, items, k) > 0).mean())


def gini(ranked: Ragged, items: int, k: int) -> float:
    """Gini@k of exposure: 0 when every item is shown equally often, near 1 when few items take all places.

    With c_1 <= ... <= c_m how often each of the m items stands in the first k places of all users, shown or not:
    G = sum over i of (2 i - m - 1) c_i / (m sum over i of c_i). NaN if nothing is shown.

    >>> gini(ragged([[0], [1]]), items=2, k=1), gini(ragged([[0], [0]]), items=2, k=1)
    (0.0, 0.5)
    """
    return gini_of(_shown(ranked, items, k))


def entropy(ranked: Ragged, items: int, k: int) -> float:
    """Entropy@k of exposure in bits: -sum over items of p_i log2 p_i, p_i the item's share of all first k places.

    0 when one item takes all places, log2 m when all are shown equally often (Shannon 1948). NaN if nothing is shown.

    >>> entropy(ragged([[0, 1], [2, 3]]), items=8, k=2)
    2.0
    """
    counts = _shown(ranked, items, k)
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log2(shares)).sum()) + 0.0 if len(shares) else float("nan")


def intra_list_similarity(ranked: Ragged, vectors: NDArray[np.floating], k: int) -> Score:
    """ILS@k = mean over u of the mean cosine of all pairs of distinct places in R_u^k (Ziegler et al. 2005, averaged).

    Args:
        ranked: the lists; a user with fewer than two items has no value.
        vectors: (m, d) one vector an item row; they are normalized here, a zero vector is like nothing (cosine 0).
        k: how many of each list count.

    >>> intra_list_similarity(ragged([[0, 1, 2]]), np.array([[1.0, 0], [2, 0], [0, 1]]), k=3).mean  # (1 + 0 + 0) / 3
    0.3333333333333333
    """
    check_lists(ranked, k)
    shown = places(ranked) < k
    rows, owners = ranked.values[shown], ranked.owners[shown]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros(vectors.shape), where=lengths > 0)[rows]
    # The square of the sum of unit vectors is the sum of all cosines, those of each item with itself included.
    sums = np.zeros((ranked.users, unit.shape[1]))
    np.add.at(sums, owners, unit)
    own = np.bincount(owners, weights=(unit**2).sum(axis=1), minlength=ranked.users)
    size = np.bincount(owners, minlength=ranked.users)
    return averaged(((sums**2).sum(axis=1) - own) / np.maximum(size * (size - 1), 1), size > 1)


def novelty(ranked: Ragged, known_by: Ints, users: int, k: int) -> Score:
    """Novelty@k = mean over u of the mean of -log2 p_i over R_u^k, in bits; p_i is how many of the users know item i.

    Vargas and Castells 2011 (mean inverse user frequency). An item that nobody knows counts as one that one user knows.

    Args:
        ranked: the lists; a user with an empty list has no value.
        known_by: (m,) int64, how many distinct users of the training log acted on each item row.
        users: how many users the training log has.
        k: how many of each list count.

    >>> novelty(ragged([[0, 1]]), np.array([4, 1]), users=4, k=2).mean  # (0 + 2) / 2
    1.0
    """
    check_lists(ranked, k)
    if users < 1 or (np.asarray(known_by) > users).any():
        raise InvalidArrayError(
            f"`known_by` must be at most `users`, at least 1, but the largest is {np.max(known_by, initial=0)} of "
            f"{users} users; count users, not events"
        )
    shown = places(ranked) < k
    bits = np.log2(users) - np.log2(np.maximum(known_by, 1))
    size = np.bincount(ranked.owners[shown], minlength=ranked.users)
    total = np.bincount(ranked.owners[shown], weights=bits[ranked.values[shown]], minlength=ranked.users)
    return averaged(total / np.maximum(size, 1), size > 0)


def gini_of(counts: Ints | Floats) -> float:
    """Gini coefficient of counts; NaN if they add up to nothing.

    >>> gini_of(np.array([0, 0, 1, 3]))
    0.625
    """
    sorted_counts = np.sort(np.asarray(counts, dtype=np.float64))
    if not sorted_counts.sum():
        return float("nan")
    weights = 2.0 * np.arange(1, len(sorted_counts) + 1) - len(sorted_counts) - 1
    return float(weights @ sorted_counts / (len(sorted_counts) * sorted_counts.sum()))


def _shown(ranked: Ragged, items: int, k: int) -> Ints:
    """(m,) how often each item stands in the first k places."""
    check_lists(ranked, k)
    rows = ranked.values[places(ranked) < k]
    if len(rows) and rows.max() >= items:
        raise InvalidArrayError(f"a ranked list holds item row {rows.max()}, but there are {items} items")
    return np.bincount(rows, minlength=items)
