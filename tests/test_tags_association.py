"""Stage 5: the log as tags, and which tag belongs to which interest."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tagging import EVENTS, NOW, TERMS, catalogue, log, phi

from recgpt import schema, tags
from recgpt.tags.association import Associations, Lexicon
from recgpt.tags.candidates import Scorer, preselect
from recgpt.tags.config import Config
from recgpt.tags.engagement import read
from recgpt.tags.sequences import collect, season

# --- the log as tags


def test_engagement_counts_clicks_purchases_and_searches_before_now():
    found = read(EVENTS, tags.item_tags(catalogue()), catalogue(), now=NOW, config=Config(half_life_days=60))
    pairs = {
        (found.users[user], found.tags[tag]): (round(float(weight), 3), float(age))
        for user, tag, weight, age in zip(found.user, found.tag, found.weight, found.age, strict=True)
    }
    assert pairs["ann", "tortilla chip"] == (0.5, 60.0)
    assert pairs["ann", "dry cat food"][1] == 3.0, "the query holds all words of the tag"
    assert ("dan", "mild salsa") not in pairs, "an event after now"
    assert found.popularity()[found.tags.index("tortilla chip")] == 3


def test_events_without_times_count_back_in_order():
    events = schema.rows(
        [
            {"user_id": "u", "item_id": item, "behavior": "purchase", "position": position}
            for position, item in enumerate(["1", "2", "3"])
        ],
        schema.EVENTS,
    )
    found = read(events, tags.item_tags(catalogue()), catalogue(), now=NOW, config=Config())
    assert {found.tags[tag]: age for tag, age in zip(found.tag, found.age, strict=True)} == {
        "mild salsa": 2.0, "tortilla chip": 1.0, "potato chip": 0.0,
    }  # fmt: skip


def test_a_category_is_out_of_season_below_half_its_mean_share():
    rows = []
    for month in range(1, 13):
        for n in range(60):
            bought = "4" if month in (6, 7, 8) and n < 40 else "8"
            rows.append(("u", bought, "purchase", (NOW - datetime(2017, month, 1 + n % 15, tzinfo=UTC)).days))
    own = tags.item_tags(catalogue())
    found = read(log(*rows), own, catalogue(), now=NOW, config=Config(min_season_sales=5))
    seasons = dict(zip(found.tags, found.in_season.tolist(), strict=True))
    # Ice: 40 of 60 sales in three months, 0 in December; mean share 1/6, so 10 sales were expected.
    assert not seasons["crushed ice"]
    assert seasons["italian bread"]
    few = [row for row in rows if row[3] < 250]
    found = read(log(*few), own, catalogue(), now=NOW, config=Config(min_season_sales=5))
    assert found.in_season.all(), "nine months are too few to judge"


def test_seasons_turn_round_in_the_south():
    assert [season(NOW.replace(month=m, day=1), "north") for m in (2, 3, 6, 9, 12)] == [
        "winter", "spring", "summer", "autumn", "winter",
    ]  # fmt: skip
    assert season(NOW, "south") == "summer"


def test_by_rule_follows_co_occurrence_and_leaves_the_past_month_out():
    table = tags.by_rule(EVENTS, tags.item_tags(catalogue()), catalogue(), now=NOW, users=["ann", "bob", "zoe"])
    assert table.schema == schema.TAGS
    assert set(table["source"].to_pylist()) == {"rule"}
    assert table["reason"].null_count == table["interest"].null_count == table.num_rows
    ann = table.filter(pc.equal(table["user_id"], "ann"))
    assert ann["rank"].to_pylist() == list(range(1, ann.num_rows + 1))
    assert not {"potato chip", "crushed ice", "dry cat food"} & set(ann["tag"].to_pylist())
    # Cid bought what bob bought, and italian bread; dan, who has cats, shares nothing with bob.
    bob = table.filter(pc.equal(table["user_id"], "bob"))["tag"].to_pylist()
    assert bob.index("italian bread") < bob.index("scoop cat litter")
    assert "zoe" in table["user_id"].to_pylist(), "a user without events gets popular tags"


def test_by_rule_ignores_the_order_of_events():
    order = np.random.default_rng(0).permutation(EVENTS.num_rows)
    own = tags.item_tags(catalogue())
    assert tags.by_rule(EVENTS.take(order), own, catalogue(), now=NOW).equals(
        tags.by_rule(EVENTS, own, catalogue(), now=NOW)
    )


def test_sequences_keep_the_latest_and_name_days():
    own = {"2": "tortilla chip", "3": "potato chip", "4": "crushed ice"}
    found = collect(EVENTS, own, ["ann", "zoe"], now=NOW, config=Config(sequence_length=1))
    assert found["ann"].purchases == [("12-13", "potato chip")]
    assert found["ann"].clicks == [("12-16", "crushed ice")]
    assert found["ann"].searches == [("12-15", "dry cat food cheap")]
    assert found["zoe"].purchases == []


# --- interests and tags


def going(interest: str, *texts: str | None, **options) -> float:
    return Associations(TERMS, phi, terms=TERMS, **options).between(interest, *texts)


@pytest.mark.parametrize(
    ("interest", "texts", "expected"),
    [
        ("cat ownership", ("dry cat food", "PETS"), 1.0),
        ("cat ownership", ("dry dog food", "PETS"), 0.0),
        ("cat ownership", ("pet need", "PETS", "SCOOP CAT LITTER"), 1.0),  # the title says it
        ("cat ownership", (None, None), 0.0),
        ("party snacks", ("tortilla chips", "SNACKS"), 1.0),  # plural forms are one word
        ("party snacks", ("chipped beef", "MEAT"), 0.0),  # whole words
        ("home baking", ("rye bread", "BAKERY"), 1.0),
        ("home baking", ("sliced white bread", "BAKERY"), 0.0),  # a staple by more words
        ("home baking", ("sliced bread", "WHITE BREAD"), 0.0),  # its shelf is a staple's by more words
    ],
)
def test_a_tag_goes_with_an_interest_whose_goods_it_names(interest, texts, expected):
    assert going(interest, *texts) == expected


def test_the_longest_phrase_says_what_a_thing_is():
    lexicon = Lexicon({"cakes": ["cake"], "light eating": ["rice cake"], "asian cooking": ["rice", "cake flour"]})
    assert lexicon.named("Rice cakes, 5 oz") == {"light eating": 2}
    assert lexicon.named("cake flour and a cake") == {"asian cooking": 2, "cakes": 1}
    assert lexicon.named(None) == lexicon.named("") == {}


def test_a_shelf_belongs_to_the_interest_that_most_of_its_engagement_names():
    shelf = [("potato chip", "SNACKS", 6.0), ("snack mix", "SNACKS", 4.0), ("rye bread", "BREAD", 1.0),
             ("bagel roll", "BREAD", 9.0), ("pita roll", "ROLLS", 9.0), ("pita bread", "ROLLS", 1.0)]  # fmt: skip
    assert going("party snacks", "snack mix", "SNACKS", shelves=shelf) == pytest.approx(0.6)
    # A tenth is enough where the shelf's name says so too, and not otherwise.
    assert going("home baking", "bagel roll", "BREAD", shelves=shelf) == 0.5
    assert going("home baking", "pita roll", "ROLLS", shelves=shelf) == 0.0
    assert going("home baking", "crushed ice", "BREAD", shelves=shelf) == 0.0, "a staple on that shelf"


def test_an_interest_without_terms_goes_by_its_words_and_by_tag_to_cate():
    class Phi:
        names = ("DIPS", "SNACKS")

        def probabilities(self, texts):
            return np.array([[0.25, 0.75] for _ in texts], np.float32)

    found = Associations(["salsa dancing", "rye bread"], Phi(), terms=TERMS)
    assert found.between("salsa dancing", "mild salsa", "DIPS") == pytest.approx(0.5 + 0.25)
    assert found.between("salsa dancing", "salsa dancing shoe", "SNACKS") == 1.0, "never above one"
    assert found.best(["rye bread", "salsa dancing"], "mild salsa", None, 0.3) == ("salsa dancing", 0.5)
    assert found.best(["rye bread", "salsa dancing"], "crushed ice", None, 0.3) == (None, 0.0)
    assert found.best([], "crushed ice", None, 0.3) == (None, 0.0)


def test_an_item_is_explained_by_what_goes_with_it_best():
    found = Associations(TERMS, phi, terms=TERMS)
    own = ["home baking", "party snacks", "cat ownership"]
    assert found.explaining(own, "bread chip", "SNACKS", None, 0.3) == ["home baking", "party snacks"]
    # The title is not asked where the tag has said something.
    assert found.explaining(own, "tortilla chip", "SNACKS", "CHIPS LIKE BREAD", 0.3) == ["party snacks"]
    assert found.explaining(own, None, "SNACKS", "CHIPS LIKE BREAD", 0.3) == ["home baking", "party snacks"]
    assert found.explaining(own, "gasoline unleaded", "FUEL", "GASOLINE", 0.3) == []
    assert found.explaining([], "bread chip", "SNACKS", None, 0.3) == []


@given(st.text(max_size=40), st.none() | st.text(max_size=20), st.none() | st.text(max_size=40))
def test_association_stands_any_text(tag, category, title):
    found = Associations(TERMS, phi, terms=TERMS)
    own = [name for name in TERMS if name]
    assert all(0.0 <= found.between(name, tag, category, title) <= 1.0 for name in own)
    assert set(found.explaining(own, tag, category, title, 0.3)) <= set(own)


def test_candidates_come_from_the_interests_in_turn_before_the_others():
    own = tags.item_tags(catalogue())
    scorer = Scorer(read(EVENTS, own, catalogue(), now=NOW, config=Config()), Config())
    found = Associations(TERMS, phi, terms=TERMS)
    interests = [["party snacks", "cat ownership"], []]
    asked = preselect(scorer, ["bob", "zoe"], interests, found, candidates=4)
    # Bob bought salsa and tortilla chips more than a month ago; each interest gives its best in turn.
    assert [tag in ("mild salsa", "tortilla chip", "potato chip") for tag in asked[0]] == [True, False, True, False]
    assert set(asked[0][1::2]) == {"dry cat food", "scoop cat litter"}
    assert len(set(asked[1])) == len(asked[1]) == 4, "without interests the best by score"
    allowed = np.array([tag != "scoop cat litter" for tag in scorer.log.tags])
    more = preselect(scorer, ["bob"], interests[:1], found, candidates=20, allowed=allowed)[0]
    assert "scoop cat litter" not in more
    assert set(more[:4]) == {"mild salsa", "tortilla chip", "potato chip", "dry cat food"}
    assert set(more) == set(scorer.log.tags) - {"scoop cat litter"}, "few from interests are filled up"
    enough = Scorer(scorer.log, Config(least_from_interests=4))
    only = preselect(enough, ["bob"], interests[:1], found, candidates=20, allowed=allowed)[0]
    assert only == more[:4], "enough from interests leave no room for others"
