"""Ranking metrics on ragged arrays: each gives the mean over users and every user's own value.

Notation: user u has a ranked list R_u of distinct item rows and a set T_u of truths; R_u^k is the first k of the list.
All users weigh the same. A user without truths has no value (NaN) and is left out of the mean. A negative truth row
stands for an item that the index does not hold: it can never be hit and still counts in |T_u|; different negative
rows are different items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recgpt.errors import InvalidArrayError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Ragged(NamedTuple):
    """Lists of item rows, one list a user: user u owns `values[offsets[u]:offsets[u + 1]]`."""

    values: Ints
    """(total,) int64 item rows."""
    offsets: Ints
    """(n + 1,) int64, rising from 0 to `total`."""

    @property
    def users(self) -> int:
        """How many lists there are."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Ints:
        """(n,) int64 length of each list."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> Ints:
        """(total,) int64: the user of each value."""
        return np.repeat(np.arange(self.users, dtype=np.int64), self.sizes)

    def of(self, user: int) -> Ints:
        """Return the list of one user."""
        return self.values[self.offsets[user] : self.offsets[user + 1]]

    def take(self, users: Sequence[int] | Ints) -> Ragged:
        """Return the lists of some users, in the given order."""
        return ragged([self.of(int(user)) for user in users])


class Score(NamedTuple):
    """A metric: the mean over users who have a value (NaN if nobody has), and the (n,) float64 values themselves."""

    mean: float
    per_user: Floats


def ragged(lists: Sequence[Sequence[int] | NDArray[Any]]) -> Ragged:
    """Pack lists of item rows.

    >>> ragged([[4, 2], [], [7]]).offsets.tolist()
    [0, 2, 2, 3]
    """
    offsets = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in lists], out=offsets[1:])
    parts = [np.asarray(one, dtype=np.int64) for one in lists if len(one)]
    return Ragged(np.concatenate(parts) if parts else np.empty(0, dtype=np.int64), offsets)


def hit_rate(ranked: Ragged, truths: Ragged, k: int) -> Score:
    """HR@k = mean over u of [R_u^k and T_u share an item]; the indicator of the paper's HR@30 (section 2.2.2).

    >>> hit_rate(ragged([[4, 2], [1, 3]]), ragged([[2, 9], [8]]), k=2).mean
    0.5
    """
    hits, _ = _hits(ranked, truths, k)
    found = np.bincount(ranked.owners[hits], minlength=ranked.users) > 0
    return _score(found.astype(np.float64), truths)


def recall(ranked: Ragged, truths: Ragged, k: int) -> Score:
    """Recall@k = mean over u of |R_u^k and T_u| / |T_u|.

    >>> recall(ragged([[4, 2], [1, 3]]), ragged([[2, 9], [8]]), k=2).mean
    0.25
    """
    hits, sizes = _hits(ranked, truths, k)
    found = np.bincount(ranked.owners[hits], minlength=ranked.users)
    return _score(found / np.maximum(sizes, 1), truths)


def ndcg(ranked: Ragged, truths: Ragged, k: int) -> Score:
    """NDCG@k = mean over u of DCG / IDCG with binary gains (Järvelin and Kekäläinen 2002).

    DCG = sum over ranks i <= k with R_u[i] in T_u of 1 / log2(i + 1), i from 1;
    IDCG = sum over i from 1 to min(k, |T_u|) of 1 / log2(i + 1).

    >>> ndcg(ragged([[4, 2]]), ragged([[4]]), k=2).mean
    1.0
    >>> round(ndcg(ragged([[4, 2]]), ragged([[2]]), k=2).mean, 4)  # 1 / log2(3)
    0.6309
    """
    hits, sizes = _hits(ranked, truths, k)
    gains = 1.0 / np.log2(np.arange(2, k + 2))
    ranks = _ranks(ranked)
    dcg = np.bincount(ranked.owners[hits], weights=gains[ranks[hits]], minlength=ranked.users)
    ideal = np.concatenate([[0.0], np.cumsum(gains)])[np.minimum(sizes, k)]
    return _score(dcg / np.where(sizes > 0, ideal, 1.0), truths)


def distinct_categories(ranked: Ragged, categories: Ints, k: int) -> Score:
    """Categories@k = mean over u of the number of distinct categories in R_u^k.

    Args:
        ranked: the lists; a user with an empty list has 0.
        categories: (m,) int64 category code of each item row; negative = the item has none and adds nothing.
        k: how many of each list count.

    >>> distinct_categories(ragged([[0, 1, 2]]), np.array([5, 5, 6]), k=3).mean
    2.0
    """
    _check(ranked, k)
    shown = _ranks(ranked) < k
    codes = np.asarray(categories, dtype=np.int64)[ranked.values[shown]]
    pairs = np.stack([ranked.owners[shown], codes], axis=1)[codes >= 0]
    counts = np.bincount(np.unique(pairs, axis=0)[:, 0], minlength=ranked.users).astype(np.float64)
    return Score(float(counts.mean()) if len(counts) else float("nan"), counts)


def gini(ranked: Ragged, items: int, k: int) -> float:
    """Gini@k of exposure: 0 when every item is shown equally often, near 1 when few items take all places.

    With c_1 <= ... <= c_m how often each of the m items stands in the first k places of all users, shown or not:
    G = sum over i of (2 i - m - 1) c_i / (m sum over i of c_i). NaN if nothing is shown.

    >>> gini(ragged([[0], [1]]), items=2, k=1), gini(ragged([[0], [0]]), items=2, k=1)
    (0.0, 0.5)
    """
    _check(ranked, k)
    shown = np.sort(np.bincount(ranked.values[_ranks(ranked) < k], minlength=items)).astype(np.float64)
    if not shown.sum():
        return float("nan")
    weights = 2.0 * np.arange(1, len(shown) + 1) - len(shown) - 1
    return float(weights @ shown / (len(shown) * shown.sum()))


def exclusive_recall(fused: Ragged, alone: Ragged, truths: Ragged, k: int) -> Score:
    """Exclusive recall@k of the tag side = mean over u of |T_u and F_u^k without A_u^k| / |T_u|.

    F is the fused list, A the list of the user tower alone (beta = 1). What counts is a truth that the user meets in
    the first k places only because the tags took part; truths that the tags pushed out are not subtracted, so read it
    beside recall.

    >>> exclusive_recall(ragged([[1, 2]]), ragged([[2, 3]]), ragged([[1, 2]]), k=2).mean
    0.5
    """
    hits, sizes = _hits(fused, truths, k)
    _check(alone, k)
    if alone.users != fused.users:
        raise InvalidArrayError(f"`alone` has {alone.users} users but `fused` has {fused.users}; they must be equal")
    only = hits & ~_member(fused, alone, _ranks(alone) < k)
    found = np.bincount(fused.owners[only], minlength=fused.users)
    return _score(found / np.maximum(sizes, 1), truths)


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


def _hits(ranked: Ragged, truths: Ragged, k: int) -> tuple[NDArray[np.bool_], Ints]:
    """Which ranked values are truths within the first k, and (n,) the number of distinct truths."""
    _check(ranked, k)
    if ranked.users != truths.users:
        raise InvalidArrayError(f"`ranked` has {ranked.users} users but `truths` has {truths.users}; must be equal")
    pairs = np.unique(np.stack([truths.owners, truths.values], axis=1), axis=0)
    sizes = np.bincount(pairs[:, 0], minlength=truths.users)
    return _member(ranked, truths) & (_ranks(ranked) < k), sizes


def _member(lists: Ragged, sets: Ragged, keep: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Tell which values of `lists` stand in the same user's set; negative rows never do."""
    wanted = sets.values >= 0 if keep is None else keep & (sets.values >= 0)
    width = 1 + max(lists.values.max(initial=0), sets.values.max(initial=0))
    return np.isin(lists.owners * width + lists.values, sets.owners[wanted] * width + sets.values[wanted])


def _ranks(lists: Ragged) -> Ints:
    """(total,) place of each value in its list, from 0."""
    return np.arange(len(lists.values), dtype=np.int64) - np.repeat(lists.offsets[:-1], lists.sizes)


def _check(ranked: Ragged, k: int) -> None:
    if k < 1:
        raise InvalidArrayError(f"`k` must be at least 1, but it is {k}")
    if (ranked.values < 0).any():
        raise InvalidArrayError("a ranked list holds a negative item row; only truths may (an item without a row)")
    if len(ranked.values):
        width = 1 + ranked.values.max()
        keys, counts = np.unique(ranked.owners * width + ranked.values, return_counts=True)
        if (counts > 1).any():
            user, row = divmod(int(keys[counts > 1][0]), int(width))
            raise InvalidArrayError(f"the ranked list of user row {user} holds item row {row} twice; rank it once")


def _score(values: Floats, truths: Ragged) -> Score:
    per_user = np.where(truths.sizes > 0, values, np.nan)
    known = per_user[~np.isnan(per_user)]
    return Score(float(known.mean()) if len(known) else float("nan"), per_user)
