"""Whole rounds: a milestone is opened, labeled and closed, people decide where the judge is weak, the card says so."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from recgpt import judge, pipeline
from recgpt.cli import app
from recgpt.errors import JudgeError
from recgpt.judge import Buffer, Sample
from recgpt.judge.buffer import Label
from recgpt.llm import FakeEngine
from recgpt.pipeline import judge_card, judging, milestones, novelty

ALL = judge.load()
ON = "tags/relevance"
TAGS = ("tags/consistency", "tags/relevance")
CONFIG = """
out = "{folder}/out"
[data]
dataset = "world"
[llm]
engine = "fake"
households = 3
[judge]
people = 60
half_width = 0.01
accuracy = 0.6
"""


class Shop:
    """A buffer of judged tags without a pipeline behind it, a judge that is right in nine of ten cases, and people."""

    def __init__(self, folder) -> None:
        path = folder / "run.toml"
        path.write_text(CONFIG.format(folder=folder), encoding="utf-8")
        self.path, self.config = path, pipeline.load(path)
        self.buffer = Buffer(milestones.buffer_path(self.config))
        self.wrong: set[str] = set()
        self.engine = FakeEngine(scorer=self.score)
        self.version = milestones.version_of(self.engine, ALL)
        self.serve("tent", 200)

    def score(self, request):
        number = int(request.prompt.user.split("tag: ")[1].split()[-1 if "\n" not in request.prompt.user else 1])
        sure = 0.5 + (number % 7) / 5
        return [0.0, -sure] if (number % 2 == 0) != (number % 10 == 3) else [-sure, 0.0]

    def truth(self, sample) -> bool:
        return int(sample.fields["tag"].split()[1]) % 2 == 0

    def serve(self, word, count) -> None:
        made = [Sample("tags", {"category": "x", "tag": f"{word} {place} ."}) for place in range(count)]
        self.buffer.add_samples(made, source="served", round=1)
        table = judge.judge(made, ALL, engine=self.engine).table
        self.buffer.add_verdicts(table, ALL, judge=self.version, round=1)
        novelty.see(self.buffer, {sample.fields["tag"] for sample in made})

    def label(self, ids, *, turned=()) -> None:
        for key, sample in self.buffer.samples(ids).items():
            for criterion in TAGS:
                passed = self.truth(sample) != (key in turned)
                self.buffer.add_label(Label(key, criterion, "ann", "Yes" if passed else "No", round=1), ALL)

    def visit(self, **rest):
        return milestones.visit(self.config, engine=self.engine, **rest)

    def asked(self):
        return [one["sample"] for one in self.buffer.events("milestone opened")[-1]["cases"]]


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


class Timid(Shop):
    """A judge that lets all pass, too sure of the bad ones: calibration mends it."""

    def score(self, request):
        number = int(request.prompt.user.split("tag: ")[1].split()[1])
        return [math.log(0.9), math.log(0.1)] if number % 2 == 0 else [math.log(0.6), math.log(0.4)]


def test_labels_after_a_close_are_compared_with_the_judge_as_it_serves_now(tmp_path):
    # Outputs judged before the close keep verdicts in the buffer that the calibrated judge would no longer give.
    shop = Timid(tmp_path)
    shop.visit()
    shop.label(shop.asked())
    done = shop.visit()
    assert done.before[ON]["passes"]["accuracy"] < 0.7
    assert done.after[ON]["passes"]["accuracy"] == 1
    asked = set(shop.asked())
    shop.label([sample for sample in sorted(shop.buffer.samples()) if sample not in asked][:80])
    quiet = shop.visit()
    assert (quiet.state, quiet.falls) == ("not due", [])
    assert quiet.before[ON]["passes"]["accuracy"] == 1
    # Nor does the next milestone take old verdicts for a fall.
    shop.visit(open_now=True)
    shop.label(shop.asked())
    again = shop.visit()
    assert (again.state, again.falls) == ("closed", [])
    assert again.before[ON]["passes"]["accuracy"] == 1


def test_a_milestone_is_opened_labeled_and_closed_and_shows_before_and_after(shop):
    assert "never measured" in milestones.notice(shop.config)
    first = shop.visit()
    assert "waits for labels of 60 samples" in milestones.notice(shop.config)
    assert (first.state, first.why[0].split(":")[0], first.asked) == ("opened", "first", 60)
    assert first.plans["tags"]["half_width"] < first.plans["tags"]["half_width_at_random"]
    shop.label(shop.asked()[:20])
    waiting = shop.visit()
    assert (waiting.state, waiting.labeled, waiting.asked) == ("open", 20, 60)
    assert shop.visit(now=datetime.now(UTC) + timedelta(days=31)).overdue
    shop.label(shop.asked())
    done = shop.visit()
    assert done.state == "closed"
    assert done.before[ON]["labels"] == done.after[ON]["labels"] == 60
    assert 0.8 < done.before[ON]["passes"]["accuracy"] < 0.97
    assert done.after[ON]["passes"]["accuracy"] >= done.before[ON]["passes"]["accuracy"] - 0.05
    assert json.loads(json.dumps(dataclasses.asdict(done)))["after"][ON]["labels"] == 60
    # Calibrated from now on, and quiet until something happens.
    assert len(shop.buffer.events("calibrated")) == 1
    known = milestones.learn(shop.buffer, ALL, shop.engine, keep=True)
    assert known.curves.keys() == set(TAGS)
    assert "tags/relevance" not in known.missing
    assert "interests/willingness" in known.missing
    milestones.learn(shop.buffer, ALL, shop.engine, keep=True)
    assert len(shop.buffer.events("calibrated")) == 1, "the same labels teach nothing new"
    quiet = shop.visit()
    assert quiet.state == "not due"
    assert [why.split(" on ")[0] for why in quiet.why] == [
        "not due because the last one closed",
        "not due because model, prompt and criteria are those that it measured, and no labels came since",
    ]
    assert milestones.notice(shop.config).startswith("people last measured the judge on")
    assert milestones.notice(shop.config, now=datetime.now(UTC) + timedelta(days=31)).startswith("OVERDUE")
    assert shop.visit(now=datetime.now(UTC) + timedelta(days=31)).overdue


def test_what_people_skipped_is_said_until_somebody_answers(shop):
    shop.visit()
    first, *others = shop.asked()
    shop.label(others)
    skip = Label(first, ON, "ann", None, "skip: cannot be told", round=1)
    shop.buffer.add_label(skip, ALL)
    found = shop.visit()
    assert (found.state, found.labeled, found.asked) == ("open", 59, 60)
    assert found.skipped == {"cannot be told": 1}
    printed = CliRunner().invoke(app, ["judge", "milestone", str(shop.path)]).stdout
    assert "- skipped 1 times and answered by nobody yet: cannot be told" in printed
    shop.buffer.add_label(Label(first, ON, "bob", "Yes", round=1), ALL)
    assert shop.visit().skipped == {}


def test_labels_that_disagree_later_open_a_milestone_and_a_weak_judge_stops_serving(shop):
    shop.visit()
    shop.label(shop.asked())
    assert shop.visit().withheld == {}
    shop.serve("lamp", 60)
    new = [key for key, one in shop.buffer.samples().items() if one.fields["tag"].startswith("lamp")]
    shop.label(new, turned=new[:40])
    found = shop.visit()
    assert found.state == "opened"
    assert found.falls
    assert any(why.startswith("degraded: tags/relevance: accuracy") for why in found.why)
    asked = shop.asked()
    assert not set(asked) & set(new)
    shop.label(asked, turned=asked[::2])
    done = shop.visit()
    assert done.last[ON]["passes"]["accuracy"] > done.before[ON]["passes"]["accuracy"]
    assert ON in done.withheld
    ours = judge.load()
    assert milestones.withheld(shop.buffer, shop.version, ours)[ON] == done.withheld[ON]
    assert milestones.withheld(shop.buffer, "another model", ours) == {}
    # A criterion more makes another judge of the same model, which is as wrong here as before; another file is not.
    grown = ours | {"tags/green": dataclasses.replace(ours[ON], name="green", digest="new")}
    assert milestones.withheld(shop.buffer, milestones.version_of(shop.engine, grown), grown)[ON] == done.withheld[ON]
    edited = ours | {ON: dataclasses.replace(ours[ON], digest="new")}
    assert ON not in milestones.withheld(shop.buffer, milestones.version_of(shop.engine, edited), edited)


def test_what_came_after_the_calibration_is_novel(shop):
    assert novelty.novel(shop.buffer, shop.buffer.samples(), None) == set()
    since = datetime.now(UTC)
    shop.serve("kite", 3)
    found = novelty.novel(shop.buffer, shop.buffer.samples(), since)
    assert {shop.buffer.samples()[key].fields["tag"] for key in found} == {f"kite {n} ." for n in range(3)}


def test_nothing_judged_and_nothing_labeled_are_said(tmp_path, shop):
    path = tmp_path / "other.toml"
    path.write_text(CONFIG.format(folder=tmp_path / "other"), encoding="utf-8")
    with pytest.raises(JudgeError, match="let `recgpt judge run` judge something first"):
        milestones.visit(pipeline.load(path), engine=shop.engine)
    shop.visit()
    with pytest.raises(JudgeError, match="has no labels yet; label its 60 samples first"):
        shop.visit(close_now=True)
    few = shop.config.model_copy(update={"judge": shop.config.judge.model_copy(update={"people": 1000})})
    shop.label(shop.buffer.samples())
    shop.visit()
    with pytest.raises(JudgeError, match=r"has labels already; raise judge\.samples"):
        milestones.visit(few, engine=shop.engine, open_now=True)


def test_the_card_says_what_is_known_and_what_is_not(shop, monkeypatch):
    monkeypatch.setattr("recgpt.pipeline.engines.model", lambda _: shop.engine)
    empty = judge_card.gather(shop.config)
    assert (empty["checked"], empty["overdue"], empty["agreement"]) == (None, True, {})
    assert "people never measured this judge" in empty["failures"]
    shop.visit()
    asked = shop.asked()
    shop.label(asked, turned=asked[::2])
    shop.visit()
    milestones.learn(shop.buffer, ALL, shop.engine, keep=True)
    card = judge_card.gather(shop.config)
    assert card["judge"] == shop.version
    assert card["milestones"] == 1
    assert card["data"]["by_criterion"].keys() == set(TAGS)
    assert card["data"]["annotators"] == 1
    assert card["withheld"].keys() == set(TAGS)
    (relevance,) = [one for one in card["criteria"] if one["criterion"] == ON]
    assert relevance["calibration"] == "platt, 60 labels"
    path = judge_card.write(shop.config.out / "judge" / "card.html", card | {"failures": ["<script>alert(1)</script>"]})
    page = path.read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["judge"] == shop.version


def test_the_commands(shop, monkeypatch):
    monkeypatch.setattr("recgpt.pipeline.engines.model", lambda _: shop.engine)
    path = str(shop.path)
    shown = CliRunner().invoke(app, ["judge", "milestone", path])
    assert shown.exit_code == 0, shown.output
    assert "milestone: opened" in shown.stdout
    assert "drawn at random it would be" in shown.stdout
    shop.label(shop.asked())
    closed = CliRunner().invoke(app, ["judge", "milestone", path])
    assert "before: the judge as it judged" in closed.stdout
    assert "of the class that passes; in brackets 95 % intervals" in closed.stdout
    figures = json.loads(CliRunner().invoke(app, ["judge", "card", path, "--json"]).stdout)["agreement"]
    for name in figures:
        assert f"{name} " in closed.stdout
    one = figures["tags/relevance"]
    low, high = one["intervals"]["recall"]
    assert f"{one['recall']:.2f} [{low:.2f}, {high:.2f}]" in closed.stdout
    assert "…" not in closed.stdout
    again = CliRunner().invoke(app, ["judge", "milestone", path, "--json"])
    assert json.loads(again.stdout)["state"] == "not due"
    card = CliRunner().invoke(app, ["judge", "card", path, "--json"])
    assert json.loads(card.stdout)["checked"]
    assert (shop.config.out / "judge" / "card.html").is_file()


def test_a_stage_that_says_nothing_is_said():
    assert judging.told(judge.judge([], ALL, engine=None))[0].startswith("nothing to judge")
