"""Stage 1: times of every kind become UTC microseconds; what the clocks skip or repeat follows one rule."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shoplog import log, stamps

from recgpt import logs


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
