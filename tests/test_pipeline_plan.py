"""What a run checks before it begins, what it would cost, how far it is, and what a changed prompt costs."""

import json
import os
import shutil
import time
from collections import Counter
from importlib import resources
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recgpt import pipeline
from recgpt.cli import render
from recgpt.errors import EngineError, LedgerError, ModelNotFoundError, PromptError
from recgpt.llm import FakeEngine, Recorded, ledger, planning
from recgpt.llm.engine import Prompt, Request, ScoreRequest
from recgpt.llm.planning import Planned
from recgpt.llm.wire import result_from

CONFIG = """
out = "{folder}/out"
[data]
dataset = "world"
[history]
budget = {budget}
[llm]
engine = "fake"
mode = "{mode}"
households = {households}
min_events = 20
context_tokens = {context}
[tags]
quantity = 10
[retrieval]
epochs = 2
steps = 3
threads = 1
[serving]
bundles = "{folder}/bundles"
explained = 3
"""


def write(folder: Path, *, budget: int = 600, context: int = 4096, mode: str = "rank", households: int = 2) -> Path:
    path = folder / "run.toml"
    text = CONFIG.format(folder=folder, budget=budget, context=context, mode=mode, households=households)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A dry run, then the run itself."""
    folder = tmp_path_factory.mktemp("plan")
    path = write(folder, households=8)
    with pytest.MonkeyPatch.context() as patch:
        # What is stated for a small model; of the scripted one every text passes, and has a fifth of its room.
        patch.setattr(planning, "PASSING", dict.fromkeys(planning.PASSING, 1.0))
        patch.setattr(planning, "ANSWERED", dict.fromkeys(planning.ANSWERED, 0.2))
        planned = pipeline.plan(path)
    left = sorted(entry.name for entry in folder.iterdir())
    return folder, planned, left, pipeline.run(path)


@pytest.fixture
def own_prompts(tmp_path, monkeypatch):
    """A copy of the package's prompts that may be changed."""
    shutil.copytree(str(resources.files("recgpt") / "prompts"), tmp_path / "prompts")
    files = resources.files
    monkeypatch.setattr(resources, "files", lambda package: tmp_path if package == "recgpt" else files(package))
    return tmp_path / "prompts"


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / f"{name}.md").read_text(encoding="utf-8")
    assert old in text
    (folder / f"{name}.md").write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_dry_run_changes_nothing_and_foresees_the_first_stage(done) -> None:
    folder, planned, left, outcome = done
    assert left == ["run.toml"]
    asked = {row.stage: row.done + row.failed + row.quarantined for row in pipeline.status(folder / "run.toml")}
    assert set(planned.llm) == set(asked) == {"interests", "tags", "explanations", "judge"}
    assert planned.llm["interests"].reused == 0
    assert abs(planned.llm["interests"].rows - asked["interests"]) <= 0.2 * asked["interests"]
    assert planned.llm["tags"].prompt_tokens > planned.llm["tags"].computed_tokens > 0
    assert set(planned.seconds) == set(outcome.figures["seconds"]) - {"total"}
    assert (folder / "out" / "judge" / "verdicts.parquet").is_file()
    assert outcome.figures["pass_n"] > 0
    assert outcome.figures["pass_calibrated"] is False
    by = outcome.figures["pass_decided_by"]
    assert set(by) == {"rules", "model", "people", "unscored"}
    verdicts = pq.read_table(folder / "out" / "judge" / "verdicts.parquet")
    assert sum(by.values()) == verdicts.num_rows
    page = (folder / "bundles" / "report.html").read_text(encoding="utf-8")
    assert f"rules {by['rules']}, model {by['model']}" in page
    assert all(0 <= outcome.figures[f"pass_{task}"] <= 1 for task in ("interests", "tags", "explanations"))
    came = spent(folder / "out")
    assert came["rows"] == sum(asked.values())
    assert_foreseen(planned, came, disk=size(folder / "out") + size(folder / "bundles"))


def spent(out: Path) -> Counter[str]:
    """Rows and tokens of all answers in a run's ledger."""
    found: Counter[str] = Counter()
    for path in (out / "llm" / "shards").iterdir():
        for row in pq.read_table(path, columns=["result"])["result"].to_pylist():
            usage = result_from(json.loads(row)).usage
            found.update(rows=1, prompt_tokens=usage.prompt_tokens, answer_tokens=usage.answer_tokens)
    return found


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def assert_foreseen(planned: pipeline.Plan, came: Counter[str], *, disk: int) -> None:
    """Rows, tokens in and out, and disk within 20 % of what came."""
    said = {name: sum(getattr(tally, name) for tally in planned.llm.values()) for name in came} | {"disk": planned.disk}
    off = {name: round(said[name] / truth - 1, 3) for name, truth in (came | {"disk": disk}).items()}
    print(f"foreseen against came: {off}; {said}, {dict(came)}, {disk}")
    assert all(abs(error) <= 0.2 for error in off.values()), off


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif("RECGPT_DEMO" not in os.environ, reason="RECGPT_DEMO names the folder in which `make demo` ran")
def test_a_dry_run_foresees_the_demo(tmp_path, monkeypatch) -> None:
    """Against the ledger that `make demo FRESH=1` left, from an empty one; no model is asked, so no second is told."""
    root = Path(os.environ["RECGPT_DEMO"])
    monkeypatch.setattr(planning.Planned, "_sampled_rate", lambda *_: 0.0)
    text = (Path(__file__).parent.parent / "runs" / "demo.toml").read_text(encoding="utf-8")
    text = text.replace('out = "out/demo"', f'out = "{tmp_path}/out"')
    (tmp_path / "demo.toml").write_text(text.replace("[serving]", f'[serving]\nbundles = "{tmp_path}/bundles"'))
    planned = pipeline.plan(tmp_path / "demo.toml")
    current = root / "bundles" / (root / "bundles" / "CURRENT").read_text().strip()
    written = size(root / "out" / "demo") + size(current) + (root / "bundles" / "report.html").stat().st_size
    assert_foreseen(planned, spent(root / "out" / "demo"), disk=written)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_after_the_run_nothing_is_left_to_ask(done, capsys) -> None:
    folder, _, _, outcome = done
    again = pipeline.plan(folder / "run.toml")
    assert {stage: tally.rows - tally.reused for stage, tally in again.llm.items()} == dict.fromkeys(again.llm, 0)
    assert (
        sum(tally.rows for tally in again.llm.values()) == outcome.figures["llm_calls"] + outcome.figures["llm_reused"]
    )
    anew = pipeline.plan(folder / "run.toml", fresh=True)
    assert not any(tally.reused for tally in anew.llm.values())
    # With the ledger's own rates and shares it knows better than at first.
    render.plan(anew)
    render.status(pipeline.status(folder / "run.toml"))
    shown = capsys.readouterr().out
    assert "interests" in shown
    assert "quarantined" in shown
    assert "nothing was asked and nothing was written" in shown


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_changed_prompt_asks_its_stage_and_what_depends_on_it(done, tmp_path, own_prompts) -> None:
    folder, _, _, before = done
    shutil.copytree(folder / "out", tmp_path / "out")
    shutil.copytree(folder / "bundles", tmp_path / "bundles")
    path = write(tmp_path, households=8)
    calls: Counter[str] = Counter()
    generate, score = FakeEngine.generate, FakeEngine.score

    def noted(ask):
        def asking(engine, requests, progress=None):
            calls.update(ledger.stage_of(request) for request in requests)
            return ask(engine, requests, progress)

        return asking

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeEngine, "generate", noted(generate))
        patch.setattr(FakeEngine, "score", noted(score))
        pipeline.run(path)
        assert not calls
        edit(own_prompts, "explanations", "Finish one short", "Please finish one short")
        outcome = pipeline.run(path)
        assert set(calls) == {"explanations"}
        assert outcome.summaries["retrieval"].startswith("trained before")
        calls.clear()
        edit(own_prompts, "tags_reason", "Say in a few words", "Tell in a few words")
        outcome = pipeline.run(path)
        assert set(calls) == {"tags"}
        calls.clear()
        edit(own_prompts, "interests_rank", "You study what", "You look at what")
        outcome = pipeline.run(path)
        assert "interests" in calls
        assert outcome.summaries["retrieval"].startswith("trained before")
        calls.clear()
        assert pipeline.run(path).figures["llm_calls"] == 0
    assert before.figures["llm_users"] == outcome.figures["llm_users"]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_fresh_waits_for_the_lock_before_it_removes_anything(done, tmp_path) -> None:
    folder = done[0]
    shutil.copytree(folder / "out", tmp_path / "out")
    files = sorted(path for path in (tmp_path / "out").rglob("*.parquet"))
    with Recorded(FakeEngine(), tmp_path / "out" / "llm"), pytest.raises(LedgerError, match="in use by process"):
        pipeline.run(write(tmp_path), fresh=True)
    assert sorted(path for path in (tmp_path / "out").rglob("*.parquet")) == files
    assert any("retrieval" in str(path) for path in (tmp_path / "out").rglob("done"))


def test_status_says_what_failed_means_and_why_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    why = {f"schema: answer.a{number} must be a list": 2 for number in range(9)}
    render.status([pipeline.Status("tags", 4, 1, 0, 2, {"length": 30}), pipeline.Status("interests", 0, 18, 0, 0, why)])
    shown = capsys.readouterr().out
    assert "failed: no usable answer, so the stage did without it" in shown
    assert "\n      30  length\n       2  schema: answer.a0 must be a list\n" in shown
    assert "\n  and 2 more; --json has all" in shown
    render.status([pipeline.Status("tags", 4, 0, 0, 2, {})])
    assert "failed:" not in capsys.readouterr().out


def test_status_of_a_run_that_never_began_is_empty(tmp_path: Path) -> None:
    assert pipeline.status(write(tmp_path)) == []


@pytest.mark.parametrize("until", ["history", "interests", "evaluation"])
def test_a_missing_slot_is_an_error_before_any_work(tmp_path, own_prompts, until) -> None:
    edit(own_prompts, "interests_rank", '{{ history | fence("history") }}', "")
    with pytest.raises(
        PromptError, match=r"interests_rank\.md do not fit the header's inputs; missing: {{ history }}"
    ) as e:
        pipeline.run(write(tmp_path), until=until)
    assert "Traceback" not in str(e.value)
    assert not (tmp_path / "out").exists()


def test_a_prompt_that_is_too_long_by_itself_names_file_and_numbers(tmp_path, own_prompts) -> None:
    edit(own_prompts, "tags_rank", "You advise the shoppers of one store.", "Mind this. " * 900)
    message = (
        r"the prompt .*tags_rank\.md does not fit: its own words take 2,\d\d\d tokens and the answer 32 "
        r"\(a candidate\), so that -\d,\d\d\d of a context of 1,024 \(llm\.context_tokens"
    )
    with pytest.raises(PromptError, match=message):
        pipeline.run(write(tmp_path, context=1024))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["rank", "generate"])
def test_the_history_is_cut_so_that_it_fits(tmp_path, mode) -> None:
    context = 1024 if mode == "rank" else 4096
    outcome = pipeline.run(write(tmp_path, budget=3000, context=context, mode=mode), until="history")
    assert f"instead of 3,000 to fit {context:,}" in outcome.summaries["history"]
    assert "3,000 each" not in outcome.summaries["history"]


def replaced(old, new):
    return lambda data: data.replace(old, new, 1)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "not within the file bounds, model is corrupted or incomplete"),
        (lambda data: data[:5000], "failed to read key-value pairs"),
        (replaced(b"\5\0\0\0\0\0\0\0llama", b"\5\0\0\0\0\0\0\0llxyz"), "unknown model architecture: 'llxyz'"),
        (replaced(b"tokenizer.chat_template", b"tokenizer.chat_templatx"), "no tokenizer.chat_template"),
    ],
)
def test_a_damaged_model_is_an_error_before_any_work(tmp_path, smollm2_path, damage, message) -> None:
    pytest.importorskip("llama_cpp")
    model = tmp_path / "model.gguf"
    model.write_bytes(damage(smollm2_path.read_bytes()))
    path = write(tmp_path)
    path.write_text(path.read_text().replace('engine = "fake"', f'model = "{model}"'))
    with pytest.raises(EngineError, match=message) as e:
        pipeline.run(path)
    assert str(model) in str(e.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_dry_run_counts_adapters(tmp_path) -> None:
    path, adapter = write(tmp_path), tmp_path / "tags.gguf"
    adapter.write_bytes(b"GGUF one")
    path.write_text(f'{path.read_text()}[llm.adapters]\ntags = "{adapter}"\n', encoding="utf-8")
    outcome = pipeline.run(path)
    again = pipeline.plan(path)
    assert {stage: tally.rows - tally.reused for stage, tally in again.llm.items()} == dict.fromkeys(again.llm, 0)
    assert sum(tally.rows for tally in again.llm.values()) == outcome.figures["llm_calls"]
    adapter.write_bytes(b"GGUF two")
    other = pipeline.plan(path).llm
    assert (other["interests"].reused, other["tags"].reused) == (other["interests"].rows, 0)
    adapter.unlink()
    with pytest.raises(ModelNotFoundError, match="a LoRA adapter was expected"):
        pipeline.plan(path)


class Slow(FakeEngine):
    """An engine that takes half a millisecond a token that it reads or writes; texts have 3 of 10 tokens."""

    def generate(self, requests, progress=None):
        for request in requests:
            self.enqueue(f"so it is{request.seed or ''}")
        answers = super().generate(requests, progress)
        time.sleep(sum(a.usage.prompt_tokens + 4 * a.usage.answer_tokens for a in answers) * 5e-4)
        return answers


def test_speed_is_measured_on_a_part_of_the_very_requests(tmp_path) -> None:
    engine = Slow()
    planned = Planned(engine, tmp_path / "llm", tokenizer=None, sample=True)
    requests = [Request(Prompt(f"{n}", "five " * 9), 10, seed=0, key="tags/reason") for n in range(400)]
    answers = planned.generate(requests)
    # A quarter of 400 requests with 10 tokens to read and 3 to write: 400 x (10 + 4 x 3) / 2000 s.
    assert 60 <= planned.sampled.rows == len(engine.requests) <= 100
    assert planned.sampled.answered == {"tags": 0.3}
    tally = planned.stages["tags"]
    assert tally.answer_tokens == 1200
    assert tally.seconds == pytest.approx(400 * 22 * 5e-4, rel=0.2)
    assert tally.busy >= planned.sampled.seconds > 0
    assert not any(answer.text == "so it is" for answer in answers)
    assert not (tmp_path / "llm").exists()
    # Once a stage and kind.
    planned.generate([Request(Prompt("again", "five"), 10, key="tags/reason")])
    assert len(engine.requests) == planned.sampled.rows


def test_planned_counts_what_is_shared_and_what_is_known(tmp_path) -> None:
    texts = [Request(Prompt("one two three four", f"five {word}"), 10, key=f"tags/{word}") for word in "abc"]
    score = ScoreRequest(Prompt("x", "y"), (" a b", " c"), key="interests/u")
    with Recorded(FakeEngine(), tmp_path) as engine:
        known = engine.generate(texts[:1])
    planned = Planned(FakeEngine(context_tokens=100), tmp_path, tokenizer=None)
    assert planned.generate([*texts, texts[2]])[0] == known[0]
    assert len(planned.score([score])[0].logprobs) == 2
    tally = planned.stages["tags"]
    # b and c are new: the second shares five of its six words with the first.
    assert (tally.rows, tally.reused, tally.prompt_tokens, tally.computed_tokens) == (3, 1, 12, 7)
    assert (planned.calls, planned.reused) == (3, 1)
    assert planned.stages["interests"].answer_tokens == 3
    assert json.loads(json.dumps(planned.count_tokens(["a b"]))) == [2]
    planned.close()


def test_how_many_texts_pass_is_read_from_the_ledger(tmp_path) -> None:
    def ask(key, count, first=0):
        return [Request(Prompt("s", f"{key} {n}"), 10, key=f"{key}/{n}") for n in range(first, first + count)]

    with Recorded(FakeEngine(), tmp_path) as engine:
        engine.generate(ask("explanations/0", 40) + ask("explanations/1", 30) + ask("tags/reason/0", 19))
        engine.generate(ask("interests/u/reason", 40))
    planned = Planned(FakeEngine(), tmp_path, tokenizer=None)
    # Thirty of forty were asked again; nineteen are too few to tell, and interests are never asked again.
    assert planned._reader.passing(planned.name) == {"explanations": 0.25}
    made = planned.generate(ask("explanations/0", 2000, first=40))
    assert sum(bool(answer.text) for answer in made) == pytest.approx(500, abs=80)
    made = planned.generate(ask("tags/reason/0", 2000, first=40))
    assert sum(bool(answer.text) for answer in made) == pytest.approx(2000 * planning.PASSING["tags"], abs=80)
    assert planned._reader.passing("another engine") == {}
    planned.close()
