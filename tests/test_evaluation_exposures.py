"""Exposure logs: metrics by hand, sums equal to the plain-Python twin, bad input, the Matthew effect."""

import doctest
import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import recgpt.evaluation.metrics.exposures as exposures_module
import recgpt.evaluation.metrics.popularity as popularity_module
from recgpt import _reference
from recgpt.errors import EmptyLogError, InvalidArrayError, InvalidTableError
from recgpt.evaluation import metrics

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ITEMS = pa.table({"item_id": ["a", "b", "c", "d"], "category": ["tea", "jam", "tea", None]})


def log(*rows, **columns):
    """Exposures from (user, item, hours from noon, clicks)."""
    user, item, hours, click = zip(*rows, strict=True)
    times = pa.array([NOON + timedelta(hours=hour) for hour in hours], pa.timestamp("us", "UTC"))
    return pa.table({"user_id": user, "item_id": item, "timestamp": times, "click": click, **columns})


SHOWN = log(
    ("u", "a", 0, 1),
    ("u", "b", 1, 0),
    ("u", "c", 30, 2),
    ("v", "a", 30, 1),
    ("v", "d", 31, 1),
    ("w", "zz", 31, 0),
    cart=[1, 0, 2, 0, None, 0],
    dwell=[10.0, None, 20.0, 4.0, 5.0, 0.0],
    is_ad=[False, True, None, False, True, False],
)


def test_every_metric_of_table_8_by_hand():
    found = metrics.Exposures(ITEMS).add(SHOWN).engagement()
    assert found.user_id.to_pylist() == ["u", "v", "w"]
    assert found.days == 2
    assert found.ctr.value == 4 / 6  # clicked: three rows of u and v, one more of v
    assert found.ipv.value == 5 / 3
    assert found.dcau.value == (1 + 2) / 2  # u on the first day; u and v on the second
    assert found.dwell_time.value == 39 / 3
    assert found.atc.value == 3 / 3
    assert found.eicd.value == (2 + 1 + 0) / 3  # tea and jam; tea; an item without a row
    assert found.cicd.value == (1 + 1 + 0) / 3
    assert found.items.exposures.tolist() == [2, 1, 1, 1]
    assert found.items.clicked.tolist() == [2, 0, 1, 1]
    assert found.items.page_views.tolist() == [2, 0, 2, 1]
    assert found.items.unknown == 1


def test_without_ads():
    found = metrics.Exposures(ITEMS, ads=False).add(SHOWN).engagement()
    assert found.exposures.tolist() == [2, 1, 1]
    assert found.ctr.value == 3 / 4
    assert found.eicd.value == (1 + 1 + 0) / 3


def test_days_begin_in_the_zone_of_the_shop():
    # 12:00 and 18:00 UTC on 1 March are one day in London, two in Shanghai.
    shown = log(("u", "a", 0, 1), ("u", "a", 6, 1))
    assert metrics.Exposures(ITEMS, zone="Europe/London").add(shown).engagement().click_days.tolist() == [1]
    abroad = metrics.Exposures(ITEMS, zone="Asia/Shanghai").add(shown).engagement()
    assert abroad.click_days.tolist() == [2]
    assert abroad.days == 2


rows = st.tuples(
    st.sampled_from("uvwxyz"),
    st.sampled_from(["a", "b", "c", "d", "unknown"]),
    st.integers(-40, 40),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(0, 9).map(float),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(rows, min_size=1, max_size=60), st.integers(0, 60), st.integers(1, 4), st.booleans())
def test_sums_equal_the_twin(rows, cut, threads, numbers):
    zone = ZoneInfo("America/New_York")
    user = (lambda name: ord(name) - 119) if numbers else str
    table = log(
        *((user(u), i, hours, click) for u, i, hours, click, _, _ in rows),
        cart=[row[4] for row in rows],
        dwell=[row[5] for row in rows],
    )
    counter = metrics.Exposures(ITEMS, zone=zone.key, threads=threads)
    found = counter.add(table.slice(0, cut)).add(table.slice(cut)).engagement()
    local = [
        (user(u), i, (NOON + timedelta(hours=hours)).astimezone(zone).date(), *rest) for u, i, hours, *rest in rows
    ]
    categories = dict(zip(ITEMS["item_id"].to_pylist(), ITEMS["category"].to_pylist(), strict=True))
    wanted = _reference.count_exposures(local, categories)
    assert found.user_id.to_pylist() == sorted(wanted)
    columns = (
        found.exposures,
        found.clicked,
        found.page_views,
        found.carts,
        found.exposed_categories,
        found.clicked_categories,
        found.click_days,
        found.dwell,
    )
    for row, name in enumerate(found.user_id.to_pylist()):
        assert tuple(column[row] for column in columns) == wanted[name]
    days = sorted(row[2] for row in local)
    assert found.days == (days[-1] - days[0]).days + 1


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_any_layout_of_text_and_any_slice(kind):
    cast = SHOWN.set_column(0, "user_id", SHOWN["user_id"].cast(kind)).set_column(
        1, "item_id", SHOWN["item_id"].cast(kind)
    )
    counter = metrics.Exposures(ITEMS)
    for row in range(SHOWN.num_rows):
        counter.add(cast.slice(row, 1))
    whole = metrics.Exposures(ITEMS).add(SHOWN).engagement()
    assert counter.engagement().exposures.tolist() == whole.exposures.tolist()
    assert counter.engagement().user_id.to_pylist() == ["u", "v", "w"]


def test_truth_values_are_clicks():
    shown = log(("u", "a", 0, True), ("u", "b", 0, None))
    assert metrics.Exposures(ITEMS).add(shown).engagement().page_views.tolist() == [1]


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (SHOWN.drop_columns(["click"]), InvalidTableError, "needs the columns user_id, item_id, timestamp, click, but"),
        (log((None, "a", 0, 1)), InvalidTableError, "`exposures.user_id` must not be null, but row 0"),
        (
            log(("u", "a", 0, 0), ("u", None, 0, 0)),
            InvalidTableError,
            "`exposures.item_id` must not be null, but row 1",
        ),
        (log(("u", "a", 0, -1)), InvalidTableError, "`exposures.click` must hold truth values or counts from 0"),
        (log(("u", "a", 0, 1), dwell=[-1.0]), InvalidArrayError, "`dwell` must be seconds, 0 or more, but row 0 is -1"),
        (log(("u", "a", 0, 1), dwell=[math.inf]), InvalidArrayError, "`dwell` must be seconds, 0 or more"),
    ],
)
def test_bad_exposures_are_refused_and_nothing_is_lost(table, error, message):
    counter = metrics.Exposures(ITEMS).add(SHOWN)
    with pytest.raises(error, match=message):
        counter.add(table)
    assert counter.engagement().exposures.sum() == SHOWN.num_rows


def test_ids_do_not_turn_from_text_to_numbers():
    with pytest.raises(InvalidTableError, match="was text before and is numbers now"):
        metrics.Exposures(ITEMS).add(SHOWN).add(log((1, "a", 0, 1)))


def test_nothing_added_is_an_error_and_no_clicks_are_none():
    with pytest.raises(EmptyLogError, match="add a table with rows"):
        metrics.Exposures(ITEMS).engagement()
    found = metrics.Exposures(ITEMS).add(log(("u", "a", 0, 0), ("v", "a", 0, 0))).engagement()
    assert found.ctr == (0, 0, 0)
    assert found.dcau == (0, 0, 0)


def test_ratio_by_the_delta_method_covers_the_truth():
    """Users with few and many exposures and their own click rates: 95 % of intervals hold the true ratio."""
    random, inside = np.random.default_rng(0), 0
    for _ in range(400):
        shown = random.integers(1, 60, 500)
        rate = random.beta(1, 9, 500)
        value, low, high = metrics.ratio(random.binomial(shown, rate), shown)
        assert low < value < high
        inside += low <= 0.1 <= high
    # A share of .95 of 400 has a standard error of .011; three of them.
    assert inside / 400 == pytest.approx(0.95, abs=0.033)
    assert all(math.isnan(end) for end in metrics.ratio(np.array([0]), np.array([0])))
    assert math.isnan(metrics.ratio(np.array([1]), np.array([2])).low)


@pytest.mark.parametrize("categories", [512, 513])
def test_memory_is_below_what_the_docs_say(categories):
    users, pairs = 50_000, 400_000
    random = np.random.default_rng(1)
    ids = [str(n) for n in range(categories)]
    user, item = random.integers(0, users, pairs), random.integers(0, categories, pairs)
    times = pa.array(np.zeros(pairs, np.int64), pa.timestamp("us", "UTC"))
    names = pa.array(ids).take(pa.array(item))
    table = pa.table({"user_id": user, "item_id": names, "timestamp": times, "click": np.zeros(pairs, np.int64)})
    counter = metrics.Exposures(pa.table({"item_id": ids, "category": ids}), threads=2)
    before = counter.nbytes
    found = counter.add(table).engagement()
    blocks = len(np.unique(user * 9 + item // 64))
    marks = 32 * 8 * len(found.user_id) if categories <= 512 else 43 * blocks
    assert counter.nbytes - before <= 200 * len(found.user_id) + marks + 17 * pairs


def test_matthew_curves_by_hand():
    # Six items by popularity 0 0 1 | 3 7 8; shown 10 times each; clicked 1 0 2 | 4 4 1.
    found = metrics.matthew(
        np.array([0, 3, 0, 7, 1, 8]),
        np.full(6, 10),
        np.array([1, 4, 0, 4, 2, 1]),
        np.array([1, 5, 0, 4, 2, 3]),
        groups=2,
    )
    assert found.items.tolist() == [3, 3]
    assert found.popularity.tolist() == [1 / 3, 6]
    assert found.ctr.tolist() == [3 / 30, 9 / 30]
    assert found.page_view_rate.tolist() == [3 / 15, 12 / 15]
    run = math.log(7) - math.log(4 / 3)
    assert found.ctr_slope == pytest.approx(math.log(3) / run)
    assert found.page_view_slope == pytest.approx(math.log(4) / run)


def test_matthew_without_clicks_or_with_equal_items_has_no_slope():
    zeros, equal = np.zeros(4, int), np.full(4, 5)
    found = metrics.matthew(np.arange(4), equal, zeros, zeros, groups=2)
    assert found.ctr.tolist() == [0, 0]
    assert math.isnan(found.ctr_slope)
    assert np.isnan(found.page_view_rate).all()
    assert math.isnan(metrics.matthew(equal, equal, equal, equal, groups=2).ctr_slope)
    assert math.isnan(metrics.matthew(np.arange(4), zeros, zeros, zeros, groups=2).ctr[0])
    with pytest.raises(InvalidArrayError, match="`groups` must be at least 2 and at most the number of items, 4"):
        metrics.matthew(equal, equal, equal, equal, groups=5)
    with pytest.raises(InvalidArrayError, match="one value an item, but have 4, 4, 4, 1"):
        metrics.matthew(equal, equal, equal, np.array([1]))


@pytest.mark.parametrize("module", [exposures_module, popularity_module])
def test_examples_in_the_docs_are_true(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted
    assert not outcome.failed
