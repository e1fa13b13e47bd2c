"""Evidence: rows read back from a history, and citations judged against them."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recgpt.evidence import check, longest_hit, mentions, parse_rows, span, words

HISTORY = "\n".join(
    [
        "r1 16 (purchase) | Dome tent x2, Camp stove",
        'r2 17-11 (search), 17-12-03 (purchase, cart) | "sleeping bag, warm", Lantern #2',
        "r3 undated (favorite) | CAT LITTER 20 LB",
    ]
)


def test_rows_have_ids_contexts_and_items():
    first, second, third = parse_rows(HISTORY)
    assert (first.id, first.contexts, first.items) == (1, (("16", "purchase"),), ("Dome tent x2", "Camp stove"))
    assert second.contexts == (("17-11", "search"), ("17-12-03", "purchase"), ("17-12-03", "cart"))
    assert second.items == ('"sleeping bag, warm"', "Lantern #2")
    assert second.labels == ("17-11", "17-12-03")
    assert third.labels == ("undated",)


def test_rows_without_ids_are_numbered_by_line():
    rows = parse_rows("17-11 (purchase) | Tent\n17-12-01 (cart) | Stove")
    assert [row.id for row in rows] == [1, 2]
    assert rows[1].contexts == (("17-12-01", "cart"),)
    assert parse_rows("") == []


def test_mentions_count_contexts_and_times():
    first, second, _ = parse_rows(HISTORY)
    assert mentions(first, "Dome tent x2") == 2
    assert mentions(second, "Lantern #2") == 3


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("17-12-03", (date(2017, 12, 3), date(2017, 12, 3))),
        ("2016-02", (date(2016, 2, 1), date(2016, 2, 29))),
        ("17-02", (date(2017, 2, 1), date(2017, 2, 28))),
        ("98", (date(1998, 1, 1), date(1998, 12, 31))),
        ("undated", None),
        ("17-13", None),
        ("17-02-30", None),
        ("0000", None),
    ],
)
def test_a_label_covers_its_days(label, expected):
    assert span(label, now=date(2017, 12, 18)) == expected


def test_plural_and_singular_are_one_word():
    assert words("Cookies berries boxes glasses Cats") == words("cookie berry box glass cat")
    assert words("猫の砂") == ("猫", "の", "砂")


def test_the_longest_phrase_counts():
    terms = [("cat",), ("cat", "litter"), ("litter", "cat")]
    assert longest_hit("SCOOP CAT LITTER 20 LB", terms) == 2
    assert longest_hit("category", terms) == 0


def test_check_names_each_failure():
    rows = parse_rows(HISTORY)
    terms = [words("tent"), words("lantern"), words("cat litter")]
    found = check([1, 2, 9, 2], terms, rows, period=(date(2017, 1, 1), date(2017, 12, 17)))
    assert found.supported == (2,)
    assert found.failures == ((1, "outside the period"), (9, "no such row"))
    assert not found.ok
    assert check([3], [words("dog")], rows).failures == ((3, "no support"),)
    assert check([3], terms, rows, period=(date(2017, 1, 1), date(2017, 1, 2))).ok
    assert not check([], terms, rows).ok


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error_and_line_by_line(text):
    rows = parse_rows(text)
    assert len(rows) == (text.count("\n") + 1 if text else 0)
    assert [row.text for row in rows] == (text.split("\n") if text else [])
    check([row.id for row in rows], [words("tent")], rows, period=(date(2017, 1, 1), date(2017, 12, 17)))


@settings(deadline=None)
@given(st.text(max_size=80))
def test_a_text_supports_its_own_words(text):
    stems = words(text)
    assert longest_hit(text, [stems] if stems else []) == len(stems)
