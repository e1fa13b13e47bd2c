"""The command line as a person uses it: in a process of its own, on a bundle that a run left."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
@pytest.mark.timeout(120)
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


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_user_whom_nobody_knows_is_answered_cold(shop: Path) -> None:
    rows = json.loads(ask("recommend", "stranger", "--bundles", str(shop), "--json"))
    assert rows
    assert all(row["cold"] for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_same_command_again_asks_the_model_nothing(shop: Path) -> None:
    from recgpt import pipeline

    outcome = pipeline.run(shop.parent / "run.toml")
    assert (outcome.figures["llm_calls"], outcome.figures["llm_reused"] > 0) == (0, True)
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
def test_a_wrong_command_is_one_line(arguments: list[str], status: int, line: str) -> None:
    done = subprocess.run([sys.executable, "-m", "recgpt", *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == line + "\n"


@pytest.mark.parametrize("command", ["run", "logs", "history", "interests", "tags", "retrieval", "explanations"])
def test_every_command_has_help(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "recgpt", command, "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_ctrl_c_says_that_it_continues(shop: Path) -> None:
    code = (
        "import sys; from recgpt import pipeline; from recgpt.cli import main\n"
        "def stop(*args, **kwargs): raise KeyboardInterrupt\n"
        f"pipeline.run = stop; sys.argv = ['recgpt', 'run', {str(shop.parent / 'run.toml')!r}]; main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "recgpt: stopped; the same command continues where this one ended\n"


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
