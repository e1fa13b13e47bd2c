"""The vector index in plain Python: one search, one dot product after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt


def search_one(
    vectors: npt.NDArray[np.float32],
    user: npt.NDArray[np.float32],
    tags: npt.NDArray[np.float32],
    *,
    beta: float,
    k: int,
    exclude: Collection[int] = (),
    categories: Sequence[int] | None = None,
    limit: int = 0,
    fuse: str = "max",
) -> list[tuple[int, np.float32, np.float32, np.float32 | None, int]]:
    """Find one user's best items: `(item row, score, y_col, y_sem, tag)`, the twin of `_core.search`.

    Args:
        vectors: (n, d) float32, the items.
        user: (d,) float32.
        tags: (t, d) float32, the user's tags; with none, y_sem is None, tag is -1 and the score is y_col.
        beta: weight of y_col in 0..1.
        k: how many items at most.
        exclude: item rows that may not appear.
        categories: one category an item; with it, at most `limit` items of a category appear.
        limit: see `categories`.
        fuse: "max": the best tag counts; "sum": all tags count alike, by their mean.
    """
    weight = np.float32(beta)
    y_col = _dots(vectors, user)
    if fuse == "sum" and len(tags):
        mean = np.zeros_like(user)
        for tag_row in tags:
            mean += tag_row
        mean /= np.float32(len(tags))
        merged = search_one(
            vectors, user, mean[None], beta=beta, k=k, exclude=exclude, categories=categories, limit=limit
        )
        most = np.argmax([_dots(vectors, tag_row) for tag_row in tags], axis=0)
        return [(item, score, col, sem, int(most[item])) for item, score, col, sem, _ in merged]
    scored: list[tuple[np.float32, np.float32, np.float32 | None, int]] = [(y, y, None, -1) for y in y_col]
    for tag in range(len(tags)):
        for item, y_sem in enumerate(_dots(vectors, tags[tag])):
            best = scored[item][2]
            if best is None or y_sem > best:
                score = weight * y_col[item] + (np.float32(1) - weight) * y_sem
                scored[item] = (score, y_col[item], y_sem, tag)
    taken: Counter[int] = Counter()
    found: list[tuple[int, np.float32, np.float32, np.float32 | None, int]] = []
    for item in sorted(range(len(vectors)), key=lambda item: (-scored[item][0], item)):
        if item in exclude or len(found) == k:
            continue
        if categories is not None:
            if taken[categories[item]] == limit:
                continue
            taken[categories[item]] += 1
        found.append((item, *scored[item]))
    return found


def _dots(vectors: npt.NDArray[np.float32], row: npt.NDArray[np.float32]) -> list[np.float32]:
    """Dot products in float32, products added in the order of the dimensions."""
    sums = np.zeros(len(vectors), np.float32)
    for dimension, weight in enumerate(row):
        sums += weight * vectors[:, dimension]
    return list(sums)
