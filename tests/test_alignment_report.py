"""`recgpt align report` end to end: scripted engines, a generated log, adapters that are missing, interruptions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command import say

from recgpt.alignment import next_tags, report
from recgpt.alignment.report import households as real
from recgpt.alignment.report import run as running
from recgpt.alignment.shop import Shop
from recgpt.errors import AlignmentError
from recgpt.llm import FakeEngine
from recgpt.llm.engine import ScoreRequest
from recgpt.llm.tokenizer import Tokenizer
from recgpt.pipeline import config as configuration
from recgpt.pipeline import engines, source

# A report makes two worlds and runs three stages for each model: two seconds alone, much more beside other tests.
pytestmark = pytest.mark.timeout(180)
SIZES = report.Sizes(users=6, shoppers=4, texts=8, examples=2)
TOML = """
out = "{out}"
[data]
dataset = "world"
[data.world]
users = 30
items = 300
events = 900
seed = {seed}
[history]
budget = 800
[llm]
engine = "fake"
min_events = 40
candidates = 20
[interests]
candidates = 10
evidence_rows = 2
evidence_tokens = 300
reason_samples = 1
[tags]
quantity = 5
min_categories = 2
"""


def settings(folder: Path, *, seed: int = 0) -> Path:
    path = folder / "align.toml"
    path.write_text(TOML.format(out=(folder / "out").as_posix(), seed=seed), encoding="utf-8")
    return path


def trained(folder: Path, *names: str) -> Path:
    place = folder / "adapters"
    place.mkdir()
    for name in names:
        (place / f"{name}.gguf").write_bytes(b"GGUF" + name.encode())
    return place


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    adapters = trained(folder, "interests", "tags", "explanations")
    (adapters / "tags.json").write_text('{"samples": 12}', encoding="utf-8")
    return report.report(settings(folder), folder=adapters, sizes=SIZES), folder / "out" / "alignment"


def test_every_table_has_both_models_and_every_file_is_written(measured):
    found, out = measured
    assert list(found["parts"]) == ["next", "interests", "tags", "explanations"]
    both = ["base", "aligned"]
    assert all([model for model in part if model != running.TEACHER] == both for part in found["parts"].values())
    assert {path.name for path in out.iterdir()} == {"report", "report.json", "report.md", "report.html", "examples.md"}
    kept = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert kept["parts"] == json.loads(json.dumps(found["parts"]))
    assert kept["about"]["manifests"] == {"interests": None, "tags": {"samples": 12}, "explanations": None}
    for title in ("Goals", "Table 2", "Table 4", "Table 7", "HR@30"):
        assert title in (out / "report.md").read_text(encoding="utf-8")
        assert title in (out / "report.html").read_text(encoding="utf-8")
    assert set(found["left_out"]) == {"incremental", "judge"}


def test_every_figure_has_its_number_and_interval(measured):
    found, _ = measured
    parts = found["parts"]
    assert parts["next"]["base"]["households"] == SIZES.users
    for model in ("base", "aligned"):
        assert parts["interests"][model]["kept"]["f1"]["n"] <= SIZES.shoppers
        assert parts["tags"][model]["first"]["all"]["of"] == SIZES.shoppers * 5
        assert parts["tags"][model]["first"]["validity"]["value"] == 1.0, "rank offers the catalogue's own tags"
        assert 0 < parts["explanations"][model]["all"]["of"] <= SIZES.texts
        assert parts["interests"][model]["kept"]["hallucination"]["value"] == 0
    assert parts["tags"]["base"]["first"]["all"]["value"] <= parts["tags"]["base"]["kept"]["all"]["value"]
    teacher = parts["interests"][running.TEACHER]
    assert teacher["first"]["precision"]["value"] == 1.0
    assert teacher["first"]["f1"]["value"] > 0.9, "ten candidates do not name every interest"
    assert teacher["kept"]["precision"]["value"] == 1.0
    assert parts["tags"][running.TEACHER]["first"]["relevance"]["value"] > 0.9
    reached = {goal["goal"]: goal for goal in found["goals"]}
    assert reached["interest F1, as the rules kept"]["reached"] == parts["interests"]["aligned"]["kept"]["f1"]
    assert reached["HR@30 above popularity"]["met"] is None, "6 households are too few to tell"


def test_examples_are_the_same_shoppers_of_both_models_drawn_by_the_seed(measured):
    found, out = measured
    assert len(found["examples"]) == 2
    assert all(set(one["models"]) == {"base", "aligned"} for one in found["examples"])
    assert all(all(texts.values()) for one in found["examples"] for texts in one["models"].values())
    text = (out / "examples.md").read_text(encoding="utf-8")
    assert text.count("### ") == 2
    assert all(one["user"] in text for one in found["examples"])


def test_the_aligned_model_is_asked_with_its_reference_and_without_a_baseline(tmp_path, monkeypatch):
    asked: list[tuple[str, ScoreRequest]] = []

    class Listening(FakeEngine):
        def score(self, requests, progress=None):
            asked.extend((self.name, request) for request in requests)
            return super().score(requests, progress)

    monkeypatch.setattr(engines, "model", lambda config: Listening())
    report.report(settings(tmp_path), folder=trained(tmp_path, "interests", "tags", "explanations"), sizes=SIZES)
    aligned = [request for name, request in asked if "adapter" in name]
    base = [request for name, request in asked if "adapter" not in name]
    assert {request.key for request in base} >= {"interests/baseline", "tags/baseline/0"}
    assert not any("baseline" in request.key for request in aligned)
    first = [one for one in aligned if one.key.startswith("interests/") and "without" not in one.key]
    assert first
    assert all(request.candidates[-1] == " nothing else" for request in first)
    assert not any(" nothing else" in request.candidates for request in base)


@pytest.mark.parametrize("there", ["interests", "tags", "explanations"])
def test_without_an_adapter_its_tables_are_left_out_and_said(tmp_path, there):
    found = report.report(settings(tmp_path), folder=trained(tmp_path, there), sizes=SIZES)
    for part in ("interests", "tags", "explanations"):
        own = ["base", "aligned"] if part == there else ["base"]
        assert [model for model in found["parts"][part] if model != running.TEACHER] == own
        assert (part in found["left_out"]) == (part != there)
    assert list(found["parts"]["next"]) == (["base", "aligned"] if there == "tags" else ["base"])
    assert f"left out: {'tags' if there != 'tags' else 'interests'}: " in Path(found["files"]["markdown"]).read_text()


def test_figures_of_other_experiments_become_tables_5_and_9(tmp_path):
    one = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    out = tmp_path / "out" / "alignment"
    out.mkdir(parents=True)
    hits = {"without": 0.25, "with": 0.5, "points": 25.0, "interval": [1, 49], "households": 8, "baskets": 9}
    (out / "incremental.json").write_text(f"window 1: 8 households\n{json.dumps({'hr30': {'hits': hits}})}\n")
    judged = dict.fromkeys(("accuracy", "precision", "recall", "f1"), one) | {"n": 8}
    (out / "judge.json").write_text(json.dumps({"tags": {"base": judged, "aligned": judged}}))
    found = report.report(settings(tmp_path), folder=None, sizes=SIZES)
    assert found["left_out"] == {}
    text = Path(found["files"]["markdown"]).read_text(encoding="utf-8")
    assert "Table 5" in text
    assert "Table 9" in text
    assert "+25.00 points" in text
    (out / "judge.json").write_text("[]")
    with pytest.raises(AlignmentError, match=r"judge\.json was expected to hold a JSON object with figures"):
        report.report(settings(tmp_path), folder=None, sizes=SIZES)
    (out / "judge.json").write_text("{")
    with pytest.raises(AlignmentError, match=r"judge\.json was expected to hold figures, but it cannot be read"):
        report.report(settings(tmp_path), folder=None, sizes=SIZES)


def test_an_interrupted_report_asks_only_for_what_is_missing(tmp_path, monkeypatch):
    class Dying(FakeEngine):
        left = 10**9

        def _spend(self, requests):
            Dying.left -= len(requests)
            if Dying.left < 0:
                raise KeyboardInterrupt

        def generate(self, requests, progress=None):
            self._spend(requests)
            return super().generate(requests, progress)

        def score(self, requests, progress=None):
            self._spend(requests)
            return super().score(requests, progress)

    monkeypatch.setattr(engines, "model", lambda config: Dying())
    (tmp_path / "whole").mkdir()
    whole = report.report(settings(tmp_path / "whole"), folder=None, sizes=SIZES)
    needed = 10**9 - Dying.left
    path, stops = settings(tmp_path), 0
    while True:
        Dying.left = needed // 3
        try:
            found = report.report(path, folder=None, sizes=SIZES)
            break
        except KeyboardInterrupt:
            stops += 1
            assert stops < 9, "it never comes to an end"
    assert stops >= 2
    assert found["parts"] == whole["parts"]
    Dying.left = 0
    again = report.report(path, folder=None, sizes=SIZES)
    assert Dying.left == 0, "what is known is not asked again"
    assert again["parts"] == whole["parts"]


def test_a_plan_counts_and_keeps_nothing(tmp_path):
    planned = report.plan(settings(tmp_path), folder=None, sizes=SIZES)
    assert {"next", "interests", "tags", "explanations"} <= set(planned)
    assert planned["next"].rows == SIZES.users
    assert not (tmp_path / "out" / "alignment" / "report.json").exists()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    data, now = source.read(configuration.load(settings(tmp_path_factory.mktemp("shop"))).data)
    return Shop.of(data, tokenizer=Tokenizer.bytes()), now


def test_fewer_households_are_some_of_those_that_nobody_may_learn_from(shop):
    held = next_tags.held_out(*shop)
    for users in (2, 5, len(held)):
        judged = real.households(*shop, users=users)
        assert {one.user for one in judged.asked} <= set(held)
        assert len(judged.asked) == users
    with pytest.raises(AlignmentError, match=f"{len(held)} households of world are held out, so 2 to {len(held)}"):
        real.households(*shop, users=len(held) + 1)


def test_who_knows_what_is_bought_next_is_right_and_popularity_is_popularity(shop):
    judged = real.households(*shop, users=6)
    names = list(judged.counts)
    oracle = np.array([[float(name in one.bought) for name in names] for one in judged.asked])
    found = real.figures(judged, oracle)
    assert found["auc"]["all"]["own"]["value"] == 1.0
    assert found["auc"]["all"]["own_minus_other"]["value"] > 0
    assert found["hr"]["all"]["model"]["value"] == pytest.approx(1.0), "fewer than 30 kinds are bought by anybody"
    popular = np.tile(np.array(list(judged.counts.values()), float), (6, 1))
    same = real.figures(judged, popular)
    for segment in ("all", "new"):
        assert same["auc"][segment]["own"] == same["auc"][segment]["popularity"]
        assert same["auc"][segment]["own_minus_other"]["value"] == pytest.approx(0.0)
        assert same["hr"][segment]["difference"]["value"] == pytest.approx(0.0)


def test_households_that_could_not_be_scored_are_counted_and_left_out(shop):
    judged = real.households(*shop, users=6)
    scores = np.tile(np.array(list(judged.counts.values()), float), (6, 1))
    scores[2] = np.nan
    found = real.figures(judged, scores)
    assert (found["households"], found["unscored"]) == (5, 1)
    with pytest.raises(AlignmentError, match="the engine scored no household"):
        real.figures(judged, np.full_like(scores, np.nan))


# what is refused


def test_a_training_world_is_no_judge(tmp_path):
    with pytest.raises(AlignmentError, match=r"worlds from seed 100 on are for training, but data\.world\.seed is 100"):
        report.report(settings(tmp_path, seed=100), folder=None, sizes=SIZES)


def test_an_adapter_that_was_trained_on_the_judging_world_is_refused(tmp_path):
    folder = trained(tmp_path, "tags")
    manifest = {"samples": {"origins": ["completejourney", "world/seed=0"]}}
    (folder / "tags.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(AlignmentError, match=r"tags\.gguf was trained on world/seed=0, as its manifest says"):
        report.report(settings(tmp_path), folder=folder, sizes=SIZES)
    for harmless in ('{"samples": {"origins": ["world/seed=100"]}}', "[]", "{"):
        (folder / "tags.json").write_text(harmless, encoding="utf-8")
        assert running.adapters(folder)
        running._refuse({"tags": running._manifest(folder / "tags.gguf")}, 0)


def test_a_folder_without_adapters_is_named(tmp_path):
    with pytest.raises(AlignmentError, match=r"was expected to hold interests\.gguf, tags\.gguf"):
        report.report(settings(tmp_path), folder=tmp_path, sizes=SIZES)


@pytest.mark.parametrize("name", ["users", "shoppers", "texts"])
def test_sizes_that_measure_nothing_are_refused(name):
    with pytest.raises(AlignmentError, match=f"a report needs at least 2 {name}, but 1 were asked for"):
        report.Sizes(**{name: 1})


def test_the_command_wants_adapters_or_the_base_alone(tmp_path, capsys):
    told = say(capsys, "align", "report", str(settings(tmp_path)), status=1)
    assert "give either --adapters FOLDER, or --base to measure the base alone" in told


def test_the_command_prints_tables_plan_and_json(tmp_path, capsys):
    small = ("--base", "--users", "4", "--shoppers", "3", "--texts", "4", "--examples", "1")
    line = ("align", "report", str(settings(tmp_path)), *small)
    assert "Table 4: tags that pass" in say(capsys, *line)
    assert json.loads(say(capsys, *line, "--json"))["parts"]["next"]["base"]["households"] == 4
    planned = json.loads(say(capsys, *line, "--dry-run", "--json"))
    assert all(tally["rows"] == tally["reused"] for tally in planned.values()), "everything is known by now"
    assert "what it would ask" in say(capsys, *line, "--dry-run")


def test_files_are_read_by_name(tmp_path):
    folder = trained(tmp_path, "judge", "tags")
    (folder / "other.gguf").write_bytes(b"GGUF")
    assert running.adapters(folder) == {"tags": folder / "tags.gguf", "judge": folder / "judge.gguf"}
