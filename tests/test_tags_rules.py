"""Stage 5: the normalizer, and the rules one by one."""

from __future__ import annotations

import inspect
import tomllib
from importlib import import_module, resources

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagging import CATEGORY, catalogue

from recgpt import phrases, schema, tags
from recgpt.brands import Brands
from recgpt.errors import InvalidTableError
from recgpt.tags import checkers
from recgpt.tags.candidates import capped
from recgpt.tags.words import singular

# --- the normalizer


@pytest.mark.parametrize(
    ("title", "category", "brand", "expected"),
    [
        ("ICE - CRUSHED/CUBED, 22 LB, National", "FRZN ICE", "National", "crushed ice"),
        ("BREAD:ITALIAN/FRENCH", "BREAD", "Private", "italian bread"),
        ("RIBS", "PORK", None, "pork rib"),
        ("BRIE", "CHEESES", None, "brie cheese"),
        ("FRZN BREADED CHICK 20 OZ", "FROZEN", None, "frozen breaded chicken"),
        ("PNT BTR CUPS", "CANDY", None, "peanut butter cup"),
        ("PIES: SUGAR FREE (9 IN)", "PIES", None, "sugar free pie"),
        ("SET OF 12 T-LIGHTS VINTAGE DOILY", None, None, "light vintage doily"),
        ("PINK FLUFFY CHICKS IN BOX", None, None, "pink fluffy chick"),
        ("Acme garden hose X200", None, "Acme", "garden hose"),
        ("Modular smart coaster", None, None, ""),
        ("Dry Dog Value", "Dog Foods", None, "dry dog food"),
        ("Cups/Push Ups/Other", "Frozen Novelties/Wtr Ice", None, "frozen novelty cup"),
        ("Eye Center", "Makeup And Treatment", None, "eye makeup"),
        ("Frozen Brd Other", "Frozen Seafood", None, "breaded frozen seafood"),
        ("Party Everyday", "Greeting Cards/Wrap/Party Sply", None, "everyday party supply"),
        ("Kosher/Specialty", "Hot Dogs", None, "kosher hot dog"),
        ("Apples Red Delicious", "Apples", None, "apple red delicious"),
        ("Candy Bags-Non Chocolate", "Candy", None, "candy bag non chocolate"),
        ("Seafood-Fre-Non Rw-All", "Seafood-Fresh", None, "seafood fresh"),
        ("Waffles/Pancakes/French Toast", "Breakfast Foods", None, "waffle breakfast food"),
        ("Vanilla Wafer/Kids Cookies", "Cookies", None, "vanilla wafer cookie"),
        ("Garden Plus", "Salad Mix", None, "salad mix garden"),
        ("Make-Up/Wigs", "Halloween", None, "halloween makeup"),
        ("Seasonal", "Spring/Summer Seasonal", None, ""),
        ("Misc Holidays", "Christmas Seasonal", None, ""),
        ("Whole Toms", "Turkey", None, "whole tom"),
        ("4 oz", "Beauty > Eyes > Mascara", None, ""),
        ("   ", "SNACKS", None, ""),
        ("123 456", None, None, ""),
    ],
)
def test_the_normalizer_gives_modifier_and_core_word(title, category, brand, expected):
    assert tags.normalize(title, category, brand) == expected


def test_a_category_path_gives_the_core_and_shared_words_the_modifiers():
    makers = ("Orbel", "Kintra", "Vasmo", "Pelur", "Dranto")
    items = schema.rows(
        [
            {"item_id": str(n), "title": f"{maker} Washable Mascara {n} oz", "category": "Beauty > Eyes > Mascara"}
            for n, maker in enumerate(makers)
        ],
        schema.ITEMS,
    )
    assert set(tags.item_tags(items)["tag"].to_pylist()) == {"washable mascara"}


def test_a_misfiled_item_is_called_by_its_title_s_usual_shelf():
    shelves = ["Toys"] * 3 + ["Frozen Pizza"]
    items = schema.rows(
        [{"item_id": str(n), "title": "Kites", "category": shelf} for n, shelf in enumerate(shelves)], schema.ITEMS
    )
    assert set(tags.item_tags(items)["tag"].to_pylist()) == {tags.normalize("Kites", "Toys")}
    assert set(tags.item_tags(items.slice(1))["tag"].to_pylist()) > {tags.normalize("Kites", "Toys")}


def test_items_without_usable_words_get_no_row_and_order_stays():
    table = tags.item_tags(catalogue())
    assert table.schema == schema.ITEM_TAGS
    assert table["item_id"].to_pylist() == ["1", "2", "3", "4", "5", "6", "8"]
    assert table["tag"].to_pylist() == list(CATEGORY)


def test_a_table_without_titles_types_is_refused():
    with pytest.raises(InvalidTableError, match="`items` is not usable: column `item_id` is missing"):
        tags.item_tags(pa.table({"title": ["x"]}))


@given(st.text(max_size=80), st.none() | st.text(max_size=30), st.none() | st.text(max_size=10))
def test_any_title_gives_a_clean_tag_or_none(title, category, brand):
    tag = tags.normalize(title, category, brand)
    assert tag == "" or 2 <= len(tag.split()) <= 5
    assert not any(character.isdigit() or character in "<>|/\n" for character in tag)
    assert tag == tag.casefold() or not tag.isascii()


def test_singular_keeps_what_only_looks_plural():
    words = "asparagus glass bus chips boxes cookies potatoes knives this"
    assert [singular(word) for word in words.split()] == [
        "asparagus", "glass", "bus", "chip", "box", "cookie", "potato", "knife", "this",
    ]  # fmt: skip


# --- the table of rules and the checkers


def test_every_rule_names_a_checker_that_exists():
    text = (resources.files("recgpt") / "prompts" / "rules" / "tags.toml").read_text(encoding="utf-8")
    rules = tomllib.loads(text)["rule"]
    assert len({rule["id"] for rule in rules}) == len(rules) >= 15
    named = set()
    for rule in rules:
        assert set(rule) == {"id", "source", "kind", "rule", "checker"}
        if rule["checker"] != "LLM only":
            module, name = rule["checker"].split(".")
            assert callable(
                getattr(import_module("recgpt.phrases" if module == "phrases" else f"recgpt.tags.{module}"), name)
            )
            named.add(name)
    public = {name for name, _ in inspect.getmembers(checkers, inspect.isfunction) if not name.startswith("_")}
    own = {name for name in public if getattr(checkers, name).__module__ == checkers.__name__}
    assert own <= named, "a checker that no rule names"


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (checkers.specific("outdoor waterproof hiking boots", {"SHOES"}), None),
        (phrases.no_invented_claim("cook organic beans", "They bought cast iron pan"), "invented_claim"),
        (phrases.no_invented_claim("use their iron pan", "They bought cast iron pan"), None),
        (checkers.specific("boots", {"SHOES"}), "too_broad"),
        (checkers.specific("bath tissue", {"BATH TISSUES"}), "too_broad"),
        (checkers.specific("a b c d e f g", set()), "too_long"),
        (checkers.no_brand("acme garden hose", Brands(["Acme"])), "brand"),
        (checkers.no_brand("blue moon lamp", Brands(["Blue Moon"])), "brand"),
        (checkers.no_brand("blue lamp", Brands(["Blue Moon"])), None),
        (checkers.no_brand("men hane underwear", Brands(["Hanes"])), "brand"),
        (checkers.a_good("dry dog", "Dog Foods"), "no_good"),
        (checkers.a_good("kosher hot dog", "Hot Dogs"), None),
        (checkers.a_good("sugar free", None), "no_good"),
        (checkers.a_good("non carbonated juice", None), None),
        (checkers.no_model("camera d3500"), "model"),
        (checkers.no_model("mirrorless camera"), None),
        (checkers.no_vague_word("modular sofa"), "vague_word"),
        (checkers.no_vague_word("sunset poster"), None),
        (checkers.fresh("potato chips", {("chip", "potato")}), "past_month"),
        (checkers.fresh("tortilla chips", {("chip", "potato")}), None),
        (checkers.in_season("MELONS", {"MELONS"}), "out_of_season"),
        (checkers.in_season("SOUP", {"MELONS"}), None),
        (checkers.valid("SOUP", {"SOUP"}), None),
        (checkers.valid("UNICORNS", {"SOUP"}), "no_category"),
        (checkers.valid(None, {"SOUP"}), "no_category"),
        (checkers.valid("", {"SOUP"}), "no_category"),
        (checkers.valid("", frozenset()), None),
        (checkers.interest_known("Baking", ["baking"]), None),
        (checkers.interest_known(None, ["baking"]), "unknown_interest"),
        (checkers.interest_known("sailing", []), "unknown_interest"),
        (checkers.interest_known(None, []), None),
        (checkers.relevant(0.01, 0.05), "irrelevant"),
        (checkers.relevant(None, 0.05), None),
        (checkers.has_substance("serve with salsa"), None),
        (checkers.has_substance("winter"), "no_substance"),
        (checkers.has_substance("make a cake", "bought layer cake mix"), "no_substance"),
        (checkers.has_substance("make it"), "no_substance"),
        (checkers.has_substance("make salsa make salsa"), "repetition"),
        (checkers.complete("serve to friends"), None),
        (checkers.complete("serve to the"), "incomplete"),
        (checkers.grounded("They bought potato chips", ["potato chip"], ""), None),
        (checkers.grounded("They own a boat", ["potato chip"], "age 35-44"), "ungrounded"),
        (checkers.grounded("A homeowner needs it", [], "homeowner"), None),
        (checkers.no_foreign_number("bought 3 times", "salsa"), "invented_number"),
        (checkers.no_echo("grow herbs on the sill", "a plant pot to grow herbs on the sill"), "echo"),
        (checkers.no_echo("grow herbs at home", "to grow herbs on the sill"), None),
        (checkers.brief("word " * 25), "too_long"),
    ],
)
def test_checkers(verdict, expected):
    assert verdict == expected


def test_the_floor_of_categories_comes_before_rank():
    # quantity 4 over a floor of 2: two a category first, so the third A waits although it ranks higher than B.
    assert checkers.diverse(["A", "A", "A", "B", "B"], floor=2, quantity=4) == [0, 1, 3, 4]
    # The floor is met, so the rest fills by rank.
    assert checkers.diverse(["A", "A", "A", "B"], floor=2, quantity=4) == [0, 1, 2, 3]
    # One category cannot meet a floor of two: fewer is honest.
    assert checkers.diverse(["A", "A", "A"], floor=2, quantity=2) == [0]
    # No category at all: nothing to spread over.
    assert checkers.diverse(["", "", ""], floor=2, quantity=2) == [0, 1]


@given(st.lists(st.sampled_from("ABCDE"), max_size=40), st.integers(1, 5), st.integers(1, 20))
def test_the_floor_holds_wherever_it_can(categories, floor, quantity):
    places = checkers.diverse(categories, floor, quantity)
    assert places == sorted(set(places))
    assert len(places) <= quantity
    kept = {categories[place] for place in places}
    assert len(kept) >= min(floor, quantity // max(1, -(-quantity // floor)), len(set(categories)))


@given(st.lists(st.integers(0, 4), max_size=30), st.integers(1, 10), st.integers(1, 5))
def test_capped_takes_the_first_of_each_category(values, limit, cap):
    places = capped(np.array(values, np.int32), limit, cap).tolist()
    expected = [place for place in range(len(values)) if values[:place].count(values[place]) < cap][:limit]
    assert places == expected
