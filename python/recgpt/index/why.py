"""Why one user got, or did not get, one item: computed from the exact scores of all items, whatever index answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recgpt.index import arrays
from recgpt.index.arrays import Caps, Exclude, Part, Rows, Vectors

Verdict = Literal[
    "served", "excluded", "denied", "not allowed", "category full", "below k", "missed", "not in the index"
]


@dataclass(frozen=True)
class WhyNot:
    """Why one user got, or did not get, one item."""

    item_id: str
    verdict: Verdict
    """`served`; `excluded`, `denied`, `not allowed`: by the list of that name; `category full`: better items of its
    category filled the cap; `below k`: outranked; `missed`: an approximate index did not find it; `not in the index`:
    it has no vector."""
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


class Lists(NamedTuple):
    """The caller's item rows; None for no list."""

    exclude: Rows | None = None
    allow: Rows | None = None
    deny: Rows | None = None

    def keep_out(self, items: int) -> dict[Verdict, npt.NDArray[np.bool_]]:
        """(items,) what each list keeps out, by its verdict."""
        rows = np.arange(items)
        found: dict[Verdict, npt.NDArray[np.bool_]] = {
            "excluded": np.isin(rows, [] if self.exclude is None else self.exclude),
            "denied": np.isin(rows, [] if self.deny is None else self.deny),
        }
        if self.allow is not None:
            found["not allowed"] = ~np.isin(rows, self.allow)
        return found


def alone(user: Any, tags: Any) -> tuple[Any, Any, Rows]:
    """Bring one user, `(d,)`, and its tags to the arguments of a batch."""
    return np.asarray(user)[None], tags, np.array([0, len(tags)], np.int64)


def alone_exclude(exclude: Rows | None) -> Exclude | None:
    """Bring one user's excluded rows to the arguments of a batch."""
    return None if exclude is None else (exclude, np.array([0, len(exclude)], np.int64))


def explain(
    parts: Sequence[Part],
    ids: pa.Array,
    found: pa.Table,
    user: Vectors,
    tags: Vectors,
    item_id: str,
    *,
    beta: float,
    k: int,
    caps: Caps | None,
    lists: Lists,
) -> WhyNot:
    """Compare what an index `found` for one user with the exact order of all items; `ids` are null where removed."""
    cut = float(found["score"][-1].as_py()) if found.num_rows else None
    item = pc.index(ids, pa.scalar(item_id, pa.large_string())).as_py()
    if item < 0:
        return WhyNot(item_id, "not in the index", cut=cut)
    score, y_col, y_sem, tag = arrays.scores(parts, np.asarray(user)[None], tags, beta=beta)
    live = ~ids.is_null().to_numpy(zero_copy_only=False)
    better = (score > score[item]) & live
    better[:item] |= (score[:item] == score[item]) & live[:item]
    kept_out = lists.keep_out(len(live))
    allowed = better & ~np.any(list(kept_out.values()), axis=0)
    # Greedy caps: of each category the best `limit` allowed items are served, so these stand before the item.
    before, full = int(allowed.sum()), False
    if caps is not None:
        categories, limit = caps
        _, counts = np.unique(categories[allowed], return_counts=True)
        before = int(np.minimum(counts, limit).sum())
        full = int((categories[allowed] == categories[item]).sum()) >= limit
    verdict: Verdict
    if pc.index(found["item_id"], pa.scalar(item_id, pa.large_string())).as_py() >= 0:
        verdict = "served"
    elif by := [name for name, rows in kept_out.items() if rows[item]]:
        verdict = by[0]
    elif full:
        verdict = "category full"
    else:
        verdict = "below k" if before >= k else "missed"
    return WhyNot(
        item_id,
        verdict,
        rank=int(better.sum()) + 1,
        score=float(score[item]),
        y_col=float(y_col[item]),
        y_sem=None if tag[item] < 0 else float(y_sem[item]),
        tag=None if tag[item] < 0 else int(tag[item]),
        cut=cut,
    )
