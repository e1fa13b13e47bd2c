"""Stage 2: which events stay."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recgpt import _core, errors, schema
from recgpt.behaviors import Rule, extract


def log(behaviors: list[str], **columns: object) -> pa.Table:
    return pa.table(
        {
            "user_id": ["ann"] * len(behaviors),
            "item_id": [str(row) for row in range(len(behaviors))],
            "behavior": behaviors,
            "timestamp": pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * len(behaviors), schema.TIMESTAMP),
            **columns,
        }
    )


def test_the_papers_reliable_behaviors_stay_and_plain_clicks_go():
    kept = extract(log(list(schema.BEHAVIORS)))
    assert kept["behavior"].to_pylist() == list(schema.RELIABLE)
    assert kept["item_id"].to_pylist() == ["0", "1", "2", "3", "4", "5"]
    assert kept.schema == schema.EVENTS


def test_a_shops_own_behavior_stays_if_it_is_listed():
    events = log(["coupon", "click", "cart"])
    assert extract(events)["behavior"].to_pylist() == ["cart"]
    assert extract(events, reliable=[*schema.RELIABLE, "coupon"])["behavior"].to_pylist() == ["coupon", "cart"]


def test_detail_views_only_above_five_seconds():
    events = log(["detail_view", "detail_view", "detail_view", "cart"], duration_s=[5, 6, None, 0])
    kept = extract(events, rules=[Rule("detail_view", "duration_s", above=5)])
    assert kept["item_id"].to_pylist() == ["1", "3"]
    assert "duration_s" not in kept.column_names


def test_long_clicks_count_as_detail_views():
    events = log(["click", "click", "detail_view"], duration_s=[9.5, 5.0, 0.0])
    kept = extract(events, rules=[Rule("click", "duration_s", above=5, becomes="detail_view")])
    assert kept["behavior"].to_pylist() == ["detail_view", "detail_view"]
    assert kept["item_id"].to_pylist() == ["0", "2"]


def test_every_condition_must_hold_and_the_first_renaming_wins():
    events = log(["click"] * 4, duration_s=[3.0, 8.0, 90.0, 8.0], scroll=[1.0, 1.0, 1.0, 0.0])
    rules = [
        Rule("click", "scroll", above=0.5),
        Rule("click", "duration_s", above=60, becomes="review_read"),
        Rule("click", "duration_s", above=5, below=100, becomes="detail_view"),
    ]
    kept = extract(events, rules=rules)
    assert dict(zip(kept["item_id"].to_pylist(), kept["behavior"].to_pylist(), strict=True)) == {
        "1": "detail_view",
        "2": "review_read",
    }


def test_a_rule_may_make_a_name_that_the_log_does_not_have():
    kept = extract(
        log(["click"], n=[7]), reliable=["long_look"], rules=[Rule("click", "n", above=5, becomes="long_look")]
    )
    assert kept["behavior"].to_pylist() == ["long_look"]


def test_a_log_of_clicks_gives_an_empty_table():
    assert extract(log(["click", "exposure"])).num_rows == 0


@given(st.lists(st.sampled_from(["click", "cart", "coupon", "detail_view"]), min_size=1, max_size=40), st.data())
def test_against_one_line_of_python(names, data):
    seconds = data.draw(st.lists(st.one_of(st.none(), st.floats(0, 10)), min_size=len(names), max_size=len(names)))
    rules = [Rule("click", "s", above=5, becomes="detail_view"), Rule("detail_view", "s", below=8)]
    kept = extract(log(names, s=pa.array(seconds, pa.float64())), rules=rules)
    want = [
        (str(row), "detail_view" if name == "click" else name)
        for row, (name, s) in enumerate(zip(names, seconds, strict=True))
        if name == "cart"
        or (name == "click" and s is not None and s > 5)
        or (name == "detail_view" and s is not None and s < 8)
    ]
    assert list(zip(kept["item_id"].to_pylist(), kept["behavior"].to_pylist(), strict=True)) == want


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: extract(log(["cart"]).slice(0, 0)), errors.EmptyLogError, "at least one event, but it has 0 rows"),
        (lambda: extract(log(["cart"]), reliable=[]), errors.InvalidConfigError, "must name at least one behavior"),
        (
            lambda: extract(log(["cart"]), reliable="cart"),
            errors.InvalidConfigError,
            "must be a list of behavior names",
        ),
        (lambda: extract(log(["cart"]), reliable=["a, b"]), errors.InvalidConfigError, "'a, b' is not; map it"),
        (lambda: Rule("click", "s"), errors.InvalidConfigError, "needs a number in `above` or `below`"),
        (
            lambda: extract(log(["cart"]), rules=[Rule("cart", "s", above=1), Rule("cart", "t", above=1)]),
            errors.InvalidTableError,
            "column `s` is missing.*column `t` is missing",
        ),
        (
            lambda: extract(log(["cart"], s=["long"]), rules=[Rule("cart", "s", above=1)]),
            errors.InvalidTableError,
            "column `s` must be numeric",
        ),
        (
            lambda: extract(log(["cart"]).set_column(3, "timestamp", pa.array([0], pa.timestamp("us")))),
            errors.NaiveTimestampError,
            "must carry a time zone",
        ),
        (lambda: extract([1, 2]), errors.InvalidTableError, "must be a table"),
        (lambda: _core.keep_reliable(np.array([3], np.int32), [True], []), errors.InvalidArrayError, "row 0 is 3"),
    ],
)
def test_bad_input_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_the_kernel_runs_from_four_threads():
    barrier = threading.Barrier(4)
    codes = np.arange(100_000, dtype=np.int32) % 3
    results: list[np.ndarray] = []

    def work() -> None:
        barrier.wait()
        results.append(_core.keep_reliable(codes, [True, False, True], []))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result, np.where(codes == 1, -1, codes)) for result in results)
