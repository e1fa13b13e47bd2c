"""Stage 1: which tables come in, what goes out, and that every row is accounted for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shoplog import T, log

from recgpt import errors, logs
from recgpt.schema import BEHAVIORS, EVENTS, ITEMS, TIMESTAMP, USERS


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
