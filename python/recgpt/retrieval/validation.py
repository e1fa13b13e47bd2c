"""Recall on the held-out days before `now`, for early stopping. numpy only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recgpt.retrieval import forward
from recgpt.retrieval.config import Config
from recgpt.retrieval.features import Ints, ItemFeatures, Log, Sequences
from recgpt.retrieval.sampling import positives

MAX_USERS = 1000
"""Users measured after each epoch, drawn by seed."""
_CHUNK = 256


def held_out(log: Log, days: float) -> npt.NDArray[np.bool_]:
    """(n_events,) the last `days`; for a log without times each user's last moment."""
    if log.timed:
        recent: npt.NDArray[np.bool_] = log.days <= days
        return recent
    last = np.zeros(len(log.user_ids), np.int64)
    np.maximum.at(last, log.user, log.order)
    final: npt.NDArray[np.bool_] = log.order == last[log.user]
    return final


class Validation:
    """Recall at k over all catalogue items, with and without items that the user had before.

    Args:
        learn: Events that the towers may see.
        test: The held-out events.
        features: Item features as known at the end of `learn`.
        config: `top_k`, sequence length, seed.
    """

    def __init__(self, learn: Log, test: Log, features: ItemFeatures, config: Config) -> None:
        n_items = len(features.item)
        self.features, self.k = features, min(config.top_k, n_items)
        wanted = np.unique((test.user * n_items + test.item)[positives(test)])
        seen = np.unique((learn.user * n_items + learn.item)[positives(learn)])
        users = np.unique(wanted // n_items)
        rng = np.random.default_rng(config.seed)
        self.users: Ints = np.sort(rng.permutation(users)[:MAX_USERS])
        self.sequences = Sequences(learn, config.sequence_length).before(self.users)
        self.wanted = [_of_user(wanted, user, n_items) for user in self.users.tolist()]
        self.seen = [_of_user(seen, user, n_items) for user in self.users.tolist()]

    def measure(self, weights: forward.Weights) -> dict[str, float]:
        """Recall and hit rate at k. `recall` is the one that stops training: on new items where any user has some.

        A user's recall is hits / min(k, items wanted).
        """
        items = forward.item_vectors(weights, self.features)
        vectors = forward.user_vectors(weights, self.users + 1, items, self.sequences)
        every, new = [], []
        for start in range(0, len(self.users), _CHUNK):
            scores = vectors[start : start + _CHUNK] @ items.T
            for row in range(len(scores)):
                wanted, seen = self.wanted[start + row], self.seen[start + row]
                every.append(self._hits(scores[row], wanted))
                fresh = np.setdiff1d(wanted, seen, assume_unique=True)
                if len(fresh):
                    scores[row, seen] = -np.inf
                    new.append(self._hits(scores[row], fresh))
        found = {}
        for name, hits in (("any", every), ("new", new)):
            if hits:
                share = np.array(hits)
                found[f"recall_{name}"] = float(share.mean())
                found[f"hit_rate_{name}"] = float((share > 0).mean())
        return {"recall": found.get("recall_new", found["recall_any"]), **found}

    def _hits(self, scores: npt.NDArray[np.float32], wanted: Ints) -> float:
        top = np.argpartition(-scores, self.k - 1)[: self.k]
        return float(np.isin(wanted, top).sum() / min(self.k, len(wanted)))


def _of_user(keys: Ints, user: int, n_items: int) -> Ints:
    begin, end = np.searchsorted(keys, [user * n_items, (user + 1) * n_items])
    return keys[begin:end] - user * n_items
