"""Which users the LLM stages run for: a seeded draw, stratified by history length."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def draw(kept: pa.Table, users: pa.Table, among: pa.Array, *, count: int, min_events: int, seed: int) -> list[str]:
    """Draw `count` users of `among` with at least `min_events` reliable events, if they can be had with attributes.

    The eligible users, ordered by number of events, are cut into `count` equal strata; one user comes from each. Users
    without attributes are eligible only where fewer than `count` have some.

    Args:
        kept: reliable behaviors before `now`, EVENTS schema.
        users: USERS schema.
        among: ids that may be drawn, for example of those who buy after `now`.
        count: how many users.
        min_events: fewest reliable events.
        seed: of the draw.

    Returns:
        User ids, shortest history first; fewer than `count` where fewer are eligible.
    """
    counts = kept.group_by("user_id").aggregate([("behavior", "count")])
    long = counts.filter(
        pc.and_(pc.greater_equal(counts["behavior_count"], min_events), pc.is_in(counts["user_id"], among))
    ).sort_by([("behavior_count", "ascending"), ("user_id", "ascending")])
    described = users.filter(pc.is_valid(users["attributes"]))["user_id"].combine_chunks()
    eligible = long.filter(pc.is_in(long["user_id"], described))
    ids = (eligible if eligible.num_rows >= count else long)["user_id"].to_pylist()
    random = np.random.default_rng(seed)
    strata = np.array_split(np.arange(len(ids)), min(count, len(ids))) if ids and count else []
    return [ids[random.choice(stratum)] for stratum in strata]
