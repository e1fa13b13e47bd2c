"""The judge's training set: rebalanced labels as the judge's own prompts, and nothing of what is held out."""

from __future__ import annotations

import json
from collections import Counter

import pyarrow.parquet as pq
import pytest
from command import say

from recgpt import judge
from recgpt.errors import JudgeError
from recgpt.judge import Buffer, Sample, training
from recgpt.judge.buffer import Label
from recgpt.llm import FakeEngine

ALL = judge.load()
ON = "tags/relevance"
TAGS = [Sample("tags", {"reason": "They hike.", "tag": f"tent {place}"}, user_id="u") for place in range(120)]


@pytest.fixture
def buffer(tmp_path):
    """Three rounds of forty: one of four is no good; what people said of the last ten differs, and somebody decided."""
    found = Buffer(tmp_path / "buffer.sqlite")
    found.add_samples(TAGS, source="self-training", round=1)
    for place, one in enumerate(TAGS):
        label(found, one, "No" if place % 4 == 0 else "Yes", at=1 + place // 40)
    for one in TAGS[110:]:
        label(found, one, "No", who="bob", at=3)
        label(found, one, "No", who="adjudication/cho", at=3)
    return found


def label(buffer, sample, verdict, *, who="ann", at=1, key=ON):
    buffer.add_label(Label(sample.id, key, who, verdict, round=at), ALL)


def test_a_row_is_the_prompt_that_the_judge_is_asked_and_what_people_said(buffer):
    found = training.gather(buffer, ALL)
    engine = FakeEngine()
    rows = found.chosen.to_pylist()
    assert found.classes() == {ON: {"No": 38, "Yes": 38}}
    samples = {one.id: one for one in TAGS}
    for row in rows[:5]:
        judge.judge([samples[row["sample"]]], {ON: ALL[ON]}, engine=engine)
        asked = engine.requests[-1]
        system, user, answer = row["messages"]
        assert (system["role"], user["role"], answer["role"]) == ("system", "user", "assistant")
        assert (system["content"], user["content"]) == (asked.prompt.system, asked.prompt.user)
        # The verdict stands where the judge's candidates are scored.
        assert answer["content"] in [f"{asked.prompt.answer}{word}" for word in asked.candidates]
        assert answer["content"].endswith(row["verdict"])
    assert {(row["source"], row["digest"], row["criterion"]) for row in rows} == {("self-training", ALL[ON].digest, ON)}
    decided = {one.id for one in TAGS[110:]}
    assert {row["verdict"] for row in rows if row["sample"] in decided} == {"No"}
    assert "no labels" in found.left_out["tags/consistency"]
    assert all(not ALL[key].rule for key in found.left_out)


def test_nothing_of_a_held_out_round_is_learnt_from(buffer):
    # Labeled in the first round, and once more in the third: closed.
    label(buffer, TAGS[0], "No", who="bob", at=3)
    found = training.gather(buffer, ALL, held_out=[3])
    closed = {one.id for one in (TAGS[0], *TAGS[80:])}
    assert not {*found.chosen["sample"].to_pylist()} & closed
    assert {*found.held_out["sample"].to_pylist()} == closed
    assert found.held_out.num_rows == 41
    assert set(found.chosen["round"].to_pylist()) == {1, 2}
    with pytest.raises(JudgeError, match="the rounds 7 were to be held out, but nobody labeled in them"):
        training.gather(buffer, ALL, held_out=[3, 7])
    for one in TAGS[80:85]:
        label(buffer, one, "Yes", at=3, key="tags/consistency")
    left = training.gather(buffer, ALL, held_out=[3]).left_out
    assert left["tags/consistency"].startswith("tags/consistency: all 5 labels are held out; hold out fewer rounds")
    with pytest.raises(JudgeError, match=r"all 146 labels of .* are held out: .* in the rounds 1, 2, 3; hold out"):
        training.gather(buffer, ALL, held_out=[1, 2, 3])


def test_minorities_keep_all_rounds_and_majorities_their_newest(buffer):
    found = training.gather(buffer, ALL, per_class=40, half_life=0.5).chosen.to_pylist()
    rounds = {word: Counter(row["round"] for row in found if row["verdict"] == word) for word in ("Yes", "No")}
    assert sum(rounds["No"].values()) == 38, "augmented by every earlier round"
    assert rounds["No"] == {1: 10, 2: 10, 3: 18}
    assert sum(rounds["Yes"].values()) == 40
    assert rounds["Yes"][3] > rounds["Yes"][2] > rounds["Yes"][1]
    assert training.gather(buffer, ALL, seed=3).chosen.equals(training.gather(buffer, ALL, seed=3).chosen)
    assert not training.gather(buffer, ALL, seed=3).chosen.equals(training.gather(buffer, ALL, seed=4).chosen)


def test_a_criterion_of_one_class_is_left_out_by_name_and_nothing_at_all_is_an_error(buffer, tmp_path):
    for one in TAGS[:5]:
        label(buffer, one, "Yes", key="tags/consistency")
    found = training.gather(buffer, ALL)
    assert "tags/consistency has labels of one class only (Yes)" in found.left_out["tags/consistency"]
    with pytest.raises(JudgeError, match="has no labels to learn from"):
        training.gather(buffer, ALL, tasks=["interests"])
    empty = Buffer(tmp_path / "empty.sqlite")
    with pytest.raises(JudgeError, match="has no labels to learn from"):
        training.gather(empty, ALL)
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(JudgeError, match=f"half_life must be above 0 and finite, .* but it is {bad}"):
            training.gather(buffer, ALL, half_life=bad)
    with pytest.raises(JudgeError, match="per_class must be at least 1, but it is 0"):
        training.gather(buffer, ALL, per_class=0)
    with pytest.raises(JudgeError, match="a task is one of"):
        training.gather(buffer, ALL, tasks=["tag"])


def test_the_command_writes_both_forms(buffer, tmp_path, capsys):
    place, lines = str(buffer.path), tmp_path / "judge.jsonl"
    printed = say(capsys, "judge", "dataset", place, str(lines), "--hold-out", "3")
    assert f"40 labels, 40 held out, in {lines} and {tmp_path / 'judge.held-out.jsonl'}" in printed
    assert f"{ON}: No 20, Yes 20" in printed
    assert "left out: tags/consistency has no labels" in printed
    rows = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 40
    assert len((tmp_path / "judge.held-out.jsonl").read_text(encoding="utf-8").splitlines()) == 40
    told = json.loads(say(capsys, "judge", "dataset", place, str(tmp_path / "judge.parquet"), "--json"))
    assert (told["labels"], told["held_out"], told["files"]) == (76, 0, [str(tmp_path / "judge.parquet")])
    assert pq.read_table(tmp_path / "judge.parquet").schema.equals(training.COLUMNS)
    assert "must end in .jsonl (a chat a line) or .parquet" in say(capsys, "judge", "dataset", place, "x.csv", status=1)
    assert "is a folder; name a file in it" in say(capsys, "judge", "dataset", place, str(tmp_path), status=1)
    assert "cannot be written" in say(capsys, "judge", "dataset", place, "/proc/nope/x.jsonl", status=1)
