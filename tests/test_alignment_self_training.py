"""Self-training: rounds, the gate, the guard of variety, the log that survives a kill, and no leaks."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from recgpt import datasets
from recgpt.alignment import gate
from recgpt.alignment.recording import Trying
from recgpt.alignment.rounds import ROUNDS, Log
from recgpt.alignment.self_training import self_train
from recgpt.cli import app
from recgpt.errors import AlignmentError
from recgpt.judge import Buffer
from recgpt.llm import FakeEngine, Recorded
from recgpt.llm.engine import Prompt, Request

CONFIG = """
out = "{folder}/out"
[data]
dataset = "world"
[data.world]
users = 12
items = 200
events = 150
[history]
budget = 2000
[llm]
engine = "fake"
min_events = 10
context_tokens = 60000
candidates = 20
[tags]
quantity = 5
prompt_tokens = 4000
[interests]
reason_samples = 1
reason_tokens = 400
[judge]
samples = 6
"""
SMALL = {"users": 3, "gate_users": 6, "tries": 2}


class Pupil(FakeEngine):
    """A model whose texts get better, or all the same, with the adapter that it was given."""

    def __init__(self) -> None:
        super().__init__(self._say, context_tokens=60_000)
        self.kind = "bare"
        self.seen: list[tuple[str, int]] = []

    def adapted(self, adapter: str) -> FakeEngine:
        view = super().adapted(adapter)
        view._answer = view._say
        view.kind = Path(adapter).read_bytes()[4:].decode()
        return view

    def _say(self, request: Request) -> str:
        self.seen.append((self.kind, request.seed))
        if self.kind == "bare" and request.seed < 1000:
            return "it"  # too short for every rule; only what self-training samples is good
        stage = request.key.split("/")[0]
        if stage == "interests":
            return " " + request.prompt.user.split("\n")[1]
        if self.kind == "same":
            return " songs and laughter"
        draw = sum(map(ord, f"{request.prompt}{request.seed}")) % 7
        return " " + ("calm", "slow", "loud", "long", "windy", "early", "late")[draw] + " day with old friends"


@pytest.fixture
def config(tmp_path) -> Path:
    (tmp_path / "run.toml").write_text(CONFIG.format(folder=tmp_path), encoding="utf-8")
    return tmp_path / "run.toml"


class School:
    """A training that writes what kind of model comes out of each round."""

    def __init__(self, *kinds: str) -> None:
        self.kinds, self.calls = list(kinds), []

    def __call__(self, samples: pa.Table, *, out: Path, **given: Any) -> SimpleNamespace:
        self.calls.append({"samples": samples, "out": out, **given})
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(b"GGUF" + self.kinds[len(self.calls) - 1].encode())
        return SimpleNamespace(path=out)


def run(config: Path, school: Any, **options: Any):
    with Recorded(Pupil(), config.parent / "ledger") as engine:
        return self_train(config, train=school, engine=engine, base="base.gguf", **(SMALL | options))


def test_a_round_that_helps_is_taken_and_a_collapse_after_it_is_not(config) -> None:
    school = School("better", "same")
    found = run(config, school, rounds=2)
    first, second = found.rounds.to_pylist()
    assert first["accepted"], first["why"]
    assert first["low"] > 0
    # The second says the same to everybody: every answer passes, and yet it is refused.
    assert not second["accepted"]
    assert second["gain"] > 0
    assert "answers lost their variety: texts" in second["why"]
    assert found.adapter == config.parent / "out/alignment/self/round-1/adapter.gguf"
    assert school.calls[0]["start"] is None
    assert school.calls[1]["start"] == found.adapter
    assert found.after.parts["tags"] > found.before.parts["tags"]
    assert pq.read_table(found.folder / "rounds.parquet").equals(found.rounds)
    assert found.rounds.schema.equals(ROUNDS)


def test_nobody_of_the_gate_is_learned_from_nor_shown_to_people(config) -> None:
    school = School("better")
    run(config, school, rounds=1)
    call = school.calls[0]
    assert set(call["samples"]["origin"].to_pylist()) == {"world/seed=100"}
    assert call["held_out"].origins == ["world/seed=0", "world/seed=101"]
    held = call["samples"].slice(0, 1).to_pylist()
    leak = pa.Table.from_pylist([held[0] | {"origin": "world/seed=101"}], call["samples"].schema)
    with pytest.raises(AlignmentError, match="held out"):
        call["held_out"].refuse(leak)
    buffer = Buffer(config.parent / "out/judge/buffer.sqlite")
    with buffer.transaction() as database:
        assert {row[0] for row in database.execute("SELECT source FROM samples")} == {"self-training"}
    owners = {one.user_id for one in buffer.samples().values()} - {None}
    assert owners <= set(call["samples"]["user_id"].to_pylist()) | owners
    assert len(owners) <= SMALL["users"]


def test_in_a_log_pupils_gate_and_the_held_out_are_three(config) -> None:
    shop = config.parent / "shop"
    shop.mkdir()
    made = datasets.load("world", users=14, items=200, events=150)
    for name in ("events", "items", "users"):
        pq.write_table(getattr(made, name), shop / f"{name}.parquet")
    head, tail = config.read_text(encoding="utf-8").split("[data]")
    rest = tail.split("[history]")[1]
    config.write_text(f'{head}[data]\nfolder = "{shop}"\ntest_days = 14\ntruth = "click"\n[history]{rest}', "utf-8")
    school = School("better")
    run(config, school, rounds=1, held_out=["u0001", "u0003"], users=5, gate_users=3)
    call = school.calls[0]
    learned = set(call["samples"]["user_id"].to_pylist()) - {None}
    assert learned
    assert not learned & set(call["held_out"].users)
    assert {"u0001", "u0003"} < set(call["held_out"].users)
    assert len(call["held_out"].users) == 5
    assert call["held_out"].since is not None


def test_every_try_but_the_first_is_sampled(config) -> None:
    engine = Pupil()
    asked = Trying(engine, temperature=0.9, seed=17)
    asked.generate([Request(Prompt("", "<<<items\ntea\nitems>>>"), 9, seed=3, key="interests/a/reason/0")])
    (request,) = engine.requests
    assert (request.temperature, request.seed) == (0.9, 20)
    assert asked.count_tokens(["a b"]) == engine.count_tokens(["a b"])


def test_a_killed_self_training_goes_on_and_ends_the_same(config, tmp_path_factory) -> None:
    class Killed(School):
        def __call__(self, samples: pa.Table, **given: Any) -> SimpleNamespace:
            if not self.calls:
                self.calls.append({})
                raise KeyboardInterrupt
            return super().__call__(samples, **given)

    school = Killed("never", "better")
    with pytest.raises(KeyboardInterrupt):
        run(config, school, rounds=1)
    log = config.parent / "out/alignment/self/rounds.jsonl"
    assert [json.loads(line)["kind"] for line in log.read_text().splitlines()] == ["begun", "measured", "samples"]
    # The process died while it wrote a line.
    with log.open("a") as file:
        file.write('{"kind": "rou')
    found = run(config, school, rounds=1)
    assert found.rounds.num_rows == 1
    assert [json.loads(line)["kind"] for line in log.read_text().splitlines()] == [
        "begun", "measured", "samples", "round",
    ]  # fmt: skip
    other = tmp_path_factory.mktemp("whole")
    (other / "run.toml").write_text(CONFIG.format(folder=other), encoding="utf-8")
    whole = run(other / "run.toml", School("better"), rounds=1)
    drop = ["adapter"]
    assert whole.rounds.drop_columns(drop).equals(found.rounds.drop_columns(drop))
    before = len(school.calls)
    assert run(config, school, rounds=1).rounds.equals(found.rounds)
    assert len(school.calls) == before, "a finished round was trained again"


def test_the_log_of_other_settings_is_refused_and_forgotten_on_demand(tmp_path) -> None:
    Log(tmp_path, {"tries": 1, "seed": 0}).add({"kind": "measured", "round": 0})
    assert Log(tmp_path, {"tries": 1, "seed": 0}).find("measured", 0)
    with pytest.raises(AlignmentError, match=r"other settings \(tries changed\).*--fresh"):
        Log(tmp_path, {"tries": 2, "seed": 0})
    assert Log(tmp_path, {"tries": 2, "seed": 0}, fresh=True).find("measured", 0) is None


def test_a_full_disk_is_told_before_any_model_works(config, monkeypatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    engine = Pupil()
    with monkeypatch.context() as patch, Recorded(engine, config.parent / "ledger") as recorded:
        patch.setattr("recgpt.alignment.rounds.os.fsync", full)
        with pytest.raises(AlignmentError, match=r"No space left on device; .* goes on when there is room"):
            self_train(config, train=School(), engine=recorded, base="b", **SMALL)
    assert not engine.requests


def test_a_damaged_log_names_its_line(tmp_path) -> None:
    Log(tmp_path, {"a": 1})
    path = tmp_path / "rounds.jsonl"
    path.write_text("no json\n" + path.read_text())
    with pytest.raises(AlignmentError, match=r"rounds\.jsonl, line 1, is no JSON"):
        Log(tmp_path, {"a": 1})


def test_a_round_without_anything_to_learn_is_refused_untrained(config) -> None:
    class Mute(Pupil):
        def _say(self, request: Request) -> str:
            return "it"

        def score(self, requests, progress=None):
            from recgpt.llm.engine import ScoreResult

            return [ScoreResult("unscored", reason="engine: deaf") for _ in requests]

    school = School()
    with Recorded(Mute(), config.parent / "ledger") as engine:
        found = self_train(config, train=school, engine=engine, base="b", rounds=1, **SMALL)
    (row,) = found.rounds.to_pylist()
    assert "nothing to learn from" in row["why"]
    assert not school.calls
    assert row["gain"] is None


def test_the_gate_needs_help_beyond_chance() -> None:
    def measured(**scores: float) -> gate.Measured:
        return gate.Measured(scores, {}, {"texts": 1.0})

    before = measured(a=0.2, b=0.4, c=0.3)
    same = gate.compare(before, before)
    assert (same.passed, same.gain, same.users) == (False, 0.0, 3)
    up = gate.compare(before, measured(a=0.3, b=0.6, c=0.4))
    assert up.passed
    assert up.gain == pytest.approx(0.4 / 3)
    assert up.low > 0
    mixed = gate.compare(before, measured(a=0.9, b=0.1, c=0.1))
    assert not mixed.passed
    assert mixed.gain > 0
    assert not gate.compare(measured(a=0.1), measured(a=0.9)).passed
    narrow = gate.Measured({"a": 0.9, "b": 0.9, "c": 0.9}, {}, {"texts": 0.5})
    assert "texts from 1.00 to 0.50" in gate.compare(before, narrow).why


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"tries": 0}, {"users": 0}, {"gate_users": 1}])
def test_what_cannot_be_trained_is_refused(config, wrong) -> None:
    with pytest.raises(AlignmentError, match="needs at least one round, one try, one user and two users of the gate"):
        self_train(config, **wrong)


def test_too_few_users_are_refused_with_their_number(config) -> None:
    config.write_text(config.read_text().replace("min_events = 10", "min_events = 100000"))
    with pytest.raises(AlignmentError, match="nobody of world/seed=100 is left to learn from: 3 users were asked for"):
        run(config, School(), rounds=1)


def test_several_adapters_are_no_start(config) -> None:
    for name in ("a", "b"):
        (config.parent / f"{name}.gguf").write_bytes(b"GGUF")
    with config.open("a") as file:
        file.write(f'[llm.adapters]\ninterests = "{config.parent}/a.gguf"\ntags = "{config.parent}/b.gguf"\n')
    with pytest.raises(AlignmentError, match=r"one adapter learns all stages.*--start"):
        run(config, School(), rounds=1)


def test_the_command_prints_every_round(config, monkeypatch) -> None:
    monkeypatch.setattr("recgpt.alignment.self_training._train", School("bare"))
    small = ["--users", "2", "--gate-users", "3", "--tries", "1", "--base", "b.gguf", "--set", "rank=4"]
    words = ["align", "self-train", str(config), *small]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "it does not help" in said
    assert "(the report: 21.1k); the adapter: none, the model stays as it was" in said
    old = config.parent / "out/alignment/self/round-1/adapter.state"
    old.write_bytes(b"of another training")
    # Everything has ended: the same command says the same, without a question.
    monkeypatch.setattr("recgpt.alignment.self_training._train", None)
    again = CliRunner().invoke(app, [*words, "--json"])
    (row,) = json.loads(again.stdout)["rounds"]
    assert (row["round"], row["accepted"], row["gain"]) == (1, False, 0.0)
    assert old.exists()
    monkeypatch.setattr("recgpt.alignment.self_training._train", School("bare"))
    assert CliRunner().invoke(app, [*words, "--fresh"]).exit_code == 0
    assert not old.exists()
