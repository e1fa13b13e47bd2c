"""Brands: learnt where the catalogue has them, listed where it has not, and everyday words left alone."""

from __future__ import annotations

from importlib import resources
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recgpt import schema, tags
from recgpt.brands import Brands
from recgpt.text import listed

LISTED = Brands(listed("brands"))


def items(*rows: tuple[str, str | None, str]) -> pa.Table:
    """Rows of (title, brand, category)."""
    return schema.rows(
        [
            {"item_id": str(number), "title": title, "brand": brand, "category": category}
            for number, (title, brand, category) in enumerate(rows)
        ],
        schema.ITEMS,
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("COVERGIRL", {"covergirl"}),
        ("Men hane underwear", {"hane"}),
        ("Levi's jeans", {"levi"}),
        ("LEVIS JEANS", {"levi"}),
        ("Old Spice soap", {"old spice"}),
        ("an old spice rack", {"old spice"}),
        ("old garden spice", set()),
        ("L'Oréal lipstick", {"l'oréal"}),
        ("dove on the window, tide on the shore, gap in the fence", set()),
        ("", set()),
    ],
)
def test_listed_brands_are_found_in_any_form_and_everyday_words_are_none(text, named):
    assert LISTED.named(text) == named


def test_the_list_holds_no_word_of_our_own_texts():
    folder = resources.files("recgpt") / "prompts"
    for place in (folder, folder / "rules"):
        for file in place.iterdir():
            # The pool names a few brands as terms of interests; they are brands there too.
            if file.is_file() and file.name not in ("brands.txt", "interest_pool.tsv"):
                assert not LISTED.spans(file.read_text(encoding="utf-8")), file.name
    ambiguous = "dove tide gap gain dawn crest bounty joy glad apple shell target kraft scotch always cheer dial zest"
    assert not LISTED.spans(ambiguous)


def test_brands_of_the_catalogue_are_learnt_and_placeholders_are_not():
    known = Brands.of(
        items(("Kintra kettle", "Kintra", "K"), ("Milk", "National", "M"), ("Tea", "Private", "T")), names=()
    )
    assert known.named("kintra national private tea") == {"kintra"}


def test_a_learnt_word_that_other_brands_use_more_often_is_an_everyday_word():
    rare = [("Dove soap", "Dove", "Soap"), ("Dove bar", "Dove", "Soap"), ("Dove poster", "Kintra", "Art")]
    assert Brands.of(items(*rare), names=()).named("dove poster") == {"dove"}
    often = [*rare, ("White dove card", "Vasmo", "Cards"), ("Dove figure", "Pelur", "Art")]
    assert Brands.of(items(*often), names=()).named("dove poster") == set()
    # A shop without brands in the column teaches nothing either way.
    assert Brands.of(items(("Dove soap", None, "Soap")), names=()).named("dove soap") == set()


def test_item_tags_name_no_brand_whether_learnt_or_listed():
    table = tags.item_tags(
        items(
            ("MAYBELLINE", "National", "MAKEUP AND TREATMENT"),
            ("COVERGIRL", "National", "ICE CREAM"),
            ("REVLON, 2 OZ TUBE", "National", "COOKWARE & BAKEWARE"),
            ("AMERICAN EXPRESS GIFT CARD", "National", "GIFT CARDS"),
            ("MENS HANES UNDERWEAR", None, "APPAREL"),
            ("Vasmo garden hose", "Vasmo", "GARDEN"),
            ("Long Vasmo garden hose", "Kintra", "GARDEN"),
        )
    )
    assert table["tag"].to_pylist() == [
        "makeup treatment", "ice cream", "cookware bakeware", "gift card", "men underwear", "garden hose",
        "long garden hose",
    ]  # fmt: skip


def test_a_shop_hands_in_its_own_list():
    own = Brands(["Frostel"])
    assert tags.item_tags(items(("Frostel crushed ice", None, "ICE")), brands=own)["tag"].to_pylist() == ["crushed ice"]
    assert tags.item_tags(items(("Revlon lip gloss", None, "LIPS")), brands=own)["tag"].to_pylist() == [
        "revlon lip gloss"
    ]


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=12), max_size=4))
def test_any_text_is_left_without_its_brands(text, names):
    brands = Brands(names)
    spans = brands.spans(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    if not spans:
        assert brands.without(text) == " ".join(text.split())
