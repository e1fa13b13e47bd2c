"""Answers that an engine hands over one by one: all requests at once, and an interruption loses hardly any."""

import pyarrow.parquet as pq
import pytest

from recgpt.llm import FakeEngine, Recorded, ledger
from recgpt.llm.engine import Prompt, Request, Result, ScoreRequest

REQUESTS = [Request(Prompt("Name a want.", f"history {i}"), 20, key=f"interests/{i}") for i in range(100)]
SCHEMA = {"type": "object", "properties": {"tag": {"type": "string", "maxLength": 9}}, "required": ["tag"]}


class Handing(FakeEngine):
    """A scripted engine that finishes the last request first and hands every answer over."""

    hands_over = True

    def __init__(self, answer=None, stop=None) -> None:
        super().__init__(answer)
        self.sizes: list[int] = []
        self.stop = stop

    def generate(self, requests, progress=None):
        return self._handed(requests, super().generate(requests), progress)

    def score(self, requests, progress=None):
        return self._handed(requests, super().score(requests), progress)

    def _handed(self, requests, results, progress):
        self.sizes.append(len(requests))
        for done, index in enumerate(reversed(range(len(requests))), start=1):
            if progress is not None:
                progress.arrived(index, results[index])
                progress(done, len(requests))
            if done == self.stop:
                raise KeyboardInterrupt
        return results


def kept(folder):
    return [row["key"] for file in (folder / "shards").glob("*.parquet") for row in pq.read_table(file).to_pylist()]


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_all_requests_go_at_once_and_every_answer_is_kept_once(tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(ledger, "SECONDS", seconds)
    engine, seen = Handing(), []
    with Recorded(engine, tmp_path) as recorded:
        found = recorded.generate(REQUESTS, lambda done, total: seen.append((done, total)))
        scored = recorded.score([ScoreRequest(Prompt("a", str(n)), ("c", "d")) for n in range(40)])
    assert found == FakeEngine().generate(REQUESTS)
    assert len(scored) == 40
    assert engine.sizes == [100, 40]
    assert sorted(kept(tmp_path)) == sorted([request.key for request in REQUESTS] + [""] * 40)
    assert seen == [(done, 100) for done in range(1, 101)]
    with Recorded(again := Handing(), tmp_path) as recorded:
        assert recorded.generate(REQUESTS) == found
    assert again.sizes == []


def test_an_interruption_loses_nothing_that_came(tmp_path):
    with Recorded(Handing(stop=30), tmp_path) as recorded, pytest.raises(KeyboardInterrupt):
        recorded.generate(REQUESTS)
    assert sorted(kept(tmp_path)) == sorted(request.key for request in REQUESTS[-30:])
    with Recorded(rest := Handing(), tmp_path) as recorded:
        assert recorded.generate(REQUESTS) == FakeEngine().generate(REQUESTS)
        assert (recorded.calls, recorded.reused) == (70, 30)
    assert rest.sizes == [70]


def test_what_is_asked_again_and_failures_of_the_engine_wait_for_the_end_of_the_call(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "SECONDS", 0.0)
    requests = [Request(Prompt("s", str(n)), 20, SCHEMA, key=f"tags/{n}") for n in range(3)]

    def answer(request):
        if request.prompt.user == "0":
            return "no json" if request.seed == 0 else '{"tag": "tea"}'
        return Result("unscored", reason="engine: died", text="") if request.prompt.user == "1" else '{"tag": "oat"}'

    with Recorded(engine := Handing(answer), tmp_path) as recorded:
        found = recorded.generate(requests)
        assert [one.status for one in found] == ["ok", "unscored", "ok"]
        assert found[0].value == {"tag": "tea"}
        assert recorded.retried == 1
    assert engine.sizes == [3, 1]
    assert sorted(kept(tmp_path)) == ["tags/0", "tags/2"], "a failure of the engine is tried again in the next run"
