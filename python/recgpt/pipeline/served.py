"""What will be served, known before the bundle is built: the pairs to explain, and what each user has had already."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from recgpt.evaluation import Queries
from recgpt.index import ExactIndex


def pairs(index: ExactIndex, asked: Queries, tags: pa.Table, users: Sequence[str], *, beta: float, k: int) -> pa.Table:
    """Find the (interest, item_id) pairs among the first `k` items of each user, each once, sorted by item.

    Args:
        index: over the item vectors.
        asked: vectors and tags of `users`, in their order; each user's tags stand there by rank.
        tags: TAGS of `users`.
        users: ids.
        beta: weight of the collaborative score.
        k: items a user.

    Returns:
        `interest` (of the winning tag; null where that has none, or the user has no tags) and `item_id`.
    """
    found = index.search(asked.users, asked.tags, asked.offsets, beta=beta, k=k)
    interests: dict[str, list[str | None]] = {user: [] for user in users}
    for row in tags.sort_by([("user_id", "ascending"), ("rank", "ascending")]).to_pylist():
        interests[row["user_id"]].append(row["interest"])
    wanted = set()
    for row in found.select(["row", "item_id", "tag"]).to_pylist():
        own, place = interests[users[row["row"]]], row["tag"] - int(asked.offsets[row["row"]])
        wanted.add((row["item_id"], None if row["tag"] < 0 else own[place]))
    ordered = sorted(wanted, key=lambda pair: (pair[0], pair[1] or ""))
    return pa.table(
        {
            "interest": pa.array([interest for _, interest in ordered], pa.large_string()),
            "item_id": pa.array([item for item, _ in ordered], pa.large_string()),
        }
    )


def seen(events: pa.Table, behavior: str) -> pa.Table:
    """List what each user has bought, each item once: `recommend(exclude="seen")` leaves it out."""
    bought = events.filter(pc.equal(events["behavior"], behavior)).select(["user_id", "item_id"])
    return bought.drop_null().group_by(["user_id", "item_id"]).aggregate([])
