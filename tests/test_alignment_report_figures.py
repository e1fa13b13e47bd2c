"""The report's figures: AUC, intervals, the four criteria of a tag, goals, and tables whose texts strangers wrote."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hostile import attacks
from hypothesis import given
from hypothesis import strategies as st

from recgpt.alignment.report import auc, estimates
from recgpt.alignment.report.criteria import TagJudge
from recgpt.alignment.report.goals import goals
from recgpt.alignment.report.run import page
from recgpt.alignment.report.tables import examples, markdown, tables, told
from recgpt.brands import Brands
from recgpt.errors import AlignmentError
from recgpt.evaluation.planted.behind import Behind
from recgpt.tags import FirstAnswer

# AUC


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=12))
def test_auc_is_the_share_of_pairs_that_stand_right_and_equals_count_half(rows):
    right = [score for score, true in rows if true]
    wrong = [score for score, true in rows if not true]
    found = auc.auc(np.array([score for score, _ in rows], float), np.array([true for _, true in rows]))
    if not right or not wrong:
        assert math.isnan(found)
        return
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(right, wrong)]
    assert found == pytest.approx(sum(pairs) / len(pairs))


SCORES = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 2.0, 2.0]])
RIGHT = np.array([[True, False, False], [False, False, True], [False, True, False]])


def test_crossed_reads_truths_by_row_and_scores_by_column():
    areas = auc.crossed(SCORES, RIGHT, np.ones((3, 3), bool))
    assert areas.tolist() == [[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.5, 0.5, 0.5]]
    counted = np.array([[True, True, False], [False, True, False], [True, True, True]])
    some = auc.crossed(SCORES, RIGHT, counted)
    assert some[0].tolist() == [1.0, 0.0, 0.5]
    assert np.isnan(some[1]).all(), "its only good is not counted"


def test_another_s_history_is_the_mean_of_all_others_and_differences_are_paired():
    areas = auc.crossed(SCORES, RIGHT, np.ones((3, 3), bool))
    found = auc.compare(areas, np.array([0.5, 0.75, 1.0]))
    assert found.own["value"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found.other["value"] == pytest.approx((0.25 + 0.25 + 0.5) / 3)
    assert found.own_minus_other["value"] == pytest.approx(0.5)
    assert found.own_minus_popularity["value"] == pytest.approx((0.5 + 0.25 - 0.5) / 3)
    assert found.popularity["value"] == pytest.approx(0.75)
    assert {one["n"] for one in found} == {3}
    assert all(one["low"] <= one["value"] <= one["high"] for one in found)


def test_the_bootstrap_draws_a_household_s_truth_and_its_scores_together():
    """Against the plain way: a list of drawn households, each judged under all drawn others."""
    random = np.random.default_rng(3)
    areas = random.random((6, 6))
    times = random.multinomial(6, np.full(6, 1 / 6), size=50).astype(float)
    plainly = []
    for row in times.astype(int):
        drawn = np.repeat(np.arange(6), row)
        means = [np.mean([areas[u, v] for v in drawn if v != u]) for u in drawn]
        plainly.append(np.mean(means))
    assert auc._others(areas, np.diagonal(areas), times) == pytest.approx(np.array(plainly))


def test_households_without_a_truth_leave_both_sides_and_one_alone_is_refused():
    areas = auc.crossed(SCORES, np.array([[True, False, False], [False, False, True], [False, False, False]]),
                        np.ones((3, 3), bool))  # fmt: skip
    assert auc.compare(areas, np.full(3, 0.5)).own == {"value": 1.0, "low": pytest.approx(0.1581, abs=1e-4),
                                                       "high": 1.0, "n": 2}  # fmt: skip
    with pytest.raises(AlignmentError, match="1 of 3 households bought something that can be ranked"):
        auc.compare(auc.crossed(SCORES, np.array([[True, False, False]] + [[False] * 3] * 2), np.ones((3, 3), bool)),
                    np.full(3, 0.5))  # fmt: skip


# estimates


def test_a_share_divides_sums_and_its_interval_is_by_users():
    found = estimates.share([3, 1, 0], [4, 4, 0])
    assert (found["value"], found["hits"], found["of"], found["n"]) == (0.5, 4, 8, 2)
    alone = estimates.share([1], [2])
    assert (alone["low"], alone["high"]) == (None, None)


@pytest.mark.parametrize(("values", "ends"), [([0, 0, 0, 0], (0.0, 0.6024)), ([1, 1, 1, 1], (0.3976, 1.0))])
def test_where_all_agree_the_interval_is_the_exact_one(values, ends):
    """Clopper and Pearson: 1 - .025 ** (1 / 4) = .6024."""
    for found in (estimates.mean(values), estimates.share(values, [1] * 4)):
        assert (found["low"], found["high"]) == (pytest.approx(ends[0], abs=1e-4), pytest.approx(ends[1], abs=1e-4))
    assert estimates.mean(values, share=False)["low"] == values[0], "a difference of none is no share"


def test_nobody_has_no_figure():
    assert estimates.mean([math.nan]) == {"value": None, "low": None, "high": None, "n": 0}
    assert estimates.share([], [])["value"] is None


# the four criteria of a tag

TRUTH = {
    "items": pa.table(
        {
            "item_id": ["1", "2", "3"],
            "ware": ["dome tent", "cat litter", "white bread"],
            "theme": ["camping", "cat ownership", "staples"],
        }
    )
}
JUDGE = TagJudge(
    TRUTH,
    {"ann": Behind(planted={"camping": "long-term"})},
    pa.table({"item_id": ["1", "2", "3"], "tag": ["camping dome tent", "scoop cat litter", "sliced bread"]}),
    frozenset({"OUTDOOR", "PETS", "BAKERY"}),
    Brands(["Acme"]),
    {"tents": "camping"}.get,
)


@pytest.mark.parametrize(
    ("tag", "interest", "fault", "broken"),
    [
        ("camping dome tent", "camping", "", set()),
        ("camping dome tent", "tents", "", set()),
        ("camping dome tent", None, "", set()),
        ("light dome tent", "camping", "", set()),
        ("camping dome tent", "camping", "no_substance", {"consistency"}),
        ("scoop cat litter", "camping", "", {"relevance"}),
        ("scoop cat litter", "cat ownership", "", {"consistency"}),
        ("sliced bread", None, "", {"relevance", "consistency"}),
        ("acme dome tent", "camping", "", {"specificity"}),
        ("tent", "camping", "", {"relevance", "specificity", "validity"}),
        ("edible umbrella", "camping", "", {"relevance", "validity"}),
    ],
)
def test_a_tag_is_held_against_the_truth_and_the_stage_s_rules(tag, interest, fault, broken):
    (found,) = JUDGE.passes([FirstAnswer("ann", tag, interest, "OUTDOOR", "They bought a tent.", fault)])
    assert {name for name, passed in found.items() if not passed} == broken


# goals


F1, HALLUCINATED = "interest F1, as the rules kept", "hallucinated interests, as the rules kept"


def _estimate(value: float, low: float, high: float, n: int = 240) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


@pytest.mark.parametrize(
    ("part", "figures", "goal", "met", "sure"),
    [
        ("interests", {"kept": {"f1": _estimate(0.93, 0.91, 0.95, 40)}}, F1, True, True),
        ("interests", {"kept": {"f1": _estimate(0.90, 0.85, 0.95, 40)}}, F1, True, False),
        ("interests", {"kept": {"f1": _estimate(0.89, 0.85, 0.95, 40)}}, F1, False, False),
        ("interests", {"kept": {"hallucination": _estimate(0.02, 0, 0.1)}}, HALLUCINATED, False, False),
        ("interests", {"kept": {"hallucination": _estimate(0.01, 0, 0.019, 40)}}, HALLUCINATED, True, True),
        ("next", {"hr": {"all": {"difference": _estimate(0.0, -0.1, 0.1)}}}, "HR@30 above popularity", False, False),
        ("next", {"hr": {"all": {"difference": _estimate(0.1, 0.01, 0.2)}}}, "HR@30 above popularity", True, True),
        ("next", {"hr": {"all": {"difference": _estimate(0.1, 0, 0.2, 199)}}}, "HR@30 above popularity", None, False),
    ],
)  # fmt: skip
def test_a_goal_is_met_by_the_figure_and_surely_by_its_interval(part, figures, goal, met, sure):
    by_name = {one["goal"]: one for one in goals({part: {"aligned": figures}})}
    assert (by_name[goal]["met"], by_name[goal]["sure"]) == (met, sure)
    assert all(one["met"] is None for name, one in by_name.items() if name != goal), "the others were not measured"


def test_the_base_alone_meets_no_goal():
    found = goals({"interests": {"base": {"kept": {"f1": _estimate(1, 1, 1)}}}})
    assert all(one["met"] is None and one["reached"] is None for one in found)


# tables

SHARE = _estimate(0.5, 0.25, 0.75, 4) | {"hits": 2, "of": 4}
FOUND: dict[str, Any] = {
    "about": {
        "log": "shop",
        "now": "2017-12-18",
        "world": {"seed": 0, "shoppers": 4},
        "engine": "fake",
        "adapters": {},
    },
    "left_out": {},
    "goals": goals({}),
    "parts": {
        "explanations": {
            "base": dict.fromkeys(("all", "relevance", "factuality", "clarity", "safety"), SHARE),
        },
    },
    "examples": [],
    "incremental": {
        "bench": "incremental",
        "hr30": {
            "hits": {
                "without": 0.25,
                "with": 0.2675,
                "points": 1.75,
                "interval": [0.5, 3.0],
                "households": 80,
                "baskets": 1420,
            }
        },
    },
    "judge": {
        "explanations": {"aligned": {"accuracy": 0.75, "precision": None, "recall": 1.0, "f1": 0.5, "n": 1200}},
        "tags": {"base": dict.fromkeys(("accuracy", "precision", "recall", "f1"), SHARE) | {"n": 30}},
    },
}


def test_tables_have_the_paper_s_form_and_its_figures_beside_ours():
    made = {table.title.partition(":")[0]: table for table in tables(FOUND)}
    assert list(made) == ["Table 7", "Table 5", "Table 9"]
    assert made["Table 7"].rows[0] == ("base", *["50.0 % [25.0, 75.0]"] * 5, "4")
    assert ("paper: Qwen3-SFT", "95.8 %", "-", "-", "-", "-", "-") in made["Table 7"].rows
    assert made["Table 5"].rows == [
        ("all", "0.2500", "0.2675", "+1.75 points [+0.50, +3.00]", "80 households, 1,420 baskets"),
        ("paper: TBStars-SFT", "0.3671", "0.3776", "+1.05 points", "-"),
    ]
    assert ("Item Tag Prediction", "base", *[".500 [.250, .750]"] * 4, "30") in made["Table 9"].rows
    assert ("Explanation Generation", "aligned", ".750", "-", "1.000", ".500", "1,200") in made["Table 9"].rows
    assert all(len(row) == len(table.columns) for table in made.values() for row in table.rows)


def test_an_unknown_figure_is_a_dash():
    assert told(None) == told({"value": None, "low": None, "high": None, "n": 0}) == "-"


def test_what_strangers_and_models_wrote_stays_text_on_the_page_and_in_markdown():
    said = dict.fromkeys(("written", "interest", "tag", "text"), "")
    for attack in [*attacks()[::7], "<script>alert(1)</script>", "| a | b |\n\n# head\n[x](javascript:y) `c`"]:
        told_ = [{"user": attack, "models": {"base": said | {"text": attack}, "aligned": said | {"tag": attack}}}]
        shown = page(FOUND | {"examples": told_, "left_out": {"tags": attack}}, tables(FOUND))
        assert "<script" not in shown
        assert shown.count("<table") == len(tables(FOUND)) + 1
        text = examples(told_)
        assert not re.search(r"(?<!\\)[<>`\[]", text)
        assert text.startswith("# Base and aligned, side by side\n")
        cells = [line for line in text.split("\n") if line.startswith("|")]
        assert len(cells) == 6, "a row for each kind, and two of the head"
        assert all(len(line.replace("\\|", "").split("|")) == 5 for line in cells)


def test_markdown_tables_are_whole():
    text = markdown(tables(FOUND))
    assert text.count("\n## ") + text.startswith("## ") == 3
    assert "| base | 50.0 % \\[25.0, 75.0] |" in text
