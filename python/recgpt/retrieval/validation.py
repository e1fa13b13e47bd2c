"""Recall on the held-out days before `now`, for early stopping. numpy only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recgpt.retrieval import forward
from recgpt.retrieval.config import Config
from recgpt.retrieval.features import Ints, ItemFeatures, Log
from recgpt.retrieval.pooling import History
from recgpt.retrieval.sampling import positives

_CHUNK = 256
_BLOCK = 64


def held_out(log: Log, days: float, behavior: str | None = None) -> npt.NDArray[np.bool_]:
    """(n_events,) the last `days`; for a log without times all from each user's last moment with `behavior` on.

    None stands for all behaviors that say that a user wants the item. Users with one such moment keep it.
    """
    if log.timed:
        recent: npt.NDArray[np.bool_] = log.days <= days
        return recent
    wanted = (
        positives(log) if behavior is None else np.array([name == behavior for name in log.behaviors])[log.behavior]
    )
    first, last = np.full(len(log.user_ids), np.iinfo(np.int64).max), np.full(len(log.user_ids), -1)
    np.minimum.at(first, log.user[wanted], log.order[wanted])
    np.maximum.at(last, log.user[wanted], log.order[wanted])
    final: npt.NDArray[np.bool_] = (first < last)[log.user] & (log.order >= last[log.user])
    return final


class Validation:
    """Recall at k over all catalogue items, with and without items that the user had before.

    Args:
        learn: Events that the towers may see.
        test: The held-out events.
        features: Item features as known at the end of `learn`.
        config: `top_k`, how many users, sequence length, seed.
    """

    def __init__(self, learn: Log, test: Log, features: ItemFeatures, config: Config) -> None:
        n_items = len(features.item)
        self.features, self.k = features, min(config.top_k, n_items)
        wanted = np.unique((test.user * n_items + test.item)[positives(test)])
        seen = np.unique((learn.user * n_items + learn.item)[positives(learn)])
        users = np.unique(wanted // n_items)
        rng = np.random.default_rng(config.seed)
        self.users: Ints = np.sort(rng.permutation(users)[: config.validation_users])
        self.acts = History(learn, config).before(self.users)
        self.wanted = [_of_user(wanted, user, n_items) for user in self.users.tolist()]
        self.seen = [_of_user(seen, user, n_items) for user in self.users.tolist()]
        self.fresh = [np.setdiff1d(*pair, assume_unique=True) for pair in zip(self.wanted, self.seen, strict=True)]

    def measure(self, weights: forward.Weights) -> dict[str, float]:
        """Recall and hit rate at k. `recall` is the one that stops training: on new items where any user has some.

        A user's recall is hits / min(k, items wanted).
        """
        items = forward.item_vectors(weights, self.features)
        vectors = forward.user_vectors(weights, self.users + 1, items, self.acts)
        every: list[float] = []
        new: list[float] = []
        for start in range(0, len(self.users), _CHUNK):
            part = slice(start, start + _CHUNK)
            scores = vectors[part] @ items.T
            every += self._hits(scores, self.wanted[part])
            for row, seen in enumerate(self.seen[part]):
                scores[row, seen] = -np.inf
            new += self._hits(scores, self.fresh[part])
        found = {}
        for name, hits in (("any", every), ("new", new)):
            if hits:
                share = np.array(hits)
                found[f"recall_{name}"] = float(share.mean())
                found[f"hit_rate_{name}"] = float((share > 0).mean())
        return {"recall": found.get("recall_new", found["recall_any"]), **found}

    def _hits(self, scores: npt.NDArray[np.float32], wanted: list[Ints]) -> list[float]:
        """Share of what could be hit, for each user who wants something."""
        tops = _top(scores, self.k).tolist()
        return [
            len(set(top).intersection(own.tolist())) / min(self.k, len(own))
            for top, own in zip(tops, wanted, strict=True)
            if len(own)
        ]


def _top(scores: npt.NDArray[np.float32], k: int) -> Ints:
    """(n, k) columns of each row's largest scores, in any order.

    The best k lie in the k blocks with the largest maxima; finding those first is several times faster.
    """
    users, items = scores.shape
    padded = np.full((users, -(-items // _BLOCK) * _BLOCK), -np.inf, np.float32)
    padded[:, :items] = scores
    blocks = padded.reshape(users, -1, _BLOCK).max(axis=2)
    if blocks.shape[1] <= k:
        return np.asarray(np.argpartition(-scores, k - 1, axis=1)[:, :k])
    best = np.argpartition(-blocks, k - 1, axis=1)[:, :k]
    columns = (best[:, :, None] * _BLOCK + np.arange(_BLOCK)).reshape(users, -1)
    inside = np.argpartition(-np.take_along_axis(padded, columns, axis=1), k - 1, axis=1)[:, :k]
    return np.asarray(np.take_along_axis(columns, inside, axis=1))


def _of_user(keys: Ints, user: int, n_items: int) -> Ints:
    begin, end = np.searchsorted(keys, [user * n_items, (user + 1) * n_items])
    return keys[begin:end] - user * n_items
