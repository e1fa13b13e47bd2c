"""Stage 1: what makes a log unusable is one error, whatever else is wrong; what is only odd is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from shoplog import T, log, stamps

from recgpt import datasets, errors, logs
from recgpt.logs.report import KINDS
from recgpt.schema import ITEMS, USERS

# Every error of this stage with a fragment of its text; (name, call, class, text).
ERRORS: list[tuple[str, Callable[[], Any], type[Exception], str]] = [
    (
        "missing column",
        lambda: logs.normalize(log(user_id=None)),
        errors.InvalidTableError,
        "`events`: column `user_id` is missing (the columns are: item_id, behavior, timestamp); add or rename it",
    ),
    (
        "no item and no query",
        lambda: logs.normalize(log(item_id=None)),
        errors.InvalidTableError,
        "column `item_id` is missing",
    ),
    (
        "no time and no position",
        lambda: logs.normalize(log(timestamp=None)),
        errors.InvalidTableError,
        "column `timestamp` is missing",
    ),
    (
        "times all null and no position",
        lambda: logs.normalize(log(timestamp=pa.nulls(1, pa.timestamp("ms")))),
        errors.InvalidTableError,
        "column `timestamp` is all null; fill it, or give the order as a column `position`",
    ),
    (
        "wrong type",
        lambda: logs.normalize(log(user_id=[True])),
        errors.InvalidTableError,
        "column `user_id` must be text or whole numbers, but it is bool: row 0 holds 'True'; cast it to text",
    ),
    (
        "broken ids",
        lambda: logs.normalize(log(user_id=[1.0, 2.5])),
        errors.InvalidTableError,
        "column `user_id` must be text or whole numbers, but it is double: row 1 holds '2.5'; cast it to text",
    ),
    (
        "unix seconds",
        lambda: logs.normalize(log(timestamp=[1_709_294_400])),
        errors.InvalidTableError,
        "column `timestamp` must be timestamps, but it is int64: row 0 holds '1709294400'; "
        'cast it, for example with pyarrow.timestamp("s") for unix seconds',
    ),
    (
        "no time can be read",
        lambda: logs.normalize(log(timestamp=["12/31/2017", "1/1/2018"])),
        errors.InvalidTableError,
        "column `timestamp` must be timestamps, but it is string: row 0 holds '12/31/2017'; "
        "write ISO 8601, such as 2017-12-03 18:30:00 or 2017-12-03T18:30:00Z",
    ),
    (
        "broken position",
        lambda: logs.normalize(log(timestamp=None, position=[1.5])),
        errors.InvalidTableError,
        "column `position` must be whole numbers, but it is double: row 0 holds '1.5'; round it",
    ),
    (
        "price is text",
        lambda: logs.normalize(log(), pa.table({"item_id": [1, 2], "title": ["a", "b"], "price": ["1", "?"]})),
        errors.InvalidTableError,
        "`items`: column `price` must be numbers, but it is string: row 1 holds '?'; write plain numbers such as 12.5",
    ),
    (
        "no titles",
        lambda: logs.normalize(log(), pa.table({"item_id": [1], "title": [""]})),
        errors.InvalidTableError,
        "`items`: column `title` is empty in every row; give the items titles, or nothing can be written",
    ),
    (
        "column twice",
        lambda: logs.normalize(
            pa.Table.from_arrays([*log().columns, log()["user_id"]], [*log().column_names, "user_id"])
        ),
        errors.InvalidTableError,
        "column `user_id` stands there twice; rename one",
    ),
    (
        "not a table",
        lambda: logs.normalize([{"user_id": 1}]),  # type: ignore[arg-type]
        errors.InvalidTableError,
        "`events` must be a table with __arrow_c_stream__ (pyarrow, polars, pandas, duckdb), but it is a list; "
        "convert it, for example with pyarrow.table(...)",
    ),
    (
        "not UTF-8",
        lambda: logs.normalize(
            log(user_id=pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers()))
        ),
        errors.InvalidTableError,
        "`events` holds damaged Arrow data",
    ),
    (
        "empty log",
        lambda: logs.normalize(log().slice(0, 0)),
        errors.EmptyLogError,
        "`events`: there are no rows; expected at least one event: check the file or the query behind it",
    ),
    (
        "nothing usable",
        lambda: logs.normalize(log(user_id=pa.nulls(1, pa.string()))),
        errors.EmptyLogError,
        "`events`: no row of 1 is usable: events without a user: 1 (give every event a `user_id`, or remove",
    ),
    (
        "naive times",
        lambda: logs.normalize(log(timestamp=stamps("2024-03-01T12:00"))),
        errors.NaiveTimestampError,
        "`events`: column `timestamp` has times without a time zone (row 0 holds 2024-03-01 12:00:00); "
        'state it, for example time_zone="Europe/London", or store UTC',
    ),
    (
        "naive text",
        lambda: logs.normalize(log(timestamp=["2024-03-01 12:00"])),
        errors.NaiveTimestampError,
        "row 0 holds 2024-03-01 12:00:00",
    ),
    (
        "times out of range",
        lambda: logs.normalize(log(timestamp=pa.array([2**63 - 1], pa.timestamp("s", "UTC")))),
        errors.TimestampRangeError,
        "`events`: every time lies outside the years 1970 to 9999 (row 0 holds '9223372036854775807'); "
        "check the unit of `timestamp` (seconds, milliseconds, microseconds)",
    ),
    (
        "times before 1970",
        lambda: logs.normalize(log(timestamp=["1969-12-31T23:59:59Z"])),
        errors.TimestampRangeError,
        "(row 0 holds '1969-12-31T23:59:59Z')",
    ),
    (
        "a text of the year 12000",
        lambda: logs.normalize(log(timestamp=["12000-01-31T23:59:59Z"])),
        errors.TimestampRangeError,
        "(row 0 holds '12000-01-31T23:59:59Z')",
    ),
    (
        "no known behavior",
        lambda: logs.normalize(log(behavior=["buy"])),
        errors.UnknownBehaviorError,
        "`events`: no behavior is known: there are 'buy' (1 row), expected favorite, purchase, cart, detail_view, "
        'review_read, search, click, exposure, return; map the names, for example behaviors={"buy": "purchase"}',
    ),
    (
        "mapped to a typo",
        lambda: logs.normalize(log(), behaviors={"buy": "purchace"}),
        errors.UnknownBehaviorError,
        "`behaviors` maps 'buy' to 'purchace', which is not one of favorite, purchase, cart, detail_view, review_read, "
        "search, click, exposure, return (did you mean purchase?); to keep a behavior of your own, add "
        "'purchace' -> 'purchace' too",
    ),
    (
        "own behavior with a separator",
        lambda: logs.normalize(log(), behaviors={"a, b": "a, b"}),
        errors.InvalidConfigError,
        "`behaviors` keeps 'a, b', but a name must be 1 to 32 of a to z, 0 to 9 and _, and begin with a letter",
    ),
    (
        "unknown zone",
        lambda: logs.normalize(log(), time_zone="Mars/Olympus"),
        errors.InvalidConfigError,
        "`time_zone` must be an IANA name such as Europe/London, but it is 'Mars/Olympus'",
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), [e[1:] for e in ERRORS], ids=[e[0] for e in ERRORS])
def test_errors_say_what_came_and_how_to_mend_it(call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(errors.InputError) as caught:
        call()
    assert type(caught.value) is kind
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_error_of_all_tables_is_named_at_once() -> None:
    with pytest.raises(errors.InvalidTableError) as caught:
        logs.normalize(
            pa.table({"user_id": [True], "timestamp": stamps("2024-03-01T12:00"), "position": ["first"]}),
            pa.table({"item_id": [1], "price": ["cheap"]}),
            pa.table({"id": [1]}),
        )
    assert str(caught.value) == (
        "to mend: "
        "(1) `events`: column `item_id` is missing (the columns are: user_id, timestamp, position); add or rename it; "
        "(2) `events`: column `user_id` must be text or whole numbers, but it is bool: row 0 holds 'True'; "
        "cast it to text; "
        "(3) `events`: column `behavior` is missing (the columns are: user_id, timestamp, position); add or rename it; "
        "(4) `events`: column `position` must be numbers, but it is string: row 0 holds 'first'; "
        "write plain numbers such as 12.5; "
        "(5) `events`: column `timestamp` has times without a time zone (row 0 holds 2024-03-01 12:00:00); "
        'state it, for example time_zone="Europe/London", or store UTC; '
        "(6) `items`: column `title` is missing (the columns are: item_id, price); add or rename it; "
        "(7) `items`: column `price` must be numbers, but it is string: row 0 holds 'cheap'; "
        "write plain numbers such as 12.5; "
        "(8) `users`: column `user_id` is missing (the columns are: id); add or rename it"
    )


def test_a_folder_with_every_defect_needs_one_round(tmp_path: Path) -> None:
    """Errors of the settings and of each table, and in the same line what would only have been counted."""
    (tmp_path / "recgpt-data.toml").write_text('time_zone = "Mars/Olympus"\n[behaviors]\nbuy = "purchace"\n')
    (tmp_path / "events.csv").write_text(
        "user_id,item_id,behavior,timestamp,position\n"
        "u1,1,view,1969-03-01 12:00,one\n"
        ",1,watch,1969-03-01 12:00,2\n"
        "u1,,watch,1950-03-01 12:00,3\n"
    )
    (tmp_path / "items.csv").write_text("item_id,title,price\n1,,-1\n1,,2\n,,\n")
    (tmp_path / "users.csv").write_text("user_id,attributes\nu2,age 3\nu2,age 4\n")
    with pytest.raises(errors.InvalidTableError) as caught:
        logs.from_dataset(datasets.read(tmp_path))
    assert str(caught.value) == (
        "to mend: "
        "(1) `behaviors` maps 'buy' to 'purchace', which is not one of favorite, purchase, cart, detail_view, "
        "review_read, search, click, exposure, return (did you mean purchase?); to keep a behavior of your own, add "
        "'purchace' -> 'purchace' too; "
        "(2) `time_zone` must be an IANA name such as Europe/London, but it is 'Mars/Olympus'; "
        "(3) `events`: column `position` must be numbers, but it is large_string: row 0 holds 'one'; "
        "write plain numbers such as 12.5; "
        "(4) `events`: no behavior is known: there are 'watch' (2 rows), 'view' (1 row), expected favorite, purchase, "
        "cart, detail_view, review_read, search, click, exposure, return; map the names, for example "
        'behaviors={"view": "purchase"}; '
        "(5) `events`: every time lies outside the years 1970 to 9999 (row 0 holds '1969-03-01 12:00'); "
        "check the unit of `timestamp` (seconds, milliseconds, microseconds); "
        "(6) `items`: column `title` is empty in every row; give the items titles, or nothing can be written; "
        "only counted: "
        "(7) `events`: events without a user: 1 (left out; row 1: null); "
        "give every event a `user_id`, or remove anonymous rows; "
        "(8) `items`: items without an id: 1 (left out; row 2: null); give every item an `item_id`; "
        "(9) `items`: items whose id came before: 1 (left out; row 1: '1'); keep one row an item; here the first was "
        "kept; "
        "(10) `items`: prices below zero, infinite or NaN: 1 (kept; row 0: '-1.0'); correct them; here they became "
        "null; "
        "(11) `users`: users whose id came before: 1 (left out; row 1: 'u2'); keep one row a user; here the first was "
        "kept; "
        "(12) `events`: events of users that `users` does not have: 2 (kept; row 0: 'u1', row 2: 'u1'); "
        "nothing: those users were added without attributes"
    )
    # Mended as it says, nothing is left to complain about.
    (tmp_path / "recgpt-data.toml").write_text('time_zone = "Europe/London"\n[behaviors]\nview = "detail_view"\n')
    (tmp_path / "events.csv").write_text("user_id,item_id,behavior,timestamp\nu2,1,view,1970-03-01 12:00\n")
    (tmp_path / "items.csv").write_text("item_id,title,price\n1,Lamp,1\n")
    (tmp_path / "users.csv").write_text("user_id,attributes\nu2,age 3\n")
    assert logs.from_dataset(datasets.read(tmp_path)).report.defects == ()


def test_what_is_only_counted_is_told_beside_one_error() -> None:
    with pytest.raises(errors.NaiveTimestampError) as caught:
        logs.normalize(
            log(behavior=["purchase", "teleport"], timestamp=stamps("2024-03-01T12:00", "2024-03-02T12:00")),
            pa.table({"item_id": [2, 3], "title": ["Lamp", None]}),
        )
    assert str(caught.value) == (
        "to mend: (1) `events`: column `timestamp` has times without a time zone (row 0 holds 2024-03-01 12:00:00); "
        'state it, for example time_zone="Europe/London", or store UTC; '
        "only counted: (2) `events`: events whose behavior is unknown: 1 (left out; row 1: 'teleport'); map the name, "
        'for example behaviors={"review": "purchase"}; "coupon" -> "coupon" keeps one of your own; '
        "(3) `items`: items without a title: 1 (kept; row 1: '3'); "
        "give them titles; they stay, but no text can be written for them; "
        "(4) `events`: events on items that `items` does not have: 1 (kept; row 0: 'i1'); "
        "add the items to the catalogue"
    )


def test_every_counted_defect_of_events() -> None:
    rows = [
        # user, item, behavior, time, query
        ("u1", "i1", "purchase", "2024-03-01T12:00:00Z", None),
        (None, "i1", "purchase", "2024-03-01T12:00:00Z", None),
        ("u1", "i1", None, "2024-03-01T12:00:00Z", None),
        ("u1", "i1", "teleport", "2024-03-01T12:00:00Z", None),
        ("u1", "i1", "dance", "2024-03-01T12:00:00Z", None),
        ("u1", None, "purchase", "2024-03-01T12:00:00Z", None),
        ("u1", None, "search", "2024-03-01T12:00:00Z", " \u200b "),  # nothing is left of the query when it is clean
        ("u1", None, "search", "2024-03-01T12:00:00Z", "lamp"),
        ("u1", None, "coupon", "2024-03-01T12:00:00Z", None),
        ("u1", "i1", "purchase", "yesterday", None),
        ("u1", "i1", "purchase", "2023-02-29", None),
        ("u1", "i1", "purchase", "1969-12-31T23:59:59Z", None),
        ("u1", "i1", "purchase", None, None),
        ("u1", "i1", "purchase", "2024-03-01 12:00:00.000000Z", None),  # row 0 again, spelled otherwise
        ("u2", "i9", "purchase", "2024-03-10 02:30:00", None),  # skipped in New York
        ("u2", "i1", "purchase", "2024-11-03 01:30:00", None),  # twice in New York
    ]
    events = pa.table(
        dict(zip(("user_id", "item_id", "behavior", "timestamp", "query"), zip(*rows, strict=True), strict=True))
    )
    result = logs.normalize(
        events,
        pa.table({"item_id": ["i1"], "title": ["Lamp"]}),
        pa.table({"user_id": ["u1"]}),
        time_zone="America/New_York",
        behaviors={"coupon": "coupon"},
    )
    report = result.report
    counted = {(d.kind, d.rows, tuple(e.row for e in d.examples)) for d in report.defects}
    assert counted == {
        ("null_user", 1, (1,)),
        ("null_behavior", 1, (2,)),
        ("unknown_behavior", 2, (3, 4)),
        ("null_item", 2, (5, 6)),
        ("unreadable_timestamp", 2, (9, 10)),
        ("timestamp_out_of_range", 1, (11,)),
        ("null_timestamp", 1, (12,)),
        ("duplicate_event", 1, (13,)),
        ("skipped_local_time", 1, (14,)),
        ("repeated_local_time", 1, (15,)),
        ("item_not_in_items", 1, (14,)),
        ("user_not_in_users", 2, (14, 15)),
    }
    assert result.events.num_rows == 5 == 16 - report.left_out("events")
    assert {(b.name, b.behavior, b.rows) for b in report.behaviors if b.behavior != "purchase"} == {
        ("teleport", None, 1),
        ("dance", None, 1),
        ("search", "search", 2),
        ("coupon", "coupon", 1),
    }
    assert "behavior dance: 1 row (unknown: left out)" in report.lines()
    # 02:30 does not exist: the jump was at 07:00 UTC. 01:30 is the first of two: still daylight time, 05:30 UTC.
    times = result.events.filter(pc.equal(result.events["user_id"], "u2"))["timestamp"].to_pylist()
    assert times == [datetime(2024, 3, 10, 7, tzinfo=UTC), datetime(2024, 11, 3, 5, 30, tzinfo=UTC)]
    assert (report.first, report.last) == (T, times[1])
    assert result.users.to_pylist() == [{"user_id": "u1", "attributes": None}, {"user_id": "u2", "attributes": None}]
    assert report.rows_added == {"items": 0, "users": 1}
    saved = json.loads(json.dumps(report.to_dict()))
    assert saved["rows_in"]["events"] == 16
    assert saved["defects"][0]["fix"] == KINDS["null_user"].fix


def test_every_counted_defect_of_items_and_users() -> None:
    items = pa.table(
        {
            "item_id": pa.array([3, 1, None, 1, 2]),
            "title": ["  Garden\u202e\n hose ", "Lamp", "x", "second lamp", None],
            "price": [2.5, float("nan"), 1.0, 1.0, -4.0],
            "category": ["A > B", "", None, None, None],
        }
    )
    users = pa.table({"user_id": ["b", None, "b", "a"], "attributes": ["age 3", "x", "age 4", None]})
    result = logs.normalize(log(user_id=["a"], item_id=["1"]), items, users)
    assert result.items.select(["item_id", "title", "price", "category"]).to_pylist() == [
        {"item_id": "1", "title": "Lamp", "price": None, "category": None},
        {"item_id": "2", "title": None, "price": None, "category": None},
        {"item_id": "3", "title": "Garden hose", "price": 2.5, "category": "A > B"},
    ]
    assert result.users.to_pylist() == [{"user_id": "a", "attributes": None}, {"user_id": "b", "attributes": "age 3"}]
    assert {(d.kind, d.rows, d.examples[0].row) for d in result.report.defects} == {
        ("null_item_id", 1, 2),
        ("duplicate_item", 1, 3),
        ("unusable_price", 2, 1),
        ("no_title", 1, 4),
        ("null_user_id", 1, 1),
        ("duplicate_user", 1, 2),
    }
    assert result.items.schema == ITEMS
    assert result.users.schema == USERS
