"""The three towers in torch (section 2.3.1). `forward.py` says the same in numpy, and a test holds the two equal.

Decisions of ours: one hidden layer and ReLU; L2-normed outputs, so y_col and y_sem are cosines on one scale;
title words as one more item feature, so that cold items have a place; one word table for titles and tags;
sequences pool the item tower's own outputs; row 0 of each table stands for "unknown". Attention weighs an item by a
key of its behavior, by its place from the end, and in `query` pooling by a bilinear form of it and the user's latest
item of that behavior; all start at zero, which is the paper's mean. Without a hidden layer (`hidden_size` 0) the parts
are added up: a user is then nothing but items, and tags have words of their own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from recgpt.retrieval.config import Config
from recgpt.retrieval.features import ItemFeatures
from recgpt.retrieval.pooling import STEPS_BACK
from recgpt.retrieval.sales import FEATURES


class Sequence(NamedTuple):
    """One behavior of some users: (l,) rows of items, (n,) offsets, and for each row its user and place."""

    rows: Tensor
    begin: Tensor
    owner: Tensor
    late: Tensor


def _dnn(inputs: int, config: Config) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, config.hidden_size), nn.ReLU(), nn.Linear(config.hidden_size, config.embedding_size)
    )


def _table(rows: int, size: int, std: float = 0.1) -> nn.Embedding:
    table = nn.Embedding(rows, size)
    nn.init.normal_(table.weight, std=std)
    return table


class TriTower(nn.Module):
    """User, item and tag tower.

    Args:
        rows: Rows of the tables `user item category brand price sales word`, each with row 0 for "unknown".
        behaviors: Number of sequences.
        config: Sizes.
    """

    def __init__(self, rows: dict[str, int], behaviors: int, config: Config) -> None:
        super().__init__()
        self.deep = config.hidden_size > 0
        wide = config.embedding_size
        narrow, word = (config.feature_size, config.word_size) if self.deep else (wide, wide)
        # Where parts are added, what all items share (such as an unknown brand) must not fill the vectors at the start.
        std = 0.1 if self.deep else 0.0
        self.dropout = nn.Dropout(config.dropout)
        self.item = _table(rows["item"], wide)
        self.category = _table(rows["category"], narrow, std)
        self.brand = _table(rows["brand"], narrow, std)
        self.price = _table(rows["price"], narrow, std)
        self.sales = _table(rows["sales"], narrow, std)
        self.word = _table(rows["word"], word)
        self.attention = config.pooling != "mean"
        self.query = config.pooling in ("query", "next")
        self.next = config.pooling == "next"
        if self.attention:
            self.pool_key = nn.Parameter(torch.zeros(behaviors, wide))
            self.pool_late = nn.Parameter(torch.zeros(behaviors, STEPS_BACK))
        if self.query:
            self.pool_query = nn.Parameter(torch.zeros(behaviors, wide, wide))
        if self.deep:
            self.user = _table(rows["user"], wide)
            self.item_dnn = _dnn(wide + (3 + len(FEATURES)) * narrow + word, config)
            self.user_dnn = _dnn((1 + behaviors * (1 + self.attention)) * wide, config)
            self.tag_dnn = _dnn(word, config)
        else:
            # With the titles' words the tag losses would move every item: L_col stood at 8.1 instead of 7.4 on Beauty.
            self.tag_word = _table(rows["word"], wide)
            # The profile starts at nothing: it has no gradient for its items, and most users have few.
            self.pool_share = nn.Parameter(torch.cat([torch.ones(behaviors), torch.zeros(behaviors * self.attention)]))
            if self.next:
                # What comes next is not what is alike; both start at plain attention.
                self.next_pooled = nn.Parameter(torch.eye(wide).repeat(behaviors, 1, 1))
                self.next_latest = nn.Parameter(torch.zeros(behaviors, wide, wide))

    def there(self, array: npt.NDArray[Any]) -> Tensor:
        """An array where the towers are."""
        return torch.from_numpy(array).to(self.item.weight.device)

    def mean_words(self, words: Tensor, table: nn.Embedding) -> Tensor:
        """Mean embedding of known words: (n, w) int64 -> (n, word_size) float; zero without one."""
        return nnf.embedding_bag(words, table.weight, mode="mean", padding_idx=0)

    def item_vectors(self, features: ItemFeatures) -> Tensor:
        """h_v: (n, d) float, L2-normed."""
        parts = [
            getattr(self, name)(self.there(getattr(features, name))) for name in ("item", "category", "brand", "price")
        ]
        words, sales = self.mean_words(self.there(features.words), self.word), self.there(features.sales)
        if not self.deep:
            total = words + nnf.embedding_bag(sales, self.sales.weight, mode="sum")
            for part in parts:
                total = total + part
            return nnf.normalize(total, dim=1)
        parts += [self.sales(sales).flatten(1), words]
        return nnf.normalize(self.item_dnn(torch.cat(parts, dim=1)), dim=1)

    def user_vectors(
        self, users: Tensor, items: Tensor, latest: list[Sequence], profile: list[tuple[Tensor, Tensor]], long: Tensor
    ) -> Tensor:
        """h_u: (n, d) float, L2-normed.

        Args:
            users: (n,) int64, row of the user table.
            items: (m, d) float, item vectors that the latest items point into.
            latest: A behavior: what is pooled with gradient.
            profile: A behavior: flat rows of `long` and (n,) offsets; empty where pooling is `mean`.
            long: (n_items, d) float, item vectors without gradient.
        """
        items = self.dropout(items)
        pooled = [self._pooled(behavior, items, sequence) for behavior, sequence in enumerate(latest)]
        pooled += [nnf.embedding_bag(rows, long, begin, mode="mean") for rows, begin in profile]
        if not self.deep:
            return nnf.normalize(self.dropout(torch.einsum("k,knd->nd", self.pool_share, torch.stack(pooled))), dim=1)
        return nnf.normalize(self.dropout(self.user_dnn(torch.cat([self.user(users), *pooled], dim=1))), dim=1)

    def _pooled(self, behavior: int, items: Tensor, sequence: Sequence) -> Tensor:
        """(n, d): mean, or attention, of each user's items; zero without any."""
        rows, begin, owner, late = sequence
        if not self.attention:
            return nnf.embedding_bag(rows, items, begin, mode="mean")
        logits = (items @ self.pool_key[behavior])[rows] + self.pool_late[behavior][late]
        if self.query:
            # `late` is 0 at each user's latest item, and nowhere else.
            last = late == 0
            latest = items.new_zeros(len(begin), items.shape[1]).index_add(0, owner[last], items[rows[last]])
            logits = logits + (items[rows] * (latest @ self.pool_query[behavior])[owner]).sum(dim=1)
        top = (
            logits.detach().new_zeros(len(begin)).scatter_reduce(0, owner, logits.detach(), "amax", include_self=False)
        )
        share = torch.exp(logits - top[owner])
        share = share / share.new_zeros(len(begin)).index_add(0, owner, share)[owner]
        pooled = nnf.embedding_bag(rows, items, begin, mode="sum", per_sample_weights=share)
        if self.next:
            pooled = pooled @ self.next_pooled[behavior] + latest @ self.next_latest[behavior]
        return pooled

    def tag_vectors(self, words: Tensor) -> Tensor:
        """h_t: (n, d) float, L2-normed; every tag must have a known word."""
        if not self.deep:
            return nnf.normalize(self.mean_words(words, self.tag_word), dim=1)
        return nnf.normalize(self.tag_dnn(self.mean_words(words, self.word)), dim=1)
