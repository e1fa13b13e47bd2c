"""A history state equals a full compression after every step."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recgpt import _core, errors, history, schema
from recgpt.llm.tokenizer import Tokenizer

BYTES = Tokenizer.bytes()
NOW = datetime(2017, 12, 10, tzinfo=UTC)


def _byte_names() -> list[str]:
    """What byte-level BPE calls the 256 bytes: visible ones by themselves, the others from U+0100 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(hidden)) for byte in range(256)]


def _tiny(pre: str) -> Tokenizer:
    merges = ["T e", "Te a", "Ġ Tea", "1 7", "c a", "ca r", "Ġ |", "Ġ (", "Ċ Ċ", "M i", "Ġ Mi", "l k", "# 2"]
    tokens = [*_byte_names(), *(m.replace(" ", "") for m in merges)]
    return Tokenizer(_core.Tokenizer.bpe(tokens, [1] * len(tokens), merges, pre), pre)


TOKENIZERS = {"bytes": BYTES, **{pre: _tiny(pre) for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2")}}

# Texts are shared among items, and one of them is what an item without a brief is called.
BRIEFS = schema.rows(
    [
        {"item_id": str(row), "brief": brief, "tokens": 1, "category": "Drinks" if row % 3 else None}
        for row, brief in enumerate(["Tea", "Milk", "Tea", "Earl Grey", "item 9", "Milk", "Tea", "Oat drink for two"])
    ],
    schema.BRIEFS,
)


def events(*rows: tuple) -> pa.Table:
    """Rows of (user, item or None, behavior, time or None[, query[, position]])."""
    names = ("user_id", "item_id", "behavior", "timestamp", "query", "position")
    return schema.rows([dict(zip(names, (*row, None, None)[:6], strict=True)) for row in rows], schema.EVENTS)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class Both:
    """A state, and the full compression that it must equal after every step."""

    def __init__(self, tokenizer: Tokenizer = BYTES, **options: Any) -> None:
        self.options = {"tokenizer": tokenizer, **options}
        self.state = history.State(BRIEFS, **self.options)
        self.log = schema.EVENTS.empty_table()
        self.known: dict[str, dict] = {}
        self.now = None

    def add(self, new: pa.Table, now: datetime) -> list[str]:
        """Give who is said to have changed, after judging all."""
        changed = self.state.add(new, now=now)
        self.log = pa.concat_tables([self.log, new])
        try:
            want = history.compress(self.log, BRIEFS, now=now, stable=True, **self.options)
        except errors.EmptyLogError:
            want = schema.HISTORY.empty_table()
            assert self.state.table().num_rows == 0
        else:
            assert self.state.table().equals(want, check_metadata=True)
        assert len(self.state) == want.num_rows
        if self.now is not None and now < self.now:
            self.known = {}
        self.now = now
        self.known |= {row["user_id"]: row for row in changed.to_pylist()}
        assert self.known == {row["user_id"]: row for row in want.to_pylist()}
        names = changed["user_id"].to_pylist()
        assert names == [name for name in want["user_id"].to_pylist() if name in names]
        return names

    def reload(self, folder: Path) -> None:
        """Go on with what was saved."""
        before = self.state.table()
        self.state.save(folder)
        self.state = history.State.load(folder, BRIEFS, **self.options)
        assert self.state.table().equals(before, check_metadata=True)

    def texts(self) -> dict[str, str]:
        return {name: row["text"] for name, row in self.known.items()}


class TestByHand:
    def test_a_day_joins_the_month_and_leaves_others_alone(self):
        both = Both(layout="item-by-bucket")
        log = events(("ann", "0", "cart", at("2016-03-01")), ("bob", "1", "cart", at("2017-12-08")))
        assert both.add(log, NOW) == ["ann", "bob"]
        assert both.add(events(("ann", "3", "cart", at("2017-12-10"))), NOW + timedelta(days=1)) == ["ann"]
        assert both.texts() == {
            "ann": "16-03 (cart) | Tea\n17-12-10 (cart) | Earl Grey",
            "bob": "17-12-08 (cart) | Milk",
        }
        assert both.add(schema.EVENTS.empty_table(), NOW + timedelta(days=2)) == []

    def test_things_keep_the_order_in_which_they_were_first_met(self):
        both = Both(layout="item-by-bucket")
        old = [("ann", item, "cart", at(f"2017-0{month}-01")) for month, item in ((3, "3"), (2, "1"), (4, "7"))]
        both.add(events(*old), NOW)
        day = at("2017-12-11")
        new = [("ann", item, "cart", day + timedelta(hours=hour)) for hour, item in enumerate(("7", "8", "3", "1"))]
        both.add(events(*new), NOW + timedelta(days=2))
        assert both.texts()["ann"].split("\n")[-1] == "17-12-11 (cart) | Milk, Earl Grey, Oat drink for two, item 8"

    def test_what_was_met_in_one_second_goes_by_entry_whenever_it_was_heard_of(self):
        both = Both(layout="item-by-bucket")
        old = at("2017-03-01")
        # Queries follow items, and stand in the order of their texts, which is not that of their coming.
        both.add(events(("ann", None, "cart", old, "z"), ("ann", "3", "cart", old), ("ann", "1", "cart", old)), NOW)
        both.add(events(("ann", None, "cart", old, "a"), ("bob", None, "cart", old, "b")), NOW)
        new = [
            ("ann", item, "cart", NOW + timedelta(hours=hour), query)
            for hour, (item, query) in enumerate(((None, "z"), ("3", None), ("1", None), (None, "a")))
        ]
        both.add(events(*new), NOW + timedelta(days=2))
        assert both.texts()["ann"].split("\n")[-1] == '17-12-10 (cart) | Milk, Earl Grey, "a", "z"'
        # The same from the sorted past: in another month nothing is late any more.
        for now in (at("2018-01-02"), at("2018-01-03")):
            new = [("ann", None, "cart", now - timedelta(hours=2), "z"), ("ann", "1", "cart", now - timedelta(hours=1))]
            both.add(events(*new, ("ann", None, "cart", now - timedelta(minutes=1), "a")), now)
        assert both.texts()["ann"].split("\n")[-1] == '18-01-02 (cart) | Milk, "a", "z"'

    def test_the_month_begins_in_the_shops_zone(self):
        both = Both(layout="item", time_zone="Europe/Berlin")
        edge = at("2017-11-30T23:00")
        both.add(events(("ann", "1", "cart", edge), ("ann", "3", "cart", edge - timedelta(seconds=1))), NOW)
        both.add(events(("ann", "1", "wink", edge), ("ann", "1", "cart", NOW)), NOW + timedelta(days=1))
        assert both.texts()["ann"] == ("17-11 (cart) | Earl Grey\n17-12-01 (cart, wink), 17-12-10 (cart) | Milk")

    def test_equal_texts_are_numbered_with_those_of_closed_months(self):
        both = Both(layout="item-by-bucket")
        both.add(events(("ann", "6", "cart", at("2016-03-01")), ("ann", "2", "cart", at("2017-12-01"))), NOW)
        both.add(events(("ann", "0", "cart", at("2017-12-11"))), NOW + timedelta(days=2))
        assert both.texts()["ann"].split("\n") == [
            "16-03 (cart) | Tea",
            "17-12-01 (cart) | Tea #2",
            "17-12-11 (cart) | Tea #3",
        ]

    def test_a_late_event_changes_the_closed_part(self):
        both = Both(layout="item")
        both.add(events(("ann", "3", "cart", at("2017-11-01")), ("ann", "1", "cart", at("2017-12-01"))), NOW)
        assert both.add(events(("ann", "7", "cart", at("2017-10-01"))), NOW) == ["ann"]
        assert both.add(
            events(("ann", "7", "cart", at("2017-12-09T01")), ("ann", "3", "cart", at("2017-12-09T00"))), NOW
        )
        assert both.texts()["ann"].split("\n") == [
            "17-10 (cart) | Oat drink for two",
            "17-11 (cart) | Earl Grey",
            "17-12-01 (cart) | Milk",
            "17-12-09 (cart) | Oat drink for two, Earl Grey",
        ]

    def test_a_new_month_closes_the_old_one(self):
        both = Both(layout="item")
        both.add(events(("ann", "3", "cart", at("2017-12-01"))), NOW)
        assert both.add(schema.EVENTS.empty_table(), at("2018-01-01T00:00:01")) == ["ann"]
        assert both.texts() == {"ann": "17-12 (cart) | Earl Grey"}

    def test_events_of_the_future_wait(self):
        both = Both()
        assert both.add(events(("ann", "3", "cart", NOW)), NOW) == []
        assert both.add(schema.EVENTS.empty_table(), NOW + timedelta(microseconds=1)) == ["ann"]
        assert both.add(schema.EVENTS.empty_table(), NOW) == []

    def test_a_budget_cuts_from_all_events(self):
        both = Both(budget=60)
        both.add(events(*[("ann", str(row), "cart", at(f"2017-0{row + 1}-01")) for row in range(8)]), NOW)
        both.add(events(("ann", "3", "purchase", NOW)), NOW + timedelta(days=1))
        assert 0 < len(both.texts()["ann"]) <= 60

    def test_numbers_go_by_value(self):
        both = Both()
        column = pa.array([10, 9, 2**40], pa.int64())
        log = events(*[("", "1", "cart", at("2017-12-01"))] * 3)
        state = history.State(BRIEFS, tokenizer=BYTES)
        for rows, names in ((slice(0, 2), ["9", "10"]), (slice(2, 3), ["9", "10", str(2**40)])):
            part = log.slice(rows.start, rows.stop - rows.start).set_column(0, "user_id", column[rows])
            state.add(part, now=NOW)
            assert state.table()["user_id"].to_pylist() == names
        whole = history.compress(log.set_column(0, "user_id", column), BRIEFS, now=NOW, stable=True, **both.options)
        assert state.table().equals(whole)

    def test_the_clock_set_back_on_the_first_of_a_month(self):
        # At 00:01 on 1 November 2009 St John's went back to 23:01 on 31 October: the day before comes twice.
        both = Both(time_zone="America/St_Johns", layout="item-by-bucket")
        change = at("2009-11-01T02:31")
        log = [
            ("ann", item, "cart", change + timedelta(seconds=seconds))
            for item, seconds in (("1", -30), ("3", 30), ("3", -20), ("7", 90 * 60), ("1", 91 * 60))
        ]
        for now in (change + timedelta(hours=3), change + timedelta(days=3), change + timedelta(days=40)):
            both = Both(time_zone="America/St_Johns", layout="item-by-bucket")
            both.add(events(*log), now)
            both.add(events(("ann", "1", "cart", now), ("ann", "3", "cart", now)), now + timedelta(hours=1))


class TestErrors:
    def test_a_refused_day_leaves_the_state_as_it_was(self):
        both = Both()
        both.add(events(("ann", "3", "cart", at("2017-12-01"))), NOW)
        before = both.state.table()
        good = events(("bob", "3", "cart", NOW))
        for bad, error in (
            (events(("bob", "3", "a,b", NOW)), errors.InvalidTableError),
            (good.drop_columns(["user_id"]), errors.InvalidTableError),
            (good.set_column(3, "timestamp", pa.array([-5]).cast(schema.TIMESTAMP)), errors.TimestampRangeError),
        ):
            with pytest.raises(error):
                both.state.add(bad, now=NOW + timedelta(days=1))
            assert both.state.table().equals(before)
        with pytest.raises(errors.NaiveTimestampError, match="time zone"):
            both.state.add(good, now=datetime(2017, 12, 11))
        with pytest.raises(errors.TimestampRangeError, match="136 years"):
            both.state.add(good, now=at("2200-01-01"))
        both.add(good, NOW + timedelta(days=1))

    def test_after_a_failure_inside_everything_is_made_anew(self, monkeypatch):
        both = Both()
        both.add(events(("ann", "3", "cart", at("2017-11-01")), ("bob", "3", "cart", at("2017-12-11"))), NOW)

        def fail(*_: Any, **__: Any) -> None:
            raise MemoryError

        monkeypatch.setattr(_core, "compress_history", fail)
        with pytest.raises(MemoryError):
            both.state.add(events(("ann", "1", "cart", at("2017-12-08"))), now=NOW)
        assert both.state.table().num_rows == 0
        monkeypatch.undo()
        both.add(events(("ann", "1", "cart", at("2017-12-08"))), NOW)
        both.add(schema.EVENTS.empty_table(), NOW + timedelta(days=2))

    def test_options_are_judged(self):
        other = history.catalogue(BRIEFS, tokenizer=TOKENIZERS["gpt-2"])
        for options in ({"layout": "short"}, {"budget": -1}, {"time_zone": "Mars"}, {"threads": 0}):
            with pytest.raises(errors.InvalidConfigError, match=next(iter(options))):
                history.State(BRIEFS, tokenizer=BYTES, **options)
        with pytest.raises(errors.InvalidConfigError, match="the one that the catalogue was made with"):
            history.State(other, tokenizer=BYTES)

    def test_a_tokenizer_that_reads_over_line_breaks_is_refused(self):
        class Greedy(Tokenizer):
            def count(self, texts):
                return super().count([text.replace("\n1", "1") for text in texts])

        with pytest.raises(errors.TokenizerError, match="do not add up"):
            history.State(BRIEFS, tokenizer=Greedy(BYTES.core, "greedy"))


ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Kiritimati"])
MOMENTS = st.one_of(
    st.integers(0, 90).map(lambda days: timedelta(days=days)),
    st.integers(0, 59 * 24).map(lambda hours: timedelta(hours=hours)),
    st.integers(0, 800 * 86_400).map(lambda seconds: timedelta(seconds=seconds)),
)


@st.composite
def days(draw: st.DrawFn) -> tuple[datetime, list[tuple[timedelta, list[tuple]]]]:
    """A first `now`, and for each day how far to go and its events, of which some are late and some in the future."""
    with_positions, with_undated = draw(st.booleans()), draw(st.booleans())
    item = st.one_of(st.sampled_from("0123456789"), st.sampled_from(["x", "x,", None]))
    start = draw(st.sampled_from([NOW, at("2009-11-01T02:00"), at("2017-03-27"), at("2018-01-01T00:30")]))
    found = []
    now = start
    for day in range(draw(st.integers(1, 4))):
        step = timedelta(hours=draw(st.sampled_from([1, 24, 24, 48, 30 * 24, -30]))) if day else timedelta()
        now += step
        rows = []
        for _ in range(draw(st.integers(0, 4 if day else 14))):
            when = now + timedelta(days=1) - draw(MOMENTS)
            thing = draw(item)
            rows.append(
                (
                    draw(st.sampled_from(["ann", "bob", "é"])),
                    thing,
                    draw(st.sampled_from(["cart", "purchase", "other", "wink"])),
                    None if with_undated and draw(st.booleans()) else when,
                    draw(st.sampled_from(["a", "a b", "z", None])) if thing is None else None,
                    draw(st.sampled_from([None, 1, 2])) if with_positions else None,
                )
            )
        found.append((now, rows))
    return found


@settings(max_examples=100, deadline=None)
@given(
    days(),
    st.sampled_from(sorted(TOKENIZERS)),
    st.fixed_dictionaries(
        {
            "time_zone": ZONES,
            "layout": st.sampled_from(["cheapest", *history.LAYOUTS]),
            "budget": st.sampled_from([None, None, 40, 150]),
            "counts": st.booleans(),
            "long_labels": st.booleans(),
            "keep": st.sampled_from([None, ("cart", "other")]),
        }
    ),
    st.booleans(),
)
def test_any_log_cut_into_days_equals_the_full_compression(steps, tokenizer, options, reloads):
    both = Both(TOKENIZERS[tokenizer], **options)
    for now, rows in steps:
        both.add(events(*rows), now)
        if reloads and now == steps[0][0]:
            with tempfile.TemporaryDirectory() as folder:
                both.reload(Path(folder))
    counted = TOKENIZERS[tokenizer].count([row["text"] for row in both.known.values()])
    assert counted.tolist() == [row["tokens"] for row in both.known.values()]
