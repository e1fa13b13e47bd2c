"""Baselines that learn from what others bought: item-kNN, and ALS where `implicit` is installed.

Like popularity and buy-again they take the truths' own view of the past (`HeldOut.everyone`), so that none knows more
than another, and fill up with popularity where they know nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from recgpt.errors import MissingExtraError
from recgpt.evaluation.held_out import HeldOut, buy_again, filled, popularity
from recgpt.evaluation.metrics import Floats, Ints, Ragged

Ranker = Callable[..., Ragged]
"""Called with (held_out, k, new=bool)."""


def item_knn(held_out: HeldOut, k: int, *, new: bool = False) -> Ragged:
    """Rank items by the sum of their cosines with each of the user's own, over who bought both (Sarwar et al. 2001).

    score(u, j) = sum over i in H_u, i not j, of n_ij / sqrt(n_i n_j), n_ij the users who bought both; all neighbours
    count, none twice. Equal scores by sales.
    """
    everyone, size = held_out.everyone, len(held_out.item_ids)
    scale = 1 / np.sqrt(np.maximum(np.bincount(everyone.values, minlength=size), 1))
    owners = everyone.owners
    by_item = np.argsort(everyone.values, kind="stable")
    buyers, starts = owners[by_item], np.searchsorted(everyone.values[by_item], np.arange(size + 1))
    sizes = everyone.sizes

    def score(own: Ints) -> Floats:
        # By way of the other users: who shares how much with this one, then what those bought.
        spans = [buyers[starts[item] : starts[item + 1]] for item in own]
        weights = np.repeat(scale[own], [len(span) for span in spans])
        near = np.bincount(np.concatenate(spans), weights=weights, minlength=everyone.users)
        found = np.bincount(everyone.values, weights=np.repeat(near, sizes), minlength=size) * scale
        # The part of it that an item has from itself: the cosine 1 of each of the user's own.
        found[own] -= 1.0
        return np.where(found > 1e-9, found, 0.0)

    return _lists(held_out, k, new, lambda user: score(held_out.bought.of(user)))


def als(held_out: HeldOut, k: int, *, new: bool = False, factors: int = 128, seed: int = 0) -> Ragged:
    """Rank by matrix factors of who bought what (Hu, Koren and Volinsky 2008), with `implicit`; one setting, untuned.

    Raises:
        MissingExtraError: `implicit` is not installed.
    """
    try:
        from implicit.als import AlternatingLeastSquares
        from scipy import sparse
    except ImportError as error:
        raise MissingExtraError(f"ALS needs implicit ({error}); pip install 'recgpt[bench]'") from error
    everyone, size = held_out.everyone, len(held_out.item_ids)
    shape = everyone.users, size
    had = sparse.csr_matrix((np.ones(len(everyone.values), np.float32), everyone.values, everyone.offsets), shape)
    model = AlternatingLeastSquares(factors=factors, alpha=10, iterations=15, random_state=seed, num_threads=1)
    model.fit(had, show_progress=False)
    # Read from the user's own items, as it reads everybody: rows of `everyone` have no names.
    mine = held_out.bought
    asked = sparse.csr_matrix((np.ones(len(mine.values), np.float32), mine.values, mine.offsets), (mine.users, size))
    people = model.recalculate_user(np.arange(mine.users), asked)
    return _lists(held_out, k, new, lambda user: (people[user] @ model.item_factors.T).astype(np.float64), shift=True)


def rankers() -> dict[str, Ranker]:
    """Give every baseline that can run here, by name."""
    found: dict[str, Ranker] = {"popularity": popularity, "buy-again": buy_again, "item-kNN": item_knn}
    return found | {"ALS": als} if find_spec("implicit") else found


def _lists(held_out: HeldOut, k: int, new: bool, score: Callable[[int], Floats], *, shift: bool = False) -> Ragged:
    """The k best of each user with a past, filled up with popularity; `shift`: scores of 0 and less are scores too."""
    order = np.argsort(-held_out.sales, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    heads, skips = [], []
    for user in range(len(held_out.user_ids)):
        own = held_out.bought.of(user)
        head = own[:0]
        if len(own):
            scores = score(user)
            if new:
                scores[own] = -np.inf
            enough = min(len(scores), k)
            cut = np.partition(scores, len(scores) - enough)[len(scores) - enough]
            likely = np.flatnonzero(scores >= (cut if shift else max(cut, 1e-9)))
            likely = likely[np.isfinite(scores[likely])]
            head = likely[np.lexsort((place[likely], -scores[likely]))][:k]
        heads.append(head)
        skips.append(np.concatenate([head, own]) if new else head)
    return filled(heads, skips, order, k)
