"""The two arms of the closed loop, from the stages themselves: item-kNN against towers with tags. SIMULATION."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import datasets, evaluation, logs, retrieval, tags
from recgpt.evaluation import HeldOut, baselines
from recgpt.evaluation.metrics import Ragged, ragged
from recgpt.evaluation.simulation import Arm, Planted, Simulation
from recgpt.index import ExactIndex

TRAINING = retrieval.Config(epochs=3, steps=30, refit_epochs=1, threads=1, full_softmax=5000)
"""Small towers: a world of some hundred items needs no more."""
TOUCHED = ("click", "detail_view", "favorite", "cart", "purchase")
MEMORY = timedelta(days=90)
"""What item-kNN learns from: over a longer time everybody touched everything in a small shop, and all are alike."""
LATEST = 50
"""Items of a shopper from which item-kNN starts, the latest; all of them would be the whole shop."""
EVERY = 10
"""Days after which the towers are trained anew on what their own shoppers did."""


class Neighbours:
    """The base arm: item-kNN from each shopper's latest items, on what the arm's own shoppers touched so far."""

    def __init__(self, item_ids: Sequence[str]) -> None:
        """Rank these items."""
        self.item_ids = list(item_ids)

    def pages(self, user_ids: Sequence[str], events: pa.Table, now: datetime, k: int) -> Ragged:
        """Fill pages with neighbours of what each user touched, then with what is popular."""
        recent = pc.greater_equal(events["timestamp"], pa.scalar(now - MEMORY, events["timestamp"].type))
        touched = events.filter(pc.and_(recent, pc.is_in(events["behavior"], pa.array(TOUCHED, pa.large_string()))))
        items = pc.index_in(touched["item_id"], value_set=pa.array(self.item_ids, pa.large_string()))
        known = pc.is_valid(items).to_numpy()
        rows = items.fill_null(-1).to_numpy().astype(np.int64)[known]
        people, codes = np.unique(np.array(touched["user_id"].to_pylist(), dtype=str)[known], return_inverse=True)
        pairs = np.unique(codes * len(self.item_ids) + rows)
        owners, values = np.divmod(pairs, len(self.item_ids))
        everyone = Ragged(values, np.searchsorted(owners, np.arange(len(people) + 1)))
        at = np.searchsorted(people, user_ids)
        # The log is in the order of time within a user, so that a user's last rows are the latest.
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(people) + 1))
        own = []
        for place, user in zip(at.tolist(), user_ids, strict=True):
            there = place < len(people) and people[place] == user
            seen = rows[order[starts[place] : starts[place + 1]]][::-1] if there else rows[:0]
            own.append(np.array(list(dict.fromkeys(seen.tolist()))[:LATEST], dtype=np.int64))
        sales = np.bincount(rows, minlength=len(self.item_ids)).astype(np.int64)
        nothing = ragged([[] for _ in user_ids])
        past = HeldOut(now, None, list(user_ids), self.item_ids, nothing, nothing, ragged(own), sales, everyone)
        return baselines.item_knn(past, k)


class Towers:
    """The recgpt arm: user towers read anew every day, tags by rule (no model is asked), fused at `beta`."""

    def __init__(self, item_ids: Sequence[str], items: pa.Table, *, beta: float, seed: int) -> None:
        """Rank these items."""
        self.item_ids, self.items, self.beta, self.seed = list(item_ids), items, beta, seed
        self.item_tags = tags.item_tags(items)
        self._towers: retrieval.Towers | None = None
        self._trained = datetime.min

    def pages(self, user_ids: Sequence[str], events: pa.Table, now: datetime, k: int) -> Ragged:
        """Fill pages from the fused search."""
        if self._towers is None or now - self._trained >= timedelta(days=EVERY):
            self._towers = retrieval.train(events, self.items, self.item_tags, now=now, config=TRAINING)
            self._trained = now
            self._index = ExactIndex(self._towers.item_vectors, self._towers.item_ids)
        towers = self._towers
        names, vectors = towers.user_vectors_for(events, now=now)
        ruled = tags.by_rule(events, self.item_tags, self.items, now=now, users=user_ids)
        texts, lists = evaluation.sweep.tag_lists(ruled, user_ids)
        row = {name: number for number, name in enumerate(names)}
        users = np.zeros((len(user_ids), vectors.shape[1]), dtype=np.float32)
        for place, user in enumerate(user_ids):
            if user in row:
                users[place] = vectors[row[user]]
        found = towers.tag_vectors(texts)[lists.values].astype(np.float32)
        answer = self._index.search(users, found, lists.offsets, beta=self.beta, k=k)
        own = pc.index_in(
            answer["item_id"].cast(pa.large_string()), value_set=pa.array(self.item_ids, pa.large_string())
        )
        owners, values = answer["row"].to_numpy().astype(np.int64), own.to_numpy().astype(np.int64)
        order = np.argsort(owners, kind="stable")
        return Ragged(values[order], np.searchsorted(owners[order], np.arange(len(user_ids) + 1)).astype(np.int64))


def simulate(
    *,
    users: int = 200,
    items: int = 600,
    days: int = 30,
    k: int = 20,
    beta: float = 0.5,
    seed: int = 0,
    step: Callable[[int], None] = lambda _: None,
) -> Simulation:
    """Let item-kNN and recgpt serve the last days of a planted world. SIMULATION: see `evaluation.simulation`.

    Args:
        users: shoppers, half of them an arm.
        items: goods of the shop.
        days: of the loop, the last ones of the world's log.
        k: places of a page.
        beta: the recgpt arm's weight of the user tower.
        seed: of world, towers, visits and clicks.
        step: called after each day.

    Raises:
        MissingExtraError: torch is not installed.
    """
    data = datasets.load("world", users=users, items=items, seed=seed)
    known = logs.from_dataset(data)
    world = Planted(data.users, data.truth)
    start = evaluation.cut(known.events, days=days).replace(hour=0, minute=0, second=0, microsecond=0)
    arms: dict[str, Arm] = {
        "item-kNN": Neighbours(world.item_ids),
        "recgpt": Towers(world.item_ids, known.items, beta=beta, seed=seed),
    }
    return evaluation.simulation.simulate(
        world, arms, known.events, known.items, start=start, days=days, k=k, seed=seed, step=step
    )
