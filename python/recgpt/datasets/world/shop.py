"""A world as a shop would keep it: CSV, own column and event names, local times without a zone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from recgpt.datasets.dataset import Dataset
from recgpt.datasets.folder import SETTINGS
from recgpt.datasets.world.config import TIME_ZONE
from recgpt.schema import ITEMS

_OWN_BEHAVIORS = {
    "view": "detail_view",
    "buy": "purchase",
    "refund": "return",
    "wish": "favorite",
    "basket": "cart",
    "reviews_opened": "review_read",
    "find": "search",
    "tap": "click",
    "impression": "exposure",
}
_OWN_COLUMNS = {
    "shopper": "user_id",
    "sku": "item_id",
    "event": "behavior",
    "local_time": "timestamp",
    "words": "query",
    "name": "title",
    "department": "category",
    "maker": "brand",
    "cost": "price",
    "facts": "attributes",
    "users.profile": "attributes",
    "body": "text",
    "stars": "rating",
}


def write_csv(data: Dataset, folder: str | Path, *, settings: bool = False) -> dict[str, Any]:
    """Write a world as a shop would keep it: CSV, own column and event names, local times without a zone.

    Args:
        data: what `load` made.
        folder: made if it is not there.
        settings: also write `recgpt-data.toml`, so that the folder explains itself.

    Returns:
        The options that `recgpt.datasets.read` needs to read it back.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    own = {theirs: ours for ours, theirs in _OWN_BEHAVIORS.items()}
    behavior = pa.array([own[name] for name in data.events.column("behavior").to_pylist()])
    tables = {
        "events": data.events.set_column(data.events.column_names.index("behavior"), "behavior", behavior),
        "items": data.items.select(ITEMS.names),
        "users": data.users,
        "reviews": data.reviews,
    }
    for name, table in tables.items():
        assert table is not None  # a world has reviews
        table = table.drop_columns([column for column in ("position",) if column in table.column_names])
        if "timestamp" in table.column_names:
            local = pc.local_timestamp(table.column("timestamp").cast(pa.timestamp("us", tz=TIME_ZONE)))
            table = table.set_column(
                table.column_names.index("timestamp"), "timestamp", pc.strftime(local, "%Y-%m-%d %H:%M:%S")
            )
        theirs = {to: column.removeprefix("users.") for column, to in _OWN_COLUMNS.items() if "." not in column}
        if name == "users":
            theirs["attributes"] = "profile"
        csv.write_csv(
            table.rename_columns([theirs.get(column, column) for column in table.column_names]), root / f"{name}.csv"
        )
    options: dict[str, Any] = {"time_zone": TIME_ZONE, "behaviors": _OWN_BEHAVIORS, "columns": _OWN_COLUMNS}
    if settings:
        lines = [f"time_zone = {json.dumps(TIME_ZONE)}"]
        for section in ("behaviors", "columns"):
            lines += ["", f"[{section}]", *(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in options[section].items())]
        (root / SETTINGS).write_text("\n".join(lines) + "\n", "utf-8")
    return options
