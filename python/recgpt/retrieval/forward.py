"""The three towers in numpy: what serving uses, so that it never imports torch. `model.py` trains the same."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recgpt.retrieval.features import Floats, Ints, ItemFeatures
from recgpt.retrieval.pooling import Acts, steps_back

Weights = Mapping[str, Floats]
"""State of the towers by torch's own names, float32; of several side by side with a number and a dot before."""
CHUNK = 8192
"""Items at once, so that 100,000 need tens of megabytes."""
USERS = 256
"""Users at once: their long sequences are gathered."""


def _dnn(weights: Weights, name: str, inputs: Floats) -> Floats:
    hidden = np.maximum(inputs @ weights[f"{name}.0.weight"].T + weights[f"{name}.0.bias"], 0)
    out: Floats = hidden @ weights[f"{name}.2.weight"].T + weights[f"{name}.2.bias"]
    return _normed(out)


def _normed(vectors: Floats) -> Floats:
    normed: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return normed


def _deep(weights: Weights) -> bool:
    """Whether the towers are DNNs; else their parts are added up."""
    return "item_dnn.0.weight" in weights


def mean_words(weights: Weights, words: Ints, table: str = "word") -> Floats:
    """Mean embedding of known words: (n, w) int64 -> (n, word_size) float32; zero without one."""
    known = (words > 0)[:, :, None]
    summed: Floats = (weights[f"{table}.weight"][words] * known).sum(axis=1, dtype=np.float32)
    mean: Floats = summed / np.maximum(known.sum(axis=1), 1).astype(np.float32)
    return mean


def side_by_side(towers: list[dict[str, Floats]]) -> dict[str, Floats]:
    """Weights of several towers as those of one, whose vectors have theirs one after the other.

    >>> side_by_side([{"a": np.ones(1)}, {"a": np.zeros(1)}])
    {'0.a': array([1.]), '1.a': array([0.])}
    """
    if len(towers) == 1:
        return towers[0]
    return {f"{place}.{name}": array for place, tower in enumerate(towers) for name, array in tower.items()}


def _apart(weights: Weights) -> list[Weights]:
    """The towers that stand side by side; one tower is itself."""
    found: dict[str, dict[str, Floats]] = {}
    for name, array in weights.items():
        place, _, own = name.partition(".")
        if not place.isdigit():
            return [weights]
        found.setdefault(place, {})[own] = array
    return [found[str(place)] for place in range(len(found))]


def _joined(parts: list[Floats]) -> Floats:
    """Unit vectors one after the other, as unit vectors again: a cosine is then the mean of theirs."""
    if len(parts) == 1:
        return parts[0]
    joined: Floats = np.concatenate(parts, axis=1) / np.sqrt(np.float32(len(parts)))
    return joined


def item_vectors(weights: Weights, features: ItemFeatures) -> Floats:
    """h_v: (n, d) float32, L2-normed."""
    return _joined([_item_vectors(one, features) for one in _apart(weights)])


def _item_vectors(weights: Weights, features: ItemFeatures) -> Floats:
    found = []
    for start in range(0, len(features.item), CHUNK):
        part = features.take(np.arange(start, min(start + CHUNK, len(features.item))))
        names = ("item", "category", "brand", "price")
        parts = [weights[f"{name}.weight"][getattr(part, name)] for name in names]
        sales, words = weights["sales.weight"][part.sales], mean_words(weights, part.words)
        if _deep(weights):
            parts += [sales.reshape(len(part.item), -1), words]
            found.append(_dnn(weights, "item_dnn", np.concatenate(parts, axis=1)))
        else:
            found.append(_normed(sum([*parts, words], sales.sum(axis=1))))
    return np.concatenate(found)


def user_vectors(weights: Weights, users: Ints, items: Floats, acts: Acts) -> Floats:
    """h_u: (n, d) float32, L2-normed.

    Args:
        weights: The towers.
        users: (n,) int64, row of the user table, 0 for a user it does not know.
        items: (m, d) float32, item vectors.
        acts: What the users did, as rows of `items`.
    """
    towers = _apart(weights)
    own = [part * np.sqrt(np.float32(len(towers))) for part in np.split(items, len(towers), axis=1)]
    return _joined([_user_vectors(one, users, part, acts) for one, part in zip(towers, own, strict=True)])


def _user_vectors(weights: Weights, users: Ints, items: Floats, acts: Acts) -> Floats:
    found = []
    for start in range(0, len(users), USERS):
        part = slice(start, start + USERS)
        parts = []
        for behavior, sequence in enumerate(acts.latest):
            rows, offsets = _cut(sequence, part)
            logits, length = None, np.diff(offsets)
            latest = items[rows[offsets[1:][length > 0] - 1]]
            if "pool_key" in weights:
                logits = (items @ weights["pool_key"][behavior])[rows]
                logits += weights["pool_late"][behavior][steps_back(offsets)]
                if "pool_query" in weights:
                    asked = latest @ weights["pool_query"][behavior]
                    logits += np.einsum("ld,ld->l", items[rows], np.repeat(asked, length[length > 0], axis=0))
            pooled = _pooled(items, rows, offsets, logits)
            if "next_pooled" in weights:
                pooled = pooled @ weights["next_pooled"][behavior]
                pooled[length > 0] += latest @ weights["next_latest"][behavior]
            parts.append(pooled)
        parts += [_pooled(items, *_cut(sequence, part), None) for sequence in acts.profile]
        if _deep(weights):
            parts.insert(0, weights["user.weight"][users[part]])
            found.append(_dnn(weights, "user_dnn", np.concatenate(parts, axis=1)))
        else:
            found.append(_normed(np.einsum("k,knd->nd", weights["pool_share"], np.stack(parts))))
    return np.concatenate(found)


def _cut(sequence: tuple[Ints, Ints], part: slice) -> tuple[Ints, Ints]:
    """The sequences of some users."""
    rows, offsets = sequence
    ends = offsets[part.start : part.stop + 1]
    return rows[ends[0] : ends[-1]], ends - ends[0]


def _pooled(items: Floats, rows: Ints, offsets: Ints, logits: Floats | None) -> Floats:
    """(n, d): mean of each user's items, or weighted by the softmax of the logits; zero without any."""
    pooled = np.zeros((len(offsets) - 1, items.shape[1]), np.float32)
    length = np.diff(offsets)
    filled = length > 0
    if not filled.any():
        return pooled
    # Empty sequences are left out: reduceat would give them the next user's first item.
    begin, length = offsets[:-1][filled], length[filled]
    if logits is None:
        pooled[filled] = np.add.reduceat(items[rows], begin, axis=0) / length[:, None]
        return pooled
    share = np.exp(logits - np.repeat(np.maximum.reduceat(logits, begin), length))
    share /= np.repeat(np.add.reduceat(share, begin), length)
    pooled[filled] = np.add.reduceat(items[rows] * share[:, None], begin, axis=0)
    return pooled


def tag_vectors(weights: Weights, words: Ints) -> Floats:
    """h_t: (n, d) float32, L2-normed; a tag without a known word is all zeros."""
    return _joined([_tag_vectors(one, words) for one in _apart(weights)])


def _tag_vectors(weights: Weights, words: Ints) -> Floats:
    if _deep(weights):
        found = _dnn(weights, "tag_dnn", mean_words(weights, words))
    else:
        found = _normed(mean_words(weights, words, "tag_word"))
    return found * (words > 0).any(axis=1, keepdims=True).astype(np.float32)
