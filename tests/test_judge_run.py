"""The judge on a run: rules agree with the stages that kept the rows, and what is wrong is called by its name."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from recgpt import judge, pipeline, schema
from recgpt.cli import app
from recgpt.errors import JudgeError, RecGPTError
from recgpt.judge import Buffer
from recgpt.judge.buffer import Label
from recgpt.llm import FakeEngine
from recgpt.pipeline import judging

CONFIG = """
out = "{folder}/out"
[data]
dataset = "world"
[llm]
engine = "fake"
households = 3
min_events = 20
[tags]
quantity = 10
[retrieval]
epochs = 1
steps = 3
threads = 1
[serving]
bundles = "{folder}/bundles"
explained = 5
[judge]
samples = 12
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A run up to the explanations, with the scripted engine; gives its configuration file."""
    folder = tmp_path_factory.mktemp("judged")
    path = folder / "run.toml"
    path.write_text(CONFIG.format(folder=folder), encoding="utf-8")
    pipeline.run(path, until="explanations")
    return path


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_rules_pass_what_the_stages_kept_and_the_model_is_asked_the_rest(shop):
    config = pipeline.load(shop)
    found = judging.run(config)
    rates = {(row["task"], row["criterion"]): row for row in judging.rates(found)}
    assert {task for task, _ in rates} == {"interests", "tags", "explanations"}
    by_rule = [row for row in rates.values() if row["decided_by"]["rules"]]
    assert all(sum(row["decided_by"].values()) == row["passed"] + row["failed"] for row in rates.values())
    assert len(by_rule) == 9
    assert all(row["passed"] == row["samples"] > 0 for row in by_rule), by_rule
    assert all(row["unscored"] == 0 and row["samples"] <= 12 for row in rates.values())
    kept = pq.read_table(config.out / "judge" / "verdicts.parquet")
    assert kept.schema.equals(schema.VERDICTS)
    assert kept.num_rows == found.counts["llm"] + found.counts["rule"]
    buffer = Buffer(config.out / "judge" / "buffer.sqlite")
    assert buffer.count("samples") == found.counts["samples"]
    assert buffer.verdicts().num_rows == kept.num_rows
    # Answers are in the ledger, so the same question costs nothing; samples do not double.
    again = judging.run(config)
    assert again.table.equals(found.table)
    assert buffer.count("samples") == found.counts["samples"]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_what_is_wrong_is_called_by_its_rule(shop, tmp_path):
    config = pipeline.load(shop)
    rows = pq.read_table(config.out / "tags" / "tags.parquet").to_pylist()
    chosen = next(row for row in rows if row["source"] != "rule")
    wrong = {
        "specificity": chosen | {"tag": "smart thing"},
        "category": chosen | {"category": "No Such Shelf"},
    }
    for rule, row in wrong.items():
        (sample,) = _of(config, tmp_path / rule, "tags", "tags", [row], schema.TAGS)
        assert sample.ruled[rule], rule
    interest = next(iter(pq.read_table(config.out / "interests" / "interests.parquet").to_pylist()))
    for evidence, said in (([], "no row is cited"), ([99999], "1 of 1 cited rows do not support it")):
        row = interest | {"evidence": evidence}
        (sample,) = _of(config, tmp_path / str(evidence), "interests", "interests", [row], schema.INTERESTS)
        assert sample.ruled == {"evidence": said}
    text = next(
        row
        for row in pq.read_table(config.out / "explanations" / "explanations.parquet").to_pylist()
        if row["source"] != "rule"
    )
    for rule, said in {
        "claims": "Organic 900 watt thing for slow mornings",
        "length": "Tea",
        "safety": "Ms. Zhang has to buy this now",
    }.items():
        row = text | {"text": said}
        (sample,) = _of(config, tmp_path / rule, "explanations", "explanations", [row], schema.EXPLANATIONS)
        assert sample.ruled[rule], rule


def _of(config, folder, stage, name, rows, of):
    """Samples of a copy of the run's tables with one of them replaced."""
    for other in ("logs", "history", "interests", "tags", "explanations"):
        (folder / other).mkdir(parents=True)
        for file in (config.out / other).glob("*.parquet"):
            (folder / other / file.name).symlink_to(file)
    (folder / stage / f"{name}.parquet").unlink()
    pq.write_table(pa.Table.from_pylist(rows, of), folder / stage / f"{name}.parquet")
    return judging.samples(config.model_copy(update={"out": folder}), tasks=[stage])


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_command_prints_rates_and_refuses_what_is_not_there(shop, tmp_path):
    done = CliRunner().invoke(app, ["judge", "run", str(shop), "--task", "tags", "--limit", "5", "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout.splitlines()[-1])
    sets = {"criteria", "pass", "counts", "decided_by", "calibrated", "uncalibrated", "answers_left_out"}
    assert set(printed) == sets
    assert printed["answers_left_out"] == []
    assert printed["decided_by"] == {"rules": 20, "model": 10, "people": 0, "unscored": 0}
    assert {row["task"] for row in printed["criteria"]} == {"tags"}
    assert printed["counts"]["samples"] == 5
    buffer = Buffer(pipeline.load(shop).out / "judge" / "buffer.sqlite")
    sample = next(key for key, one in buffer.samples().items() if one.task == "tags")
    buffer.add_label(Label(sample, "tags/own", "ann", "Yes", round=1), {"tags/own": judge.load()["tags/relevance"]})
    people = CliRunner().invoke(
        app, ["judge", "run", str(shop), "--task", "tags", "--limit", "5"], env={"COLUMNS": "80"}
    )
    assert all(f" {row['criterion']} " in people.stdout for row in printed["criteria"])
    assert "…" not in people.stdout
    assert "1 answer is left out, under tags/own: there is no such criterion here" in people.stderr
    assert "uncalibrated" in people.stdout
    assert "decided by rules 20, model 10; " in people.stdout
    wrong = CliRunner().invoke(app, ["judge", "run", str(shop), "--task", "tag"])
    assert isinstance(wrong.exception, RecGPTError)
    config = pipeline.load(shop).model_copy(update={"out": tmp_path})
    with pytest.raises(JudgeError, match="let `recgpt run` reach the stage history first"):
        judging.samples(config)


def test_criteria_are_listed():
    done = CliRunner().invoke(app, ["judge", "criteria", "--json"])
    rows = json.loads(done.stdout)
    (season,) = [row for row in rows if row["criterion"] == "tags/season"]
    assert season["decided by"] == "rule season"
    assert season["passes"] == "Yes of Yes, No"
    # On a terminal of 80 columns every name is whole.
    shown = CliRunner().invoke(app, ["judge", "criteria"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert [row["criterion"] for row in rows if f"{row['criterion']} " not in shown] == []
    assert "…" not in shown


@pytest.mark.slow
def test_an_engine_of_ones_own_is_not_closed(shop):
    engine = FakeEngine()
    found = judging.run(pipeline.load(shop), tasks=["interests"], engine=engine)
    assert found.counts["llm"] == len(engine.requests) > 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_labels_calibrate_the_next_run_and_decide_where_they_are(shop, tmp_path):
    settings = pipeline.load(shop)
    config = settings.model_copy(
        update={"judge": settings.judge.model_copy(update={"buffer": tmp_path / "buffer.sqlite", "samples": 60})}
    )
    first = judging.run(config, tasks=["tags"])
    assert "0 labels pass and 0 do not, 10 of each are needed" in first.uncalibrated["tags/relevance"]
    assert (first.calibrated, judging.trust(first)) == ({}, "uncalibrated: people have not labeled enough")
    buffer, criteria = Buffer(tmp_path / "buffer.sqlite"), judge.load()
    before = buffer.count("verdicts")
    judging.run(config, tasks=["tags"])
    assert buffer.count("verdicts") == before, "the same verdicts again are not written again"
    scores = {row["sample"]: row["score"] for row in first.table.to_pylist() if row["criterion"] == "relevance"}
    ordered = sorted(scores, key=scores.__getitem__)
    assert len(ordered) > 24
    for place, sample in enumerate(ordered[:24]):
        word = "Yes" if place % 2 else "No"
        buffer.add_label(Label(sample, "tags/relevance", "ann", word, round=1), criteria)
    found = judging.run(config, tasks=["tags"], reasons=True)
    assert found.calibrated == {"tags/relevance": "platt, 24 labels"}
    assert "tags/consistency" in found.uncalibrated
    assert found.counts["people"] == 24
    (relevance,) = [row for row in judging.rates(found) if row["criterion"] == "relevance"]
    assert relevance["decided_by"] == {"rules": 0, "model": len(ordered) - 24, "people": 24}
    assert found.counts["reasons"] + found.counts["reasons_unscored"] > 0
    assert judging.trust(found).startswith("uncalibrated for interests/correlation")
    rows = [row for row in found.table.to_pylist() if row["criterion"] == "relevance"]
    assert {row["sample"] for row in rows if row["decided_by"] == "people"} == set(ordered[:24])
    assert len(buffer.events("calibrated")) == 1
    kept = dict(buffer.events("calibrated")[0]["curves"]["tags/relevance"])
    assert kept["digest"] == criteria["tags/relevance"].digest
    # A dry run reads them too, and writes nothing.
    counted = [buffer.count(name) for name in ("samples", "verdicts", "labels", "events")]
    judging.run(config, tasks=["tags"], keep=False)
    assert [buffer.count(name) for name in ("samples", "verdicts", "labels", "events")] == counted


@pytest.mark.slow
def test_a_server_without_scores_leaves_the_models_part_open(shop):
    engine = FakeEngine()
    engine.scores = False
    found = judging.run(pipeline.load(shop), tasks=["tags"], engine=engine, keep=False)
    assert engine.requests == []
    assert found.counts["llm"] == 0
    assert found.counts["rule"] > 0
    assert found.qualified()["tags"] == []
    assert judging.told(found)[0].startswith("tags nobody could tell")


def test_an_accuracy_of_a_criterion_that_is_not_there_is_refused(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.format(folder=tmp_path) + 'accuracy_of = { "tags/foo" = 0.9 }\n', encoding="utf-8")
    with pytest.raises(RecGPTError, match="names tags/foo, which is no criterion; there are interests/"):
        judging.run(pipeline.load(path))
