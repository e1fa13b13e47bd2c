"""Stage 1: what comes in, what goes out, and what is said about every row in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recgpt import errors, logs
from recgpt.logs.report import KINDS
from recgpt.schema import BEHAVIORS, EVENTS, ITEMS, TIMESTAMP, USERS

T = datetime(2024, 3, 1, 12, tzinfo=UTC)


def log(**columns: Any) -> pa.Table:
    """A one-purchase log; columns given replace it, None removes one."""
    n = max([1, *(len(values) for values in columns.values() if values is not None)])
    base = {"user_id": ["u1"] * n, "item_id": ["i1"] * n, "behavior": ["purchase"] * n, "timestamp": [T] * n}
    return pa.table({name: values for name, values in {**base, **columns}.items() if values is not None})


def stamps(*values: str, unit: str = "us") -> pa.Array:
    return pa.array([datetime.fromisoformat(value) for value in values], pa.timestamp("us")).cast(pa.timestamp(unit))


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
        "`events` has no rows; expected at least one event: check the file or the query behind it",
    ),
    (
        "nothing usable",
        lambda: logs.normalize(log(user_id=pa.nulls(1, pa.string()))),
        errors.EmptyLogError,
        "none of the 1 events is usable: 1 events without a user (give every event a `user_id`, or remove",
    ),
    (
        "naive times",
        lambda: logs.normalize(log(timestamp=stamps("2024-03-01T12:00"))),
        errors.NaiveTimestampError,
        "`events` column `timestamp` has times without a time zone (row 0 holds 2024-03-01 12:00:00); "
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
        "every time of `events` lies outside the years 1970 to 9999 (row 0 holds '9223372036854775807'); "
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
        "no behavior of `events` is known: it has 'buy' (1 rows), expected favorite, purchase, cart, detail_view, "
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


def test_every_structural_defect_of_all_tables_is_named_at_once() -> None:
    with pytest.raises(errors.InvalidTableError) as caught:
        logs.normalize(
            # The naive time would be an error too, but not before the columns are right.
            pa.table({"user_id": [True], "timestamp": stamps("2024-03-01T12:00"), "position": ["first"]}),
            pa.table({"item_id": [1], "price": ["cheap"]}),
            pa.table({"id": [1]}),
        )
    message = str(caught.value)
    for part in (
        "`events`: column `item_id` is missing",
        "`events`: column `user_id` must be",
        "`events`: column `behavior` is missing",
        "`events`: column `position` must be numbers, but it is string: row 0 holds 'first'",
        "`items`: column `title` is missing",
        "`items`: column `price` must be numbers",
        "`users`: column `user_id` is missing (the columns are: id)",
    ):
        assert part in message


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
    assert "behavior dance: 1 rows (unknown: left out)" in report.lines()
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


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (pa.array([True, None]), 2),
        (pa.array([float("nan")] * 2), 1),
        (pa.array([2**64 - 1, None], pa.uint64()), 2),
        (pa.array([1, 2], pa.duration("s")), 2),
        (pa.array([b"a", b"b"]), 2),
        (pa.array(["a", "a"]).dictionary_encode(), 1),
        (pa.nulls(2), 1),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_extra_columns_of_any_type_tell_rows_apart(values: pa.Array, kept: int) -> None:
    result = logs.normalize(log(extra=values))
    assert result.events.column_names == [*EVENTS.names, "extra"]
    assert result.events.num_rows == kept


@pytest.mark.parametrize(
    "values",
    [pa.array([1, 0], pa.bool8()), pa.array([b"a", b"b"], pa.binary_view()), pa.array([{"a": 1}] * 2)],
    ids=lambda a: str(a.type),
)
def test_extra_columns_without_an_order_are_left_out_and_reported(values: pa.Array) -> None:
    result = logs.normalize(log(extra=values))
    assert result.events.column_names == EVENTS.names
    assert {d.kind for d in result.report.defects} == {"unsortable_column", "duplicate_event"}


def test_extra_columns_stay_behind_the_schema_and_nested_ones_are_reported() -> None:
    events = log(duration_s=[1.5, 2.5], context=[[1], [2]], position=[1, 1])
    result = logs.normalize(events)
    assert result.events.column_names == [*EVENTS.names, "duration_s"]
    assert result.events["duration_s"].to_pylist() == [1.5, 2.5]  # rows that differ there only are not duplicates
    assert [d.kind for d in result.report.defects] == ["unsortable_column"]


def test_a_log_without_times_is_ordered_by_position() -> None:
    events = log(
        timestamp=pa.nulls(4, pa.timestamp("ms")), position=[2, 0, 1, None], item_id=[12, 10, 11, 13], user_id=[7] * 4
    )
    result = logs.normalize(events)
    assert result.events["item_id"].to_pylist() == ["10", "11", "12"]
    assert result.events["timestamp"].null_count == 3
    assert result.report.count("null_position") == 1
    assert result.report.first is None
    assert "time: none, `position` keeps the order" in result.report.lines()


def test_tables_that_are_not_given_are_made_from_the_events() -> None:
    result = logs.normalize(
        log(item_id=["b", "a", None], query=[None, None, "lamp"], behavior=["cart", "cart", "search"])
    )
    assert result.items["item_id"].to_pylist() == ["a", "b"]
    assert result.users["user_id"].to_pylist() == ["u1"]
    assert result.report.rows_added == {"items": 2, "users": 1}
    assert result.report.count("no_title") == 0


def test_the_tiny_world_is_clean(tiny: Any) -> None:
    result = logs.normalize(tiny.events, tiny.items, tiny.users)
    assert {d.kind for d in result.report.defects} == {"no_title"}
    assert result.events.num_rows == 39
    assert result.events.schema == EVENTS
    assert sorted(map(str, result.events.to_pylist())) == sorted(map(str, tiny.events.to_pylist()))
    keys = [(r["user_id"], r["timestamp"], r["item_id"] or "~", r["behavior"]) for r in result.events.to_pylist()]
    assert keys == sorted(keys)


LAYOUTS = {
    **{str(kind): kind for kind in (pa.string(), pa.large_string(), pa.string_view())},
    **{
        f"dictionary of {kind}": pa.dictionary(pa.uint32(), kind)
        for kind in (pa.string(), pa.large_string(), pa.string_view())
    },
}
SHAPES = ("plain", "nulls", "empty", "sliced", "chunked")


def laid_out(values: list[str | None], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_dictionary(kind):
        return pa.array(values, kind)
    encoded = pa.array(values, pa.string()).dictionary_encode()
    words = pa.array(encoded.dictionary.to_pylist(), kind.value_type)
    return pa.DictionaryArray.from_arrays(encoded.indices.cast(kind.index_type), words)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_string_layouts(layout: str, shape: str) -> None:
    users, queries = ["ä", "u2", "ä", "u1"], ["q", None, "a\u200bb", "q"]
    columns: dict[str, list[str | None]] = {
        "user_id": [None if shape == "nulls" and n == 1 else user for n, user in enumerate(users)],
        "item_id": ["i"] * 4,
        "behavior": ["cart"] * 4,
        "query": queries,
    }
    events = pa.table({name: laid_out(values, LAYOUTS[layout]) for name, values in columns.items()})
    events = events.append_column("timestamp", pa.array([T + timedelta(seconds=i) for i in range(4)], TIMESTAMP))
    if shape == "empty":
        with pytest.raises(errors.EmptyLogError):
            logs.normalize(events.slice(0, 0))
        return
    if shape == "sliced":
        events = events.slice(1, 2)
    if shape == "chunked":
        events = pa.concat_tables([events.slice(0, 1), events.slice(1, 0), events.slice(1, 3)])
        assert events["user_id"].num_chunks == 3
    result = logs.normalize(events)
    want = {
        "plain": [("u1", "q"), ("u2", None), ("ä", "q"), ("ä", "ab")],
        "nulls": [("u1", "q"), ("ä", "q"), ("ä", "ab")],
        "sliced": [("u2", None), ("ä", "ab")],
        "chunked": [("u1", "q"), ("u2", None), ("ä", "q"), ("ä", "ab")],
    }[shape]
    assert [(r["user_id"], r["query"]) for r in result.events.to_pylist()] == want
    assert result.events.schema == EVENTS


FULL = {
    "events": pa.table(
        {
            **{name: ["a"] for name in ("user_id", "item_id", "query")},
            "behavior": ["cart"],
            "timestamp": [T],
            "position": [1],
        }
    ),
    "items": pa.table({**{name: ["a"] for name in ITEMS.names if name != "price"}, "price": [1.5]}),
    "users": pa.table({name: ["a"] for name in USERS.names}),
}
REQUIRED = {
    ("events", "user_id"),
    ("events", "behavior"),
    ("items", "item_id"),
    ("items", "title"),
    ("users", "user_id"),
}
COLUMNS = [(name, column) for name, table in FULL.items() for column in table.column_names]


@pytest.mark.parametrize(("name", "column"), COLUMNS)
def test_each_column_dropped_renamed_retyped_or_nested(name: str, column: str) -> None:
    def run(table: pa.Table) -> logs.Logs:
        return logs.normalize(**{**FULL, name: table})

    table = FULL[name]
    renamed = table.rename_columns([f"my_{c}" if c == column else c for c in table.column_names])
    for changed in (table.drop_columns([column]), renamed):
        if (name, column) in REQUIRED:
            with pytest.raises(errors.InvalidTableError, match=f"`{name}`: column `{column}` is missing"):
                run(changed)
        else:
            assert run(changed).report.rows_out == {"events": 1, "items": 1, "users": 1}
    place = table.column_names.index(column)
    for wrong in (
        pa.array([True]),
        pa.array([b"a"]),
        pa.array([["a"]]),
        pa.array([{"a": 1}]),
        pa.array([1], pa.duration("s")),
    ):
        with pytest.raises(errors.InvalidTableError, match=f"`{name}`: column `{column}` must be .*, but it is"):
            run(table.set_column(place, column, wrong))


def test_the_order_of_columns_changes_nothing() -> None:
    straight = logs.normalize(**FULL)
    turned = logs.normalize(**{name: table.select(table.column_names[::-1]) for name, table in FULL.items()})
    assert straight == turned


class Foreign:
    """A table of another library: nothing but the Arrow protocol."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


def test_any_arrow_stream_is_a_table() -> None:
    assert logs.normalize(Foreign(log())).events == logs.normalize(log()).events
    assert logs.normalize(log().to_batches()[0]).events == logs.normalize(log()).events


@pytest.mark.parametrize(
    "ids",
    [pa.array([7, 8], t()) for t in (pa.int8, pa.int32, pa.int64, pa.uint64, pa.float64)],
    ids=lambda a: str(a.type),
)
def test_number_ids_become_text(ids: pa.Array) -> None:
    assert logs.normalize(log(user_id=ids)).events["user_id"].to_pylist() == ["7", "8"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_units_and_zones(unit: str) -> None:
    naive = stamps("2024-07-01T12:00:00", "2024-01-01T12:00:00", unit=unit)
    local = logs.normalize(log(timestamp=naive, item_id=["a", "b"]), time_zone="Europe/London").events
    assert local["timestamp"].to_pylist() == [
        datetime(2024, 1, 1, 12, tzinfo=UTC),
        datetime(2024, 7, 1, 11, tzinfo=UTC),
    ]
    aware = logs.normalize(
        log(timestamp=naive.cast(pa.timestamp(unit, "Asia/Tokyo"))), time_zone="Europe/London"
    ).events
    assert aware["timestamp"].to_pylist()[0] == datetime(
        2024, 1, 1, 12, tzinfo=UTC
    )  # the stored moment, whatever the zone


def test_dates_are_local_midnights() -> None:
    events = logs.normalize(log(timestamp=pa.array([date(2024, 7, 1)])), time_zone="Europe/London").events
    assert events["timestamp"].to_pylist() == [datetime(2024, 6, 30, 23, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("2024-07-01", datetime(2024, 6, 30, 23, tzinfo=UTC)),
        ("2024-07-01 10:00", datetime(2024, 7, 1, 9, tzinfo=UTC)),
        (" 2024-07-01T10:00:00 ", datetime(2024, 7, 1, 9, tzinfo=UTC)),
        ("2024-07-01T10:00:00.1234567", datetime(2024, 7, 1, 9, 0, 0, 123456, tzinfo=UTC)),
        ("2024-07-01T10:00:00Z", datetime(2024, 7, 1, 10, tzinfo=UTC)),
        ("2024-07-01 10:00:00+02:00", datetime(2024, 7, 1, 8, tzinfo=UTC)),
        ("2024-07-01T10:00:00-0530", datetime(2024, 7, 1, 15, 30, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_as_text(text: str, want: datetime) -> None:
    assert logs.normalize(log(timestamp=[text]), time_zone="Europe/London").events["timestamp"].to_pylist() == [want]


@pytest.mark.parametrize(
    "text", ["2024-13-01", "2023-02-29", "24-01-01", "2024-01-01T25:00", "1709294400", "2024-01-01 12", "٢٠٢٤-01-01"]
)
def test_unreadable_times_are_counted(text: str) -> None:
    report = logs.normalize(log(timestamp=[text, "2024-01-01T00:00:00Z"], item_id=["a", "b"])).report
    assert report.count("unreadable_timestamp") == 1
    assert report.rows_out["events"] == 1


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC"])
def test_times_at_the_edges_of_their_type(unit: str, zone: str | None) -> None:
    values = pa.array([2**63 - 1, -(2**63) + 1, -1, 0, None], pa.int64()).cast(pa.timestamp(unit, zone))
    result = logs.normalize(log(timestamp=values, item_id=list("abcde")), time_zone="UTC")
    # Nanoseconds end in 2262, within range.
    outside = 2 if unit == "ns" else 3
    assert result.report.count("timestamp_out_of_range") == outside
    assert result.report.count("null_timestamp") == 1
    assert result.events.num_rows == 4 - outside


def test_the_last_microsecond_of_9999_is_the_end_in_utc() -> None:
    end = 253_402_300_800_000_000  # 10000-01-01 00:00 UTC
    aware = pa.array([end - 1, end], pa.int64()).cast(pa.timestamp("us", "UTC"))
    report = logs.normalize(log(timestamp=aware, item_id=["a", "b"])).report
    assert [(d.kind, d.examples[0].row) for d in report.defects] == [("timestamp_out_of_range", 1)]
    # The same clock time in New York is five hours later, in the year 10000.
    local = pa.array([end - 1, 0], pa.int64()).cast(pa.timestamp("us"))
    report = logs.normalize(log(timestamp=local, item_id=["a", "b"]), time_zone="America/New_York").report
    assert [(d.kind, d.examples[0].row) for d in report.defects] == [("timestamp_out_of_range", 0)]


ZONES = (
    "America/New_York",
    "Europe/London",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Asia/Kolkata",
    "Pacific/Apia",
)


@given(
    st.lists(st.datetimes(datetime(2000, 1, 1), datetime(2037, 1, 1)), min_size=1, max_size=20),
    st.sampled_from(ZONES),
)
def test_local_times_against_pythons_calendar(moments: list[datetime], zone: str) -> None:
    check_against_zoneinfo(moments, zone)


def check_against_zoneinfo(moments: list[datetime], zone: str) -> None:
    events = log(
        timestamp=pa.array(moments, pa.timestamp("us")),
        position=range(len(moments)),
        user_id=[f"{i:05}" for i in range(len(moments))],
    )
    result = logs.normalize(events, time_zone=zone)
    skipped = repeated = 0
    for moment, got in zip(moments, result.events["timestamp"].to_pylist(), strict=True):
        first = moment.replace(tzinfo=ZoneInfo(zone), fold=0).astimezone(UTC)
        second = moment.replace(tzinfo=ZoneInfo(zone), fold=1).astimezone(UTC)
        if first > second:  # Python reads a skipped time with the offset before (later) or after (earlier) the jump
            skipped += 1
            assert second < got <= first
            jump = got.astimezone(ZoneInfo(zone)).utcoffset()
            assert jump != (got - timedelta(microseconds=1)).astimezone(ZoneInfo(zone)).utcoffset()
        else:
            repeated += first < second
            assert got == first
    assert (result.report.count("skipped_local_time"), result.report.count("repeated_local_time")) == (
        skipped,
        repeated,
    )


@pytest.mark.slow
@pytest.mark.parametrize("zone", ZONES)
def test_every_clock_change_of_a_zone(zone: str) -> None:
    info, moments = ZoneInfo(zone), []
    for day in range((date(2037, 1, 1) - date(2000, 1, 1)).days):
        before = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(days=day)
        if before.astimezone(info).utcoffset() == (before + timedelta(days=1)).astimezone(info).utcoffset():
            continue
        start = before.astimezone(info).replace(tzinfo=None)
        if abs(
            (before.astimezone(info).utcoffset() or timedelta())
            - ((before + timedelta(days=1)).astimezone(info).utcoffset() or timedelta())
        ) >= timedelta(hours=20):
            continue  # Samoa left out a whole day in 2011: Python's two readings then lie a day apart
        for minutes in range(0, 26 * 60, 15):
            edge = start + timedelta(minutes=minutes)
            moments += [edge, edge - timedelta(microseconds=1)]
    if moments:
        check_against_zoneinfo(moments, zone)


event = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(["u1", "u2", "", None]),
        "item_id": st.sampled_from(["i1", "i2", None]),
        "behavior": st.sampled_from([*BEHAVIORS, "coupon", "jump", None]),
        "timestamp": st.sampled_from([T, T + timedelta(microseconds=1), datetime(1960, 1, 1, tzinfo=UTC), None]),
        "query": st.sampled_from(["lamp", " lamp", None]),
        "position": st.sampled_from([1, 2, None]),
        "extra": st.sampled_from([1.0, None]),
    }
)
INPUT = pa.schema([*((f.remove_metadata().with_nullable(True)) for f in EVENTS), pa.field("extra", pa.float64())])


@given(st.lists(event, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing_and_every_row_is_accounted_for(
    rows: list[dict[str, Any]], random: Any
) -> None:
    def run(records: list[dict[str, Any]]) -> logs.Logs | str:
        try:
            return logs.normalize(pa.Table.from_pylist(records, INPUT), behaviors={"coupon": "coupon"})
        except errors.InputError as error:
            return type(error).__name__

    once, mixed = run(rows), rows * 3
    random.shuffle(mixed)
    thrice = run(mixed)
    if isinstance(once, str) or isinstance(thrice, str):
        assert once == thrice
        return
    assert once.events.equals(thrice.events)
    assert once.users.equals(thrice.users)
    assert once.items.equals(thrice.items)
    for result, n in ((once, len(rows)), (thrice, 3 * len(rows))):
        assert result.report.rows_in["events"] == n == result.events.num_rows + result.report.left_out("events")
        assert (
            sum(entry.rows for entry in result.report.behaviors)
            + sum(r["behavior"] is None for r in rows) * n // len(rows)
            == n
        )


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",))), min_size=1, max_size=10))
def test_hostile_text_is_clean_and_ids_stay_as_they_are(titles: list[str]) -> None:
    ids = [f"../{n}\u202e'; --" for n in range(len(titles))]
    events = log(item_id=ids, query=titles)
    result = logs.normalize(
        events, pa.table({"item_id": [*ids, "x"], "title": [*titles, "Lamp"], "description": [*titles, None]})
    )
    assert set(result.events["item_id"].to_pylist()) == set(ids)
    for values in (result.items["title"], result.items["description"], result.events["query"]):
        for value in values.to_pylist():
            assert value is None or (value == value.strip() and value and "\n" not in value and "\u202e" not in value)


@pytest.mark.slow
def test_complete_journey_is_normalized_in_seconds(completejourney: Any) -> None:
    result = logs.from_dataset(completejourney)
    assert result.report.rows_in == {"events": 1_471_409, "items": 92_331 + 17, "users": 2_469}
    assert result.events.num_rows + result.report.left_out("events") == 1_471_409
    assert {b.name: b.rows for b in result.report.behaviors} == {"purchase": 1_469_307, "coupon": 2_102}
    assert result.report.count("no_title") == 528 + 17
    assert (result.report.first, result.report.last) == (
        datetime(2017, 1, 1, 5, tzinfo=UTC),
        datetime(2018, 1, 1, 4, 1, 20, tzinfo=UTC),
    )
