"""Stage 4: the pool of interests, and the stated rule that matches it to histories."""

from __future__ import annotations

import math

import pytest
from mining import CAMPER, CAT, POOL, tables

from recgpt import interests
from recgpt.errors import InvalidConfigError
from recgpt.evidence import parse_rows, words

# The pool


def test_our_pool_is_wide_and_names_no_interest_twice():
    assert len(POOL.interests) >= 200
    names = [entry.name for entry in POOL.interests]
    assert len(set(map(words, names))) == len(names)
    assert len(POOL.necessities) >= 20
    for wanted in (
        "home baking",
        "camping",
        "cat ownership",
        "nursery and baby play",
        "makeup",
        "gardening",
        "video games",
    ):
        assert wanted in names


def test_grocery_types_in_capitals_match():
    rows = [parse_rows(f"r1 17-12-03 (purchase) | {item}")
            for item in ("BAKING NEEDS", "CHARCOAL AND LIGHTER FLUID", "CAT LITTER")]  # fmt: skip
    best = [POOL.interests[matches[0].index].name for matches in POOL.match(rows)]
    assert best == ["home baking", "grilling and barbecue", "cat ownership"]


def test_staples_match_nothing():
    staples = "FLUID MILK WHITE ONLY, TOILET TISSUE, EGGS - LARGE, MAINSTREAM WHITE BREAD, PAPER TOWELS"
    assert POOL.match([parse_rows(f"r1 17-12-03 (purchase) | {staples}")]) == [[]]


def test_matching_follows_the_stated_rule(tmp_path):
    path = tmp_path / "pool.tsv"
    path.write_text(
        "pool_id\tname\tkind\taudience\tterms\n"
        "tea\ttea drinking\tinterest\t\ttea\n"
        "cats\tcats\tinterest\t\tcat, cat food\n"
        "milk\tmilk\tnecessity\t\tmilk\n"
    )
    pool = interests.Pool.load(path)
    one = parse_rows("r1 17-01 (purchase) | green tea, cat food\nr2 17-02 (purchase) | green tea, black tea")
    two = parse_rows("r1 17-01 (purchase) | cat food, milk")
    # tea: 2 rows, 2 items, 1 of 2 users; cats: 1 row, 1 item, 2 of 2 users.
    tea = math.log(1 + 2 / 2) * (math.log(3) + math.log(3))
    cats = math.log(1 + 2 / 3) * (math.log(2) + math.log(2))
    first, second = pool.match([one, two])
    assert [(pool.interests[m.index].pool_id, m.rows) for m in first] == [
        ("tea", ((2, 2), (1, 1))),
        ("cats", ((1, 1),)),
    ]
    assert [m.score for m in first] == pytest.approx([tea, cats])
    assert len(second) == 1
    assert len(pool.match([one, two], most=1)[0]) == 1
    # Fixed weights make a batch of one answer as the batch of two.
    assert pool.weighted([one, two]).match([two]) == [second]


def test_a_pool_with_defects_names_them_all(tmp_path):
    path = tmp_path / "pool.tsv"
    path.write_text("pool_id\tname\tkind\taudience\tterms\na\tA\thobby\t\tx\na\tB\tinterest\tcats\t\nshort\n")
    with pytest.raises(InvalidConfigError) as error:
        interests.Pool.load(path)
    for part in ("line 2: kind", "line 3 needs", "line 3: audience", "'a' stands twice", "line 4 has 1 columns"):
        assert part in str(error.value)
    path.write_text("name\n")
    with pytest.raises(InvalidConfigError, match="must begin with the tab-separated columns"):
        interests.Pool.load(path)
    with pytest.raises(InvalidConfigError, match="no such file"):
        interests.Pool.load(tmp_path / "absent.tsv")


def test_recall_is_the_mean_share_of_planted_interests():
    truth = {"a": ["camping", "hiking"], "b": ["tea"], "c": []}
    assert interests.pool_recall({"a": ["camping"], "c": ["x"]}, truth) == pytest.approx((1 / 2 + 0) / 2)
    assert interests.pool_recall({}, {}) == 0.0
    other_words = {"a": ["coffee brewing", "knitting"], "b": ["quantum chess theory of everything"], "c": ["qqq"]}
    offered = {"a": ["coffee culture", "knitting and crochet"], "b": ["board games and card games"]}
    assert interests.pool_recall(offered, other_words, pool=POOL) == pytest.approx((1 + 1 + 0) / 3)


def test_matched_names_feed_the_recall():
    _, hist = tables(a=("", CAMPER), b=("", CAT))
    offered = interests.matched(hist)
    assert offered["b"][0] == "cat ownership"
    assert interests.pool_recall(offered, {"a": ["camping"], "b": ["cat ownership"]}) == 1.0
    assert all(len(names) <= 1 for names in interests.matched(hist, most=1).values())
