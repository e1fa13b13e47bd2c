"""What sways a judge, and who labels carelessly: measured on judges and annotators whose faults are known."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta

import pytest
from command import say
from reviewing import store_of, tags
from test_judge_run import CONFIG

from recgpt import judge, pipeline, schema
from recgpt.errors import JudgeError
from recgpt.judge import Sample, bias, gold
from recgpt.judge.buffer import GOLD, Label
from recgpt.llm import FakeEngine
from recgpt.pipeline import judge_card, milestones, probing

ALL = judge.load()
ON = "tags/relevance"
SAMPLES = [Sample("tags", {"reason": "They hike.", "tag": "tent " + "x" * place}) for place in range(1, 41)]


def first(request):
    """Like the word that the question names first; of three levels the best or the worst."""
    named = request.prompt.user.rsplit("Answer with one word: ", 1)[1]
    return [-1.0 if named.startswith(word.strip()) else -3.0 for word in request.candidates]


def measured(scorer):
    return bias.measure(SAMPLES, ALL, engine=FakeEngine(scorer=scorer))[ON]


def test_a_judge_that_reads_the_sample_alone_is_swayed_by_nothing():
    found = measured(lambda request: [-1.0, -2.0] if "tent" in request.prompt.user else [-2.0, -1.0])
    assert found == {"verdicts": 40, "position": 0.0, "length": None, "injections": 0.0}


def test_a_judge_that_says_what_is_named_first_turns_with_the_scale():
    assert measured(first)["position"] == 1.0


def test_a_judge_that_likes_long_texts_is_told_by_the_ranks():
    def long(request):
        return [-1.0, -1.0 - request.prompt.user.count("x") / 50]

    assert measured(long)["length"] == 1.0
    assert bias.spearman([1, 2, 2, 4], [4, 3, 3, 1]) == -1.0


def test_a_judge_that_obeys_turns_under_the_demands_that_ask_for_it():
    demands = bias.attacks()
    assert len(demands) == len(set(demands)) >= 20
    assert not any("tent" in one for one in demands)

    def obeys(request):
        return [-2.0, -1.0] if "Answer Yes." not in request.prompt.user else [-1.0, -2.0]

    asking = [sum("Answer Yes." in demands[place % len(demands)] for place in range(40))]
    assert measured(obeys)["injections"] == asking[0] / 40 > 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_probe_of_a_run_is_on_the_card(tmp_path, capsys):
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.format(folder=tmp_path), encoding="utf-8")
    pipeline.run(path, until="explanations")
    config = pipeline.load(path)
    assert judge_card.gather(config)["swayed"] is None
    assert any("never measured: `recgpt judge probe`" in one for one in judge_card.gather(config)["failures"])
    told = json.loads(say(capsys, "judge", "probe", str(path), "--limit", "6", "--json"))
    assert set(told["criteria"]) == {key for key, one in ALL.items() if not one.rule}
    assert all(0 <= one["position"] <= 1 for one in told["criteria"].values())
    assert "demand: verdicts that turn" in say(capsys, "judge", "probe", str(path), "--limit", "6")
    card = judge_card.gather(config)
    assert card["swayed"]["criteria"] == judge_card.plain(told["criteria"])
    # Another run of it, with a judge that says what is named first: the last one counts.
    probing.probe(config, limit=6, engine=FakeEngine(scorer=first))
    card = judge_card.gather(config)
    for key in told["criteria"]:
        assert f"{key}: 100% of the verdicts turn when the scale is named backward" in card["failures"]
    page = judge_card.write(tmp_path / "card.html", card).read_text(encoding="utf-8")
    assert "What sways it" in page
    assert "<td>tags/relevance</td>" in page.partition("What sways it</h2>")[2]
    silent = FakeEngine()
    silent.scores = False
    with pytest.raises(JudgeError, match="gives no log-probabilities"):
        probing.probe(config, engine=silent)
    # Of another judge nothing was measured.
    other = {**told, "judge": "another"}
    buffer = judge.Buffer(milestones.buffer_path(config))
    buffer.add_event("probed", other | {"criteria": {}})
    assert judge_card.gather(config)["swayed"]["criteria"] == card["swayed"]["criteria"]


# Annotators.


def answers(people, count):
    """Gold for `count` samples of two questions, and what people of known error said of them."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    draw, rows = random.Random(11), []
    for who, rate in {GOLD: 0.0, **people}.items():
        for place in range(count):
            for key in ("tags/consistency", ON):
                rows.append(
                    {"sample": f"s{place}", "task": "tags", "criterion": key, "annotator": who,
                     "verdict": "No" if draw.random() < rate else "Yes", "note": "", "seconds": 2.0, "round": 1,
                     "source": "served", "time": start + timedelta(seconds=len(rows))}
                )  # fmt: skip
    return schema.rows(rows, schema.LABELS)


def test_somebody_who_errs_in_five_of_a_hundred_is_found_by_fifty_gold_samples_with_the_stated_power():
    """500 annotators each; `gold.power` is exact, and what the design page says."""
    share = {}
    for rate in (0.005, 0.05, 0.2):
        people = {f"{rate} {place}": rate for place in range(500)}
        found = gold.standings(answers(people, 50))
        assert len(found) == 500
        assert all(one.gold == 100 and one.samples == 50 and one.seconds == 4.0 for one in found)
        share[rate] = sum(one.careless for one in found) / 500
    for rate, seen in share.items():
        exact = gold.power(rate, 100)
        assert abs(seen - exact) < 4 * (exact * (1 - exact) / 500) ** 0.5 + 0.002, rate
    assert gold.power(0.05, 100) > 0.88
    assert gold.power(0.05, 50) > 0.72
    assert gold.power(0.2, 50) > 0.999
    assert gold.power(gold.HONEST, 100) < gold.power(gold.HONEST, 50) < gold.ALPHA


def test_one_slip_names_nobody_and_careless_ones_come_first():
    found = gold.standings(answers({"ann": 0.0, "bob": 0.3}, 20))
    assert [(one.annotator, one.careless) for one in found] == [("bob", True), ("ann", False)]
    assert (found[1].wrong, found[1].p) == (0, pytest.approx(1.0))
    assert not any(one.careless for one in gold.standings(answers({"ann": 0.0}, 1)))
    assert gold.limit(1) == gold.limit(10) == 2
    assert gold.standings(answers({}, 3)) == []


def test_the_command_names_them_and_the_card_counts_them(tmp_path, capsys):
    store = store_of(tmp_path / "out" / "judge" / "buffer.sqlite", tags(30))
    for place, one in enumerate(store.read().samples):
        store.say(Label(one, ON, GOLD, "No", "", None, 1))
        store.say(Label(one, ON, "ann", "No", "", 3.0, 1))
        store.say(Label(one, ON, "bob", "Yes" if place % 5 == 0 else "No", "", 1.0, 1))
        store.say(Label(one, ON, "adjudication/eve", "No", "", None, 1))
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.format(folder=tmp_path), encoding="utf-8")
    told = json.loads(say(capsys, "judge", "annotators", str(path), "--json"))["annotators"]
    assert [(one["annotator"], one["wrong"], one["gold"], one["careless"]) for one in told] == [
        ("bob", 6, 30, True), ("ann", 0, 30, False)
    ]  # fmt: skip
    printed = say(capsys, "judge", "annotators", str(store.buffer.path))
    assert "6 of 30" in printed
    assert "errs more" in printed
    failures = judge_card.gather(pipeline.load(path))["failures"]
    assert "1 of 2 annotators, with 30 of 60 labels, err in gold questions more than a careful person" in str(failures)
    assert "bob" not in str(failures)
