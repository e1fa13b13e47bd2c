"""Judge training: what is asked is what is learned, nothing held out enters, and Table 9's figures by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tiny_model
from command import say
from typer.testing import CliRunner

from recgpt import judge
from recgpt.alignment import SAMPLES, judge_figures, judge_training, training, world_labels, worlds
from recgpt.alignment.judge_figures import Said
from recgpt.alignment.report.tables import judge_tables, markdown
from recgpt.alignment.truth import Truth
from recgpt.cli import app
from recgpt.errors import AlignmentError, JudgeError
from recgpt.judge import Buffer, Sample
from recgpt.judge.buffer import Label
from recgpt.llm import FakeEngine
from recgpt.pipeline.config import load as configured
from recgpt.pipeline.criteria import criteria_of

# A crowded machine takes half a minute and more to make two worlds.
pytestmark = pytest.mark.timeout(180)

ALL = judge.load()
ON = "tags/relevance"
TAGS = [
    Sample("tags", {"interest": "hiking", "reason": "They hike.", "tag": f"tent {at}"}, user_id=f"u{at % 10}")
    for at in range(60)
]
CONFIG = """
out = "{folder}/out"
[data]
dataset = "world"
[data.world]
users = 12
items = 300
events = 120
[history]
budget = 2000
[llm]
engine = "fake"
households = 6
min_events = 10
context_tokens = 60000
candidates = 30
[tags]
quantity = 8
prompt_tokens = 4000
[interests]
reason_tokens = 400
"""


@pytest.fixture
def buffer(tmp_path: Path) -> Buffer:
    """Two rounds of people's labels: one of three is no good."""
    return filled(tmp_path / "out" / "judge" / "buffer.sqlite")


def filled(path: Path, *, verdicts: tuple[str, ...] = ("No", "Yes", "Yes")) -> Buffer:
    found = Buffer(path)
    found.add_samples(TAGS, source="served", round=1)
    found.add_labels(
        [Label(one.id, ON, "ann", verdicts[at % 3], round=1 + at // 40) for at, one in enumerate(TAGS)], ALL
    )
    return found


def run_in(folder: Path, **world: Any) -> Path:
    text = CONFIG.format(folder=folder)
    text = text.replace("users = 12", "\n".join(["users = 12", *(f"{key} = {value}" for key, value in world.items())]))
    (folder / "run.toml").write_text(text, encoding="utf-8")
    return folder / "run.toml"


class Trainer:
    """Writes a file that looks like an adapter, and remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[pa.Table] = []

    def __call__(self, samples: pa.Table, *, out: Path, config: training.Config, **rest: Any) -> training.Trained:
        rest["held_out"].refuse(samples)
        self.given.append(samples)
        out.write_bytes(b"GGUF" + bytes([len(self.given)]))
        manifest = {"sha256": "ab", "samples": {"sha256": training.digest_of(samples)}, "config": vars_of(config)}
        training.manifest_of(out).write_text(json.dumps(manifest), encoding="utf-8")
        return training.Trained(out, manifest)


def vars_of(config: training.Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def test_a_sample_is_what_the_judge_is_asked_and_answers(buffer: Buffer) -> None:
    found = judge_training.lesson(buffer, ALL, origin="shop")
    assert found.samples.schema.equals(SAMPLES, check_metadata=False)
    assert found.annotators == ["ann"]
    # The newest round is held out, so 14 of the first forty fail, and as many that pass stand beside them.
    assert found.found.classes() == {ON: {"No": 14, "Yes": 14}}
    assert found.found.held_out.num_rows == 20
    by_text = {one.fields["tag"]: one for one in TAGS}
    engine = FakeEngine()
    for row in found.samples.to_pylist():
        own = next(one for tag, one in by_text.items() if f"tag: {tag}\n" in row["prompt"])
        judge.judge([own], {ON: ALL[ON]}, engine=engine)
        asked = engine.requests[-1]
        assert (row["system"], row["prompt"], row["beginning"]) == (
            asked.prompt.system, asked.prompt.user, asked.prompt.answer,
        )  # fmt: skip
        assert {row["answer"], *row["others"]} == set(asked.candidates)
        assert row["answer"] == (" No" if TAGS.index(own) % 3 == 0 else " Yes")
        assert (row["user_id"], row["origin"], row["subtask"]) == (own.user_id, "shop", "judge")


def test_a_scale_of_three_words_has_two_others(tmp_path: Path) -> None:
    found, key = Buffer(tmp_path / "b.sqlite"), "interests/correlation"
    own = [Sample("interests", {"interest": f"tea {at}"}) for at in range(6)]
    found.add_samples(own, source="served", round=1)
    words = ("Excellent", "Good", "Bad")
    found.add_labels([Label(one.id, key, "ann", words[at % 3], round=1) for at, one in enumerate(own)], ALL)
    rows = judge_training.lesson(found, ALL, origin="shop", rounds=[]).samples.to_pylist()
    assert Counter(row["answer"] for row in rows) == {f" {word}": 2 for word in words}
    for row in rows:
        assert sorted([row["answer"], *row["others"]]) == [" Bad", " Excellent", " Good"]


def test_nothing_that_is_held_out_is_learned_from(buffer: Buffer) -> None:
    found = judge_training.lesson(buffer, ALL, origin="shop", users=["u3", "u4"])
    assert not {"u3", "u4"} & set(found.samples["user_id"].to_pylist())
    everybody = {f"u{at}" for at in range(10)}
    with pytest.raises(JudgeError, match="are held out: their samples were labeled in the rounds 2 or are about users"):
        judge_training.lesson(buffer, ALL, origin="shop", users=everybody)
    held = {row["messages"][1]["content"] for row in found.found.held_out.to_pylist()}
    assert not held & set(found.samples["prompt"].to_pylist())
    # People labeled outputs of a world that others are judged on.
    with pytest.raises(AlignmentError, match="samples are held out: row 0, judge, has the origin world/seed=0"):
        judge_training.lesson(buffer, ALL, origin="world/seed=0")


def test_labels_of_one_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(JudgeError, match=r"tags/relevance has labels of one class only \(Yes\)"):
        judge_training.lesson(filled(tmp_path / "b.sqlite", verdicts=("Yes",) * 3), ALL, origin="shop")
    with pytest.raises(JudgeError, match="has no labels to learn from"):
        judge_training.lesson(Buffer(tmp_path / "empty.sqlite"), ALL, origin="shop")


@pytest.fixture(scope="module")
def by_world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Buffer, Path]:
    folder = tmp_path_factory.mktemp("labels")
    config = configured(run_in(folder))
    return world_labels.buffer(config, folder, criteria_of(config), count=1, users=12), folder


def test_a_world_labels_both_classes_by_its_own_name_and_never_the_judging_world(
    by_world: tuple[Buffer, Path],
) -> None:
    found, _ = by_world
    rows = found.labels().to_pylist()
    assert {row["annotator"] for row in rows} == {"world"}
    assert {(row["round"], row["note"]) for row in rows} == {(1, "world/seed=100"), (2, "world/seed=0")}
    classes = {(row["criterion"], row["verdict"]) for row in rows}
    for key in ("tags/relevance", "tags/consistency", "explanations/relevance"):
        assert {(key, "Yes"), (key, "No")} <= classes
    assert {("interests/correlation", "Excellent"), ("interests/correlation", "Bad")} <= classes
    learned = judge_training.lesson(found, ALL, origin="shop")
    assert set(learned.samples["origin"].to_pylist()) == {"world/seed=100"}
    # Planted: the round of the judging world is learned from, and the other one held out.
    with pytest.raises(AlignmentError, match="has the origin world/seed=0; leave it out of the training set"):
        judge_training.lesson(found, ALL, origin="shop", rounds=[1])


def test_a_label_follows_from_what_is_shown() -> None:
    themes = {"dome tent": "camping", "lantern": "camping", "tea pot": "tea drinking"}
    truth = Truth({}, {}, themes, {}, {})
    tag = {"interest": "camping", "reason": "They bought green dome tent and like camping, so they may use x to y."}

    def said(**fields: str) -> dict[str, str]:
        return world_labels._say_tag({**tag, **fields}, truth)

    assert said(tag="brass lantern") == {"relevance": "Yes", "consistency": "Yes"}
    assert said(tag="tea pot") == {"relevance": "No", "consistency": "No"}
    swapped = "They bought green dome tent and like tea drinking, so they may use x to y."
    assert said(tag="lantern", interest="tea drinking", reason=swapped) == {"relevance": "No", "consistency": "Yes"}
    assert said(tag="outdoor") == {"relevance": "No"}
    done = {"what was done": '24: Outdoor > Dome tent x2; 24-06: "lantern"'}
    assert world_labels._say_interest({**done, "interest": "camping"}, truth) == {"correlation": "Excellent"}
    assert world_labels._say_interest({**done, "interest": "tea drinking"}, truth) == {"correlation": "Bad"}
    mixed = {"what was done": "dome tent, tea pot", "interest": "camping"}
    assert world_labels._say_interest(mixed, truth) == {}
    item = {"item": "green dome tent ; Outdoor", "interest": "camping", "text": "A dome tent for one night"}
    assert world_labels._say_text(item, truth) == {"relevance": "Yes"}
    assert world_labels._say_text({**item, "text": "A lantern for one night"}, truth) == {"relevance": "No"}
    assert world_labels._say_text({**item, "interest": "tea drinking"}, truth) == {"relevance": "No"}


def held(rows: list[tuple[str, str, str]]) -> pa.Table:
    return pa.table({name: [row[at] for row in rows] for at, name in enumerate(("sample", "criterion", "verdict"))})


def test_the_figures_are_those_of_a_hand() -> None:
    also = "tags/consistency"
    labels = [("a", "Yes"), ("b", "Yes"), ("c", "Yes"), ("d", "No"), ("e", "No"), ("f", "Yes")]
    said = {"a": ("Yes", 0.9), "b": ("Yes", 0.8), "c": ("No", 0.4), "d": ("No", 0.2), "e": ("Yes", 0.6)}
    forward = {(one, ON): Said(*what) for one, what in said.items()}
    forward |= {("a", also): Said("No", 0.1), ("b", also): Said("Yes", 0.9)}
    table = held([(one, ON, verdict) for one, verdict in labels] + [("a", also, "Yes"), ("b", also, "Yes")])
    backward = {(one, ON): Said("No", 0.3) for one in said}
    found = judge_figures.figures(table, ALL, {"base": forward}, {"base": backward})
    one = found["criteria"][ON]["base"]
    # f was not scored; of the others a, b and d are right.
    assert (one["n"], one["unscored"], one["said"]) == (5, 1, {"No": 2, "Yes": 3})
    assert one["accuracy"]["value"] == pytest.approx(3 / 5)
    assert [one[name]["value"] for name in ("precision", "recall", "f1")] == pytest.approx([2 / 3, 2 / 3, 2 / 3])
    assert 0 <= one["accuracy"]["low"] < 3 / 5 < one["accuracy"]["high"] <= 1
    # Of six pairs of a right and a wrong one, c stands below e alone.
    assert one["auc"] == pytest.approx(5 / 6)
    minority = one["minority"]
    assert (minority["class"], minority["n"]) == ("No", 2)
    assert [minority[name]["value"] for name in ("precision", "recall", "f1")] == pytest.approx([1 / 2] * 3)
    assert one["turned"]["value"] == pytest.approx(3 / 5)
    assert one["backward"]["value"] == pytest.approx(2 / 5)
    # Under both criteria only a and b have labels; a judge that rejects a under one rejects it.
    task = found["tags"]["base"]
    assert (task["n"], task["accuracy"]["value"], task["recall"]["value"]) == (2, 0.5, 0.5)
    assert task["minority"] is None
    # All of two right says little: the exact interval, not [1, 1].
    other = found["criteria"][also]["base"]
    assert other["precision"] == {"value": 1.0, "low": pytest.approx(0.025), "high": 1.0, "n": 1}


def test_training_and_both_judges_come_into_one_file(tmp_path: Path, buffer: Buffer, monkeypatch) -> None:
    trainer, config = Trainer(), run_in(tmp_path, seed=100)
    out = tmp_path / "judge.gguf"

    def made(**rest: Any) -> dict[str, Any]:
        return judge_training.make(config, out, base="none", train=trainer, **rest)

    with pytest.raises(AlignmentError, match="labels are of people or world, but it is 'nobody'"):
        made(source="nobody")
    found = made()
    assert found == json.loads((tmp_path / "out/alignment/judge.json").read_text()) | {"file": found["file"]}
    assert found["about"]["annotators"] == ["ann"]
    assert found["about"]["held_out"] == {"rounds": [2], "labels": 20}
    assert found["tags"]["base"]["n"] == found["tags"]["aligned"]["n"] == 20
    assert {"interests", "explanations"}.isdisjoint(found)
    text = markdown(judge_tables(found))
    assert "Table 9: the judge against people" in text
    assert "rarer class alone" in text
    # The same labels: what was trained stays. Another choice is trained anew.
    made()
    assert len(trainer.given) == 1
    made(per_class=5)
    assert [len(one) for one in trainer.given] == [28, 10]
    real = judge_training.make
    monkeypatch.setattr(judge_training, "make", lambda *given, **rest: real(*given, **rest, train=trainer))
    printed = CliRunner().invoke(app, ["align", "judge", str(config), "--out", str(out), "--hold-out-round", "1"])
    assert printed.exit_code == 0, printed.output
    assert "Table 9" in printed.output
    assert set(trainer.given[-1]["answer"].to_pylist()) == {" Yes", " No"}


def test_a_worlds_labels_are_said_to_be_no_peoples(tmp_path: Path, capsys, monkeypatch) -> None:
    trainer, config, real = Trainer(), run_in(tmp_path), judge_training.make
    monkeypatch.setattr(judge_training, "make", lambda *given, **rest: real(*given, **rest, train=trainer))
    shown = ("--labels", "world", "--worlds", "1", "--users", "12", "--json")
    found = json.loads(say(capsys, "align", "judge", str(config), "--out", str(tmp_path / "judge.gguf"), *shown))
    assert found["about"]["annotators"] == ["world"]
    assert found["about"]["origins"] == ["world/seed=100"]
    assert {"tags", "interests", "explanations"} <= set(found)
    text = markdown(judge_tables(found))
    assert "the judge against a planted world's truth" in text
    assert "not people's" in text
    assert worlds.SEED == 100
    refused = say(
        capsys, "align", "judge", str(config), "--out", str(tmp_path / "j.gguf"), "--labels", "world", "--seed", "0",
        status=1,
    )  # fmt: skip
    assert "the world of seed 0 is the one that this run is judged on" in refused


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_real_training_teaches_the_labels(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("peft")
    from recgpt.llm.llama_cpp import LlamaCpp

    monkeypatch.setattr(tiny_model, "CONTEXT", 2048)
    base = tiny_model.write(tmp_path / "tiny.gguf")
    found = Buffer(tmp_path / "b.sqlite")
    own = [Sample("tags", {"tag": f"{'tent' if at % 2 else 'sofa'} {at}"}) for at in range(24)]
    found.add_samples(own, source="served", round=1)
    found.add_labels(
        [
            Label(one.id, ON, "ann", "Yes" if at % 2 else "No", round=1 if at < 16 else 2)
            for at, one in enumerate(own)
        ],
        ALL,
    )  # fmt: skip
    lesson = judge_training.lesson(found, ALL, origin="shop")
    settings = training.Config(rank=4, alpha=8, dtype="f32", epochs=12, step_tokens=4096, learning_rate=1e-2)
    made = training.train(lesson.samples, base=base, out=tmp_path / "judge.gguf", config=settings)
    engine = LlamaCpp(base, context_tokens=2048)
    try:
        samples = found.samples()
        said = {
            name: judge_figures.ask(lesson.found.held_out, samples, ALL, one)
            for name, one in (("base", engine), ("aligned", engine.adapted(str(made.path))))
        }
    finally:
        engine.close()
    figures = judge_figures.figures(lesson.found.held_out, ALL, said, {})["criteria"][ON]
    assert figures["base"]["n"] == figures["aligned"]["n"] == 8
    assert figures["aligned"]["auc"] == 1.0
    assert figures["aligned"]["accuracy"]["value"] > figures["base"]["accuracy"]["value"]
