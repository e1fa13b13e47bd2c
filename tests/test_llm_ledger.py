"""The ledger: finished work is kept exactly once, through kills, damage and poison."""

import errno
import os
import re
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import recgpt
from recgpt.errors import LedgerError
from recgpt.llm import FakeEngine, Recorded, ledger, store
from recgpt.llm.engine import Prompt, Request, Result, ScoreRequest
from recgpt.llm.reader import Reader, Status
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
        assert (engine.calls, engine.quarantined()) == (1, {digest("fake", REQUESTS[0]): "length"})


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


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["a"]}
ASKED = Request(Prompt("Give a number.", "3"), 20, SCHEMA, key="tags/u1")


def test_unusable_answers_are_asked_again_twice_with_other_seeds(tmp_path):
    inner = FakeEngine()
    inner.enqueue('{"a": 1', "I am sorry, but I cannot do that.", '{"a": 3}')
    with Recorded(inner, tmp_path) as engine:
        (result,) = engine.generate([ASKED])
        assert (result.status, result.value, engine.retried, engine.quarantined()) == ("ok", {"a": 3}, 2, {})
    first, *again = inner.requests
    assert (first.seed, first.temperature) == (0, 0.0)
    assert len({request.seed for request in inner.requests}) == 3
    assert all(request.temperature > 0 and request.prompt == first.prompt for request in again)
    # All three tries were paid for.
    assert result.usage.answer_tokens == sum(
        FakeEngine().count_tokens(['{"a": 1', "I am sorry, but I cannot do that.", '{"a": 3}'])
    )
    with Recorded(FakeEngine(), tmp_path) as engine:
        assert engine.generate([ASKED]) == [result]
        assert engine.calls == 0


def test_what_stays_unusable_is_quarantined_with_its_first_text(tmp_path):
    inner = FakeEngine()
    inner.enqueue('{"a": 10}', '{"a": NaN}', "Sorry, no.")
    with Recorded(inner, tmp_path) as engine:
        (result,) = engine.generate([ASKED])
        assert len(inner.requests) == 3
        assert (result.status, result.text) == ("unscored", '{"a": 10}')
        assert result.reason == "schema: answer.a must be an integer from 0 to 9"
        assert engine.quarantined() == {digest("fake", ASKED): result.reason}
    again = FakeEngine()
    with Recorded(again, tmp_path) as engine:
        assert engine.generate([ASKED]) == [result]
        assert again.requests == []
    assert [replace(row, stage="") for row in ledger.status(tmp_path)] == [Status("", 0, 0, 1, 0, {result.reason: 1})]


def test_long_prompts_are_not_asked_again_and_cut_texts_are(tmp_path):
    inner = FakeEngine(context_tokens=25)
    with Recorded(inner, tmp_path) as engine:
        long = replace(ASKED, prompt=Prompt("s", "word " * 30))
        free = replace(ASKED, schema=None, max_tokens=2)
        inner.enqueue("{}", "one two three", "four five six", "seven eight nine")
        results = engine.generate([long, free])
        assert [result.reason for result in results] == ["length: the prompt has 31 tokens", "length"]
        assert (results[1].text, len(inner.requests)) == ("one two three", 4)
        assert engine.quarantined() == {digest("fake", free): "length"}


def test_status_tells_done_failed_quarantined_and_waiting(tmp_path):
    assert ledger.status(tmp_path / "nothing") == []
    answers = {"0": "fine", "1": Result("unscored", "", None, "engine: lost"), "2": "one two"}

    def answer(request):
        if request.prompt.user == "history 3":
            raise KeyboardInterrupt
        return answers[request.prompt.user[-1]]

    requests = [replace(request, max_tokens=1) for request in REQUESTS[:4]]
    with Recorded(FakeEngine(answer), tmp_path) as engine:
        engine.generate(requests[:3])
        with pytest.raises(KeyboardInterrupt):
            engine.generate(requests)
        # Also while the run is at work: the reader takes no lock.
        assert ledger.status(tmp_path) == [Status("interests", 1, 1, 1, 2, {"engine: lost": 1, "length": 1})]
    with Recorded(FakeEngine(lambda request: "fine"), tmp_path) as engine:
        engine.generate(requests)
    assert ledger.status(tmp_path) == [Status("interests", 3, 0, 1, 0, {"length": 1})]


def test_clearing_waits_for_the_lock_and_keeps_what_answering_took(tmp_path):
    with Recorded(FakeEngine(), tmp_path) as engine:
        first = engine.generate(REQUESTS)
        with pytest.raises(LedgerError, match="in use by process"):
            ledger.clear(tmp_path)
        assert engine.generate(REQUESTS) == first
        assert engine.reused == 100
    ledger.clear(tmp_path)
    ledger.clear(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    assert (rows(tmp_path), ledger.status(tmp_path)) == ([], [])
    reader = Reader(tmp_path, tries=3)
    (spent,) = reader.spent()
    reader.close()
    assert (spent.engine, spent.stage, spent.kind, spent.rows) == ("fake", "interests", "generate", 100)
    with Recorded(FakeEngine(), tmp_path) as engine:
        engine.generate(REQUESTS)
        assert engine.calls == 100


def test_a_ledger_of_the_first_format_is_taken_over(tmp_path):
    with Recorded(FakeEngine(), tmp_path) as engine:
        first = engine.generate(REQUESTS)
    database = sqlite3.connect(tmp_path / "ledger.sqlite")
    for table, columns in (("calls", ("stage", "status")), ("tries", ("stage",))):
        for column in columns:
            database.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    database.executescript("DROP TABLE waiting; DROP TABLE spent; PRAGMA user_version = 1")
    database.close()
    assert ledger.status(tmp_path) == []
    with Recorded(FakeEngine(), tmp_path) as engine:
        assert engine.generate(REQUESTS) == first
        assert engine.calls == 0
    assert ledger.status(tmp_path) == [Status("", 100, 0, 0, 0, {})]


class Faults:
    """Raises at the `at`-th operation on the disk, as a full or failing one does."""

    def __init__(self, monkeypatch):
        self.at = self.seen = 0
        for name in ("fsync", "open"):
            monkeypatch.setattr(store.os, name, self.around(getattr(os, name)))
        for name in ("rename", "open", "mkdir"):
            monkeypatch.setattr(store.Path, name, self.around(getattr(Path, name)))
        faults, connect = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            def execute(self, *arguments):
                faults(sqlite3.OperationalError("database or disk is full"))
                return super().execute(*arguments)

            def executemany(self, *arguments):
                faults(sqlite3.OperationalError("disk I/O error"))
                return super().executemany(*arguments)

            def __exit__(self, *arguments):
                if arguments[0] is None:
                    try:
                        faults(sqlite3.OperationalError("database or disk is full"))
                    except sqlite3.OperationalError:
                        self.rollback()
                        raise
                return super().__exit__(*arguments)

        def connected(*arguments, **named):
            return connect(*arguments, **{"factory": Connection, **named})

        monkeypatch.setattr(store.sqlite3, "connect", connected)

    def __call__(self, error):
        self.seen += 1
        if self.seen == self.at:
            raise error

    def around(self, function):
        def wrapped(*arguments, **named):
            error = errno.EIO if self.at % 2 else errno.ENOSPC
            self(OSError(error, os.strerror(error)))
            return function(*arguments, **named)

        return wrapped


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_failing_disk_at_every_operation_loses_and_doubles_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "SECONDS", 0.0)
    faults = Faults(monkeypatch)
    few = [replace(request, prompt=Prompt("s", request.prompt.user)) for request in REQUESTS[:40]]
    expected = FakeEngine().generate(few)
    failures, said = 0, set()
    for at in range(1, 200):
        folder = tmp_path / str(at)
        faults.at, faults.seen = at, 0
        try:
            with Recorded(FakeEngine(), folder) as engine:
                assert engine.generate(few) == expected
        except LedgerError as failed:
            failures += 1
            said.add(str(failed).replace(str(folder), "FOLDER"))
        if faults.seen < at:
            break
        faults.at = 0
        kept = len(rows(folder)) if folder.exists() else 0
        with Recorded(FakeEngine(), folder) as engine:
            assert engine.generate(few) == expected
            # At most the shard at hand was lost.
            assert engine.calls <= 40 - kept + 32
        assert sorted(row["digest"] for row in rows(folder)) == sorted(digest("fake", request) for request in few)
        assert not list((folder / "shards").glob("*.tmp"))
    assert 20 < failures == at - 1
    assert all(re.search("No space left|Input/output error|disk is full|disk I/O error", text) for text in said)


LIMITED = """
import resource, signal, sys
from recgpt.errors import LedgerError
from recgpt.llm import FakeEngine, Recorded
from recgpt.llm.engine import Prompt, Request
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    with Recorded(FakeEngine(lambda request: request.prompt.user), sys.argv[1]) as engine:
        engine.generate([Request(Prompt("s", f"history {i}"), 20) for i in range(400)])
except LedgerError as error:
    print(error)
"""


@pytest.mark.parametrize("size", [0, 5_000, 40_000, 70_000, 120_000])
def test_a_disk_that_is_really_full_is_one_error_and_the_rest_comes_later(tmp_path, size):
    environment = {**os.environ, "PYTHONPATH": str(Path(recgpt.__file__).parent.parent)}
    run = [sys.executable, "-c", LIMITED, str(tmp_path)]
    out = subprocess.run([*run, str(size)], capture_output=True, text=True, check=True, env=environment).stdout
    assert "the ledger" in out
    with Recorded(FakeEngine(lambda request: request.prompt.user), tmp_path) as engine:
        results = engine.generate([Request(Prompt("s", f"history {i}"), 20) for i in range(400)])
    assert [result.text for result in results] == [f"history {i}" for i in range(400)]
    assert len({row["digest"] for row in rows(tmp_path)}) == len(rows(tmp_path)) == 400
