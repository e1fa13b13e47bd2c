"""The compiled history kernel against its plain-Python twin, over small random logs."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recgpt import _reference, history, schema
from recgpt.errors import EmptyLogError, InvalidConfigError
from recgpt.llm.tokenizer import Tokenizer

BYTES = Tokenizer.bytes()
NOW = datetime(2024, 3, 31, 1, 30, tzinfo=UTC)
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/Sao_Paulo",
]
# Two pairs share a brief; 6 has no category; 7 has no brief.
BRIEFS = [
    {"item_id": "1", "brief": "Tea", "category": "Drinks"},
    {"item_id": "2", "brief": "Tea", "category": "Drinks"},
    {"item_id": "3", "brief": "Milk", "category": "Dairy"},
    {"item_id": "4", "brief": "Milk", "category": "Drinks"},
    {"item_id": "5", "brief": "Käse; 茶 (mild)", "category": "Dairy"},
    {"item_id": "6", "brief": "Hose 2%", "category": None},
]
EDGES = [
    datetime(2024, 3, 31, 0, 59, 59, 999_999, tzinfo=UTC),  # a microsecond before Berlin's clocks change
    datetime(2024, 3, 1, tzinfo=UTC),  # 30 days before now
    datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC),  # leap day, 31 days before now
    datetime(2023, 4, 1, tzinfo=UTC),  # 365 days before now
    datetime(2023, 3, 31, 23, 0, tzinfo=UTC),
    datetime(2020, 2, 29, 12, tzinfo=UTC),
    datetime(2011, 12, 30, 9, 59, tzinfo=UTC),  # Apia skips a day
    datetime(1999, 12, 31, 23, 30, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    NOW,
]

stamps = st.one_of(
    st.none(),
    st.sampled_from(EDGES),
    st.integers(0, 1_200 * 24).map(lambda hours: NOW - timedelta(hours=hours, minutes=7)),
    st.integers(0, 40).map(lambda days: NOW - timedelta(days=days)),
)
things = st.one_of(
    st.sampled_from(["1", "2", "3", "4", "5", "6", "7"]).map(lambda item_id: (item_id, None)),
    st.sampled_from(["oat milk", "tea", None]).map(lambda query: (None, query)),
)
events = st.builds(
    lambda user, thing, behavior, stamp, position: {
        "user_id": user,
        "item_id": thing[0],
        "behavior": behavior,
        "timestamp": stamp,
        "query": thing[1],
        "position": position,
    },
    st.sampled_from(["a", "b"]),
    things,
    st.sampled_from(["purchase", "cart", "search", "coupon", "favorite", "other"]),
    stamps,
    st.one_of(st.none(), st.integers(0, 3)),
)
logs = st.lists(events, min_size=1, max_size=30).filter(
    lambda rows: any(row["timestamp"] is None or row["timestamp"] < NOW for row in rows)
)
options = st.fixed_dictionaries(
    {
        "time_zone": st.sampled_from(ZONES),
        "layout": st.sampled_from(["cheapest", *history.LAYOUTS]),
        "counts": st.booleans(),
        "long_labels": st.booleans(),
        "stable": st.booleans(),
        "row_ids": st.booleans(),
    }
)
budgets = st.one_of(st.none(), st.integers(0, 60), st.integers(0, 600))


def kept(rows: list[dict]) -> pa.Table:
    return schema.rows(rows, schema.EVENTS)


BRIEF_TABLE = schema.rows([row | {"tokens": 1, "source": "rule"} for row in BRIEFS], schema.BRIEFS)


def compress(rows: list[dict], **chosen: object) -> list[dict]:
    return history.compress(kept(rows), BRIEF_TABLE, now=NOW, tokenizer=BYTES, threads=1, **chosen).to_pylist()


def twin(rows: list[dict], **chosen: object) -> list[dict]:
    return _reference.compress(rows, BRIEFS, count=lambda text: len(text.encode()), now=NOW, **chosen)


def test_kernel_and_twin_write_the_same_for_a_user_of_very_many_records():
    # Above 65,536 records the kernel asks for memory ahead; beside this user stand others, in one second stand many.
    draw = np.random.default_rng(0)
    hours = np.sort(draw.integers(0, 20_000, 70_000))[::-1].tolist()
    items, behaviors = draw.integers(1, 900, 70_000).tolist(), draw.integers(0, 3, 70_000).tolist()
    rows = [
        {
            "user_id": "giant" if place % 100 else f"u{place % 700}",
            "item_id": str(item),
            "behavior": ("purchase", "cart", "favorite")[behavior],
            "timestamp": NOW - timedelta(hours=hour, minutes=1),
            "query": None,
            "position": None,
        }
        for place, (hour, item, behavior) in enumerate(zip(hours, items, behaviors, strict=True))
    ]
    assert sum(row["user_id"] == "giant" for row in rows) > 1 << 16
    want = twin(rows, layout="item")
    assert compress(rows, layout="item") == want
    assert compress(sorted(rows, key=lambda row: row["user_id"]), layout="item") == want


CATALOGUE = history.catalogue(BRIEF_TABLE, tokenizer=BYTES)


def numbers(rows: list[dict], **chosen: object) -> dict[str, list[tuple[str, set[str], int]]]:
    try:
        table = history.rows(kept(rows), CATALOGUE, now=NOW, **chosen)
    except EmptyLogError:
        return {}
    assert table.schema.equals(schema.HISTORY_ROWS)
    names = json.loads(table.schema.metadata[b"recgpt.behaviors"])
    return {
        user["user_id"]: [
            (
                cell["bucket"],
                {name for bit, name in enumerate(names) if cell["behaviors"] >> bit & 1},
                cell["item"],
            )
            for cell in user["rows"]
        ]
        for user in table.to_pylist()
    }


@settings(max_examples=120, deadline=None)
@given(logs, st.sampled_from(ZONES), st.booleans(), st.randoms(use_true_random=False))
def test_histories_as_numbers_are_the_twins_and_say_what_the_text_says(rows, time_zone, stable, random):
    random.shuffle(rows)
    chosen = {"time_zone": time_zone, "stable": stable}
    ids = CATALOGUE.ids.to_pylist()
    came = numbers(rows, threads=2, **chosen)
    assert came == _reference.rows(rows, ids, now=NOW, **chosen)
    known = [row for row in rows if row["item_id"] in ids]
    if came:
        # Briefs that no two items share, so that an entry names one item.
        briefs = schema.rows(
            [row | {"brief": f"no {row['item_id']}", "tokens": 1, "source": "rule"} for row in BRIEFS], schema.BRIEFS
        )
        texts = history.compress(kept(known), briefs, now=NOW, tokenizer=BYTES, long_labels=True, **chosen)
        told = {row["user_id"]: history.expand(row["text"]) for row in texts.to_pylist()}
        assert told == {
            user: {(label, behavior, f"no {ids[row]}") for label, behaviors, row in cells for behavior in behaviors}
            for user, cells in came.items()
        }


def test_numbers_leave_without_a_copy_and_nothing_is_told():
    with pytest.raises(EmptyLogError, match="about items of the catalogue"):
        history.rows(kept([]), CATALOGUE, now=NOW)
    with pytest.raises(InvalidConfigError, match="catalogue` must be what"):
        history.rows(kept([]), BRIEF_TABLE, now=NOW)
    rows = [
        {"user_id": "a", "item_id": item, "behavior": "cart", "timestamp": NOW - timedelta(days=1), "query": query}
        for item, query in (("6", None), ("7", None), (None, "tea"), ("1", None))
    ]
    table = history.rows(kept([row | {"position": None} for row in rows]), CATALOGUE, now=NOW, keep=["cart"])
    assert table["rows"].to_pylist() == [
        [{"bucket": "2024-03-30", "behaviors": 1, "item": row} for row in (0, 5)],
    ]
    items = table["rows"].chunk(0).values.field("item")
    assert items.to_numpy(zero_copy_only=True).tolist() == [0, 5]


@settings(max_examples=120, deadline=None)
@given(logs, options, budgets)
def test_kernel_and_twin_write_the_same(rows, chosen, budget):
    ours, theirs = compress(rows, budget=budget, **chosen), twin(rows, budget=budget, **chosen)
    assert ours == theirs
    for row in ours:
        assert row["tokens"] == len(row["text"].encode()) == row["receipt"]["tokens_out"]
        assert budget is None or row["tokens"] <= budget
        parts = [row["receipt"][name] for name in ("full", "coarsened", "folded", "dropped")]
        assert sum(parts) == row["receipt"]["events"]


@settings(max_examples=60, deadline=None)
@given(logs, options)
def test_an_uncut_history_expands_to_exactly_its_triples(rows, chosen):
    # Every brief its own, so that the triples can be told without numbers.
    own = [row | {"brief": f"{row['brief']} {row['item_id']}"} for row in BRIEFS]
    table = schema.rows([row | {"tokens": 1, "source": "rule"} for row in own], schema.BRIEFS)
    texts = {row["item_id"]: row["brief"] for row in own} | {"7": "item 7"}
    zone = history.compression.ZoneInfo(chosen["time_zone"])
    today = NOW.astimezone(zone).date()
    wanted: dict[str, Counter] = {}
    for row in rows:
        stamp = row["timestamp"]
        if stamp is not None and stamp >= NOW:
            continue
        bucket = _reference.bucket_of(stamp and stamp.astimezone(zone).date(), today, chosen["stable"])
        entry = texts[row["item_id"]] if row["item_id"] else f'"{row["query"]}"' if row["query"] else "-"
        label = bucket.label(chosen["long_labels"])
        wanted.setdefault(row["user_id"], Counter())[label, row["behavior"], entry] += 1
    got = history.compress(kept(rows), table, now=NOW, tokenizer=BYTES, **chosen).to_pylist()
    assert {row["user_id"]: history.expand(row["text"]) for row in got} == {
        user: set(triples) for user, triples in wanted.items()
    }
    if chosen["counts"]:
        assert {row["user_id"]: history.multiset(row["text"]) for row in got} == wanted
    if not chosen["counts"]:
        assert {row["user_id"]: _reference.expand(row["text"]) for row in got} == {
            user: set(triples) for user, triples in wanted.items()
        }


@settings(max_examples=40, deadline=None)
@given(logs, options, budgets, st.randoms(use_true_random=False))
def test_order_and_threads_change_nothing(rows, chosen, budget, random):
    chosen = chosen | {"budget": budget}
    mixed = list(rows)
    random.shuffle(mixed)
    again = history.compress(kept(mixed), BRIEF_TABLE, now=NOW, tokenizer=BYTES, threads=2, **chosen).to_pylist()
    assert again == compress(rows, **chosen)


@settings(max_examples=15, deadline=None)
@given(logs, options)
def test_more_budget_never_shows_less(rows, chosen):
    before = {}
    longest = max(row["tokens"] for row in compress(rows, **chosen))
    for budget in range(0, longest + 20, 11):
        for row in compress(rows, budget=budget, **chosen):
            receipt = row["receipt"]
            assert row["tokens"] <= budget
            # At most so exactly: dropped, folded or dropped, anything but full.
            less = np.cumsum([receipt[name] for name in ("dropped", "folded", "coarsened")])
            assert np.all(less <= before.get(row["user_id"], less))
            before[row["user_id"]] = less
    assert all(row["receipt"]["full"] == row["receipt"]["events"] for row in compress(rows, budget=longest, **chosen))


def test_the_reference_is_only_for_tests_and_benches():
    from pathlib import Path

    package = Path(_reference.__file__).parent.parent
    users = [
        path for path in package.rglob("*.py") if "_reference" in path.read_text() and path.parent.name != "_reference"
    ]
    assert users == []


@pytest.mark.parametrize("text", ["17-11 (cart) Tea", "no line", "17-11 | Tea", "17-11 (cart) | Tea\n"])
def test_expand_refuses_what_is_no_history(text):
    with pytest.raises(history.compression.InputError, match="must read like"):
        history.expand(text)
