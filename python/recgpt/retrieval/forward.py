"""The three towers in numpy: what serving uses, so that it never imports torch. `model.py` trains the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recgpt.retrieval.features import Floats, Ints, ItemFeatures

Weights = Mapping[str, Floats]
"""State of the towers by torch's own names, float32."""
CHUNK = 8192
"""Rows at once, so that 100,000 items need tens of megabytes."""


def _dnn(weights: Weights, name: str, inputs: Floats) -> Floats:
    hidden = np.maximum(inputs @ weights[f"{name}.0.weight"].T + weights[f"{name}.0.bias"], 0)
    out: Floats = hidden @ weights[f"{name}.2.weight"].T + weights[f"{name}.2.bias"]
    out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
    return out


def mean_words(weights: Weights, words: Ints) -> Floats:
    """Mean embedding of known words: (n, w) int64 -> (n, word_size) float32; zero without one."""
    known = (words > 0)[:, :, None]
    summed: Floats = (weights["word.weight"][words] * known).sum(axis=1, dtype=np.float32)
    mean: Floats = summed / np.maximum(known.sum(axis=1), 1).astype(np.float32)
    return mean


def item_vectors(weights: Weights, features: ItemFeatures) -> Floats:
    """h_v: (n, d) float32, L2-normed."""
    found = []
    for start in range(0, len(features.item), CHUNK):
        part = features.take(np.arange(start, min(start + CHUNK, len(features.item))))
        names = ("item", "category", "brand", "price", "sales")
        parts = [weights[f"{name}.weight"][getattr(part, name)] for name in names]
        found.append(_dnn(weights, "item_dnn", np.concatenate([*parts, mean_words(weights, part.words)], axis=1)))
    return np.concatenate(found)


def user_vectors(weights: Weights, users: Ints, items: Floats, sequences: list[tuple[Ints, Ints]]) -> Floats:
    """h_u: (n, d) float32, L2-normed.

    Args:
        weights: The towers.
        users: (n,) int64, row of the user table, 0 for a user it does not know.
        items: (m, d) float32, item vectors.
        sequences: A behavior: flat rows of `items`, and (n + 1,) offsets.
    """
    parts = [weights["user.weight"][users]]
    for rows, offsets in sequences:
        pooled = np.zeros((len(users), items.shape[1]), np.float32)
        length = np.diff(offsets)
        filled = length > 0
        if filled.any():
            # Empty sequences are left out: reduceat would give them the next user's first item.
            pooled[filled] = np.add.reduceat(items[rows], offsets[:-1][filled], axis=0) / length[filled, None]
        parts.append(pooled)
    return _dnn(weights, "user_dnn", np.concatenate(parts, axis=1))


def tag_vectors(weights: Weights, words: Ints) -> Floats:
    """h_t: (n, d) float32, L2-normed; a tag without a known word is all zeros."""
    found = _dnn(weights, "tag_dnn", mean_words(weights, words))
    return found * (words > 0).any(axis=1, keepdims=True).astype(np.float32)
