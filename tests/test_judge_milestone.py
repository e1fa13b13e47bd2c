"""Milestones: drawn where the judge is unsure, closed on labels, degraded by a stated rule, and who decides then."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import drifts
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recgpt import judge, schema
from recgpt.errors import JudgeError
from recgpt.judge import Sample, draw, milestone, people
from recgpt.judge.draw import Case
from recgpt.llm import FakeEngine

ALL = judge.load()
ON = "tags/relevance"
TAGS = ("tags/consistency", "tags/relevance")


def case(place: int, *, passed: bool = True, novel: bool = False, stratum: str = "all", weight: float = 1.0) -> Case:
    word = "Yes" if passed else "No"
    verdict = {"verdict": word, "passed": passed, "score": 0.9 if passed else 0.1, "decided_by": "llm"}
    return Case(f"s{place}", "tags", stratum, weight, novel, {ON: verdict})


def say(cases, wrong=()):
    """People who agree with the judge but in some places."""
    words = {}
    for place, one in enumerate(cases):
        passed = one.verdicts[ON]["passed"] != (place in wrong)
        words[one.sample, ON] = "Yes" if passed else "No"
    return words


# --- which outputs, and how many


@pytest.mark.slow
def test_a_stratified_draw_is_unbiased_and_narrower_than_one_at_random():
    """Over 150 draws of 100 labels from 2,000 outputs whose truth is known."""
    world, random = drifts.planted(0), np.random.default_rng(0)
    rows = drifts.outputs(world, "none", 0.0, random)
    table, _ = drifts.judged(world, rows, random)
    truth = np.array([row[3] for row in rows])
    right = np.array(table["passed"].to_pylist()) == truth
    found, plain = [], []
    for seed in range(150):
        cases, plans = draw.draw(table, most=100, half_width=0.001, seed=seed)
        assert len(cases) == plans["tags"].labels == 100
        weights = np.array([one.weight for one in cases])
        found.append(np.average(right[[int(one.sample) for one in cases]], weights=weights))
        plain.append(right[np.random.default_rng(seed).choice(len(right), 100, replace=False)].mean())
    assert abs(np.mean(found) - right.mean()) < 3 * np.std(found) / math.sqrt(150)
    assert np.std(found) < 0.92 * np.std(plain)
    assert plans["tags"].half_width < plans["tags"].half_width_at_random


def test_more_labels_go_where_the_judge_is_unsure_and_no_more_than_the_interval_needs():
    world, random = drifts.planted(0), np.random.default_rng(1)
    table, _ = drifts.judged(world, drifts.outputs(world, "none", 0.0, random), random)
    cases, _ = draw.draw(table, most=200, half_width=0.001)
    size = {name: sum(one.stratum == name for one in cases) for name in {one.stratum for one in cases}}
    assert size["tags/known 8"] > 1.5 * size["tags/known 1"]
    few, plans = draw.draw(table, most=2000, half_width=0.1)
    assert len(few) < 100
    assert plans["tags"].half_width <= 0.1
    again, _ = draw.draw(table.take(np.arange(table.num_rows)[::-1]), most=200, half_width=0.001)
    assert sorted(map(str, again)) == sorted(map(str, cases))
    rest, _ = draw.draw(table, most=200, exclude={one.sample for one in cases})
    assert not {one.sample for one in rest} & {one.sample for one in cases}


@given(
    st.dictionaries(st.sampled_from([f"{kind} {n}" for kind in ("known", "novel") for n in range(4)]),
                    st.integers(1, 60), min_size=1),
    st.integers(1, 120),
)  # fmt: skip
def test_labels_are_shared_out_whole(sizes, labels):
    counts = draw.allocate(sizes, dict.fromkeys(sizes, 0.1), labels)
    assert all(min(2, size) <= counts[name] <= size for name, size in sizes.items())
    least = sum(min(2, size) for size in sizes.values())
    assert sum(counts.values()) == max(min(labels, sum(sizes.values())), least) or "novel" in str(sizes)
    new = sum(count for name, count in counts.items() if name.startswith("novel"))
    there = sum(size for name, size in sizes.items() if name.startswith("novel"))
    assert new >= min(draw.NOVEL, min(labels, sum(sizes.values())) // 2, there)


# --- comparison


def test_figures_have_the_form_of_table_9_by_task_and_criterion():
    cases = [case(place, passed=place % 4 != 0) for place in range(80)]
    found = milestone.compare(cases, say(cases, wrong={0, 1, 2, 3}), ALL)
    assert list(found) == ["tags", ON]
    one = found[ON]
    # The judge lets 60 pass; people 58 of those and 1 of the other 20... places 0 (No) and 1, 2, 3 (Yes) are wrong.
    assert one["labels"] == 80
    assert one["passes"]["accuracy"] == pytest.approx(76 / 80)
    assert (one["precision"], one["recall"]) == (pytest.approx(57 / 60), pytest.approx(57 / 58))
    assert one["averaging"] == "of the class that passes"
    assert one["false_rejects"]["rejected"] == 1
    assert one["false_rejects_novel"] == {"passing": 0, "rejected": 0, "share": None, "interval": None}
    low, high = one["passes"]["accuracy_interval"]
    assert low < 76 / 80 < high
    assert one["passes"]["kappa_interval"][0] < one["passes"]["kappa"]
    for name in ("precision", "recall", "f1"):
        low, high = one["intervals"][name]
        assert low < one[name] <= high <= 1, name
        assert high - low < 0.2, name


def test_weights_count_what_a_label_stands_for():
    cases = [case(n, weight=9.0, stratum="sure") for n in range(10)]
    cases += [case(n, weight=1.0, stratum="unsure") for n in range(10, 20)]
    found = milestone.compare(cases, say(cases, wrong=range(10, 20)), ALL)[ON]["passes"]
    assert found["accuracy"] == pytest.approx(0.9)
    assert found["accuracy_interval"] == (pytest.approx(0.9), pytest.approx(0.9)), "drawn within the strata"
    assert found["by_class"]["passes"]["count"] == 10, "counts are of labels"


def test_levels_are_compared_by_word_too_and_explanations_are_averaged_by_size():
    verdict = {"verdict": "Good", "passed": True, "score": 0.8, "decided_by": "llm"}
    key = "explanations/factuality"
    cases = [Case(f"e{n}", "explanations", "all", 1.0, False, {key: verdict}) for n in range(10)]
    words = {(f"e{n}", key): "Excellent" if n < 4 else "Good" if n < 8 else "Bad" for n in range(10)}
    one = milestone.compare(cases, words, ALL)[key]
    assert one["words"]["accuracy"] == pytest.approx(0.4)
    assert one["passes"]["accuracy"] == pytest.approx(0.8)
    assert one["averaging"] == "weighted over both classes"
    assert one["recall"] == pytest.approx(one["passes"]["accuracy"]), "as in the paper's explanation row"
    assert one["intervals"]["recall"] == pytest.approx(one["passes"]["accuracy_interval"])
    # The judge never says "Bad": its precision is of nothing, and so is the interval.
    bad = one["words"]["by_class"]["Bad"]
    assert (bad["precision"], bad["intervals"]["precision"]) == (None, None)
    assert bad["recall"] == 0


def test_a_label_of_another_scale_is_an_error():
    with pytest.raises(JudgeError, match="is answered with Yes, No, but a label says 'Excellent'"):
        milestone.compare([case(0)], {("s0", ON): "Excellent"}, ALL)


# --- the rule


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("drift", "least"), [("behavior", 12), ("items", 12), ("criteria", 10)])
def test_a_drift_is_caught(drift, least):
    """Twelve worlds; `benches/judge.py --only drifts` has a hundred."""
    assert drifts.alarms(drift, range(12)) >= least


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_without_a_drift_there_is_hardly_an_alarm():
    assert drifts.alarms("none", range(25)) <= 1


def test_a_judge_that_turns_away_what_is_new_is_degraded_though_it_is_accurate_in_the_mean():
    old = [case(n, passed=n % 2 == 0) for n in range(200)]
    before = milestone.measure(old, say(old), ALL)
    new = [*old, *(case(1000 + n, passed=False, novel=True) for n in range(12))]
    after = milestone.measure(new, say(new, wrong=range(200, 212)), ALL)
    mean = after[ON].accuracy
    assert mean > 0.94
    fall = milestone.degraded(before, after)[0]
    assert fall.what == "false rejects of what is novel"
    assert "novel 0.00 -> 1.00" in str(fall)
    assert milestone.degraded(before, before) == []


def test_a_judge_serves_above_the_stated_accuracy_only():
    cases = [case(place, passed=place % 2 == 0) for place in range(100)]
    good = milestone.compare(cases, say(cases, wrong=range(4)), ALL)
    poor = milestone.compare(cases, say(cases, wrong=range(30)), ALL)
    assert milestone.serves(good, ALL, 0.75, {}) == {}
    assert "people decide" in milestone.serves(good, ALL, 0.75, {ON: 0.99})[ON]
    assert set(milestone.serves(poor, ALL, 0.75, {})) == {ON}


def test_when_a_milestone_is_due():
    now = datetime(2026, 3, 1, tzinfo=UTC)
    closed = {"kind": "milestone closed", "judge": "v1", "time": now - timedelta(days=10)}
    every = timedelta(days=30)
    assert milestone.due([], "v1", now=now, every=every)[0].startswith("first")
    assert milestone.due([closed], "v1", now=now, every=every) == []
    assert milestone.due([closed], "v2", now=now, every=every)[0].startswith("version")
    (late,) = milestone.due([closed], "v1", now=now + timedelta(days=30), every=every)
    assert late.startswith("overdue: the last milestone closed on 2026-02-19")
    fall = milestone.Fall(ON, "accuracy", 0.9, 0.7, 0.001)
    assert milestone.due([closed], "v1", now=now, every=every, falls=[fall]) == [
        "degraded: tags/relevance: accuracy 0.90 -> 0.70 (p = 0.001)"
    ]


# --- people


def test_most_people_decide_and_of_equally_many_the_newest():
    start = datetime(2026, 1, 1, tzinfo=UTC)
    said = [("a", "Yes"), ("b", "No"), ("c", "No"), ("a", "No"), ("b", "Yes")]
    rows = [
        {"sample": "s" if place < 3 else "t", "task": "tags", "criterion": ON, "annotator": who, "verdict": word,
         "note": "", "seconds": None, "round": 1, "source": "served", "time": start + timedelta(hours=place)}
        for place, (who, word) in enumerate(said)
    ]  # fmt: skip
    assert people.said(schema.rows(rows, schema.LABELS)) == {("s", ON): "No", ("t", ON): "Yes"}
    # Who adjudicates or writes a gold answer decides, whatever the others said and whenever.
    first = [{**rows[0], "annotator": "adjudication/cho"}, *rows[1:3], {**rows[3], "annotator": "gold"}, rows[4]]
    assert people.said(schema.rows(first, schema.LABELS)) == {("s", ON): "Yes", ("t", ON): "No"}


def test_people_decide_instead_of_the_model_and_what_it_may_not_decide_is_unscored():
    engine = FakeEngine(scorer=lambda request: [-1.0, -2.0])
    ruled = {"specificity": "", "category": "", "past_month": "", "season": ""}
    two = [Sample("tags", {"tag": name}, ruled=ruled) for name in ("tent", "stove")]
    judged = judge.judge(two, ALL, engine=engine)
    assert judged.counts["qualified"] == 2
    words = {(two[0].id, "tags/relevance"): "No", (two[0].id, "tags/consistency"): "Yes"}
    found = judge.decide(judged, words, {"tags/relevance": "too weak"}, ALL)
    rows = {(row["sample"], row["criterion"]): row for row in found.table.to_pylist()}
    assert rows[two[0].id, "relevance"]["decided_by"] == "people"
    assert rows[two[0].id, "relevance"]["reason"] == "people said No"
    assert rows[two[1].id, "relevance"]["passed"] is None
    assert rows[two[1].id, "relevance"]["reason"] == "too weak"
    assert (found.counts["people"], found.counts["llm"], found.counts["unscored"]) == (2, 1, 1)
    assert (found.counts["rule"], found.counts["qualified"]) == (8, 0)
    assert judged.pass_rates() == {"tags": 1.0}
    assert found.pass_rates() == {"tags": 0.0}
