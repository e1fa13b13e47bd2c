"""The three towers in torch (section 2.3.1). `forward.py` says the same in numpy, and a test holds the two equal.

Decisions of ours: one hidden layer and ReLU; L2-normed outputs, so y_col and y_sem are cosines on one scale;
title words as one more item feature, so that cold items have a place; one word table for titles and tags;
sequences pool the item tower's own outputs; row 0 of each table stands for "unknown".
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from recgpt.retrieval.config import Config
from recgpt.retrieval.features import ItemFeatures


def _dnn(inputs: int, config: Config) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, config.hidden_size), nn.ReLU(), nn.Linear(config.hidden_size, config.embedding_size)
    )


def _table(rows: int, size: int) -> nn.Embedding:
    table = nn.Embedding(rows, size)
    nn.init.normal_(table.weight, std=0.1)
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
        wide, narrow = config.embedding_size, config.feature_size
        self.behaviors = behaviors
        self.size = wide
        self.user = _table(rows["user"], wide)
        self.item = _table(rows["item"], wide)
        self.category = _table(rows["category"], narrow)
        self.brand = _table(rows["brand"], narrow)
        self.price = _table(rows["price"], narrow)
        self.sales = _table(rows["sales"], narrow)
        self.word = _table(rows["word"], config.word_size)
        self.item_dnn = _dnn(wide + 4 * narrow + config.word_size, config)
        self.user_dnn = _dnn((1 + behaviors) * wide, config)
        self.tag_dnn = _dnn(config.word_size, config)

    def mean_words(self, words: Tensor) -> Tensor:
        """Mean embedding of known words: (n, w) int64 -> (n, word_size) float; zero without one."""
        return nnf.embedding_bag(words, self.word.weight, mode="mean", padding_idx=0)

    def item_vectors(self, features: ItemFeatures) -> Tensor:
        """h_v: (n, d) float, L2-normed."""
        parts = [
            getattr(self, name)(torch.from_numpy(getattr(features, name)))
            for name in ("item", "category", "brand", "price", "sales")
        ]
        parts.append(self.mean_words(torch.from_numpy(features.words)))
        return nnf.normalize(self.item_dnn(torch.cat(parts, dim=1)), dim=1)

    def user_vectors(self, users: Tensor, items: Tensor, sequences: list[tuple[Tensor, Tensor]]) -> Tensor:
        """h_u: (n, d) float, L2-normed.

        Args:
            users: (n,) int64, row of the user table.
            items: (m, d) float, item vectors that the sequences point into.
            sequences: A behavior: flat rows of `items` and (n,) offsets where each user's begin.
        """
        pooled = [nnf.embedding_bag(rows, items, offsets, mode="mean") for rows, offsets in sequences]
        return nnf.normalize(self.user_dnn(torch.cat([self.user(users), *pooled], dim=1)), dim=1)

    def tag_vectors(self, words: Tensor) -> Tensor:
        """h_t: (n, d) float, L2-normed; every tag must have a known word."""
        return nnf.normalize(self.tag_dnn(self.mean_words(words)), dim=1)
