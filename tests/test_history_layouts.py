"""The layout that writes items again, and the one that a new month only appends to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from recgpt import history, schema
from recgpt.llm.tokenizer import Tokenizer

BYTES = Tokenizer.bytes()
NOW = datetime(2017, 12, 18, tzinfo=UTC)
BRIEFS = schema.rows(
    [
        {"item_id": item_id, "brief": brief, "tokens": 1, "source": "rule", "category": None}
        for item_id, brief in (("1", "Tea"), ("2", "Milk"), ("3", "A teapot of white porcelain with blue flowers"))
    ],
    schema.BRIEFS,
)


def log(*rows: tuple[str, str]) -> pa.Table:
    """Make carts: item and ISO date."""
    return schema.rows(
        [
            {
                "user_id": "ann",
                "item_id": item_id,
                "behavior": "cart",
                "timestamp": datetime.fromisoformat(f"{day}T12:00+00:00"),
                "query": None,
                "position": None,
            }
            for item_id, day in rows
        ],
        schema.EVENTS,
    )


def text(events: pa.Table, *, now: datetime = NOW, **options: object) -> str:
    return history.compress(events, BRIEFS, now=now, tokenizer=BYTES, **options)["text"][0].as_py()


def test_an_item_stands_in_the_lines_of_its_buckets_where_that_is_shorter():
    both = [("1", "2017-11-02"), ("1", "2017-10-02")]
    others = [("2", "2017-11-03"), ("3", "2017-10-03")]
    assert text(log(*both, *others), layout="item-split") == (
        "17-10 (cart) | Tea, A teapot of white porcelain with blue flowers\n17-11 (cart) | Tea, Milk"
    )
    # A text that is longer than the labels stands alone, and so does one whose bucket has no other line.
    long = [("3", "2017-11-02"), ("3", "2017-10-02"), ("1", "2017-11-03"), ("2", "2017-10-03")]
    assert text(log(*long), layout="item-split") == text(log(*long), layout="item")
    assert text(log(*both, others[0]), layout="item-split") == text(log(*both, others[0]), layout="item")


def test_what_is_written_again_reads_back_as_the_same_triples():
    events = log(*((str(1 + day % 3), f"2017-{1 + day % 11:02}-0{1 + day % 7}") for day in range(200)))
    assert history.expand(text(events, layout="item-split")) == history.expand(text(events, layout="item"))


def test_a_new_month_only_appends_to_a_stable_text():
    # Every third day the long text comes back: with items that share lines across months its sets would change.
    first = datetime(2016, 3, 1, tzinfo=UTC)
    days = [first + timedelta(days=day) for day in range(600)]
    events = log(*(("312"[day % 3], f"{when:%Y-%m-%d}") for day, when in enumerate(days)))
    for year, month in ((2017, 2), (2017, 6), (2017, 9)):
        changes = datetime(year, month, 1, tzinfo=UTC)
        before = text(events, now=changes - timedelta(hours=1), stable=True).split("\n")
        after = text(events, now=changes + timedelta(hours=1), stable=True).split("\n")
        closed = [line for line in before if not line.startswith(f"{changes - timedelta(days=1):%y-%m}")]
        assert len(closed) >= 8 + month
        assert after[: len(closed)] == closed
        assert text(events, now=changes, stable=True, layout="item").split("\n")[: len(closed)] != closed
