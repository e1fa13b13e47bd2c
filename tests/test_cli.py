"""The command line as a person uses it: in a process of its own, on a bundle that a run left."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import say

from recgpt import pipeline
from recgpt.cli import app
from recgpt.llm import ledger

COMMANDS = (
    *("run", "logs", "behaviors", "history", "interests", "tags", "retrieval", "explanations"),
    *("evaluate", "recommend", "inspect", "why-not", "ab", "simulate"),
)
HEAVY = ("torch", "llama_cpp", "gguf", "safetensors", "transformers")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the whole pipeline on a small generated log with the scripted engine; gives the bundles folder."""
    from recgpt import pipeline

    folder = tmp_path_factory.mktemp("shop")
    (folder / "run.toml").write_text(
        f"""
out = "{folder}/out"
[data]
dataset = "world"
[data.world]
hostile = true
[llm]
engine = "fake"
households = 3
min_events = 20
[retrieval]
epochs = 1
steps = 5
threads = 1
[serving]
bundles = "{folder}/bundles"
explained = 5
""",
        encoding="utf-8",
    )
    outcome = pipeline.run(folder / "run.toml")
    assert outcome.figures["llm_users"] == 3
    return folder / "bundles"


def ask(*arguments: str) -> str:
    code = (
        "import sys; from recgpt.cli import main\n"
        f"sys.argv = ['recgpt', *{list(arguments)!r}]\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_recommend_and_inspect_answer_without_torch_and_llama(shop: Path) -> None:
    rows = json.loads(ask("recommend", "u0001", "--bundles", str(shop), "--json", "--k", "4"))
    assert [row["user_id"] for row in rows] == ["u0001"] * 4
    assert all(row["y_col"] is not None and not row["cold"] for row in rows)
    shown = json.loads(ask("inspect", "u0001", "--bundles", str(shop), "--json"))
    assert shown["history"].startswith("r1 ")
    assert shown["tags"]
    assert "user u0001" in ask("inspect", "u0001", "--bundles", str(shop))
    verdict = json.loads(ask("why-not", "u0001", rows[0]["item_id"], "--bundles", str(shop), "--json"))
    assert verdict["verdict"] == "served"
    assert (verdict["tag"], verdict["score"]) == (rows[0]["tag"], rows[0]["score"])
    assert f"\ntag          {rows[0]['tag']}\n" in ask("why-not", "u0001", rows[0]["item_id"], "--bundles", str(shop))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_run_and_evaluate_print_json_and_nothing_else_if_asked(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(shop.parent / "run.toml")
    (line,) = say(capsys, "run", config, "--json").splitlines()
    figures = json.loads(line)
    (again,) = say(capsys, "evaluate", config, "--json").splitlines()
    timed = {"seconds", "bundle"}
    assert {k: v for k, v in json.loads(again).items() if k not in timed} == {
        k: v for k, v in figures.items() if k not in timed
    }
    shown = say(capsys, "evaluate", config)
    hits, new = figures["hr@20"], figures["hr@20_new_popularity"]
    assert re.search(rf"\nhr@20 +│ {hits:.3f} ", shown)
    assert re.search(rf"\nhr@20_new +│ \S+ +│ {new:.3f} ", shown)
    assert re.search(r"\nllm_users +3\n", shown)
    own = figures["llm_beta_sweep"]
    assert [row["beta"] for row in own] == [row["beta"] for row in figures["beta_sweep"]]
    assert own != figures["beta_sweep"]
    assert "beta, users whose tags the model wrote" in shown
    assert "\n- Any purchase, HR@20: " in shown
    (line,) = say(capsys, "logs", config, "--json").splitlines()
    assert json.loads(line)["stage"] == "logs"


def test_a_run_that_holds_nothing_out_cannot_be_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "whole.toml"
    config.write_text(f'out = "{tmp_path}/out"\n[data]\ndataset = "world"\ntest_days = 0\n', encoding="utf-8")
    assert say(capsys, "evaluate", str(config), status=1) == (
        f"recgpt: {config} holds nothing out: data.test_days is 0; set it to the days to judge on\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_user_whom_nobody_knows_is_answered_cold(shop: Path) -> None:
    rows = json.loads(ask("recommend", "stranger", "--bundles", str(shop), "--json"))
    assert rows
    assert all(row["cold"] for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_mistyped_id_is_told_beside_the_answer(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Nothing but the answer on standard output; the hint is for people.
    assert app(["recommend", "u001", "--bundles", str(shop)], standalone_mode=False) is None
    answer, hint = capsys.readouterr()
    assert "recommended" in answer
    assert "look alike" not in answer
    assert hint.startswith("recgpt: user 'u001' is in no table of bundle ")
    assert re.search(r"ids that look alike: 'u00\d1'.*; what is popular was shown\n$", hint)
    app(["recommend", "u0001", "--bundles", str(shop)], standalone_mode=False)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_same_command_again_asks_the_model_nothing(shop: Path) -> None:
    from recgpt import pipeline

    told: dict[str, list[tuple[int, int]]] = {}

    class Noting(pipeline.Silent):
        def begin(self, stage: str, doing: str) -> None:
            told[stage] = []

        def progress(self, done: int, total: int) -> None:
            told[[*told][-1]].append((done, total))

    outcome = pipeline.run(shop.parent / "run.toml", watch=Noting())
    assert (outcome.figures["llm_calls"], outcome.figures["llm_reused"] > 0) == (0, True)
    # Every stage with steps of its own knows how many, from its first moment to its last.
    for stage, total in {"logs": 5, "history": 3, "serving": 6, "evaluation": 10}.items():
        assert told[stage] == [(done, total) for done in range(total + 1)], stage
    assert list(told) == list(pipeline.DOING)
    assert list(outcome.figures)[:3] == ["users", "users_evaluated", "llm_users"]
    assert set(outcome.figures["seconds"]) == {*pipeline.DOING, "total"}
    page = (shop / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["inspect"], 2, "recgpt: Missing argument 'user'. (see recgpt --help)"),
        (
            ["recommend", "1", "--k", "abc"],
            2,
            "recgpt: Invalid value for '--k': Input should be a valid integer, unable to parse string as an integer"
            " (see recgpt --help)",
        ),
        (["run", "none.toml"], 1, "recgpt: a configuration file was expected at none.toml, but there is none"),
        (["run", "."], 1, "recgpt: . cannot be read: Is a directory"),
    ],
)
def test_a_wrong_command_is_one_line(
    arguments: list[str], status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say(capsys, *arguments, status=status) == line + "\n"


def test_the_command_is_installed_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "recgpt", "inspect"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "recgpt: Missing argument 'user'. (see recgpt --help)\n"


@pytest.mark.parametrize("command", [*COMMANDS])
def test_every_command_has_help_and_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = say(capsys, command, "--help")
    assert "Usage" in shown
    assert "--json" in shown


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from recgpt.cli import main
from recgpt.llm import FakeEngine, ledger
def slow(ask):
    def asking(engine, requests, progress=None):
        time.sleep(0.03 * len(requests))
        return ask(engine, requests, progress)
    return asking
FakeEngine.score, FakeEngine.generate = slow(FakeEngine.score), slow(FakeEngine.generate)
ledger.SECONDS = 0.0
sys.argv[0] = "recgpt"
main()
"""
"""The command as it is, but for a model that takes its time and answers that are kept a few at a time. Whoever started
the tests in the background left Ctrl-C ignored, which children inherit."""


def tables(out: Path) -> dict[str, pa.Table]:
    """Every table that a run leaves, by stage and name."""
    found = {str(path.relative_to(out)): pq.read_table(path) for path in sorted(out.glob("*/*.parquet"))}
    assert len(found) >= 12, list(found)
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", ["interests", "tags"])
def test_after_ctrl_c_the_same_command_ends_as_if_nothing_had_been(shop: Path, tmp_path: Path, stage: str) -> None:
    text = (shop.parent / "run.toml").read_text(encoding="utf-8")
    config = tmp_path / "run.toml"
    config.write_text(text.replace(str(shop.parent), str(tmp_path)), encoding="utf-8")
    # The towers are those of the uninterrupted run; training them anew gives the same, but takes its time.
    shutil.copytree(shop.parent / "out" / "retrieval", tmp_path / "out" / "retrieval")
    with (tmp_path / "err.txt").open("w") as errors:
        running = subprocess.Popen(
            [sys.executable, "-c", SLOW, "run", str(config)], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            # In the middle: some of the stage's answers are kept, others are waited for.
            while not any(
                row.stage == stage and row.done and row.waiting for row in ledger.status(tmp_path / "out" / "llm")
            ):
                assert running.poll() is None, (tmp_path / "err.txt").read_text()
                time.sleep(0.02)
            running.send_signal(signal.SIGINT)
            printed, _ = running.communicate(timeout=60)
        finally:
            running.kill()
    said = (tmp_path / "err.txt").read_text().splitlines()
    assert (running.returncode, printed) == (130, "")
    assert said[-1] == "recgpt: stopped; the same command continues where this one ended"
    # Before it only the lines of the stages that were done, and on a slow machine how far they are.
    stages = list(pipeline.DOING)
    done = [line.split()[0] for line in said[:-1] if not re.search(r": .*\d s$", line)]
    assert done == stages[: stages.index(stage)]
    assert not (tmp_path / "out" / "explanations").exists()
    kept = sum(row.done for row in ledger.status(tmp_path / "out" / "llm"))

    done = subprocess.run(
        [sys.executable, "-m", "recgpt", "run", str(config), "--json"], capture_output=True, text=True, check=True
    )
    figures = json.loads(done.stdout)
    assert figures["llm_reused"] >= kept > 0
    assert figures["llm_calls"] > 0
    assert tables(tmp_path / "out") == tables(shop.parent / "out")


def test_without_a_terminal_a_running_stage_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from recgpt.cli import watch

    monkeypatch.setattr(watch, "EVERY", 0.02)
    shown = watch.Terminal()
    for stage, doing in (("tags", "predicting tags"), ("retrieval", "training the towers")):
        shown.begin(stage, doing)
        if stage == "tags":
            shown.progress(1200, 4000)
        time.sleep(0.3)
        shown.end(stage, "done")
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if line.endswith(" done")] == ["tags          done", "retrieval     done"]
    first, second = (lines[: lines.index("tags          done")], lines[lines.index("tags          done") + 1 : -1])
    assert 2 <= len(first) <= 15
    assert set(first) == {"tags          predicting tags: 1,200 of 4,000, 0 s"}
    # The next stage begins anew, and one that tells nothing still shows that it lives.
    assert set(second) == {"retrieval     training the towers: 0 s"}
    monkeypatch.setattr(watch, "EVERY", 10.0)
    shown.begin("serving", "building")
    shown.stop()
    time.sleep(0.1)
    assert capfd.readouterr().err == ""
