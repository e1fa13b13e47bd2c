"""Two arms' lists: the questionnaire, unanimous answers of three, and comparisons that stay apart."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from command import say
from reviewing import store_of, tags

from recgpt.errors import JudgeError
from recgpt.judge.review.repetition import QUESTIONS, checked, figures, pair


@pytest.fixture
def store(tmp_path):
    return store_of(tmp_path / "buffer.sqlite", tags(3))


def lists(count=10):
    return {arm: [{"title": f"{arm} {place}", "detail": ""} for place in range(count)] for arm in ("base", "recgpt")}


def said(left=(), right=(), seen="yes", where=("left",)):
    return {"seen": seen, "where": list(where), "marks": [list(left), list(right)]}


def test_the_questionnaire_has_seven_questions_and_arms_stand_left_and_right_by_chance():
    assert len(QUESTIONS) == 7
    assert len({key for key, *_ in QUESTIONS}) == 7
    left = Counter(pair(f"u{user}", lists()).arms[0] for user in range(400))
    assert min(left.values()) > 150
    assert pair("u1", lists()) == pair("u1", dict(reversed(lists().items())))
    with pytest.raises(JudgeError, match="two arms with items were expected"):
        pair("u1", {"base": [], "recgpt": [{}]})


def test_answers_that_no_question_has_are_refused_and_void_ones_left_out():
    two = pair("u1", lists()).lists
    found = checked(said([4, 2, 4], [3], where=["left"]) | {"right_kind": ["same"], "why": "all  mugs"}, two)
    assert found["marks"] == [[2, 4], []]
    assert (found["right_kind"], found["why"]) == ([], "all mugs")
    assert checked(said([2], seen="no"), two)["marks"] == [[], []]
    for wrong in (
        said(seen="maybe"), said(seen=""), said([1]), said([11]), said([True]), said(where=["middle"]),
        said() | {"marks": 3}, said() | {"marks": [[2]]}, said() | {"left_what": "size"}, said() | {"where": ["up"]},
    ):  # fmt: skip
        with pytest.raises(JudgeError):
            checked(wrong, two)


def test_only_unanimous_answers_of_three_count(store, capsys):
    pairs = [pair(f"u{user}", lists()) for user in range(4)]
    assert store.add_pairs(pairs) == 4
    assert store.add_pairs(pairs) == 0
    for one in pairs[:3]:
        side = one.arms.index("base")
        marks = [[], []]
        for place, who in enumerate(("ann", "bob", "eve")):
            # The first pair repeats from place 3 on, the second from place 6; about the third people differ.
            marks[side] = [[3], [6], [6] if place else []][pairs.index(one)]
            where = [("left", "right")[side]] if marks[side] else []
            answer = said(*marks, seen="yes" if marks[side] else "no", where=where)
            store.answer(one.id, who, checked(answer, one.lists), 30.0)
    store.answer(pairs[3].id, "ann", checked(said(seen="skip"), pairs[3].lists), 3.0)
    (found,) = figures(store.read())
    assert found["comparison"] == "base against recgpt"
    assert (found["pairs"], found["answered"]) == (4, 3)
    by_depth = {row["depth"]: row for row in found["repetition"]}
    assert by_depth["top 4"]["base"] == {"repeats": 1, "unanimous": 3, "share": 1 / 3}
    assert by_depth["top 8"]["base"] == {"repeats": 2, "unanimous": 2, "share": 1.0}
    assert by_depth["all"]["base"] == {"repeats": 2, "unanimous": 2, "share": 1.0}
    assert by_depth["all"]["recgpt"] == {"repeats": 0, "unanimous": 3, "share": 0.0}
    printed = say(capsys, "judge", "repetition", str(store.buffer.path))
    assert "3 of 4 pairs have 3 answers" in printed
    for piece in ("top 4", "top 8", "all", "33.3% of 3", "100.0% of 2", "0.0% of 3"):
        assert piece in printed
    assert json.loads(say(capsys, "judge", "repetition", str(store.buffer.path), "--json")) == [found]
    store.answer(pairs[0].id, "eve", None, None)
    assert figures(store.read())[0]["answered"] == 2


def test_comparisons_of_one_buffer_stay_apart(store, capsys):
    assert figures(store.read()) == []
    assert "no lists are compared" in say(capsys, "judge", "repetition", str(store.buffer.path))
    three = {arm: rows for arm, rows in lists().items() if arm == "base"} | {"other": lists()["recgpt"]}
    made = [pair("u1", lists()), pair("u1", three), pair("u2", lists(12), comparison="base against recgpt, 12 items")]
    store.add_pairs(made)
    for one, where in zip(made, ("left", "right", "left"), strict=True):
        for who in ("ann", "bob", "eve"):
            store.answer(one.id, who, checked(said(where=[where]), one.lists), 3.0)
    found = {one["comparison"]: one for one in figures(store.read())}
    assert list(found) == ["base against recgpt", "base against other", "base against recgpt, 12 items"]
    for one, where in zip(made, (0, 1, 0), strict=True):
        (row,) = [row for row in found[one.comparison]["repetition"] if row["depth"] == "all"]
        assert found[one.comparison]["pairs"] == 1
        assert [row[arm]["repeats"] for arm in one.arms] == [1 - where, where]
    # A buffer of before has pairs without a name for their comparison.
    with store.buffer.transaction() as database:
        text = json.dumps({"user_id": "u9", "attributes": "", "history": [], "arms": ["b", "a"], "lists": [[], []]})
        database.execute("INSERT INTO pairs (id, pair, time) VALUES ('old', ?, '')", (text,))
    assert store.read().pairs["old"].comparison == "a against b"


def test_who_could_not_tell_makes_a_pair_count_for_nothing(store):
    one = pair("u1", lists())
    store.add_pairs([one])
    for who in ("ann", "bob", "eve"):
        store.answer(one.id, who, checked(said(seen="skip"), one.lists), 3.0)
    assert [row["base"]["share"] for row in figures(store.read())[0]["repetition"]] == [None, None, None]
    with pytest.raises(JudgeError, match="is not in the buffer"):
        store.answer("none", "ann", None, None)
