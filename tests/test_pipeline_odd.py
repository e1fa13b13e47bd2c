"""Whole runs on logs that lack what most shops have: no stage may need it."""

import csv
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from recgpt import categories, datasets, evaluation, pipeline, schema, serving
from recgpt.evaluation import metrics, sweep


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        # Parquet would carry times with their zone; a CSV says it in the text.
        writer.writerows(
            {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
            for row in rows
        )


def test_without_categories_there_is_nothing_to_hit_and_nothing_to_count() -> None:
    now = datetime(2024, 3, 15, tzinfo=UTC)
    items = schema.rows([{"item_id": item, "title": f"{item} thing"} for item in "abc"], schema.ITEMS)
    events = schema.rows(
        [
            {"user_id": "u", "item_id": item, "behavior": "purchase", "timestamp": now + timedelta(days=days)}
            for item, days in (("a", -1), ("b", 1))
        ],
        schema.EVENTS,
    )
    tags = schema.rows([{"user_id": "u", "rank": 1, "tag": "red thing", "source": "rule"}], schema.TAGS)
    hits = evaluation.category_hits(tags, events, items, categories=categories.fit(items), now=now)
    assert (hits.users, np.isnan(hits.tags.mean), np.isnan(hits.popularity.mean)) == (0, True, True)
    codes = sweep.category_codes(items, list("abc"))
    assert codes.tolist() == [-1, -1, -1]
    assert metrics.distinct_categories(metrics.ragged([[0, 1], [2]]), codes, 2).per_user.tolist() == [0, 0]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_csv_folder_without_categories_goes_through_every_stage(tmp_path: Path) -> None:
    world = datasets.load("world")
    folder = tmp_path / "shop"
    folder.mkdir()
    columns = {
        "events": (world.events, ["user_id", "item_id", "behavior", "timestamp", "query"]),
        "items": (world.items, ["item_id", "title", "brand", "price"]),
        "users": (world.users, ["user_id", "attributes"]),
    }
    for name, (table, kept) in columns.items():
        write_csv(folder / f"{name}.csv", table.select(kept).to_pylist())
    (tmp_path / "run.toml").write_text(
        f"""
out = "{tmp_path}/out"
[data]
folder = "{folder}"
time_zone = "Europe/Berlin"
[llm]
engine = "fake"
households = 3
min_events = 20
[retrieval]
epochs = 1
steps = 5
threads = 1
[serving]
bundles = "{tmp_path}/bundles"
explained = 5
""",
        encoding="utf-8",
    )
    figures = pipeline.run(tmp_path / "run.toml").figures
    assert (figures["llm_users"], figures["category_accuracy"], figures["llm_hr@30_category"]) == (3, None, None)
    assert figures["tags_per_user"] > 0
    assert {row["categories@20"] for row in figures["beta_sweep"]} == {0}
    assert math.isfinite(figures["hr@20"])
    bundle = serving.read(tmp_path / "bundles")
    assert set(bundle.tables["tags"]["category"].to_pylist()) == {None}
    shown = serving.Recommender.open(tmp_path / "bundles").recommend(["u0001"], k=4)
    assert shown.num_rows == 4
    assert (tmp_path / "bundles" / "report.html").stat().st_size > 1000
