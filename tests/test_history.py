"""Stage 3: briefs, lines, budget and calendar, with texts worked out by hand."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recgpt import errors, history, schema
from recgpt.history.days import local_days
from recgpt.llm.engine import Result
from recgpt.llm.tokenizer import Tokenizer

BYTES = Tokenizer.bytes()
NOW = datetime(2017, 12, 20, 12, tzinfo=UTC)


def items(**columns: list) -> pa.Table:
    return pa.table({"item_id": [str(row + 1) for row in range(len(next(iter(columns.values()))))], **columns})


def events(*rows: tuple) -> pa.Table:
    """Rows of (user, item or None, behavior, ISO time or None[, query])."""
    return schema.rows(
        [
            {
                "user_id": user,
                "item_id": item,
                "behavior": behavior,
                "timestamp": datetime.fromisoformat(when).replace(tzinfo=UTC) if when else None,
                "query": rest[0] if rest else None,
                "position": rest[1] if len(rest) > 1 else None,
            }
            for user, item, behavior, when, *rest in rows
        ],
        schema.EVENTS,
    )


BRIEFS = history.brief(
    items(title=["Tea", "Milk", "Teapot", "Tea"], category=["Drinks", "Dairy", "Kitchen", "Drinks"]),
    tokenizer=BYTES,
    config=history.BriefConfig(max_chars=8),
)
LOG = events(
    ("ann", "1", "purchase", "2017-12-18"),
    ("ann", "3", "purchase", "2017-12-18"),
    ("ann", "1", "cart", "2017-12-18"),
    ("ann", "3", "cart", "2017-12-18"),
    ("ann", None, "search", "2017-12-17", 'oat "milk", 1l'),
    ("ann", "1", "purchase", "2017-11-02"),
    ("ann", "2", "purchase", "2017-11-03"),
    ("ann", "2", "purchase", "2016-05-03"),
    ("bob", "4", "favorite", "2017-12-19"),
)


def texts(log: pa.Table = LOG, **options) -> dict[str, str]:
    table = history.compress(log, BRIEFS, **({"now": NOW, "tokenizer": BYTES} | options))
    assert table["tokens"].to_pylist() == BYTES.count(table["text"].to_pylist()).tolist()
    assert table.schema == schema.HISTORY
    return dict(zip(table["user_id"].to_pylist(), table["text"].to_pylist(), strict=True))


class TestBrief:
    def test_title_then_what_brand_category_and_attributes_add(self):
        shop = items(
            title=["Whole milk, 1,000 ml", "Pencil #2", 'Shirt | "Basic" x3'],
            brand=["Acme", "Acme", "Basic"],
            category=["Milks", "Pens", "Shirts"],
            attributes=["organic; fat 3.5 %", None, "cotton"],
        )
        assert history.brief(shop, tokenizer=BYTES)["brief"].to_pylist() == [
            "Whole milk 1000 ml; Acme; organic",
            "Pencil no. 2; Acme; Pens",
            "Shirt Basic ×3; cotton",
        ]

    def test_no_brief_is_empty(self):
        shop = items(
            title=[None, "", " - ", "\u202e"], category=["Dairy", None, None, None], brand=[None, "Acme", None, None]
        )
        briefs = history.brief(shop, tokenizer=BYTES)
        assert briefs["brief"].to_pylist() == ["Dairy", "Acme", "item 3", "item 4"]
        assert briefs["tokens"].to_pylist() == [5, 4, 6, 6]
        assert briefs["category"].to_pylist() == ["Dairy", None, None, None]

    def test_long_titles_are_cut_between_words(self):
        briefs = history.brief(items(title=["one two three " * 20, "x" * 500]), tokenizer=BYTES)
        first, second = briefs["brief"].to_pylist()
        assert first.endswith("one two") or first.endswith("three") or first.endswith("one")
        assert len(first) <= 80
        assert second == "x" * 80

    @given(st.text(max_size=120), st.text(max_size=30))
    def test_any_title_gives_a_brief_that_can_be_read_back(self, title, brand):
        brief = history.brief(items(title=[title], brand=[brand]), tokenizer=BYTES)["brief"][0].as_py()
        assert brief
        assert history.plain(brief) == brief
        assert history.expand(f"17 (cart) | {brief}, Tea #2") == {("17", "cart", brief), ("17", "cart", "Tea #2")}

    def test_the_engines_briefs_are_used_where_they_are_usable(self):
        answers = {"Tea": "Green tea", "Milk": "Milk, whole", "Pot": "x" * 90, "Cup": "Cup"}

        class Engine:
            calls = 0

            def generate(self, requests, progress=None):
                self.calls += len(requests)
                results = []
                for request in requests:
                    title = re.search(r"title: (\w+)", request.prompt.user).group(1)
                    results.append(Result("unscored" if title == "Cup" else "ok", answers[title]))
                return results

        engine = Engine()
        shop = items(title=["Tea", "Milk", "Pot", "Cup", "Tea", None])
        briefs = history.brief(shop, tokenizer=BYTES, engine=engine)
        assert briefs["brief"].to_pylist() == ["Green tea", "Milk", "Pot", "Cup", "Green tea", "item 6"]
        assert briefs["source"].to_pylist() == ["generate", "rule", "rule", "rule", "generate", "rule"]
        assert engine.calls == 4

    def test_an_item_twice_is_named(self):
        with pytest.raises(errors.InvalidTableError, match="item '1' comes more than once"):
            history.brief(pa.table({"item_id": ["1", "1"]}), tokenizer=BYTES)


class TestLines:
    def test_sequence(self):
        assert texts(layout="sequence", row_ids=True) == {
            "ann": "r1 16 (purchase) | Milk\n"
            "r2 17-11 (purchase) | Milk, Tea\n"
            'r3 17-12-17 (search) | "oat milk 1l"\n'
            "r4 17-12-18 (purchase, cart) | Tea, Teapot",
            "bob": "r1 17-12-19 (favorite) | Tea",
        }

    def test_item(self):
        assert texts(layout="item", long_labels=True)["ann"] == (
            "2016 (purchase), 2017-11 (purchase) | Milk\n"
            "2017-11 (purchase), 2017-12-18 (purchase, cart) | Tea\n"
            '2017-12-17 (search) | "oat milk 1l"\n'
            "2017-12-18 (purchase, cart) | Teapot"
        )

    def test_item_by_bucket(self):
        assert texts(layout="item-by-bucket")["ann"].split("\n")[1:] == [
            "17-11 (purchase) | Milk, Tea",
            '17-12-17 (search) | "oat milk 1l"',
            "17-12-18 (purchase, cart) | Tea, Teapot",
        ]

    def test_cheapest_is_the_shortest_and_ties_go_to_the_first(self):
        table = history.compress(LOG, BRIEFS, now=NOW, tokenizer=BYTES)
        lengths = {layout: len(texts(layout=layout)["ann"]) for layout in history.LAYOUTS}
        assert table["tokens"][0].as_py() == min(lengths.values())
        assert table["receipt"][0].as_py()["layout"] == min(history.LAYOUTS, key=lengths.__getitem__)
        assert table["receipt"][1].as_py()["layout"] == "sequence"

    def test_items_that_share_a_brief_are_numbered_in_the_order_of_meeting(self):
        log = events(("ann", "4", "cart", "2017-12-01"), ("ann", "1", "cart", "2017-12-02"))
        assert texts(log, layout="item")["ann"] == "17-12-01 (cart) | Tea\n17-12-02 (cart) | Tea #2"

    def test_counts_on_request(self):
        log = events(
            *[("ann", "1", "cart", f"2017-12-01T0{hour}") for hour in (1, 2, 3)], ("ann", "2", "cart", "2017-12-01")
        )
        assert texts(log)["ann"] == "17-12-01 (cart) | Milk, Tea"
        assert texts(log, counts=True)["ann"] == "17-12-01 (cart) | Milk, Tea x3"
        assert history.expand("17-12-01 (cart) | Milk, Tea x3") == history.expand("17-12-01 (cart) | Milk, Tea")

    def test_a_log_of_positions_is_one_undated_bucket_in_order(self):
        log = events(
            *[("ann", item, "review_read", None, None, place) for item, place in (("3", 2), ("1", 1), ("2", 3))]
        )
        assert texts(log)["ann"] == "undated (review_read) | Tea, Teapot, Milk"

    def test_an_event_without_item_and_query_is_a_dash(self):
        log = events(("ann", None, "coupon", "2017-12-01"), ("ann", None, "search", "2017-12-01", " , "))
        assert texts(log)["ann"] == "17-12-01 (search, coupon) | -"

    def test_what_happens_at_now_or_later_is_not_seen(self):
        log = events(("ann", "1", "cart", "2017-12-20T11:59:59.999999"), ("ann", "2", "cart", "2017-12-20T12:00:00"))
        assert texts(log)["ann"] == "17-12-20 (cart) | Tea"

    def test_an_item_without_a_brief_is_named_by_its_id_and_counted(self):
        table = history.compress(events(("a", "x,9", "cart", "2017-12-01")), BRIEFS, now=NOW, tokenizer=BYTES)
        assert table["text"].to_pylist() == ["17-12-01 (cart) | item x 9"]
        assert table.schema.metadata == {b"recgpt.missing_briefs": b"1"}

    def test_briefs_of_others_are_made_plain(self):
        table = schema.rows([{"item_id": "1", "brief": 'Tea | "hot", x2', "tokens": 1}], schema.BRIEFS)
        got = history.compress(events(("a", "1", "cart", "2017-12-01")), table, now=NOW, tokenizer=BYTES)
        assert history.expand(got["text"][0].as_py()) == {("17-12-01", "cart", "Tea hot ×2")}

    def test_raw_tokens_are_one_line_an_event(self):
        receipt = history.compress(LOG, BRIEFS, now=NOW, tokenizer=BYTES)["receipt"][1].as_py()
        assert receipt["tokens_in"] == len("2017-12-19 (favorite) | Tea")


class TestBudget:
    def receipt(self, budget: int) -> tuple[str, dict]:
        row = history.compress(LOG, BRIEFS, now=NOW, tokenizer=BYTES, layout="item", budget=budget).to_pylist()[0]
        return row["text"], row["receipt"]

    def test_the_rungs_by_hand(self):
        whole = len(texts(layout="item")["ann"])
        assert self.receipt(whole)[1]["full"] == 8
        # The oldest day, 17-12-17, has become its month, which saves three bytes.
        text, receipt = self.receipt(whole - 3)
        assert "17-12 (search)" in text
        assert (receipt["full"], receipt["coarsened"]) == (7, 1)
        text, receipt = self.receipt(25)
        assert receipt["dropped"] > 0
        assert len(text) <= 25
        assert self.receipt(0)[0] == ""
        assert self.receipt(0)[1]["dropped"] == 8

    def test_items_fold_into_category_counts(self):
        log = events(*[("a", str(row), "cart", f"2017-{row % 3 + 1:02}-01") for row in range(12)])
        briefs = schema.rows(
            [{"item_id": str(row), "brief": f"Cheese number {row}", "tokens": 1} for row in range(12)], schema.BRIEFS
        )
        wanted = {str(row): "Dairy" for row in range(12)}
        options = {"now": NOW, "tokenizer": BYTES, "categories": wanted}
        got = history.compress(log, briefs, budget=80, **options).to_pylist()[0]
        assert got["text"] == "17-01 (cart), 17-02 (cart), 17-03 (cart) | Dairy x4"
        assert got["receipt"]["folded"] == 12
        # No month folds into its year while it is one of the last three: the oldest is dropped.
        cut = history.compress(log, briefs, budget=50, **options)
        assert cut["text"].to_pylist() == ["17-02 (cart), 17-03 (cart) | Dairy x4"]
        assert cut["receipt"][0]["dropped"].as_py() == 4
        table = pa.table({"item_id": list(wanted), "category": list(wanted.values())})
        assert history.compress(log, briefs, budget=50, **options | {"categories": table}) == cut

    def test_rare_behaviors_become_other(self):
        log = events(
            *[("a", str(row), "purchase", "2015-01-01") for row in range(5)],
            ("a", "9", "detail_view", "2015-01-01"),
            ("a", "9", "review_read", "2015-01-01"),
        )
        whole = texts(log)["a"]
        assert "(detail_view, review_read) | item 9" in whole
        cut = texts(log, budget=len(whole) - 1)["a"]
        assert "(other) | item 9" in cut


class TestCalendar:
    ZONES = (
        *(
            "UTC",
            "Europe/Berlin",
            "Europe/London",
            "Europe/Dublin",
            "Europe/Moscow",
            "Africa/Cairo",
            "Africa/Casablanca",
        ),
        *(
            "America/New_York",
            "America/Sao_Paulo",
            "America/Caracas",
            "America/St_Johns",
            "America/Nuuk",
            "Asia/Kolkata",
        ),
        *("Asia/Kathmandu", "Asia/Tehran", "Asia/Pyongyang", "Australia/Lord_Howe", "Pacific/Apia"),
        *("Pacific/Kiritimati", "Antarctica/Troll"),
    )

    @pytest.mark.parametrize("name", ZONES)
    def test_local_days_at_every_midnight_and_change_are_pythons(self, name):
        zone = ZoneInfo(name)
        moments = []
        day = datetime(2000, 1, 1, tzinfo=UTC)
        before = day.astimezone(zone).utcoffset()
        while day.year < 2040:
            day += timedelta(days=1)
            after = day.astimezone(zone).utcoffset()
            if after != before:
                moments += [day - timedelta(minutes=5) * step for step in range(289)]
                midnight = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
                moments += [midnight + timedelta(microseconds=step) for step in (-1, 0, 1)]
            before = after
        moments += [
            datetime(2024, 2, 29, 23, 59, 59, 999_999, zone).astimezone(UTC),
            datetime(2024, 3, 1, tzinfo=zone).astimezone(UTC),
        ]
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        seconds = np.array([(moment - epoch) // timedelta(seconds=1) for moment in moments], np.int64)
        want = [(moment.astimezone(zone).date() - epoch.date()).days for moment in moments]
        assert local_days(seconds, zone).tolist() == want

    @settings(deadline=None)
    @given(st.lists(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 29)), min_size=1), st.sampled_from(ZONES))
    def test_local_days_anywhere_are_pythons(self, naive, name):
        zone, epoch = ZoneInfo(name), datetime(1970, 1, 1, tzinfo=UTC)
        moments = [moment.replace(tzinfo=UTC) for moment in naive]
        seconds = np.array([(moment - epoch) // timedelta(seconds=1) for moment in moments], np.int64)
        want = [(moment.astimezone(zone).date() - epoch.date()).days for moment in moments]
        assert local_days(seconds, zone).tolist() == want

    def test_a_day_begins_in_the_shops_zone(self):
        log = events(("ann", "1", "cart", "2017-12-01T04:59:59.999999"), ("ann", "2", "cart", "2017-12-01T05:00:00"))
        assert texts(log, time_zone="America/New_York")["ann"] == "17-11-30 (cart) | Tea\n17-12-01 (cart) | Milk"

    def test_the_edges_of_the_range(self):
        late = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
        log = events(("ann", "1", "cart", "9870-01-01"), ("ann", "2", "cart", "9999-12-31T23:59:59.999998"))
        assert texts(log, now=late)["ann"] == "9870 (cart) | Tea\n9999-12-31 (cart) | Milk"
        early = events(("ann", "1", "cart", "1970-01-01"))
        assert texts(early)["ann"] == "1970 (cart) | Tea"
        with pytest.raises(errors.TimestampRangeError, match="136 years before now"):
            texts(early, now=late)


def raw(value: int) -> pa.Table:
    return events(("a", "1", "cart", "2017-12-01")).set_column(3, "timestamp", pa.array([value]).cast(schema.TIMESTAMP))


def run(log: pa.Table = LOG, briefs: pa.Table = BRIEFS, **options):
    return lambda: history.compress(log, briefs, **({"now": NOW, "tokenizer": BYTES} | options))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (run(raw(-1)), errors.TimestampRangeError, "years 1970 to 9999, but row 0 is -1"),
        (run(raw(253_402_300_800_000_000)), errors.TimestampRangeError, "check the unit"),
        (run(raw(2**63 - 1)), errors.TimestampRangeError, "years 1970 to 9999"),
        (run(LOG.slice(0, 0)), errors.EmptyLogError, "it has 0 rows"),
        (run(now=datetime(2001, 1, 1, tzinfo=UTC)), errors.EmptyLogError, "all 9 lie at or after it"),
        (run(now=datetime(2017, 1, 1)), errors.NaiveTimestampError, "`now` must carry a time zone"),
        (run(now="2017-12-31"), errors.InvalidConfigError, "`now` must be a datetime .* but it is '2017-12-31'"),
        (
            run(now=datetime(9999, 12, 31, 23, tzinfo=UTC), time_zone="Asia/Tokyo"),
            errors.TimestampRangeError,
            "years 1 to 9999 in Asia/Tokyo",
        ),
        (run(time_zone=None), errors.InvalidConfigError, "IANA name such as Europe/Berlin, but it is None"),
        (run(keep="cart"), errors.InvalidConfigError, "a list of behaviors, but it is the text 'cart'"),
        (run(tokenizer=None), errors.InvalidConfigError, "must be a recgpt.llm.Tokenizer, but it is None"),
        (
            run(LOG.set_column(3, "timestamp", LOG["timestamp"].cast(pa.timestamp("us")))),
            errors.NaiveTimestampError,
            "`kept.timestamp` must carry a time zone",
        ),
        (
            run(budget=-1),
            errors.InvalidConfigError,
            "`budget` must be None or a whole number from 0 to 18446744073709551615, but it is -1",
        ),
        (run(budget=1.5), errors.InvalidConfigError, "`budget`"),
        (
            run(threads=0),
            errors.InvalidConfigError,
            "`threads` must be None or a whole number from 1 to 1024, but it is 0",
        ),
        (run(layout="shortest"), errors.InvalidConfigError, "one of sequence, item, .*cheapest, but it is 'shortest'"),
        (run(time_zone="Mars/Base"), errors.InvalidConfigError, "IANA name such as Europe/Berlin"),
        (run(time_zone="../etc/passwd"), errors.InvalidConfigError, "IANA name"),
        (
            run(briefs=pa.concat_tables([BRIEFS, BRIEFS])),
            errors.InvalidTableError,
            "one row an item, but item '1' has 2",
        ),
        (run(events(("a", "1", "add (cart)", "2017-12-01"))), errors.InvalidTableError, "behavior 'add \\(cart\\)'"),
        (run(LOG.drop_columns(["user_id"])), errors.InvalidTableError, "column `user_id` is missing"),
        (lambda: history.BriefConfig(max_chars=3), errors.InvalidConfigError, "must be at least 8"),
        (
            lambda: history.BriefConfig(parts=("color",)),
            errors.InvalidConfigError,
            "`parts` may name brand, .*names color",
        ),
    ],
)
def test_bad_input_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()
