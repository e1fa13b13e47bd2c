"""Which users the LLM stages run for: a seeded draw, stratified by history length."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def draw(kept: pa.Table, users: pa.Table, held_out: pa.Array, *, count: int, min_events: int, seed: int) -> list[str]:
    """Draw `count` users with attributes, held-out purchases and at least `min_events` reliable events.

    The eligible users, ordered by number of events, are cut into `count` equal strata; one user comes from each. Where
    fewer are eligible, all of them come.

    Args:
        kept: reliable behaviors before `now`, EVENTS schema.
        users: USERS schema.
        held_out: ids of the users who buy after `now`.
        count: how many users.
        min_events: fewest reliable events.
        seed: of the draw.

    Returns:
        User ids, shortest history first.
    """
    counts = kept.group_by("user_id").aggregate([("behavior", "count")])
    described = users.filter(pc.is_valid(users["attributes"]))["user_id"]
    eligible = counts.filter(
        pc.and_(
            pc.greater_equal(counts["behavior_count"], min_events),
            pc.and_(pc.is_in(counts["user_id"], described.combine_chunks()), pc.is_in(counts["user_id"], held_out)),
        )
    ).sort_by([("behavior_count", "ascending"), ("user_id", "ascending")])
    ids = eligible["user_id"].to_pylist()
    random = np.random.default_rng(seed)
    strata = np.array_split(np.arange(len(ids)), min(count, len(ids))) if ids and count else []
    return [ids[random.choice(stratum)] for stratum in strata]
