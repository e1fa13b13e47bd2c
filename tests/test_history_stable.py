"""`stable=True`: what is closed is only appended to, in ordinary months and over New Year."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reference_history import BRIEF_TABLE, BYTES, ZONES, events, kept

from recgpt import history

APPENDING = ["cheapest", "sequence-by-bucket", "item-by-bucket", "by-bucket"]
EDGES = [date(year, month, 1) for year in (2022, 2023, 2024) for month in (1, 2, 3, 7, 12)]
"""First days of months; most examples stand at or near one."""
moments = st.builds(
    lambda day, hours: datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hours),
    st.sampled_from(EDGES),
    st.one_of(st.sampled_from([-24, -1, 0, 1, 24]), st.integers(-800, 800)),
)


def texts(rows: list[dict], now: datetime, **options: object) -> dict[str, str]:
    try:
        table = history.compress(kept(rows), BRIEF_TABLE, now=now, tokenizer=BYTES, stable=True, **options)
    except history.compression.EmptyLogError:
        return {}
    return dict(zip(table["user_id"].to_pylist(), table["text"].to_pylist(), strict=True))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(events, moments, st.integers(0, 900 * 24)), min_size=1, max_size=30),
    moments,
    st.one_of(st.just(24), st.integers(1, 500 * 24)),
    st.fixed_dictionaries(
        {
            "layout": st.sampled_from(APPENDING),
            "time_zone": st.sampled_from(ZONES),
            "counts": st.booleans(),
            "long_labels": st.booleans(),
            "row_ids": st.booleans(),
        }
    ),
)
def test_whatever_day_comes_closed_months_are_only_appended_to(drawn, now, hours, options):
    later, zone = now + timedelta(hours=hours), ZoneInfo(options["time_zone"])
    # Ending near an edge, or long before one; nothing comes late, so what is new lies between the two moments.
    rows = [row | {"timestamp": moment - timedelta(hours=back)} for row, moment, back in drawn]
    rows += [row | {"timestamp": None} for row, _, back in drawn if back % 5 == 0]
    rows = [row for row in rows if row["timestamp"] is None or row["timestamp"] < later]
    before, after = (texts(rows, moment, **options) for moment in (now, later))
    month = now.astimezone(zone).strftime("%Y-%m")
    past = [row for row in rows if row["timestamp"] and row["timestamp"] < now]
    closed = [row for row in past if row["timestamp"].astimezone(zone).strftime("%Y-%m") != month]
    for user, text in (texts(closed, now, **options) if closed else {}).items():
        for whole in (before[user], after[user]):
            assert whole == text or whole.startswith(f"{text}\n")


@pytest.fixture(scope="module")
def heavy() -> list[dict]:
    """Five years of a user who does two to six things on every day."""
    draw = np.random.default_rng(0)
    rows = []
    for day in range(5 * 365):
        for hour in draw.choice(24, draw.integers(2, 7), replace=False).tolist():
            behavior = ("purchase", "cart", "detail_view")[draw.integers(3)]
            stamp = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=day, hours=hour)
            rows.append({"user_id": "a", "item_id": str(draw.integers(400)), "behavior": behavior, "timestamp": stamp})
    return [row | {"query": None, "position": None} for row in rows]


@settings(max_examples=80, deadline=None)
@given(moments, st.sampled_from(APPENDING), st.sampled_from(ZONES))
def test_a_heavy_user_keeps_nine_tenths_on_any_day(heavy, now, layout, time_zone):
    before, after = (
        texts([row for row in heavy if row["timestamp"] < moment], moment, layout=layout, time_zone=time_zone)["a"]
        for moment in (now, now + timedelta(days=1))
    )
    same = next((place for place, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), None)
    assert (len(before) if same is None else same) >= 0.9 * len(after)


def test_new_year_by_hand(heavy):
    year = datetime(2024, 1, 1, tzinfo=UTC)
    old, new = (
        texts([row for row in heavy if row["timestamp"] < moment], moment)["a"].split("\n")
        for moment in (year - timedelta(hours=1), year + timedelta(hours=23))
    )
    closed = [line for line in old if not line.startswith("23-12")]
    assert new[: len(closed)] == closed
    assert {line[:5] for line in new[len(closed) :]} == {"23-12", "24-01"}
