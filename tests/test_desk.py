"""The A/B desk: fractions by hand, golden curves, every kind of bad input by name, and pages on which nothing runs.

Two tables of bad input, a line each, are half of the file; they share its two small arms.
"""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from browsing import opened

from recgpt import errors
from recgpt.evaluation import desk
from recgpt.evaluation.desk.arms import catalogue, load, read
from recgpt.evaluation.metrics import Estimate
from recgpt.evaluation.metrics.significance import change, holm, paired, sample_ratio

START = datetime(2025, 6, 17, 8, tzinfo=UTC)
NOW = datetime(2025, 7, 1, tzinfo=UTC)
ITEMS = pa.table(
    {
        "item_id": ["a", "b", "c", "d"],
        "title": ["Oat milk 1 l", "Oat milk 2 l", "Green lamp", "Blue chair"],
        "category": ["milk", "milk", "light", "seat"],
        "brand": ["X", "Y", "X", "Z"],
    }
)


def arm(first: str, clicks: dict[str, str], **columns: Any) -> pa.Table:
    """Two users with one page of a, b, c, d each, a day apart; `clicks` says which items each of them clicked."""
    rows = []
    for day, user in enumerate((first, first + "'")):
        for place, item in enumerate("abcd"):
            hit = item in clicks.get(user, "")
            rows.append(
                {
                    "user_id": user,
                    "item_id": item,
                    "position": place,
                    "timestamp": START + timedelta(days=day),
                    "click": hit,
                    "cart": hit and item == "a",
                    "dwell": 10.0 * hit,
                    "is_ad": item == "b",
                    "seller": "s1" if item in "ab" else "s2",
                    "tier": "top" if day else "rest",
                }
            )
    table = pa.Table.from_pylist(rows)
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns([name])
        if values is not None:
            table = table.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))
    return table


def a(**columns: Any) -> pa.Table:
    return arm("1", {"1": "a", "1'": "c"}, **columns)


def b(**columns: Any) -> pa.Table:
    return arm("2", {"2": "ac", "2'": "b"}, **columns)


def judged(first: pa.Table | None = None, second: pa.Table | None = None, **options: Any) -> desk.Desk:
    options = {"items": ITEMS, "now": NOW, **options}
    return desk.compare(a() if first is None else first, b() if second is None else second, **options)


def named(found: desk.Desk, name: str) -> list[str]:
    return [one.text for one in found.cautions if one.name == name]


def test_lifts_are_the_fractions_that_a_hand_computes() -> None:
    found = judged()
    rows = {one.metric: one for one in found.lifts}
    assert list(rows) == ["DT", "EICD", "CICD", "IPV", "CTR", "DCAU", "ATC"]  # the order of Table 8
    said = {metric: (one.first.value, one.second.value) for metric, one in rows.items()}
    assert said == {
        "DT": (20 / 2, 30 / 2),
        "EICD": (6 / 2, 6 / 2),
        "CICD": (2 / 2, 3 / 2),  # a and c are of two categories, b of one
        "IPV": (2 / 2, 3 / 2),
        "CTR": (2 / 8, 3 / 8),
        "DCAU": (0.5, 0.5),  # each clicks on one of two days
        "ATC": (1 / 2, 1 / 2),
    }
    ctr = rows["CTR"]
    # A: 1 - 4 / 4 = 0 for both users, no spread. B: 2 - 1.5 and 1 - 1.5, so s = sqrt(.5) and s sqrt(2) / 8 = 1 / 8.
    assert ctr.lift is not None
    assert ctr.lift.value == pytest.approx(0.5)
    assert ctr.lift.high - ctr.lift.value == pytest.approx(1.959963984540054 * (1 / 8) / (2 / 8))
    assert ctr.p == pytest.approx(math.erfc(1 / math.sqrt(2)))
    assert ctr.detectable == pytest.approx((1.959963984540054 + 0.8416212335729143) / 2)
    assert ctr.needed == math.ceil(2 * (ctr.detectable / 0.0633) ** 2)
    assert found.split == 1.0
    assert [(tier.tier, tier.users) for tier in found.tiers] == [("rest", (1, 1)), ("top", (1, 1))]


def test_redundancy_counts_places_with_and_without_ads() -> None:
    found = judged()
    said = {(one.by, one.k, one.ads): (one.first.value, one.points.value) for one in found.repetition}
    assert len(said) == 3 * 3 * 2
    assert said["category", 4, True] == (1 / 4, 0.0)  # b is milk again
    assert said["category", 4, False] == (0.0, 0.0)  # and b is the ad
    assert said["brand", None, True] == (1 / 4, 0.0)  # c is X again
    assert said["brand", 8, False] == (1 / 3, 0.0)
    assert said["title", None, True] == (1 / 4, 0.0)


def test_the_second_arm_repeats_less_by_the_points_of_its_pages() -> None:
    # The second user of B is shown one chair less and one lamp less: no milk twice.
    shown = b().filter(pa.array([True] * 5 + [False] + [True] * 2))
    row = next(one for one in judged(second=shown).repetition if (one.by, one.k, one.ads) == ("category", 4, True))
    assert (row.first.value, row.second.value) == (1 / 4, (1 / 4 + 0 / 3) / 2)
    assert row.points.value == -1 / 8
    assert row.pages == (1.0, 0.5)


def test_matthew_curves_group_items_and_sellers_alike_in_both_arms() -> None:
    popularity = pa.table({"item_id": ["a", "b", "c", "d"], "count": [1, 2, 8, 16]})
    items, sellers = judged(popularity=popularity).curves
    assert (items.by, sellers.by) == ("item", "seller")
    assert items.first.popularity.tolist() == items.second.popularity.tolist() == [1, 2, 8, 16]
    assert items.first.ctr.tolist() == [1 / 2, 0, 1 / 2, 0]
    assert items.second.ctr.tolist() == [1 / 2, 1 / 2, 1 / 2, 0]
    assert items.second.page_view_rate.tolist() == [1 / 3, 1 / 3, 1 / 3, 0]
    assert sellers.first.popularity.tolist() == [3, 24]
    assert sellers.first.ctr.tolist() == [1 / 4, 1 / 4]
    assert sellers.second.page_view_rate.tolist() == [2 / 3, 1 / 3]
    assert named(judged(), "popularity_of_the_test")
    assert not named(judged(popularity=popularity), "popularity_of_the_test")


def test_a_golden_log_keeps_its_figures() -> None:
    """Drawn by seed, figures written down: what a change of the code must not move unseen."""
    found = desk.compare(*drawn(), catalogue_of(40), now=NOW + timedelta(days=900)).figures()
    lifts = {one["metric"]: (one["lift"]["value"], one["p"]) for one in found["lifts"]}
    assert lifts["CTR"] == GOLDEN["CTR"]
    assert lifts["CICD"] == GOLDEN["CICD"]
    assert found["redundancy"][1]["points"]["value"] == GOLDEN["points"]
    assert found["matthew"][0]["A"]["page_view_slope"] == GOLDEN["slope"]


GOLDEN: dict[str, Any] = {
    "CTR": (0.277108, 0.000179),
    "CICD": (0.221591, 0.000693),
    "points": -0.00125,
    "slope": 1.080609,
}


def drawn() -> tuple[pa.Table, pa.Table]:
    logs = []
    for number, chance in enumerate((0.10, 0.13)):
        rng = np.random.default_rng(number)
        user = np.repeat(np.arange(200) + 1000 * number, 20)
        click = rng.random(4000) < chance
        columns = {
            "user_id": user,
            "item_id": np.char.mod("i%d", (rng.random(4000) ** 2 * 40).astype(int)),
            "timestamp": pa.array([START] * 4000, pa.timestamp("us", "UTC")),
            "position": np.tile(np.arange(20), 200),
            "click": click,
        }
        logs.append(pa.table(columns))
    return logs[0], logs[1]


def catalogue_of(size: int) -> pa.Table:
    return pa.table(
        {
            "item_id": [f"i{n}" for n in range(size)],
            "title": ["" for _ in range(size)],
            "category": [f"c{n % 7}" for n in range(size)],
        }
    )


def stamps(*shifts: timedelta | None) -> pa.Array:
    times = a()["timestamp"].to_pylist()
    moved = [None if by is None else time + by for time, by in zip(times, shifts * (8 // len(shifts)), strict=True)]
    return pa.array(moved, pa.timestamp("us", "UTC"))


SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
CAUTIONS: list[tuple[str, Callable[[], desk.Desk], str]] = [
    ("clicks_before_exposures", lambda: judged(a(clicked_at=stamps(-SECOND, SECOND, SECOND, SECOND, SECOND, SECOND, SECOND, SECOND))), "arm A: 1 of 2 clicks came before their exposure; they were not counted, nor what followed them"),
    ("clock_skew", lambda: judged(a(clicked_at=stamps(-HOUR))), "arm A: most clicks lie before their exposure, half of them by 1:00:00 or more; two clocks differ"),
    ("clock_skew", lambda: judged(a(clicked_at=stamps(timedelta(days=400)))), "arm A: 2 of 2 clicks with a time came more than 7 days after their exposure; two clocks differ; they were counted on the day of the exposure"),
    ("clock_skew", lambda: judged(a(clicked_at=stamps(timedelta(days=6), None, None, None)), now=START + timedelta(days=2)), "arm A: 1 of 1 clicks with a time lie in the future of 2025-06-19 08:00 UTC; a clock runs ahead; they were counted on the day of the exposure"),
    ("clock_skew", lambda: judged(now=START), "arm A: 4 of 8 exposures lie in the future of 2025-06-17 08:00 UTC; a clock runs ahead, and days may be wrong"),
    ("clock_skew", lambda: judged(a(timestamp=stamps(timedelta(days=5)))), "the arms do not cover the same days: A from 2025-06-22 to 2025-06-23 and B from 2025-06-17 to 2025-06-18; other days are other shoppers, so cut both to the same ones"),
    ("duplicate_exposures", lambda: judged(pa.concat_tables([a(), a().slice(0, 2)])), "arm A: 2 of 10 rows (20.0%) repeat a user, item, moment and position; each was counted once, with the most clicks, carts and seconds of its copies"),
    ("unknown_items", lambda: judged(items=ITEMS.slice(0, 3)), "arm A: 2 of 8 exposures are of items that the catalogue does not have; they count for clicks, carts and seconds, and have no category, brand or popularity"),
    ("one_sided_propensities", lambda: judged(a(propensity=[0.5] * 8, other_propensity=[0.5] * 8)), "arm B: no `propensity` and no `other_propensity`; the other policy was not judged from its log"),
    ("one_sided_propensities", lambda: judged(a(propensity=[0.5] * 8), b(propensity=[0.5] * 8)), "arm A: no `other_propensity`; the other policy was not judged from its log"),
    ("no_overlap", lambda: judged(a(propensity=[0.5] * 8, other_propensity=[0.0] * 8)), "arm A: the other policy would have shown nothing of it, so that its log says nothing of it"),
    ("low_overlap", lambda: desk.compare(*lopsided(), now=NOW), "arm A: its 4,000 exposures tell as much of the other policy as 1 of its own; read IPS and SNIPS as anecdotes"),
    ("zero_clicks", lambda: judged(a(click=[False] * 8)), "arm A has no click in 8 exposures; is `click` filled, for these rows?"),
    ("no_lift", lambda: judged(a(click=[False] * 8)), "CTR: the first arm's figure is 0, so that nothing can be related to it"),
    ("no_lift", lambda: judged(a().slice(0, 4)), "CTR: an arm has fewer than 2 users, so that chance cannot be told from change"),
    ("users_in_both_arms", lambda: judged(pa.concat_tables([a(), b().slice(0, 4)])), "1 users are in both arms; they were left out, because it cannot be told which arm moved them"),
    ("no_interval", lambda: judged(arm("1", {"1": "a"})), "CTR: the first arm's figure is not told from 0, so that its lift has no bounds"),
    ("no_lift", lambda: judged(a(dwell=[5e-324] * 8)), "DT: the first arm's figure is nearly 0, so that nothing can be related to it"),
    ("few_users", judged, "arm A has 2 users; with fewer than 100 the intervals are too narrow"),
    ("sample_ratio_mismatch", lambda: judged(share=0.999999), "2 users in arm A and 2 in arm B where 100% to 0% was meant (p = 0): the split is broken, so trust no lift before it is mended"),
    ("no_categories", lambda: judged(items=None), "no catalogue was given, so there is no EICD, no CICD and no redundancy by category"),
    ("no_positions", lambda: judged(a(position=None)), "no `position` in arm A, so there is no top 4 or top 8 and no redundancy"),
    ("no_dwell", lambda: judged(second=b(dwell=None)), "no `dwell` in arm B, so there is no DT"),
    ("one_sided_tier", lambda: judged(second=b(tier=None)), "no `tier` in arm B, so there is no table by tier"),
    ("one_sided_tier", lambda: judged(a(tier=["x"] * 8)), "only arm A has tier x; its 2 users there are not in the table by tier"),
    ("one_sided_tier", lambda: judged(a(tier=["x"] * 8)), "only arm B has tier rest, top; its 2 users there are not in the table by tier"),
    ("one_sided_tier", lambda: judged(a(tier=[None] * 4 + ["top"] * 4)), "only arm A has tier (none); its 1 users there are not in the table by tier"),
    ("two_tiers", lambda: judged(a(tier=["rest"] * 3 + ["top"] * 5)), "arm A: 1 of 2 users have more than one tier; each counts in that of their first page"),
    ("one_sided_seller", lambda: judged(a(seller=None)), "no `seller` in arm A, so there is no curve by seller"),
    ("no_slope", lambda: judged(a(click=[False] * 8)), "arm A: no slope of CTR and page views by item; fewer than 2 groups have any, or all groups are equally popular"),
    ("no_redundancy", lambda: judged(a(is_ad=[True] * 8)), "fewer than 2 users of an arm have places that are no ads, so redundancy by category is left out for them"),
    ("no_popularity", lambda: judged(popularity=pa.table({"item_id": ["z"]})), "`popularity` knows no item of the catalogue, so all are alike and Matthew curves say nothing"),
    ("duplicate_items", lambda: judged(items=pa.concat_tables([ITEMS, ITEMS.slice(0, 1)])), "1 of 5 rows of the catalogue repeat an item; the first of each counts"),
    ("one_seller", lambda: judged(a(seller=["s"] * 8), b(seller=["s"] * 8)), "all exposures are of one seller, so there is no curve by seller"),
]  # fmt: skip


def lopsided() -> tuple[pa.Table, pa.Table]:
    first, second = drawn()
    other = np.full(4000, 1e-7)
    other[0] = 1.0
    return first.append_column("propensity", pa.array([0.025] * 4000)).append_column(
        "other_propensity", pa.array(other)
    ), second


@pytest.mark.parametrize(
    ("name", "do", "text"), CAUTIONS, ids=[f"{place} {one[0]}" for place, one in enumerate(CAUTIONS)]
)
def test_bad_input_that_leaves_something_is_a_named_caution(name: str, do: Callable[[], desk.Desk], text: str) -> None:
    found = do()
    assert text in named(found, name)
    # Never a silent NaN: machines get null, and people a dash.
    assert "NaN" not in json.dumps(found.figures())
    assert ">nan" not in found._repr_html_()


ERRORS: list[tuple[str, type[errors.RecGPTError], Callable[[], Any], str]] = [
    ("an arm without users", errors.EmptyLogError, lambda: judged(a().slice(0, 0)), "arm A has no exposures and so no users; check the file or the query behind it"),
    ("nobody in one arm alone", errors.EmptyLogError, lambda: judged(second=a()), "every one of the 2 users of arm A is in the other arm too; give each user one arm"),
    ("no clicks column", errors.InvalidTableError, lambda: judged(pa.table({"user_id": [1]})), "arm A: an exposure log needs user_id, item_id, timestamp, click, but has no item_id, timestamp, click (it has user_id); rename yours"),
    ("a user without an id", errors.InvalidTableError, lambda: judged(a(user_id=[None, *"1111111"])), "arm A: `user_id` must not be null, but row 0 is; drop it"),
    ("a user without a name", errors.InvalidTableError, lambda: judged(a(user_id=["1", " ", *"111111"])), "arm A: `user_id` must not be empty, but 1 rows are, row 1 first: all of them would be one; drop them or give them ids"),
    ("a time of another unit", errors.TimestampRangeError, lambda: judged(a(timestamp=pa.array([2**60] * 8, pa.timestamp("us", "UTC")))), "arm A: `timestamp` must lie in the years 1970 to 9999, but 8 rows do not: row 0 is 1152921504606846976 microseconds from 1970; check the unit"),
    ("times without a zone", errors.NaiveTimestampError, lambda: judged(a(timestamp=pa.array([START.replace(tzinfo=None)] * 8))), "arm A: `timestamp` carries no time zone; state it, for example with pyarrow.compute.assume_timezone"),
    ("a time that is a number", errors.InvalidTableError, lambda: judged(a(timestamp=[1] * 8)), "arm A: `timestamp` must be a time with a zone, but it is int64; cast it"),
    ("a time that is a text", errors.InvalidTableError, lambda: judged(a(timestamp=["noon"] * 8)), "arm A: `timestamp` must be a time with a zone, such as 2025-06-17T08:00Z, but: Failed to parse string: 'noon' as a scalar of type timestamp[us, tz=UTC]: expected a zone offset. If these timestamps are in local time, cast to timestamp without timezone, then call assume_timezone."),
    ("clicks that are words", errors.InvalidTableError, lambda: judged(a(click=["yes"] * 8)), "arm A: `click` must hold numbers, but: Failed to parse string: 'yes' as a scalar of type int64; mend the column"),
    ("clicks below 0", errors.InvalidArrayError, lambda: judged(a(click=[-1] * 8)), "arm A: `click` must lie from 0 up, finite, but row 0 is -1"),
    ("endless dwell", errors.InvalidArrayError, lambda: judged(a(dwell=[math.inf] * 8)), "arm A: `dwell` must lie from 0 up, finite, but row 0 is inf"),
    ("a propensity of 0", errors.InvalidArrayError, lambda: judged(a(propensity=[0.0] * 8)), "arm A: `propensity` must lie from 1e-100 to 1 (or be 0, but not the own one), but row 0 is 0.0"),
    ("a propensity without a square", errors.InvalidArrayError, lambda: judged(a(propensity=[1.0] * 7 + [1e-300], other_propensity=[1.0] * 8)), "arm A: `propensity` must lie from 1e-100 to 1 (or be 0, but not the own one), but row 7 is 1e-300"),
    ("the least propensity of all", errors.InvalidArrayError, lambda: judged(a(propensity=[1.0] * 8, other_propensity=[5e-324] * 8)), "arm A: `other_propensity` must lie from 1e-100 to 1 (or be 0, but not the own one), but row 0 is 5e-324"),
    ("a propensity of 2", errors.InvalidArrayError, lambda: judged(a(other_propensity=[2.0] * 8)), "arm A: `other_propensity` must lie from 1e-100 to 1 (or be 0, but not the own one), but row 0 is 2.0"),
    ("propensities for some", errors.InvalidTableError, lambda: judged(a(propensity=[None] + [0.5] * 7)), "arm A: `propensity` is missing in 1 of 8 rows; give it for all or none"),
    ("popularity of nothing", errors.InvalidTableError, lambda: judged(popularity=pa.table({"x": [1]})), "`popularity` needs item_id, and count where a row is not one event, but it has x; rename yours"),
    ("popularity in words", errors.InvalidTableError, lambda: judged(popularity=pa.table({"item_id": ["a"], "count": ["many"]})), "`popularity.count` must hold numbers, but: Failed to parse string: 'many' as a scalar of type double; mend the column"),
    ("popularity below 0", errors.InvalidArrayError, lambda: judged(popularity=pa.table({"item_id": ["a", "b"], "count": [1, -4]})), "`popularity.count` must lie from 0 up, finite, but row 1 is -4.0"),
    ("popularity unknown", errors.InvalidArrayError, lambda: judged(popularity=pa.table({"item_id": ["a"], "count": pa.array([None], pa.int64())})), "`popularity.count` must lie from 0 up, finite, but row 0 is nan"),
    ("no file", errors.DatasetNotFoundError, lambda: desk.compare("none.csv", b()), "an exposure log was expected at none.csv, but there is no file; give Parquet or CSV"),
    ("one name for two", errors.InvalidConfigError, lambda: judged(names=("x", "x")), "the arms must have different names, but both are 'x'"),
    ("a share of 1", errors.InvalidConfigError, lambda: judged(share=1), "`share` must lie between 0 and 1, the first arm's part of all users, but is 1"),
    ("no zone", errors.InvalidConfigError, lambda: judged(zone="Atlantis"), "`zone` must be an IANA name such as Europe/Berlin, but it is 'Atlantis'"),
    ("no effect", errors.InvalidConfigError, lambda: judged(effect=0), "`effect` must lie from 1e-06 to 1000, such as 0.02 for two percent, but it is 0"),
    ("an effect below all", errors.InvalidConfigError, lambda: judged(effect=1e-300), "`effect` must lie from 1e-06 to 1000, such as 0.02 for two percent, but it is 1e-300"),
    ("an endless effect", errors.InvalidConfigError, lambda: judged(effect=math.inf), "`effect` must lie from 1e-06 to 1000, such as 0.02 for two percent, but it is inf"),
    ("ids that are no text", errors.InvalidTableError, lambda: judged(a(user_id=[b"\xff"] * 8)), "`arm A` is not usable: column `user_id` must be large_string, but it is binary: Invalid UTF8 payload"),
    ("items that are no text", errors.InvalidTableError, lambda: judged(a(item_id=[b"\xff"] * 8)), "`arm A` is not usable: column `item_id` must be large_string, but it is binary: Invalid UTF8 payload"),
    ("items that are no text, and no catalogue", errors.InvalidTableError, lambda: judged(a(item_id=[b"\xff"] * 8), items=None), "`exposures` is not usable: column `item_id` must be large_string, but it is binary: Invalid UTF8 payload"),
    ("pages that are lists", errors.InvalidTableError, lambda: judged(a(page=[[1]] * 8)), "`arm A` is not usable: column `page` must be large_string, but it is list<item: int64>: Unsupported cast from list<item: int64> to large_utf8 using function cast_large_string"),
    ("tiers that are no text", errors.InvalidTableError, lambda: judged(a(tier=pa.array([b"\xff"] * 8).cast(pa.string(), safe=False))), "`arm A` is not usable: column `tier` must be UTF-8, but holds b'\\xff'; decode it before, for example with bytes.decode(..., errors='replace')"),
    ("popularity that is no text", errors.InvalidTableError, lambda: judged(popularity=pa.table({"item_id": [b"\xff"]})), "`popularity` is not usable: column `item_id` must be large_string, but it is binary: Invalid UTF8 payload"),
    ("a column twice", errors.InvalidTableError, lambda: judged(a().append_column("click", pa.array([1] * 8))), "a table has more than one column click; keep or rename all but one"),
    ("odd lengths", errors.InvalidArrayError, lambda: desk.ips(np.ones(2), np.ones(1), np.ones(2)), "`reward`, `own` and `other` must have one value an exposure, but have 2, 1 and 2"),
    ("odd chances", errors.InvalidArrayError, lambda: desk.snips(np.ones(1), np.zeros(1), np.ones(1)), "`own` must lie from 1e-100 to 1 and `other` too or be 0; a probability outside was found"),
    ("odd pairs", errors.InvalidArrayError, lambda: paired(np.ones(1), np.ones(2)), "`first` has 1 users but `second` has 2; they must be equal"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "kind", "do", "text"), ERRORS, ids=[one[0] for one in ERRORS])
def test_bad_input_that_leaves_nothing_is_an_error(
    what: str, kind: type[errors.RecGPTError], do: Callable[[], Any], text: str
) -> None:
    with pytest.raises(kind) as caught:
        do()
    assert (type(caught.value), str(caught.value)) == (kind, text)


def test_changes_beyond_any_sample_have_no_number_of_users() -> None:
    found = judged(a(dwell=[1e-20] * 8))
    (lift,) = (one for one in found.lifts if one.metric == "DT")
    assert lift.needed is None
    (text,) = named(found, "small_sample")
    assert ".0% or more, and 4.82% wants more users an arm than there are people; " in text


def test_copies_of_an_exposure_are_one_with_the_most_of_each() -> None:
    blank = a(click=[False] * 8, dwell=[0.0] * 8).select(a().column_names)
    twice = pa.concat_tables([blank, a(), blank])
    assert judged(twice).lifts == judged().lifts


def test_an_arm_that_ends_after_midnight_has_no_day_more() -> None:
    late = stamps(*[timedelta(0)] * 7, timedelta(hours=17))
    (dcau,) = (one for one in judged(a(timestamp=late)).lifts if one.metric == "DCAU")
    # Three days for both: with its own two, the other arm's users would have come half as often again.
    assert (dcau.first.value, dcau.second.value) == (1 / 3, 1 / 3)


def test_days_begin_where_the_zone_says() -> None:
    # 8:00 UTC is the evening before in Honolulu for both days alike, so that only a shift across midnight would move DCAU.
    late = stamps(timedelta(0), *[timedelta(hours=3)] * 3, *[timedelta(0)] * 4)
    found = {
        one.metric: one
        for one in judged(a(timestamp=late, click=[True] * 4 + [False] * 4), zone="Pacific/Honolulu").lifts
    }
    assert found["DCAU"].first.value == (2 / 2) / 2  # 22:00 and 1:00 are two days of two
    assert {one.metric: one for one in judged(a(timestamp=late, click=[True] * 4 + [False] * 4)).lifts}[
        "DCAU"
    ].first.value == (1 / 2) / 2


def test_clicks_without_a_time_are_clicks() -> None:
    assert judged(a(clicked_at=pa.nulls(8))).lifts == judged().lifts


def test_the_order_of_rows_and_the_type_of_ids_change_nothing() -> None:
    turned = a().take(np.random.default_rng(0).permutation(8))
    assert judged(turned).lifts == judged().lifts
    numbers = [
        table.set_column(0, "user_id", pa.array([base + n // 4 for n in range(8)]))
        for base, table in ((10, a()), (20, b()))
    ]
    assert judged(*numbers).lifts == judged().lifts


def test_a_page_column_joins_rows_of_different_moments() -> None:
    late = stamps(*(timedelta(seconds=place) for place in range(8)))
    row = judged(a(timestamp=late)).repetition[0]
    assert row.first.value == 0.0  # every row a page of its own
    row = judged(a(timestamp=late, page=["p"] * 4 + ["q"] * 4)).repetition[0]
    assert row.first.value == 1 / 4


def test_ips_and_snips_by_hand_in_both_directions() -> None:
    first = a(propensity=[0.5] * 8, other_propensity=[0.25, 0.5, 0.5, 0.5, 1.0, 0.5, 0.5, 0.5])
    (found,) = judged(first).policies
    # Weights 1/2, 1, 1, 1 and 2, 1, 1, 1; clicks on the first of user 1 and the third of user 1'.
    assert found.ips.value == pytest.approx((0.5 + 1.0) / 8)
    assert found.snips.value == pytest.approx((0.5 + 1.0) / 8.5)
    assert found.effective == pytest.approx(8.5**2 / (0.25 + 4 + 6))
    assert (found.log, found.own.value, found.other.value) == ("A", 2 / 8, 3 / 8)


def test_significance_by_hand() -> None:
    # Of 2 ** 3 signs two are as far from 0 as the three ones.
    assert paired(np.ones(3), np.zeros(3), draws=100_000 - 1).p == pytest.approx(1 / 4, abs=0.01)
    assert paired(np.full(2, np.nan), np.ones(2)).users == 0
    assert paired(np.ones(2), np.ones(2)).p == 1.0
    assert holm([0.04, 0.01, 0.02, 0.9]) == [0.08, 0.04, 0.06, 0.9]
    assert sample_ratio(60, 40) == pytest.approx(math.erfc(math.sqrt(4 / 2)))  # (10^2 + 10^2) / 50 = 4
    assert change(Estimate(0.0, 0.0, 0.0), Estimate(1.0, 1.0, 1.0)) is None
    # b - r a is as far from 0 as chance allows at both ends, and 0 lies outside because p is below .05.
    noisy, better = Estimate(0.02, 0.02 - 0.0196, 0.02 + 0.0196), Estimate(0.2, 0.2 - 0.0392, 0.2 + 0.0392)
    found = change(noisy, better)
    assert found is not None
    assert found.p < 1e-10
    for end in found.lift[1:]:
        assert abs(0.2 - (1 + end) * 0.02) == pytest.approx(math.hypot(0.0392, (1 + end) * 0.0196))
    assert found.lift.low > 0
    assert math.isnan(change(Estimate(0.01, -0.01, 0.03), better).lift.low)  # type: ignore[union-attr]
    level = change(Estimate(2.0, 2.0, 2.0), Estimate(2.0, 2.0, 2.0))
    assert level is not None
    assert (level.p, level.detectable) == (1.0, 0.0)


def test_files_are_read_as_tables_are(tmp_path: Path) -> None:
    pq.write_table(a().append_column("note", pa.array(["=1"] * 8)), tmp_path / "a.parquet")
    pyarrow.csv.write_csv(b(), tmp_path / "b.csv")
    read_from = judged(tmp_path / "a.parquet", tmp_path / "b.csv").figures()  # type: ignore[arg-type]
    assert read_from.pop("ran")["arm B"] == str(tmp_path / "b.csv")
    tables = judged().figures()
    assert tables.pop("ran")["arm B"] == "a table"
    assert read_from == tables
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    with pytest.raises(errors.InvalidTableError, match="cannot be read"):
        read(tmp_path / "c.parquet")


def test_an_arm_without_users_of_the_other_keeps_its_rows_together() -> None:
    known = catalogue(ITEMS)
    whole = load("A", a(), known, now=NOW)
    left = whole.without(np.array([True, False]))
    assert left.user_ids.to_pylist() == ["1'"]
    assert (left.user == 0).all()
    assert left.click.tolist() == [0, 0, 1, 0]


HOSTILE = "</td><script>document.title='attacked'</script><img src=http://evil.invalid/x onerror=alert(1)>"


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_hostile_names_stay_text_and_nothing_runs_or_loads(tmp_path: Path) -> None:
    tiers = {"tier": [HOSTILE] * 8, "seller": [HOSTILE] * 4 + ["s"] * 4}
    found = judged(a(**tiers), b(**tiers), names=(HOSTILE, "B"), simulation=True)
    page = desk.write(tmp_path / "desk.html", found, title=HOSTILE).read_text(encoding="utf-8")
    for text in (page, found._repr_html_()):
        assert "<script" not in text
        assert "<img" not in text
        assert "&lt;script&gt;" in text
        assert "Simulation" in text
    assert "default-src 'none'" in page
    assert len(page) < 200_000
    for said in ("Matthew effect", "What ran", "a table", "4 items", "pyarrow", "What is not shown"):
        assert said in page
    assert not list(tmp_path.glob("*.part"))
    document, said = opened(tmp_path / "desk.html")
    assert "<title>attacked" not in document
    assert "Content Security Policy" not in said
