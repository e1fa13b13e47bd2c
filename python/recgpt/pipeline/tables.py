"""Picks rows of tables by id."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc


def only(table: pa.Table, ids: Sequence[str], *, key: str = "user_id") -> pa.Table:
    """Keep the rows of some users or items, in the table's own order."""
    return table.filter(pc.is_in(table[key], pa.array(sorted(set(ids)), table.schema.field(key).type)))


def without(table: pa.Table, ids: Sequence[str], *, key: str = "user_id") -> pa.Table:
    """Leave out the rows of some users or items."""
    return table.filter(pc.invert(pc.is_in(table[key], pa.array(sorted(set(ids)), table.schema.field(key).type))))
