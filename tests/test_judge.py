"""The judge: criteria as data, verdicts by rules and by a scripted engine, and hostile samples that change no form."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recgpt import judge, schema
from recgpt.errors import PromptError
from recgpt.judge import Sample, criteria
from recgpt.judge.judging import probabilities
from recgpt.llm import FakeEngine
from recgpt.llm.engine import ScoreResult

ALL = judge.load()
MINE = """
source = "our own"
version = 1
scale = ["Yes", "No"]
passes = ["Yes"]
decided_by = "llm"
question = "Is it vegan?"
[[positive]]
text = "oat milk"
why = "a plant"
[[negative]]
text = "cheese"
why = "of an animal"
"""


def tag(text: str = "dome tent", **ruled: str) -> Sample:
    return Sample("tags", {"shopper": "32, Oslo", "interest": "camping", "tag": text}, user_id="u", ruled=ruled)


def test_every_criterion_of_the_three_tables_is_there():
    assert {one.task for one in ALL.values()} == set(judge.TASKS)
    assert {"interests/willingness", "interests/correlation", "interests/evidence"} <= ALL.keys()
    assert {f"tags/{name}" for name in ("relevance", "consistency", "specificity", "validity")} <= ALL.keys()
    assert {f"explanations/{name}" for name in ("relevance", "factuality", "clarity", "safety")} <= ALL.keys()
    assert {(one.task, one.rule) for one in ALL.values() if one.rule} == {
        (task, rule) for task, rules in criteria.RULES.items() for rule in rules
    }
    assert [one.key for one in ALL.values() if one.levels] == [
        "interests/correlation", "explanations/clarity", "explanations/factuality",
    ]  # fmt: skip


def test_a_shop_adds_or_replaces_a_criterion_with_one_file(tmp_path):
    (tmp_path / "tags").mkdir()
    (tmp_path / "tags" / "vegan.toml").write_text(MINE)
    (tmp_path / "tags" / "relevance.toml").write_text(MINE.replace("vegan", "edible"))
    found = judge.load(tmp_path)
    assert found.keys() - ALL.keys() == {"tags/vegan"}
    assert found["tags/relevance"].question == "Is it edible?"
    assert found["tags/relevance"].digest != ALL["tags/relevance"].digest


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('scale = ["Yes", "No"]', 'scale = ["Yes"]', "two or more different verdicts"),
        ('passes = ["Yes"]', 'passes = ["No"]', "must be the best verdicts of the scale"),
        ('passes = ["Yes"]', 'passes = ["Yes", "No"]', "not all"),
        ('passes = ["Yes"]', 'passes = "Yes"', "must be a list of words"),
        ('decided_by = "llm"', 'decided_by = "rule:luck"', "decided_by is llm or rule:NAME"),
        ('decided_by = "llm"', 'decided_by = "rule:length"', "season, specificity for tags, not 'rule:length'"),
        ('decided_by = "llm"', "", "missing or unknown: decided_by"),
        ("version = 1", 'version = "1"', "version a whole number"),
        ("[[positive]]", "[[positives]]", "missing or unknown: positive, positives"),
        ('why = "a plant"', "", "with text and why"),
        ("version = 1", "version = ", "is not TOML"),
    ],
)
def test_a_file_that_is_no_criterion_is_refused_by_name(old, new, said):
    with pytest.raises(PromptError, match=said) as refused:
        criteria.parse("tags", "vegan", MINE.replace(old, new, 1))
    assert "criteria/tags/vegan.toml" in str(refused.value)


def test_a_file_in_another_encoding_is_refused_by_name(tmp_path):
    (tmp_path / "tags").mkdir()
    (tmp_path / "tags" / "vegan.toml").write_bytes(b'source = "sh\xff"')
    with pytest.raises(PromptError, match=r"criteria/tags/vegan.toml is not UTF-8"):
        judge.load(tmp_path)


def test_a_file_outside_of_the_tasks_folders_is_refused_by_name(tmp_path):
    (tmp_path / "vegan.toml").write_text(MINE)
    with pytest.raises(PromptError, match=r"vegan.toml lies in no task's folder"):
        judge.load(tmp_path)


def test_a_folder_that_is_not_there_and_a_task_that_is_none(tmp_path):
    with pytest.raises(PromptError, match="there is none"):
        judge.load(tmp_path / "no")
    (tmp_path / "tag").mkdir()
    (tmp_path / "tag" / "vegan.toml").write_text(MINE)
    with pytest.raises(PromptError, match="a task is one of interests, tags, explanations, but it is 'tag'"):
        judge.load(tmp_path)


def test_rules_decide_what_they_can_and_the_model_the_rest():
    ruled = {"specificity": "", "category": "", "past_month": "", "season": "out_of_season"}
    engine = FakeEngine(scorer=lambda request: [-1.0, -2.0])
    found = judge.judge([tag(**ruled)], ALL, engine=engine)
    rows = {row["criterion"]: row for row in found.table.to_pylist()}
    assert found.table.schema == schema.VERDICTS
    assert {name: row["decided_by"] for name, row in rows.items()} == {
        "consistency": "llm", "freshness": "rule", "relevance": "llm", "season": "rule", "specificity": "rule",
        "validity": "rule",
    }  # fmt: skip
    assert rows["season"]["passed"] is False
    assert rows["season"]["reason"] == "out_of_season"
    assert rows["relevance"]["verdict"] == "Yes"
    assert rows["relevance"]["score"] == pytest.approx(math.e / (1 + math.e))
    assert found.pass_rates() == {"tags": 0.0}
    assert found.counts["qualified"] == 0
    assert (found.counts["rule"], found.counts["llm"], found.counts["unscored"]) == (4, 2, 0)


def test_what_nobody_could_tell_is_unscored_and_neither_passed_nor_failed():
    engine = FakeEngine(scorer=lambda request: ScoreResult("unscored", reason="length: too long"))
    found = judge.judge([tag(specificity="", category="", past_month="")], ALL, engine=engine)
    rows = {row["criterion"]: row for row in found.table.to_pylist()}
    assert rows["season"]["passed"] is None
    assert rows["season"]["reason"] == "the rule season could not tell"
    assert rows["relevance"]["reason"] == "length: too long"
    assert found.pass_rates() == {"tags": None}
    assert found.counts["unscored"] == 3
    none = judge.judge([tag()], ALL, engine=None)
    assert set(none.table["reason"].to_pylist()) >= {"no engine was given"}


def test_levels_pass_from_the_stated_word_on_and_word_and_verdict_agree():
    text = Sample("explanations", {"item": "mug", "text": "A mug for long mornings"})
    # Good + Excellent have .6 together, and yet Bad is the likeliest word.
    engine = FakeEngine(scorer=lambda request: [math.log(x) for x in ((0.3, 0.3, 0.4) if len(request.candidates) == 3
                                                                       else (0.9, 0.1))])  # fmt: skip
    rows = {row["criterion"]: row for row in judge.judge([text], ALL, engine=engine).table.to_pylist()}
    assert rows["factuality"]["verdict"] == "Excellent"
    assert rows["factuality"]["score"] == pytest.approx(0.6)
    strict = judge.judge([text], ALL, engine=engine, thresholds={"explanations/factuality": 0.7})
    (row,) = [row for row in strict.table.to_pylist() if row["criterion"] == "factuality"]
    assert (row["passed"], row["verdict"]) == (False, "Bad")
    bent = judge.judge([text], ALL, engine=engine, calibration={"explanations/factuality": lambda score: score / 2})
    (row,) = [row for row in bent.table.to_pylist() if row["criterion"] == "factuality"]
    assert (row["score"], row["passed"]) == (pytest.approx(0.3), False)


def test_equal_samples_are_asked_about_once_and_order_changes_nothing():
    engine = FakeEngine()
    both = judge.judge([tag("dome tent"), tag("camp stove"), tag("dome tent")], ALL, engine=engine)
    assert len(engine.requests) == 2 * 2
    rows = both.table.to_pylist()
    assert rows[:6] == rows[12:]
    alone = judge.judge([tag("camp stove")], ALL, engine=FakeEngine()).table.to_pylist()
    assert rows[6:12] == alone


@given(st.text(max_size=200), st.sampled_from(["tag", "interest", "shopper"]))
def test_no_text_ends_its_fence_or_begins_a_line_of_its_own(text, field):
    sample = Sample("tags", {"shopper": "x", "interest": "y", "tag": "z"} | {field: text})
    engine = FakeEngine()
    judge.judge([sample], ALL, engine=engine)
    for request in engine.requests:
        inside = request.prompt.user.split("sample>>>")
        assert len(inside) == 2
        assert inside[0].count("\n") == 4


def test_backward_the_words_and_examples_stand_the_other_way_round():
    engine = FakeEngine()
    for backward in (False, True):
        judge.judge([tag()], ALL, engine=engine, backward=backward)
    asked = [request.prompt.user for request in engine.requests]
    assert asked[0].endswith("Answer with one word: Yes or No.")
    assert asked[2].endswith("Answer with one word: No or Yes.")
    assert sorted(asked[0].splitlines()[:-1]) == sorted(asked[2].splitlines()[:-1]) != asked[2].splitlines()[:-1]
    assert {request.candidates for request in engine.requests} == {(" Yes", " No")}


def test_probabilities_of_far_words_do_not_overflow():
    assert probabilities([-1000.0, -2000.0]) == [1.0, 0.0]


def test_reasons_on_request_are_one_checked_sentence_and_change_no_verdict():
    engine = FakeEngine(scorer=lambda request: [-1.0, -2.0])
    ruled = {"specificity": "", "category": "", "past_month": "", "season": "out_of_season"}
    plain = judge.judge([tag(**ruled)], ALL, engine=engine)
    engine.enqueue('{"reason": "Campers sleep  in tents."}', '{"reason": 7}')
    found = judge.explain(plain, plain, [tag(**ruled)], ALL, engine=engine)
    rows = {row["criterion"]: row for row in found.table.to_pylist()}
    assert rows["consistency"]["reason"] == "Campers sleep in tents."
    assert rows["relevance"]["reason"] is None, "what is no sentence under the schema is left out and counted"
    assert rows["season"]["reason"] == "out_of_season", "a rule says why itself"
    assert (found.counts["reasons"], found.counts["reasons_unscored"]) == (1, 1)
    assert found.table.drop(["reason"]).equals(plain.table.drop(["reason"]))
    asked = engine.requests[-1].prompt
    assert asked.user.endswith("The answer is Yes. Say why in one short sentence, as JSON with the field reason.")
    assert asked.system == engine.requests[0].prompt.system, "so that the sample's prefix is shared"


def test_no_reason_is_written_for_a_verdict_that_does_not_stand():
    engine = FakeEngine(scorer=lambda request: [-1.0, -2.0])
    plain = judge.judge([tag()], ALL, engine=engine)
    people, withheld = {(tag().id, "tags/relevance"): "Yes"}, {"tags/consistency": "too weak"}
    final = judge.decide(plain, people, withheld, ALL)
    before = len(engine.requests)
    found = judge.explain(plain, final, [tag()], ALL, engine=engine)
    assert len(engine.requests) == before, "nothing is asked"
    assert found.counts["reasons"] == found.counts["reasons_unscored"] == 0
    shown = judge.decide(found, people, withheld, ALL)
    rows = {row["criterion"]: row["reason"] for row in shown.table.to_pylist()}
    assert (rows["relevance"], rows["consistency"]) == (None, "too weak")


def test_a_verdict_that_fails_says_why():
    found = judge.judge([tag()], ALL, engine=FakeEngine(scorer=lambda request: [-2.0, -1.0]))
    (row,) = [row for row in found.table.to_pylist() if row["criterion"] == "relevance"]
    assert row["reason"] == "No: 0.27, and it passes from 0.50 on"
