"""Stage 4, reasons: what a sentence says was done must have been done, and nothing comes from the interest's name."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recgpt import interests
from recgpt.evidence import parse_rows, words
from recgpt.interests import reasons
from recgpt.interests.cases import Case, Choice
from recgpt.interests.rules import reason_fault
from recgpt.llm.engine import Result

BOUGHT = {"purchase": ["dome tent", "camp stove fuel"]}
BOTH = BOUGHT | {"search": ["sleeping bag"]}
TERMS = (("tent",), ("camp",), ("sleeping", "bag"), ("beer",))


def fault(reason: str, told: dict[str, list[str]], interest: str = "camping", *, periods: int = 1) -> str | None:
    found = reason_fault(reason, told, interest, periods=periods, least_words=3, most_words=25)
    return found and found.partition(":")[0]


@pytest.mark.parametrize(
    ("reason", "told", "expected"),
    [
        ("They bought a dome tent", BOUGHT, None),
        ("They bought a dome tent and searched for a sleeping bag", BOTH, None),
        ("They bought a dome tent and a sleeping bag", BOTH, "untrue"),
        ("They searched for a dome tent", BOTH, "untrue"),
        ("They searched for a dome tent", BOUGHT, "untrue"),
        ("They redeemed a coupon for a dome tent", BOUGHT, "untrue"),
        ("They redeemed a coupon for a dome tent", {"coupon": ["dome tent"]}, None),
        ("They bought and saved a dome tent", BOUGHT | {"favorite": ["sleeping bag"]}, "untrue"),
        ("They bought and saved a dome tent", BOUGHT | {"favorite": ["dome tent"]}, None),
        ("They looked at a dome tent", {"click": ["dome tent"]}, None),
        ("They looked for a dome tent", {"search": ["dome tent"]}, None),
        ("They bought a search light", {"purchase": ["search light"]}, None),
        ("Their history holds a dome tent", {"wish": ["dome tent"]}, None),
        ("They bought a variety of tents", {"purchase": ["dome tent"]}, "untrue"),
        ("They bought a variety of camp things", BOUGHT, None),
        ("They bought a dome tent every month", BOUGHT, "untrue"),
        ("They bought the famous dome tent", BOUGHT, "new facts"),
    ],
)
def test_every_verb_is_true_of_what_follows_it(reason, told, expected):
    assert fault(reason, told) == expected


def test_a_rhythm_needs_periods():
    assert fault("They often bought a dome tent", BOUGHT, periods=2) == "untrue"
    assert fault("They often bought a dome tent", BOUGHT, periods=3) is None
    assert fault("They bought a dome tent again", BOUGHT, periods=1) == "untrue"
    assert fault("They bought a dome tent again", BOUGHT, periods=2) is None


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("They bought a craft beer", "new facts"),
        ("They bought craft beer", "new facts"),
        ("They bought beer", "length"),
        ("They bought a beer", None),
        ("They bought a beer for craft beer", None),
        ("They bought a beer for craft", "new facts"),
    ],
)
def test_a_word_of_the_interest_s_name_is_no_evidence(reason, expected):
    found = reason_fault(
        reason,
        {"purchase": ["beer"]},
        "craft beer",
        periods=1,
        least_words=4 if expected == "length" else 3,
        most_words=25,
    )
    assert (found and found.partition(":")[0]) == expected


def choice(history: str, *evidence: int) -> Choice:
    case = Case("u", "", history, tuple(parse_rows(history)), ())
    return Choice(case, "camping", None, TERMS, evidence=evidence)


def test_the_opening_verb_is_that_of_the_items_that_the_model_is_shown():
    history = "\n".join(
        [
            'r1 17-06 (search) | "sleeping bag"',
            "r2 17-09 (purchase) | Dome tent, Camp stove",
            "r3 17-10 (purchase, cart) | Tent pegs, Whole milk",
        ]
    )
    told = reasons.told(choice(history, 1, 2, 3))
    assert told == {
        "search": ["sleeping bag"],
        "purchase": ["dome tent", "camp stove", "tent pegs"],
        "cart": ["tent pegs"],
    }
    assert reasons.opening(told) == ("They bought", ["dome tent", "camp stove", "tent pegs"])
    assert reasons.opening(reasons.told(choice(history, 1))) == ("They searched for", ["sleeping bag"])
    own = "r1 17-06 (wish) | Dome tent"
    assert reasons.opening(reasons.told(choice(own, 1))) == ("Their history holds", ["dome tent"])
    redeemed = "r1 17-06 (coupon) | Dome tent"
    assert reasons.opening(reasons.told(choice(redeemed, 1))) == ("They redeemed a coupon for", ["dome tent"])
    assert reasons.periods(choice(history, 1, 3)) == 2


@pytest.mark.parametrize(
    ("item", "term", "shown"),
    [
        ("Candy - Checklane x5", "candy", "candy"),
        ("Cookies/Cones x2", "cookie", "cookies"),
        ("Tray Pack/Choc Chip Cookies 15 oz; National; Snacks #2", "cookie", "choc chip cookies"),
        ("Pails; Private; Ice Cream/Milk/Sherbts", "ice cream", "ice cream"),
        # A phrase that runs over the pieces: the name as it begins.
        ("Dry - Cat Food; National", "dry cat food", "dry"),
    ],
)
def test_a_thing_is_shown_by_the_piece_of_its_name_that_shows_the_interest(item, term, shown):
    history = f"r1 17-06 (purchase) | {item}"
    case = Case("u", "", history, tuple(parse_rows(history)), ())
    assert reasons.told(Choice(case, "any", None, [tuple(words(term))], evidence=(1,))) == {"purchase": [shown]}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (" baking mixes, baking needs, and items", "They bought baking mixes and baking needs"),
        (" pails and items", "They bought pails"),
        (" seafood, and some other items", "They bought seafood"),
        (" items", "They bought items"),
        (" a variety of items, including ice cream", "They bought ice cream"),
        (" a **bag** of chips and a few other **items**", "They bought a bag of chips"),
        (" bread and butter", "They bought bread and butter"),
    ],
)
def test_a_list_says_nothing_of_items_without_a_name(said, kept):
    assert reasons.read(Result("ok", said), "They bought") == (kept, "")


def test_a_generated_reason_is_held_against_what_its_rows_say_was_done():
    class Writer:
        name, context_tokens = "writer", 4096

        def generate(self, requests, progress=None):
            from recgpt.llm.engine import Result

            answer = (
                '{"interests": [{"id": "", "interest": "sleeping bag comfort", "stage": "long-term", '
                '"reason": "They bought a sleeping bag", "evidence": [1, 2]}]}'
            )
            return [Result("ok", answer) for _ in requests]

        def count_tokens(self, texts):
            return [len(text.split()) for text in texts]

    rows = ('r1 17-05 (search) | "sleeping bag"', 'r2 17-09 (search) | "sleeping bag"')
    history = "\n".join([*rows, "r3 17-11 (purchase) | Dome tent, Pegs, Rope"])
    users = pa.table({"user_id": ["u"], "attributes": [""]})
    hist = pa.table({"user_id": ["u"], "text": [history]})
    mined = interests.mine(users, hist, engine=Writer(), now=datetime(2017, 12, 18, tzinfo=UTC), mode="generate")
    assert mined.rejections["reason"].to_pylist() == ["reason: untrue: no cited row says bought"]


@given(
    st.text(max_size=60), st.dictionaries(st.sampled_from(["purchase", "search", "x"]), st.lists(st.text(max_size=9)))
)
def test_any_sentence_is_judged(reason, told):
    fault(reason, told)
