"""How the two sides of retrieval do on held-out purchases: the towers at one beta, the beta sweep, LLM households."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recgpt.errors import InvalidArrayError
from recgpt.evaluation import metrics
from recgpt.evaluation.held_out import HeldOut, popularity, strings
from recgpt.evaluation.metrics import Ints, Ragged

Vectors = NDArray[np.float32]
BETAS = (0.0, 0.2, 0.5, 0.8, 1.0)
"""The sweep: 0 = tags alone, 1 = user tower alone (paper section 2.3)."""


class Index(Protocol):
    """Anything that searches as `recgpt.index` does."""

    def search(
        self, users: Any, tags: Any, offsets: Any, *, beta: float = 0.5, k: int = 100, exclude: Any = None
    ) -> pa.Table:
        """Give a table with `row` and `item_id`, best item first within a row; `exclude` = (item rows, offsets)."""


class Towers(Protocol):
    """The trained vectors, as `recgpt.retrieval.train` gives them."""

    @property
    def user_ids(self) -> Any:
        """(n,) ids."""

    @property
    def user_vectors(self) -> Any:
        """(n, d) float32."""

    @property
    def item_ids(self) -> Any:
        """(m,) ids in the order of the index."""

    def tag_vectors(self, tags: list[str]) -> Any:
        """(t, d) float32 for t texts."""


class Queries(NamedTuple):
    """What the index is asked for evaluated users."""

    known: NDArray[np.bool_]
    """(n,) whether the user has a vector; the others are cold and get popularity, as in serving."""
    users: Vectors
    """(n, d) float32, zero rows for cold users."""
    tags: Vectors
    """(t, d) float32."""
    offsets: Ints
    """(n + 1,) int64: user u owns tags[offsets[u]:offsets[u + 1]]."""

    def swapped(self, partner: Ints) -> Queries:
        """Give user u the tags of user partner[u] and leave the user vectors as they are."""
        lists = Ragged(np.arange(len(self.tags), dtype=np.int64), self.offsets).take(partner)
        return Queries(self.known, self.users, self.tags[lists.values], lists.offsets)


@dataclass(frozen=True)
class SweepRow:
    """One beta of the sweep. Everything on new items, at k; `gini` is over the exposure of all catalogue items."""

    beta: float
    hit_rate: metrics.Score
    ndcg: metrics.Score
    categories: metrics.Score
    exclusive_recall: metrics.Score
    gini: float

    def figures(self, k: int = 20) -> dict[str, float]:
        """Give the row of the demo's `beta_sweep`."""
        return {
            "beta": self.beta,
            f"hr@{k}_new": self.hit_rate.mean,
            f"ndcg@{k}_new": self.ndcg.mean,
            f"categories@{k}": self.categories.mean,
            f"exclusive_recall@{k}": self.exclusive_recall.mean,
            f"gini@{k}": self.gini,
        }


def queries(towers: Towers, tags: pa.Table, user_ids: Sequence[str]) -> Queries:
    """Collect the vectors of users and of their tags (TAGS, by rank) for a search."""
    rows = {user: row for row, user in enumerate(strings(towers.user_ids))}
    vectors = np.asarray(towers.user_vectors, dtype=np.float32)
    at = np.array([rows.get(user, -1) for user in user_ids], dtype=np.int64)
    users = np.zeros((len(at), vectors.shape[1]), dtype=np.float32)
    users[at >= 0] = vectors[at[at >= 0]]
    texts, lists = tag_lists(tags, user_ids)
    found = np.asarray(towers.tag_vectors(texts), dtype=np.float32) if texts else np.zeros((0, vectors.shape[1]))
    return Queries(at >= 0, users, found[lists.values].astype(np.float32), lists.offsets)


def tag_lists(tags: pa.Table, user_ids: Sequence[str]) -> tuple[list[str], Ragged]:
    """Give the distinct tag texts and, per user, the rows of theirs in rank order."""
    wanted = tags.filter(pc.is_in(tags.column("user_id"), pa.array(user_ids, tags.schema.field("user_id").type)))
    wanted = wanted.sort_by([("user_id", "ascending"), ("rank", "ascending")])
    texts = sorted(set(wanted.column("tag").to_pylist()))
    row = {text: number for number, text in enumerate(texts)}
    lists: dict[str, list[int]] = {user: [] for user in user_ids}
    for user, tag in zip(wanted.column("user_id").to_pylist(), wanted.column("tag").to_pylist(), strict=True):
        lists[user].append(row[tag])
    return texts, metrics.ragged([lists[user] for user in user_ids])


def rank(index: Index, asked: Queries, held_out: HeldOut, *, beta: float, k: int, new: bool) -> Ragged:
    """Search for every evaluated user; with `new`, without the items they bought before `now`."""
    exclude = (held_out.bought.values, held_out.bought.offsets) if new else None
    tags, offsets = asked.tags, asked.offsets
    if beta == 1.0:  # The tags weigh nothing, and scoring them is nearly all of the work.
        tags, offsets = tags[:0], np.zeros_like(offsets)
    answer = index.search(asked.users, tags, offsets, beta=beta, k=k, exclude=exclude)
    ids = pa.array(held_out.item_ids, pa.large_string())
    items = pc.index_in(answer.column("item_id").cast(pa.large_string()), ids)
    if items.null_count:
        raise InvalidArrayError(f"the index gave {items.null_count} item ids that are not in the evaluated catalogue")
    users = answer.column("row").to_numpy().astype(np.int64)
    order = np.argsort(users, kind="stable")
    users, rows = users[order], items.to_numpy().astype(np.int64)[order]
    offsets = np.searchsorted(users, np.arange(len(held_out.user_ids) + 1)).astype(np.int64)
    found = Ragged(rows, offsets)
    if asked.known.all():
        return found
    bestsellers = popularity(held_out, k, new=new)
    return metrics.ragged([(found if warm else bestsellers).of(user) for user, warm in enumerate(asked.known)])


def beta_sweep(
    index: Index,
    asked: Queries,
    held_out: HeldOut,
    *,
    categories: Ints,
    betas: Iterable[float] = BETAS,
    k: int = 20,
    known: Mapping[float, Ragged] | None = None,
    step: Callable[[], None] = lambda: None,
) -> list[SweepRow]:
    """Judge each beta on relevance and diversity, on new items.

    Args:
        index: searches the catalogue `held_out.item_ids`.
        asked: vectors and tags of `held_out.user_ids`.
        held_out: the truths.
        categories: (m,) int64 category code of each item row, negative for none.
        betas: the weights of the user tower.
        k: how many items count.
        known: lists of new items that were searched already, by beta.
        step: called after each beta.
    """
    lists = dict(known or {})
    alone = lists[1.0] = lists.get(1.0) or rank(index, asked, held_out, beta=1.0, k=k, new=True)
    rows = []
    for beta in betas:
        fused = lists.get(beta) or rank(index, asked, held_out, beta=beta, k=k, new=True)
        rows.append(
            SweepRow(
                beta=float(beta),
                hit_rate=metrics.hit_rate(fused, held_out.new, k),
                ndcg=metrics.ndcg(fused, held_out.new, k),
                categories=metrics.distinct_categories(fused, categories, k),
                exclusive_recall=metrics.exclusive_recall(fused, alone, held_out.new, k),
                gini=metrics.gini(fused, len(held_out.item_ids), k),
            )
        )
        step()
    return rows


class OwnAndSwapped(NamedTuple):
    """HR on new items for some users with their own tags, and with another's."""

    own: metrics.Score
    swapped: metrics.Score
    users: int
    """How many of them have new truths, tags and a vector: the n of both figures."""


def own_and_swapped(
    index: Index, towers: Towers, tags: pa.Table, held_out: HeldOut, *, beta: float = 0.5, k: int = 20, seed: int = 0
) -> OwnAndSwapped:
    """Ask whether it matters whose tags a user gets: their own, against those of another user in the same group.

    The exchange is a seeded derangement (one random cycle), so that nobody keeps their own. With fewer than two users
    there is nothing to exchange and the swapped figure is NaN. Expect noise: one user in twelve moves HR by .083.

    Args:
        index: searches the catalogue `held_out.item_ids`.
        towers: the vectors.
        tags: TAGS; users of `held_out` without a tag or a vector are left out.
        held_out: the group, for example `held_out.subset(llm_households)`.
        beta: the weight of the user tower.
        k: how many items count.
        seed: of the exchange.
    """
    asked = queries(towers, tags, held_out.user_ids)
    usable = asked.known & (np.diff(asked.offsets) > 0) & (held_out.new.sizes > 0)
    group = held_out.subset(user for user, use in zip(held_out.user_ids, usable, strict=True) if use)
    count = len(group.user_ids)
    nothing = metrics.Score(float("nan"), np.full(count, np.nan))
    if not count:
        return OwnAndSwapped(nothing, nothing, 0)
    asked = queries(towers, tags, group.user_ids)
    own = metrics.hit_rate(rank(index, asked, group, beta=beta, k=k, new=True), group.new, k)
    if count < 2:
        return OwnAndSwapped(own, nothing, count)
    partner = derangement(count, seed=seed)
    other = rank(index, asked.swapped(partner), group, beta=beta, k=k, new=True)
    return OwnAndSwapped(own, metrics.hit_rate(other, group.new, k), count)


def derangement(count: int, *, seed: int = 0) -> Ints:
    """Give (count,) int64 rows in which nobody stands at their own place: one random cycle through all of them.

    >>> partner = derangement(5, seed=1)
    >>> sorted(partner.tolist()), bool((partner == np.arange(5)).any())
    ([0, 1, 2, 3, 4], False)
    """
    if count < 2:
        raise InvalidArrayError(f"an exchange needs at least 2 users, but there are {count}")
    around = np.random.default_rng(seed).permutation(count)
    partner = np.empty(count, dtype=np.int64)
    partner[around] = np.roll(around, -1)
    return partner


def category_codes(items: pa.Table, item_ids: Sequence[str]) -> Ints:
    """(m,) int64 code of each item's category in the order of `item_ids`; -1 where an item has none."""
    category = dict(zip(items.column("item_id").to_pylist(), items.column("category").to_pylist(), strict=True))
    names = {name: code for code, name in enumerate(sorted({name for name in category.values() if name is not None}))}
    return np.array([names.get(category.get(item) or "", -1) for item in item_ids], dtype=np.int64)
