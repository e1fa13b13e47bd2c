"""A log of one purchase, changed column by column: what the tests of stage 1 share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

T = datetime(2024, 3, 1, 12, tzinfo=UTC)


def log(**columns: Any) -> pa.Table:
    """A one-purchase log; columns given replace it, None removes one."""
    n = max([1, *(len(values) for values in columns.values() if values is not None)])
    base = {"user_id": ["u1"] * n, "item_id": ["i1"] * n, "behavior": ["purchase"] * n, "timestamp": [T] * n}
    return pa.table({name: values for name, values in {**base, **columns}.items() if values is not None})


def stamps(*values: str, unit: str = "us") -> pa.Array:
    return pa.array([datetime.fromisoformat(value) for value in values], pa.timestamp("us")).cast(pa.timestamp(unit))
