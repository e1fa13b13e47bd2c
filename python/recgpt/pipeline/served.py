"""What goes into a bundle: the pairs to explain, what each user has had already, and the files carried along."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import tags
from recgpt.evaluation import Queries
from recgpt.index import ExactIndex


def pairs(
    index: ExactIndex,
    asked: Queries,
    explaining: Callable[[str, str], Sequence[str]],
    users: Sequence[str],
    *,
    beta: float,
    k: int,
) -> pa.Table:
    """Find what to explain among the first `k` items of each user (section 2.4.2): each pair once, sorted by item.

    Args:
        index: over the item vectors.
        asked: vectors and tags of `users`, in their order; each user's tags stand there by rank.
        explaining: which of a user's interests may explain an item, by the two ids. That a tag of an interest won is
            not enough: the best tag for an item need not have anything to do with it.
        users: ids.
        beta: weight of the collaborative score.
        k: items a user.

    Returns:
        `interest` (null for the item alone) and `item_id`.
    """
    found = index.search(asked.users, asked.tags, asked.offsets, beta=beta, k=k)
    wanted: set[tuple[str, str | None]] = set()
    for row, item in zip(found["row"].to_pylist(), found["item_id"].to_pylist(), strict=True):
        wanted |= {(item, interest) for interest in (None, *explaining(users[row], item))}
    ordered = sorted(wanted, key=lambda pair: (pair[0], pair[1] or ""))
    return pa.table(
        {
            "interest": pa.array([interest for _, interest in ordered], pa.large_string()),
            "item_id": pa.array([item for item, _ in ordered], pa.large_string()),
        }
    )


def explaining(
    predicted: tags.Predicted, interests: pa.Table, items: pa.Table, item_tags: pa.Table, *, least: float
) -> Callable[[str, str], list[str]]:
    """Say which of a user's interests may explain an item: `Associations.explaining` by ids."""
    own: dict[str, list[str]] = defaultdict(list)
    for row in interests.sort_by("rank").select(["user_id", "interest"]).to_pylist():
        own[row["user_id"]].append(row["interest"])
    tag_of = dict(zip(item_tags["item_id"].to_pylist(), item_tags["tag"].to_pylist(), strict=True))
    known = {row["item_id"]: row for row in items.select(["item_id", "category", "title"]).to_pylist()}

    def answer(user: str, item: str) -> list[str]:
        said = known[item]
        return predicted.associations.explaining(own[user], tag_of.get(item), said["category"], said["title"], least)

    return answer


def carried(towers: Path) -> dict[str, Path]:
    """Name the files that go along in the bundle: the towers' weights, and the prompts that made the tables."""
    files = {f"towers/{path.name}": path for path in towers.iterdir() if path.name != "done"}
    prompts = Path(str(resources.files("recgpt") / "prompts"))
    return files | {f"prompts/{path.name}": path for path in sorted(prompts.glob("*.md"))}


def seen(events: pa.Table, behavior: str) -> pa.Table:
    """List what each user has bought, each item once: `recommend(exclude="seen")` leaves it out."""
    bought = events.filter(pc.equal(events["behavior"], behavior)).select(["user_id", "item_id"])
    return bought.drop_null().group_by(["user_id", "item_id"]).aggregate([])
