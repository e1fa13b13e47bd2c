"""Stage 4: ranking, evidence by missing rows, reasons, and bad input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime

import pyarrow as pa
import pytest
from mining import CAMPER, CAT, NOW, POOL, Scripted, copying, generated, mined, reasons_of, tables, written

from recgpt import interests, schema
from recgpt.errors import InvalidConfigError, InvalidTableError, NaiveTimestampError
from recgpt.evidence import parse_rows
from recgpt.llm.engine import Prompt, ScoreRequest, ScoreResult

# rank


def test_a_camper_is_interested_in_camping_with_evidence_stage_and_reason():
    result = mined(camper=("age 35-44", CAMPER), cat=("age 65+", CAT))
    assert result.table.schema == schema.INTERESTS
    rows = {(row["user_id"], row["interest"]): row for row in result.table.to_pylist()}
    camping = rows["camper", "camping"]
    assert camping["evidence"] == [1, 2, 3]
    assert camping["stage"] == "long-term"
    assert camping["source"] == "rank"
    assert camping["listed"]
    assert camping["pool_id"] == "camping"
    assert camping["as_of"] == NOW
    assert camping["reason"].startswith("They bought dome tent and camp stove fuel")
    assert rows["cat", "cat ownership"]["rank"] == 1
    assert ("cat", "camping") not in rows
    assert result.counts["users"] == 2
    assert 0 < result.counts["answers_valid"] <= result.counts["answers_total"]
    assert 0 < result.counts["evidence_supported"] <= result.counts["evidence_total"]


def test_three_engine_calls_serve_all_users_and_the_history_is_shared_prefix():
    engine = Scripted()
    mined(engine=engine, camper=("age 35-44", CAMPER), cat=("", CAT))
    assert engine.calls == 3
    own = next(request for request in engine.scored if request.key == "interests/camper")
    assert own.prompt.user.index("Dome tent") < own.prompt.user.index("age 35-44")
    without = [request for request in engine.scored if request.key.startswith("interests/camper/without/")]
    assert 2 <= len(without) <= 1 + interests.Config().evidence_rows
    assert all("Dome tent" in request.prompt.user for request in without if not request.key.endswith("/1"))


class Referring(Scripted):
    """Likes camping and cats more than `nothing else`, which it likes as much as bicycles, and everything else less."""

    def like(self, prompt: Prompt, candidate: str) -> float:
        return {" camping": -1.0, " cat ownership": -1.5, " nothing else": -2.0, " cycling": -2.0}.get(candidate, -3.0)


def test_with_a_reference_an_interest_is_chosen_when_it_comes_before_it_and_no_baseline_is_asked():
    engine = Referring()
    who, hist = tables(camper=("age 35-44", CAMPER), cat=("age 65+", CAT))
    config = interests.Config(reference="nothing else", contrast=len(POOL.interests))
    table = interests.rank(who, hist, engine=engine, now=NOW, config=config)
    assert [request.key for request in engine.scored] == ["interests/cat", "interests/camper"]
    assert all(request.candidates[-1] == " nothing else" for request in engine.scored)
    assert all(len(request.candidates) == len(POOL.interests) + 1 for request in engine.scored)
    chosen = [(row["user_id"], row["interest"], row["score"]) for row in table.to_pylist()]
    assert chosen == [
        (user, interest, score)
        for user in ("camper", "cat")
        for interest, score in (("camping", 1.0), ("cat ownership", 0.5))
    ]
    stricter = interests.rank(who, hist, engine=engine, now=NOW, config=replace(config, margin=0.5))
    assert set(stricter["interest"].to_pylist()) == {"camping"}, "the margin is above the reference, not the median"


def test_who_likes_nothing_more_than_the_reference_has_no_interest():
    class Content(Scripted):
        def like(self, prompt: Prompt, candidate: str) -> float:
            return -1.0 if candidate == " nothing else" else -2.0

    result = mined(engine=Content(), config=interests.Config(reference="nothing else"), camper=("", CAMPER))
    assert len(result.table) == len(result.rejections) == 0
    assert result.counts["candidates"] > 0


def test_a_user_gets_the_same_answer_alone_and_in_company():
    pool = POOL.weighted([parse_rows(CAMPER), parse_rows(CAT)])
    both, alone = tables(a=("", CAMPER), b=("", CAT)), tables(a=("", CAMPER))
    together = interests.mine(*both, engine=Scripted(), now=NOW, pool=pool).table
    single = interests.mine(*alone, engine=Scripted(), now=NOW, pool=pool).table
    assert [row for row in together.to_pylist() if row["user_id"] == "a"] == single.to_pylist()


def test_swapped_histories_change_interests():
    who, own = tables(a=("", CAMPER), b=("", CAT))
    _, swapped = tables(a=("", CAT), b=("", CAMPER))
    first = interests.rank(who, own, engine=Scripted(), now=NOW)
    second = interests.rank(who, swapped, engine=Scripted(), now=NOW)
    assert interests.changed(first, first) == 0
    assert interests.changed(first, second) >= 0.5
    controlled = interests.mine(who, own, engine=Scripted(), now=NOW, config=interests.Config(control=True))
    assert controlled.counts["changed_by_matching_and_shuffle"] == pytest.approx(interests.changed(first, second))
    assert 0 < controlled.counts["changed_by_shuffle"] <= 1


def test_a_model_blind_to_the_history_is_unchanged_by_the_shuffle_of_histories_alone():
    class Blind(Scripted):
        def like(self, prompt: Prompt, candidate: str) -> float:
            return -float(len(candidate)) * ("<<<history" in prompt.user)

    engine = Blind()
    users = {"a": ("age 35-44", CAMPER), "b": ("", CAT), "c": ("", CAMPER + "\n" + CAT)}
    counts = mined(engine=engine, config=interests.Config(control=True), **users).counts
    assert counts["changed_by_shuffle"] == 0.0
    assert counts["changed_by_matching_and_shuffle"] > 0
    # Own histories and both controls in the first of the calls; who shares a prompt stands side by side.
    ranked = [
        request.prompt for request in engine.scored if request.key in ("interests/a", "interests/b", "interests/c")
    ]
    assert len(ranked) == 9
    assert sum(one != other for one, other in itertools.pairwise(ranked)) == len(set(ranked)) - 1


def test_who_cannot_be_scored_has_not_changed():
    class Deaf(Scripted):
        def score(self, requests: Sequence[ScoreRequest], progress: object = None) -> list[ScoreResult]:
            answers = super().score(requests, progress)
            lost = ScoreResult("unscored", reason="engine: too long")
            return [
                lost if request.key == "interests/a" and "Dome tent" not in request.prompt.user else answer
                for request, answer in zip(requests, answers, strict=True)
            ]

    class Blind(Deaf):
        def like(self, prompt: Prompt, candidate: str) -> float:
            return -float(len(candidate))

    counts = mined(engine=Blind(), config=interests.Config(control=True), a=("", CAMPER), b=("", CAT)).counts
    assert counts["changed_by_shuffle"] == 0.0


def test_the_base_rate_of_evidence_is_the_share_of_supporting_rows_among_those_shown():
    # Cat things stand in all four rows.
    result = mined(user=("", CAT))
    assert result.table["interest"].to_pylist() == ["cat ownership"]
    assert result.counts["evidence_base"] == 1.0
    assert generated(written(evidence=[1]), written(id="golf-unknown", interest="golf")).counts["evidence_base"] == (
        # camping: rows 1, 2, 3 and 5 of five; golf: none of five.
        pytest.approx(4 / 10)
    )
    assert mined(config=interests.Config(evidence_rows=0), user=("", CAT)).counts["evidence_base"] is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("candidates", 0),
        ("most", 0),
        ("reason_samples", 0),
        ("least_actions", -1),
        ("evidence_tokens", -1),
        ("evidence_drop", 0.0),
        ("evidence_drop", math.nan),
        ("margin", math.inf),
        ("reference", " nothing else"),
        ("reason_words", (9, 4)),
    ],
)
def test_senseless_settings_are_refused_by_name(field, value):
    with pytest.raises(InvalidConfigError, match=f"interests.{field} must be"):
        interests.Config(**{field: value})


def test_changed_is_one_minus_jaccard():
    one = pa.table({"user_id": ["a", "a", "b"], "interest": ["x", "y", "z"]})
    two = pa.table({"user_id": ["a", "a", "b"], "interest": ["y", "w", "z"]})
    assert interests.changed(one, two) == pytest.approx((2 / 3 + 0) / 2)


def test_an_interest_whose_rows_do_not_matter_to_the_model_is_rejected():
    class Stubborn(Scripted):
        def like(self, prompt: Prompt, candidate: str) -> float:
            return (
                0.0 if candidate == " camping" and "r1 " in prompt.user + "r1 " and "history" in prompt.user else -1.0
            )

    result = mined(engine=Stubborn(), camper=("", CAMPER))
    assert reasons_of(result, "camping") == ["evidence: no supporting row lowers the score when missing"]
    assert result.table.num_rows == 0


def test_without_room_for_evidence_nothing_is_shown():
    result = mined(config=interests.Config(evidence_rows=0), camper=("", CAMPER))
    assert result.table.num_rows == 0
    assert all(reason.startswith("evidence: no row could be taken out") for reason in reasons_of(result, "camping"))


def test_evidence_stays_within_its_token_budget():
    config = interests.Config(evidence_tokens=20)
    engine = Scripted()
    mined(config=config, engine=engine, camper=("", CAMPER))
    shown = next(request for request in engine.scored if "without/nothing" in request.key)
    assert shown.prompt.user.count("(purchase)") + shown.prompt.user.count("(search)") < 4


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (" the famous Acme tent", "reason: new facts"),
        (" ", "reason: length"),
        (" it again and again and again", "reason: evidence"),
        (" dome tent " * 14, "reason: length"),
        (" a dome tent and a dome tent", "reason: repetition"),
    ],
)
def test_a_reason_that_cannot_be_believed_leaves_the_interest_unscored(said, fault):
    result = mined(engine=Scripted(lambda _: said), camper=("", CAMPER))
    assert result.table.num_rows == 0
    camping = [row for row in result.rejections.to_pylist() if row["text"] == "camping"]
    assert camping[0]["status"] == "unscored"
    assert camping[0]["reason"].startswith(fault)
    assert camping[0]["raw"] == said
    assert result.counts["unscored"] > 0


def test_the_checker_takes_the_first_sample_that_passes():
    engine = Scripted(lambda request: copying(request) if request.seed == 1 else " a yacht in Monaco")
    assert "camping" in mined(engine=engine, camper=("", CAMPER)).table["interest"].to_pylist()


def test_a_failing_engine_leaves_users_unscored_not_zero():
    class Failing(Scripted):
        def score(self, requests: Sequence[ScoreRequest], progress: object = None) -> list[ScoreResult]:
            return [ScoreResult("unscored", reason="engine: too long") for _ in requests]

    result = mined(engine=Failing(), camper=("", CAMPER))
    assert [row["status"] for row in result.rejections.to_pylist()] == ["unscored"]
    assert "engine: too long" in result.rejections["reason"][0].as_py()


# Bad input


def test_bad_input_is_named():
    who, hist = tables(user=("", CAMPER))
    with pytest.raises(InvalidTableError, match="column `text` is missing"):
        interests.mine(who, hist.drop_columns("text"), engine=Scripted(), now=NOW)
    with pytest.raises(InvalidConfigError, match="mode must be"):
        interests.mine(who, hist, engine=Scripted(), now=NOW, mode="guess")
    with pytest.raises(NaiveTimestampError, match="`now` must have a time zone"):
        interests.mine(who, hist, engine=Scripted(), now=datetime(2017, 12, 18))
    empty = interests.mine(who.slice(0, 0), hist.slice(0, 0), engine=Scripted(), now=NOW)
    assert (empty.table.num_rows, empty.rejections.num_rows) == (0, 0)
    assert date(2017, 12, 18) == NOW.date()
