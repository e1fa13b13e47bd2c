"""What will be served, known before the bundle is built: the pairs to explain, and what each user has had already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recgpt.evaluation import Queries
from recgpt.index import ExactIndex


def pairs(
    index: ExactIndex, asked: Queries, tags: pa.Table, items: pa.Table, users: Sequence[str], *, beta: float, k: int
) -> pa.Table:
    """Find what to explain among the first `k` items of each user (section 2.4.2): each pair once, sorted by item.

    An item goes with the interest of its winning tag, and with each of the user's interests that has a tag of the
    item's category.

    Args:
        index: over the item vectors.
        asked: vectors and tags of `users`, in their order; each user's tags stand there by rank.
        tags: TAGS of `users`.
        items: ITEMS.
        users: ids.
        beta: weight of the collaborative score.
        k: items a user.

    Returns:
        `interest` (null for the item alone) and `item_id`.
    """
    found = index.search(asked.users, asked.tags, asked.offsets, beta=beta, k=k)
    category = dict(zip(items["item_id"].to_pylist(), items["category"].to_pylist(), strict=True))
    own: dict[str, list[dict[str, Any]]] = {user: [] for user in users}
    for row in tags.sort_by([("user_id", "ascending"), ("rank", "ascending")]).to_pylist():
        own[row["user_id"]].append(row)
    wanted: set[tuple[str, str | None]] = set()
    for row in found.select(["row", "item_id", "tag"]).to_pylist():
        mine, item = own[users[row["row"]]], row["item_id"]
        winner = None if row["tag"] < 0 else mine[row["tag"] - int(asked.offsets[row["row"]])]["interest"]
        near = {
            tag["interest"] for tag in mine if tag["category"] is not None and tag["category"] == category.get(item)
        }
        wanted |= {(item, interest) for interest in {None, winner, *near}}
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
