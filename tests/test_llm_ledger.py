"""The ledger: finished work is kept exactly once, through kills, damage and poison."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import recgpt
from recgpt.errors import LedgerError
from recgpt.llm import FakeEngine, Recorded
from recgpt.llm.engine import Prompt, Request, Result, ScoreRequest
from recgpt.llm.wire import digest

REQUESTS = [Request(Prompt("Name a want.", f"history {i}"), 20, key=f"interests/{i}") for i in range(100)]


def rows(folder):
    return [row for file in sorted((folder / "shards").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_second_run_asks_nothing(tmp_path):
    with Recorded(FakeEngine(), tmp_path) as engine:
        first = engine.generate(REQUESTS)
        scores = engine.score([ScoreRequest(Prompt("a", "b"), ("c", "d"))])
        assert (engine.calls, engine.reused) == (101, 0)
    inner = FakeEngine()
    with Recorded(inner, tmp_path) as engine:
        seen = []
        assert engine.generate(REQUESTS, lambda done, total: seen.append((done, total))) == first
        assert engine.score([ScoreRequest(Prompt("a", "b"), ("c", "d"))]) == scores
        assert (engine.calls, engine.reused, inner.requests) == (0, 101, [])
        assert seen == [(100, 100)]
    assert [row["key"] for row in rows(tmp_path)].count("interests/7") == 1


def test_order_duplicates_and_progress(tmp_path):
    with Recorded(FakeEngine(), tmp_path) as engine:
        engine.generate(REQUESTS[:50])
        seen = []
        mixed = [REQUESTS[70], REQUESTS[3], REQUESTS[70], REQUESTS[60]]
        results = engine.generate(mixed, lambda done, total: seen.append((done, total)))
        assert results == FakeEngine().generate(mixed)
        # Asked are 60 and 70, found is 3; the second 70 is a copy, not reused.
        assert (engine.calls, engine.reused) == (52, 1)
        assert seen[-1] == (4, 4)


def test_every_part_of_a_request_is_in_the_key():
    base = Request(Prompt("s", "u", "a"), 5, {"type": "boolean"}, (".",), 0.5, 1, "key")
    changed = [
        replace(base, prompt=Prompt("su", "", "a")),
        replace(base, prompt=Prompt("s", "ua", "")), replace(base, max_tokens=6),
        replace(base, schema=None), replace(base, stop=()), replace(base, stop=(".", "")),
        replace(base, temperature=0.6),
        replace(base, seed=2), ScoreRequest(base.prompt, ("a", "bc")), ScoreRequest(base.prompt, ("ab", "c")),
    ]  # fmt: skip
    keys = [digest("m", request) for request in [base, *changed]] + [digest("n", base)]
    assert len(set(keys)) == len(keys)
    assert digest("m", replace(base, key="other")) == digest("m", base)


def test_damage_is_redone(tmp_path):
    with Recorded(FakeEngine(), tmp_path) as engine:
        first = engine.generate(REQUESTS)
    files = sorted((tmp_path / "shards").glob("*.parquet"), key=lambda file: pq.read_metadata(file).num_rows)
    assert len(files) == 2
    data = bytearray(files[0].read_bytes())
    data[len(data) // 2] ^= 1
    files[0].write_bytes(data)
    (tmp_path / "shards" / "half.tmp").write_bytes(b"PAR1")
    (tmp_path / "shards" / "orphan.parquet").write_bytes(b"PAR1")
    with Recorded(FakeEngine(), tmp_path) as engine:
        assert engine.generate(REQUESTS) == first
        assert engine.calls == 32
    assert sorted(row["digest"] for row in rows(tmp_path)) == sorted(digest("fake", request) for request in REQUESTS)
    files[1].unlink()
    with Recorded(FakeEngine(), tmp_path) as engine:
        assert engine.generate(REQUESTS) == first
        assert engine.calls == 68


def test_poison_is_quarantined_after_three_runs(tmp_path):
    lost = Result("unscored", "", None, "engine: signal 11")
    for run in range(3):
        with Recorded(FakeEngine(lambda request: lost), tmp_path) as engine:
            assert engine.generate(REQUESTS[:1]) == [lost]
            assert (engine.calls, len(engine.quarantined())) == (1, run // 2)
    with Recorded(FakeEngine(), tmp_path) as engine:
        assert engine.generate(REQUESTS[:1]) == [lost]
        assert engine.calls == 0
        assert engine.quarantined() == {digest("fake", REQUESTS[0]): "engine: signal 11"}
    with Recorded(FakeEngine(lambda request: Result("unscored", "{", None, "length")), tmp_path / "b") as engine:
        engine.generate(REQUESTS[:1])
        engine.generate(REQUESTS[:1])
        assert (engine.calls, engine.quarantined()) == (1, {})


def test_interruption_keeps_finished_shards(tmp_path):
    count = 0

    def answer(request):
        nonlocal count
        count += 1
        if count > 40:
            raise KeyboardInterrupt
        return "fine"

    with Recorded(FakeEngine(answer), tmp_path) as engine, pytest.raises(KeyboardInterrupt):
        engine.generate(REQUESTS)
    with Recorded(FakeEngine(lambda request: "fine"), tmp_path) as engine:
        engine.generate(REQUESTS)
        assert engine.reused == 32


def test_one_writer(tmp_path):
    with Recorded(FakeEngine(), tmp_path), pytest.raises(LedgerError, match=f"in use by process {os.getpid()}"):
        Recorded(FakeEngine(), tmp_path)
    Recorded(FakeEngine(), tmp_path).close()


def test_damaged_or_newer_index_is_refused(tmp_path):
    Recorded(FakeEngine(), tmp_path).close()
    database = sqlite3.connect(tmp_path / "ledger.sqlite")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(LedgerError, match="format 99"):
        Recorded(FakeEngine(), tmp_path)
    (tmp_path / "ledger.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(LedgerError, match="damaged"):
        Recorded(FakeEngine(), tmp_path)


def test_estimate(tmp_path):
    score = ScoreRequest(Prompt("a b", "c", "d"), ("x y", "z"))
    with Recorded(FakeEngine(), tmp_path) as engine:
        engine.generate(REQUESTS[:10])
        plan = engine.estimate([*REQUESTS[:12], REQUESTS[11], score])
        # Two new texts of "Name a want." (4) + "history N" (2), and the score's 4; answers 2 x 20 at most, 3 exactly.
        assert (plan.rows, plan.reused, plan.new) == (14, 10, 3)
        assert (plan.prompt_tokens, plan.answer_tokens) == (16, 43)
        assert engine.calls == 10


RUN = """
import sys, time
from recgpt.llm import FakeEngine, Recorded
from recgpt.llm.engine import Prompt, Request
import recgpt.llm.ledger as ledger
ledger.SECONDS = 0.0001
def answer(request):
    time.sleep(0.0005)
    return request.prompt.user
requests = [Request(Prompt("s", f"history {i}"), 20) for i in range(400)]
with Recorded(FakeEngine(answer), sys.argv[1]) as engine:
    print("open", flush=True)
    results = engine.generate(requests)
assert [r.text for r in results] == [f"history {i}" for i in range(400)]
print("done", engine.calls, flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_kill_minus_nine_loses_and_doubles_nothing(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(recgpt.__file__).parent.parent)}
    random_ = random.Random(1)
    kills = 0
    for attempt in range(40):
        run = subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert run.stdout.readline() == "open\n"
        if attempt < 8:
            time.sleep(random_.uniform(0, 0.12))
            run.send_signal(signal.SIGKILL)
        out = run.stdout.read()
        run.stdout.close()
        if run.wait() == 0:
            assert out.startswith("done")
            break
        kills += 1
    assert kills >= 3
    keys = [row["digest"] for row in rows(tmp_path)]
    expected = [digest("fake", Request(Prompt("s", f"history {i}"), 20)) for i in range(400)]
    assert sorted(keys) == sorted(expected)
