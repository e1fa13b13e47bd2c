"""Exact fused search in one pass over the items, in Rust. The oracle of every other index, and fast enough for most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt.index import arrays
from recgpt.index.arrays import Caps, Exclude, Rows, Vectors

Verdict = Literal["served", "excluded", "category full", "below k", "missed", "not in the index"]


@dataclass(frozen=True)
class WhyNot:
    """Why one user got, or did not get, one item."""

    item_id: str
    verdict: Verdict
    """`served`; `excluded` by the caller's list; `category full`: better items of its category filled the cap; `below
    k`: outranked; `missed`: an approximate index did not find it; `not in the index`: it has no vector."""
    rank: int | None = None
    """1 = best, among all items, no filter applied; None for an item without a vector."""
    score: float | None = None
    y_col: float | None = None
    y_sem: float | None = None
    """None for a user without tags."""
    tag: int | None = None
    """Row of the winning tag in the tags handed in, or None."""
    cut: float | None = None
    """Score of the last item that was served, or None if nothing was."""


class ExactIndex:
    """Exact search: no item is ever missed, filters act inside the scan. Immutable, so threads may share it.

    >>> vectors = np.array([[1, 0], [0, 1]], np.float32)
    >>> index = ExactIndex(vectors, ["hose", "soil"])
    >>> found = index.search(np.array([[1, 0]], np.float32), np.array([[0, 2]], np.float32), np.array([0, 1]), k=1)
    >>> found.select(["item_id", "score", "y_col", "y_sem", "tag"]).to_pylist()
    [{'item_id': 'soil', 'score': 1.0, 'y_col': 0.0, 'y_sem': 2.0, 'tag': 0}]
    """

    def __init__(self, vectors: Vectors, ids: Sequence[str] | pa.Array) -> None:
        """Take `vectors (n, d) float32` and one distinct id a row; a contiguous array is used without a copy.

        Raises:
            InvalidArrayError: for a wrong dtype or shape, NaN, infinity, a value or norm beyond 65504 (half precision),
                or ids that repeat; the message names row and value.
        """
        self._vectors = arrays.vectors(vectors, name="vectors")
        self._ids = arrays.ids(ids, rows=len(self._vectors))

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dim(self) -> int:
        """How many dimensions a vector has."""
        return int(self._vectors.shape[1])

    @property
    def ids(self) -> pa.Array:
        """The item ids, `(n,) large_string`, in row order."""
        return self._ids

    def search(
        self,
        users: Vectors,
        tags: Vectors,
        offsets: Rows,
        *,
        beta: float = 0.5,
        k: int = 100,
        fuse: str = "max",
        exclude: Exclude | None = None,
        caps: Caps | None = None,
    ) -> pa.Table:
        """Find each user's best items by y = beta * y_col + (1 - beta) * max over the user's tags of y_sem.

        Args:
            users: (n, d) float32.
            tags: (t, d) float32, all users' tags one after another.
            offsets: (n + 1,) int64; user i owns tags[offsets[i]:offsets[i + 1]]. Without tags, y = y_col.
            beta: weight of the user side, 0 to 1.
            k: how many items a user gets at most.
            fuse: "max": the best tag counts.
            exclude: item rows that may not appear, as values and offsets per user.
            caps: categories (n_items,) int32 and a limit. Greedy and exact: best items first, an item is skipped when
                its category already has `limit` items in the result.

        Returns:
            row int32 (in users), item_id, score, y_col, y_sem float32 (null without tags), tag int32 (row in tags, or
            -1); a user's rows stand together, best first, ties by the item's row.

        Raises:
            InvalidArrayError: for vectors that are not usable, or offsets that do not fit.
            InvalidConfigError: for beta, k, fuse or a cap out of range.
        """
        arrays.knobs(beta, k, fuse)
        asked = arrays.questions(users, tags, offsets, items=len(self), dim=self.dim, exclude=exclude, caps=caps)
        return arrays.result(arrays.search(self._vectors, asked, beta=beta, k=k), self._ids)

    def why_not(
        self,
        user: Vectors,
        tags: Vectors,
        item_id: str,
        *,
        beta: float = 0.5,
        k: int = 100,
        exclude: Rows | None = None,
        caps: Caps | None = None,
    ) -> WhyNot:
        """Say for one user, `user (d,)` with `tags (t, d)`, where `item_id` stands and what kept it out.

        Args as in `search`; `exclude` is `(e,) int64` item rows.
        """
        found = self.search(*alone(user, tags), beta=beta, k=k, exclude=alone_exclude(exclude), caps=caps)
        return explain(self, found, user, tags, item_id, beta=beta, k=k, exclude=exclude, caps=caps)


def alone(user: Any, tags: Any) -> tuple[Any, Any, Rows]:
    """Bring one user, `(d,)`, and its tags to the arguments of a batch."""
    return np.asarray(user)[None], tags, np.array([0, len(tags)], np.int64)


def alone_exclude(exclude: Rows | None) -> Exclude | None:
    """Bring one user's excluded rows to the arguments of a batch."""
    return None if exclude is None else (exclude, np.array([0, len(exclude)], np.int64))


def explain(
    exact: ExactIndex,
    found: pa.Table,
    user: Vectors,
    tags: Vectors,
    item_id: str,
    *,
    beta: float,
    k: int,
    exclude: Rows | None,
    caps: Caps | None,
) -> WhyNot:
    """Compare what an index `found` with the exact order of all items."""
    cut = float(found["score"][-1].as_py()) if found.num_rows else None
    item = pc.index(exact.ids, pa.scalar(item_id, pa.large_string())).as_py()
    if item < 0:
        return WhyNot(item_id, "not in the index", cut=cut)
    everything = exact.search(*alone(user, tags), beta=beta, k=max(len(exact), 1))
    rank = pc.index(everything["item_id"], pa.scalar(item_id, pa.large_string())).as_py()
    scores = everything.slice(rank, 1).to_pylist()[0]
    banned = alone_exclude(exclude)
    allowed = exact.search(*alone(user, tags), beta=beta, k=max(len(exact), 1), exclude=banned, caps=caps)
    place = pc.index(allowed["item_id"], pa.scalar(item_id, pa.large_string())).as_py()
    verdict: Verdict
    if pc.index(found["item_id"], pa.scalar(item_id, pa.large_string())).as_py() >= 0:
        verdict = "served"
    elif exclude is not None and item in exclude:
        verdict = "excluded"
    elif place < 0:
        verdict = "category full"
    else:
        verdict = "below k" if place >= k else "missed"
    return WhyNot(
        item_id,
        verdict,
        rank=rank + 1,
        score=scores["score"],
        y_col=scores["y_col"],
        y_sem=scores["y_sem"],
        tag=None if scores["tag"] < 0 else scores["tag"],
        cut=cut,
    )
