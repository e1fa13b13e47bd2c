"""Draws the examples of a training step: baskets, their positives, negatives, tag pairs. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recgpt.retrieval.config import Config
from recgpt.retrieval.features import NOT_POSITIVE, Floats, Ints, Log, ranges
from recgpt.retrieval.pooling import Acts, History, Ragged
from recgpt.retrieval.sales import periods


@dataclass(frozen=True)
class Batch:
    """One step. `rows` holds every item that it touches; all other item fields point into `rows`."""

    rows: Ints
    users: Ints
    """(b,) user row of each basket."""
    as_of: float
    """Days before `now` at which the period of all these baskets begins."""
    latest: Ragged
    """Rows point into `rows`."""
    profile: Ragged
    """Rows are those of the catalogue."""
    candidates: Ints
    """(c,) items that can be positives or negatives."""
    correction: Floats
    """(c,) log of the expected count of each candidate in a step."""
    own: npt.NDArray[np.bool_]
    """(b, c) items that the basket's user acted on."""
    basket: Ints
    """(p,) basket of each positive."""
    positive: Ints
    """(p,) column in `candidates`."""
    weight: Floats
    pair_tag: Ints
    """(q,) tag row of each tag-item pair."""
    pair_item: Ints
    """(q,) column in `candidates`: the pair's item."""
    same_tag: npt.NDArray[np.bool_]
    """(q, c) candidates with the pair's tag."""
    kin_pair: Ints
    """(k,) the pairs whose item has a category."""
    kin: Ints
    """(k,) index in `rows` of another item of that category."""
    same_category: npt.NDArray[np.bool_]
    """(k, c) candidates of the pair's category."""


class Sampler:
    """Examples from one log.

    Args:
        log: Events to learn from.
        tags: (n_items,) tag row of each item, -1 without one.
        categories: (n_items,) category row of each item, 0 without one.
        config: Sizes.
        rng: All randomness.
    """

    def __init__(self, log: Log, tags: Ints, categories: Ints, config: Config, rng: np.random.Generator) -> None:
        self.config, self.rng, self.tags, self.categories = config, rng, tags, categories
        self.history = History(log, config)
        n_items = len(tags)
        positive = positives(log)
        self.count = np.bincount(log.item[positive], minlength=n_items)
        common = np.flatnonzero(self.count >= config.min_count)
        self.pool = common if len(common) >= 2 else np.flatnonzero(self.count)
        # What is never a negative is pushed down by nothing, and a tag would find it before all that people buy.
        self.rare = np.setdiff1d(np.arange(n_items), self.pool)
        by_category = np.argsort(categories, kind="stable")
        self.members = by_category
        self.member_sales = np.concatenate([[0.0], np.cumsum(self.count[by_category], dtype=np.float64)])
        self.member_offsets = np.searchsorted(categories[by_category], np.arange(categories.max(initial=0) + 2))

        self.full = n_items <= config.full_softmax

        owned = np.unique(log.user[positive] * n_items + log.item[positive])
        self.owned_item = owned % n_items
        self.owned_offsets = np.searchsorted(owned // n_items, np.arange(len(log.user_ids) + 1))

        weight = np.where(repeated(log, n_items), config.repeat_weight, 1.0).astype(np.float32)
        used = positive & (weight > 0)
        if not config.hidden_size:
            # Without an id, a user with no past is nobody, and all items score alike.
            with_past = used & (log.order > log.order[np.searchsorted(log.user, log.user)])
            used = with_past if with_past.any() else used
        user, order, item = log.user[used], log.order[used], log.item[used]
        # The log is sorted by (user, order, item): a second event on an item in one basket adds nothing.
        new_basket = np.ones(len(user), bool)
        new_basket[1:] = (user[1:] != user[:-1]) | (order[1:] != order[:-1])
        distinct = new_basket.copy()
        distinct[1:] |= item[1:] != item[:-1]
        self.item, self.weight = item[distinct], weight[used][distinct]
        begin = np.flatnonzero(new_basket[distinct])
        self.offsets = np.append(begin, len(self.item))
        self.basket_user, self.basket_order = user[new_basket], order[new_basket]
        self._cut_periods(log.days[used][new_basket])

    def _cut_periods(self, days: npt.NDArray[np.float64]) -> None:
        """Sort baskets by period: a step has baskets of one, so that one set of sales features serves it."""
        half_life = self.config.half_life_days
        age = 0.5 ** (days / half_life) if half_life else np.ones(len(days))
        own, self.starts = periods(days, self.config.validation_days)
        age[own < 0] = 0
        self.period_baskets = [np.flatnonzero(own == period) for period in range(len(self.starts))]
        self.basket_chance = [_shares(age[baskets]) for baskets in self.period_baskets]
        self.period_chance = _shares(np.array([age[baskets].sum() for baskets in self.period_baskets]))
        self.decks: dict[int, Ints] = {}
        # In-batch negatives come as often as they sold in that period, so log-Q counts there too.
        counted = np.repeat(own, np.diff(self.offsets))
        n_items = len(self.tags)
        self.period_count = [np.bincount(self.item[counted == p], minlength=n_items) for p in range(len(self.starts))]

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return max(1, min(self.config.steps, -(-len(self.basket_user) // self.config.batch_size)))

    def draw(self) -> Batch:
        """Draw one step."""
        config, rng = self.config, self.rng
        period = int(rng.choice(len(self.starts), p=self.period_chance))
        picked = self._pick(period)
        positions, offsets = ranges(self.offsets[picked], self.offsets[picked + 1])
        basket = np.repeat(np.arange(len(picked)), np.diff(offsets))
        shuffled = np.lexsort((rng.random(len(basket)), basket))
        place = np.arange(len(basket)) - offsets[basket]
        kept = np.sort(shuffled[place < config.positives_per_basket])
        basket, positions = basket[kept], positions[kept]
        items = self.item[positions]

        candidates, column, correction = self._candidates(items, period)
        users = self.basket_user[picked]

        pairs = np.flatnonzero(self.tags[items] >= 0)
        pairs = rng.permutation(pairs)[: config.pairs]
        pair_items = items[pairs]
        kin_pair = np.flatnonzero(self.categories[pair_items] > 0)
        kin = self._same_category(pair_items[kin_pair])

        acts: Acts = self.history.before(users, self.basket_order[picked])
        touched = np.concatenate([candidates, kin, *(rows for rows, _ in acts.latest)])
        rows, inside = np.unique(touched, return_inverse=True)
        cuts = np.cumsum([len(candidates), len(kin), *(len(flat) for flat, _ in acts.latest)])[:-1]
        at_candidates, at_kin, *at_sequences = np.split(inside, cuts)
        return Batch(
            rows=rows,
            users=users,
            as_of=float(self.starts[period]),
            latest=[(at, ends) for at, (_, ends) in zip(at_sequences, acts.latest, strict=True)],
            profile=acts.profile,
            candidates=at_candidates,
            correction=correction,
            own=self._own(users, candidates),
            basket=basket,
            positive=column,
            weight=self.weight[positions],
            pair_tag=self.tags[pair_items],
            pair_item=column[pairs],
            same_tag=self.tags[pair_items][:, None] == self.tags[candidates][None, :],
            kin_pair=kin_pair,
            kin=at_kin,
            same_category=self.categories[pair_items[kin_pair]][:, None] == self.categories[candidates][None, :],
        )

    def _pick(self, period: int) -> Ints:
        """Baskets of one step: by chance, or dealt from a shuffled deck where all are alike, so that none is missed."""
        chance, size = self.basket_chance[period], self.config.batch_size
        if chance.min() < chance.max():
            return self.rng.choice(self.period_baskets[period], size, p=chance)
        deck = self.decks.get(period, np.empty(0, np.int64))
        while len(deck) < size:
            deck = np.concatenate([deck, self.rng.permutation(self.period_baskets[period])])
        self.decks[period] = deck[size:]
        return deck[:size]

    def _candidates(self, items: Ints, period: int) -> tuple[Ints, Ints, Floats]:
        """Items of a step: all, or the positives and some drawn. With the column of each positive, and log-Q."""
        if self.full:
            return np.arange(len(self.tags)), items, np.zeros(len(self.tags), np.float32)
        config, rng = self.config, self.rng
        uniform = rng.choice(self.pool, config.uniform_negatives)
        rare = rng.choice(self.rare, config.rare_negatives if len(self.rare) else 0)
        candidates, column = np.unique(np.concatenate([items, uniform, rare]), return_inverse=True)
        share = self.period_count[period][candidates] / self.period_count[period].sum() * len(items)
        drawn = np.where(
            np.isin(candidates, self.pool, assume_unique=True),
            config.uniform_negatives / len(self.pool),
            len(rare) / max(len(self.rare), 1),
        )
        correction = np.log(np.maximum(share + drawn, 1e-9)).astype(np.float32)
        return candidates, column[: len(items)], correction

    def _same_category(self, items: Ints) -> Ints:
        """One item of each item's category, drawn as often as it sold; the item itself where none did."""
        category = self.categories[items]
        begin, end = self.member_offsets[category], self.member_offsets[category + 1]
        low, high = self.member_sales[begin], self.member_sales[end]
        aim = low + self.rng.random(len(items)) * (high - low)
        at = np.clip(np.searchsorted(self.member_sales, aim, side="right") - 1, begin, end - 1)
        return np.where(high > low, self.members[at], items)

    def _own(self, users: Ints, candidates: Ints) -> npt.NDArray[np.bool_]:
        """(b, c): true where the user acted on the candidate."""
        column = np.full(len(self.tags), -1)
        column[candidates] = np.arange(len(candidates))
        positions, offsets = ranges(self.owned_offsets[users], self.owned_offsets[users + 1])
        at = column[self.owned_item[positions]]
        row = np.repeat(np.arange(len(users)), np.diff(offsets))
        own = np.zeros((len(users), len(candidates)), bool)
        own[row[at >= 0], at[at >= 0]] = True
        return own


def _shares(weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    total = weight.sum()
    return weight / total if total else weight


def positives(log: Log) -> npt.NDArray[np.bool_]:
    """(n_events,) true where an event says that the user wants the item."""
    good = np.array([name not in NOT_POSITIVE for name in log.behaviors], bool)
    return good[log.behavior]


def repeated(log: Log, n_items: int) -> npt.NDArray[np.bool_]:
    """(n_events,) true where the user did the same with the item at an earlier moment."""
    key = (log.user * len(log.behaviors) + log.behavior) * n_items + log.item
    # The log is sorted by time within a user, so the first index of a key is its first event.
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    found: npt.NDArray[np.bool_] = log.order > log.order[first][inverse]
    return found
