"""Whole runs on logs that lack what most shops have: no stage may need it."""

import csv
import math
import re
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from recgpt import categories, datasets, evaluation, pipeline, schema, serving
from recgpt.cli import render
from recgpt.errors import InvalidConfigError
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
def test_a_csv_folder_without_categories_goes_through_every_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = datasets.load("world", hostile=True)
    folder = tmp_path / "shop"
    folder.mkdir()
    columns = {
        "events": (world.events, ["user_id", "item_id", "behavior", "timestamp", "query"]),
        "items": (world.items, ["item_id", "title", "brand", "price"]),
        "users": (world.users, ["user_id", "attributes"]),
    }
    # One who only looks around, and one who never did anything: neither has a reliable behavior.
    looked = {"user_id": "looker", "item_id": "i00001", "behavior": "click", "query": None}
    more = {
        "events": [{**looked, "timestamp": world.events["timestamp"][0].as_py()}],
        "users": [{"user_id": "newcomer", "attributes": "age 35-44"}],
    }
    for name, (table, kept) in columns.items():
        write_csv(folder / f"{name}.csv", table.select(kept).to_pylist() + more.get(name, []))
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
    outcome = pipeline.run(tmp_path / "run.toml")
    figures = outcome.figures
    assert outcome.summaries["behaviors"].endswith("2 of 62 users have none, and so no history")
    assert (figures["llm_users"], figures["category_accuracy"], figures["llm_hr@30_category"]) == (3, None, None)
    assert figures["tags_per_user"] > 0
    assert {row["categories@20"] for row in figures["beta_sweep"]} == {0}
    assert math.isfinite(figures["hr@20"])
    bundle = serving.read(tmp_path / "bundles")
    assert set(bundle.tables["tags"]["category"].to_pylist()) == {None}
    recommender = serving.Recommender.open(tmp_path / "bundles")
    shown = recommender.recommend(["u0001", "looker", "newcomer"], k=4)
    assert shown.num_rows == 12
    # A click is enough for a place among the users of the towers; who never acted gets what is popular.
    assert {row["user_id"]: row["cold"] for row in shown.to_pylist()} == {
        "u0001": False,
        "looker": False,
        "newcomer": True,
    }
    for user in ("looker", "newcomer"):
        known = recommender.inspect(user)
        assert (known.history, known.receipt, known.interests) == (None, None, [])
        render.chain(known)
        assert "history     none: no reliable behavior" in capsys.readouterr().out
    assert (tmp_path / "bundles" / "report.html").stat().st_size > 1000


def ordered(users: int) -> list[dict[str, object]]:
    """A world's events with the order of each user's acts in place of their times, shuffled."""
    world = datasets.load("world", users=users, items=200, hostile=True, seed=1)
    rows = world.events.select(["user_id", "item_id", "behavior", "query"]).to_pylist()
    count: dict[str, int] = {}
    for row in rows:  # a world's events come in the order of time
        row["position"] = count[row["user_id"]] = count.get(row["user_id"], -1) + 1
    return [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]


UNDATED = """
out = "{folder}/out"
[data]
folder = "{folder}/shop"
[llm]
engine = "fake"
households = 3
min_events = 20
[retrieval]
epochs = 2
steps = 5
threads = 1
[serving]
bundles = "{folder}/bundles"
explained = 5
beta = "auto"
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    items = datasets.load("world", users=1, items=200, hostile=True, seed=1).items
    write_csv(tmp_path / "shop" / "items.csv", items.select(["item_id", "title", "category"]).to_pylist())
    (tmp_path / "run.toml").write_text(UNDATED.format(folder=tmp_path), encoding="utf-8")
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_log_without_times_leaves_out_what_each_user_bought_last(shop: Path) -> None:
    rows = ordered(30)
    write_csv(shop / "shop" / "events.csv", rows)
    last, ends = {}, {}
    for row in sorted(rows, key=lambda row: row["position"]):
        ends[row["user_id"]] = row["position"] + 1
        if row["behavior"] == "purchase":
            # Who bought once keeps that: there would be nothing to judge from.
            last.setdefault(row["user_id"], []).append(row["position"])
    last = {user: bought[-1] for user, bought in last.items() if len(bought) > 1}
    outcome = pipeline.run(shop / "run.toml")
    assert outcome.summaries["evaluation"].split("; ")[0] == f"{len(last)} users' last `purchase` was left out"
    figures = outcome.figures
    assert figures["users_evaluated"] == len(last) > 25
    assert all(math.isfinite(figures[name]) for name in ("hr@20", "hr@20_new", "hr@20_popularity"))
    assert figures["tags_per_user"] > 0

    def table(name: str):
        return pq.read_table(shop / "out" / f"{name}.parquet")

    seen = table("behaviors/behaviors").to_pylist()
    assert all(row["position"] < last.get(row["user_id"], ends[row["user_id"]]) for row in seen)
    assert all(text.startswith("undated (") for text in table("history/whole")["text"].to_pylist())
    # Nothing may speak of a date that nobody knows.
    assert set(table("interests/interests")["stage"].to_pylist()) == {"short-term"}
    assert table("tags/tags")["as_of"].null_count == table("tags/tags").num_rows
    assert table("explanations/explanations")["valid_until"].null_count == table("explanations/explanations").num_rows
    page = (shop / "bundles" / "report.html").read_text(encoding="utf-8")
    assert "The log has no times" in page
    assert "in the 30 days before" not in page
    assert "1970" not in page
    answers = serving.Recommender.open(shop / "bundles").recommend(["u0001"], k=3).to_pylist()
    assert len(answers) == 3
    # Without a moment of the log's own, answers are as of the bundle's making.
    assert (datetime.now(UTC) - answers[0]["as_of"]) < timedelta(minutes=10)


def test_a_log_without_times_and_without_a_second_purchase_cannot_be_judged(shop: Path) -> None:
    rows = [{"user_id": user, "item_id": "i00001", "behavior": "purchase", "position": 4} for user in "ab"]
    write_csv(shop / "shop" / "events.csv", [*rows, {**rows[0], "behavior": "click", "position": 9}])
    with pytest.raises(InvalidConfigError, match="no user has a `purchase` at two positions"):
        pipeline.run(shop / "run.toml", until="logs")
    text = (shop / "run.toml").read_text().replace("[llm]", "test_days = 0\n[llm]", 1)
    (shop / "run.toml").write_text(text, encoding="utf-8")
    outcome = pipeline.run(shop / "run.toml", until="history")
    assert outcome.summaries["behaviors"] == "3 events -> 2 reliable"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_shop_s_own_pool_takes_the_place_of_ours(shop: Path) -> None:
    write_csv(shop / "shop" / "events.csv", ordered(30))
    settings = pipeline.load(shop / "run.toml")
    wanted = settings.model_copy(update={"llm": settings.llm.model_copy(update={"pool": shop / "pool.tsv"})})
    with pytest.raises(InvalidConfigError, match="an interest pool was expected at"):
        pipeline.run(wanted, until="interests")
    ours = (resources.files("recgpt") / "prompts" / "interest_pool.tsv").read_text(encoding="utf-8")
    (shop / "pool.tsv").write_text(
        re.sub(r"^([^#\t]+)\t([^\t]+)\tinterest", r"own-\1\tour \2\tinterest", ours, flags=re.M)
    )
    pipeline.run(wanted, until="interests")
    found = pq.read_table(wanted.out / "interests" / "interests.parquet")["interest"].to_pylist()
    assert found
    assert all(text.startswith("our ") for text in found)
