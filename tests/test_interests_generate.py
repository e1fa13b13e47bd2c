"""Stage 4, mode `generate`: what a model wrote is believed only where it passes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mining import generated, written

from recgpt.interests.generate import InterestAnswer
from recgpt.llm import grammar
from recgpt.llm.prompts import load

# generate


def test_generated_interests_are_listed_or_extended():
    extended = written(id="", interest="sleeping bag comfort", reason="They searched and bought a sleeping bag")
    result = generated(written(), extended | {"evidence": [3, 5]})
    assert [(row["interest"], row["listed"], row["pool_id"], row["source"]) for row in result.table.to_pylist()] == [
        ("camping", True, "camping", "generate"),
        ("sleeping bag comfort", False, None, "generate"),
    ]
    assert result.table["evidence"].to_pylist() == [[1, 5], [3, 5]]
    assert (result.counts["listed"], result.counts["extended"]) == (1, 1)
    assert (result.counts["answers_valid"], result.counts["answers_total"]) == (2, 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"evidence": [77]}, "evidence: r77 no such row"),
        ({"evidence": [4]}, "evidence: r4 no support"),
        ({"id": "golf-unknown", "interest": "golf"}, "not offered"),
        ({"id": "", "interest": "scuba diving"}, "no behavior"),
        ({"id": "", "interest": "toilet paper"}, "necessity"),
        ({"id": "", "interest": "baby diapers, buying milk and the daily bread"}, "necessity"),
        ({"reason": "They own a yacht in Monaco for camping"}, "reason: "),
        ({"id": "", "interest": "a very long name of an interest that nobody would say"}, "name"),
    ],
)
def test_generated_interests_are_checked(change, reason):
    result = generated(written(**change))
    assert result.table.num_rows == 0
    assert result.rejections["reason"][0].as_py().startswith(reason)
    assert (result.counts["answers_valid"], result.counts["answers_total"]) == (0, 1)


def test_a_double_is_rejected():
    result = generated(written(), written())
    assert result.table.num_rows == 1
    assert result.counts["rejected"] == {"double": 1}


@pytest.mark.parametrize("raw", ["", "{", '{"interests": [{"id": 1}]}', '{"interests": [], "more": 1}', "camping"])
def test_what_cannot_be_parsed_is_kept_unscored(raw):
    result = generated(raw=raw)
    row = result.rejections.to_pylist()[0]
    assert (row["status"], row["raw"]) == ("unscored", raw)
    assert (result.counts["unscored"], result.counts["answers_total"], result.counts["answers_valid"]) == (1, 1, 0)


def test_the_answer_has_a_grammar():
    schema = grammar.from_model(InterestAnswer)
    assert grammar.to_gbnf(schema).startswith("root ::=")
    assert list(grammar.with_reasoning(schema, tokens=100)["properties"]) == ["reasoning", "interests"]


@settings(deadline=None)
@given(st.text(max_size=120), st.text(max_size=60))
def test_no_text_breaks_the_prompt(history, attributes):
    prompt = load("interests_rank").render(history=history, attributes=attributes)
    assert prompt.user.count("<<<") == bool(history) + bool(attributes)
    assert prompt.answer == "This shopper is interested in"
