"""Picks rows of tables by id, and words of the interest pool by interest."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import interests, tags


def only(table: pa.Table, ids: Sequence[str], *, key: str = "user_id") -> pa.Table:
    """Keep the rows of some users or items, in the table's own order."""
    return table.filter(pc.is_in(table[key], pa.array(sorted(set(ids)), table.schema.field(key).type)))


def without(table: pa.Table, ids: Sequence[str], *, key: str = "user_id") -> pa.Table:
    """Leave out the rows of some users or items."""
    return table.filter(pc.invert(pc.is_in(table[key], pa.array(sorted(set(ids)), table.schema.field(key).type))))


def terms(pool: interests.Pool) -> dict[str, list[str]]:
    """Give the words of each interest of a pool, and those of its necessities, as the tags stage wants them."""
    found = {entry.name: [" ".join(term) for term in entry.terms] for entry in pool.interests}
    return found | {tags.STAPLES: [" ".join(term) for term in pool.staple_terms]}
