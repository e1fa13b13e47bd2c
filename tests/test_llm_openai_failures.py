"""Servers that fail, stall, send nonsense or go away: what is tried again, what one row costs, what ends the run."""

import math
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("httpx2", reason="pip install 'recgpt[openai]'")

from scripted import ASK, Reply, Server, chat, engine, prompts, script

from recgpt.errors import EngineError
from recgpt.llm import remote


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    # Waits between tries take milliseconds.
    monkeypatch.setattr(remote, "BASE", 0.004)
    with Server() as server:
        yield server


def test_what_passes_with_time_is_tried_again(server: Server) -> None:
    server.answer = script((500, {}), "reset", (503, b"<html>"), (429, {}), (200, chat("coffee")))
    with engine(server) as one:
        (result,) = one.generate([ASK])
        assert (result.status, result.text) == ("ok", "coffee")
        assert one.stats["repeated"] == 4
        assert len(server.asked) == 5


def test_jitter_is_full_and_its_bound_doubles_up_to_an_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BASE", 0.5)
    with engine(server) as one:
        for attempt, bound in [(0, 0.5), (1, 1.0), (3, 4.0), (6, 30.0), (60, 30.0)]:
            waits = [one._server._wait(attempt) for _ in range(2000)]
            assert min(waits) >= 0
            assert max(waits) <= bound
            # Uniform over the whole range: 2,000 draws miss an end by 2 % once in 10^17 runs.
            assert min(waits) < 0.02 * bound
            assert max(waits) > 0.98 * bound


def test_tries_end_and_the_row_is_unscored(server: Server) -> None:
    server.answer = lambda path, body: (502, {"error": {"message": "worker\nlost"}})
    with engine(server, tries=3) as one:
        (result,) = one.generate([ASK])
        assert result.status == "unscored"
        assert result.reason == "engine: HTTP 502 worker lost (3 tries)"
        assert len(server.asked) == 3


def test_retry_after_holds_everybody_back(server: Server) -> None:
    server.answer = script((429, {}, {"retry-after": "0.4"}), (200, chat()))
    with engine(server, concurrency=4) as one:
        assert one.name
        first = time.monotonic()
        assert [result.status for result in one.generate([ASK])] == ["ok"]
        assert [result.status for result in one.generate(prompts(4))] == ["ok"] * 4
        times = [at - first for path, _, _, at in server.seen if path != "/v1/models"]
        assert times[0] < 0.3
        assert min(times[1:]) >= 0.4


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [("7", 7, 7), ("0", 0, 0), ("-5", 0, 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0), ("1e999", math.inf, math.inf)],
)
def test_retry_after_as_seconds_or_date(header: str, low: float, high: float) -> None:
    pause = remote._pause(header)
    assert pause is not None
    assert low <= pause <= high


@pytest.mark.parametrize("header", [None, "soon", "nan", ""])
def test_a_retry_after_that_says_nothing(header: str | None) -> None:
    assert remote._pause(header) is None


def test_a_pause_that_is_too_long_is_not_waited_for(server: Server) -> None:
    server.answer = lambda path, body: (429, {"message": "quota"}, {"retry-after": "86400"})
    with engine(server) as one:
        (result,) = one.generate([ASK])
        assert result.reason == "engine: HTTP 429 quota; the server asks for a pause of 86400 s"
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        (400, "unknown field", "engine: HTTP 400: unknown field"),
        (422, "no", "engine: HTTP 422: no"),
        (302, "", "engine: HTTP 302: {}"),
        (400, "maximum context length is 2048", "length: HTTP 400: maximum context length is 2048"),
    ],
)
def test_other_4xx_are_not_tried_again(server: Server, status: int, message: str, reason: str) -> None:
    server.answer = lambda path, body: (status, {"error": {"message": message}} if message else {})
    with engine(server) as one:
        (result,) = one.generate([ASK])
        assert (result.status, result.reason) == ("unscored", reason)
        assert len(server.asked) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_concerns_every_request_ends_the_call(server: Server, status: int) -> None:
    server.answer = lambda path, body: (status, {"detail": "go away"})
    with engine(server, concurrency=1) as one, pytest.raises(EngineError, match=f"refuses: HTTP {status}: go away"):
        one.generate(prompts(9))
    assert len(server.asked) == 1


def test_a_server_that_is_not_there(server: Server) -> None:
    server.http.server_close()
    server.http.shutdown()
    with (
        engine(server, tries=2) as one,
        pytest.raises(EngineError, match=r"cannot be used: no connection.*\(2 tries\)"),
    ):
        one.generate([ASK])


def test_a_server_that_goes_in_the_middle_ends_the_call(server: Server) -> None:
    first = script(*[(200, chat())] * 5, "reset")

    def answer(path: str, body: dict[str, Any]) -> Reply:
        reply = first(path, body)
        if reply == "reset":
            server.http.socket.close()  # Nobody gets in any more.
        return reply

    server.answer = answer
    with engine(server, tries=2, concurrency=2) as one, pytest.raises(EngineError, match="cannot be reached: no conn"):
        one.generate(prompts(50))
    assert len(server.asked) < 20


def test_a_server_that_fails_always_is_not_asked_for_ever(server: Server) -> None:
    server.answer = lambda path, body: (500, {})
    with engine(server, tries=2, concurrency=2) as one, pytest.raises(EngineError, match="failed 16 requests in a row"):
        one.generate(prompts(500))
    assert 32 <= len(server.asked) <= 40


def test_one_bad_request_among_many_costs_only_itself(server: Server) -> None:
    def answer(path: str, body: dict[str, Any]) -> Reply:
        return "reset" if "meal 007" in str(body) else (200, chat(body["messages"][-1]["content"]))

    server.answer = answer
    with engine(server, tries=3, concurrency=2) as one:
        results = one.generate(prompts(30))
    assert [result.status for result in results].count("ok") == 29
    assert results[7].reason.startswith("engine: no connection: ")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"tea"', b'{"choices": []}', b'{"choices": [1]}', b'{"choices": {"message": 1}}',
        b'{"choices": [{"message": null}]}', b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"message": {"content": 3}}]}', b"[" * 200_000, b"\xff\xfe\x00",
        b'{"choices": [{"message": {"content": "tea"}, "finish_reason": "tool_calls"}]}',
        b'{"choices": [{"message": {"content": "tea"}, "finish_reason": {}}]}',
        b'{"a": "' + b"x" * remote.MAX_BODY + b'"}',
    ],
    ids=range(16),
)  # fmt: skip
def test_a_malformed_answer_is_an_unscored_row(server: Server, body: bytes) -> None:
    server.answer = lambda path, _: (200, body)
    with engine(server) as one:
        (result,) = one.generate([ASK])
        assert result.status == "unscored"
        assert result.reason.startswith("engine: malformed answer")
        assert len(server.asked) == 1


def test_a_body_that_is_not_compressed_as_it_says(server: Server) -> None:
    server.answer = lambda path, body: (200, b"plain", {"content-encoding": "gzip"})
    with engine(server) as one:
        assert one.generate([ASK])[0].reason == "engine: malformed answer: no JSON"


def test_odd_usage_does_not_matter(server: Server) -> None:
    answers = [{**chat(), "usage": usage} for usage in (None, [], {"prompt_tokens": "12"}, {"prompt_tokens": -1})]
    server.answer = script(*((200, answer) for answer in answers))
    with engine(server) as one:
        assert [result.status for result in one.generate(prompts(4))] == ["ok"] * 4
        assert one.stats["prompt_tokens"] == 0


@pytest.mark.parametrize(("how", "words"), [("silence", "no answer in 0.2 s"), ("trickle", "no whole answer in 0.2 s")])
def test_slow_answers_end_at_the_time_limit(server: Server, how: str, words: str) -> None:
    def answer(path: str, body: dict[str, Any]) -> Reply:
        if how == "silence":
            time.sleep(0.6)
        return "trickle" if how == "trickle" else (200, chat())

    server.answer = answer
    begin = time.monotonic()
    with engine(server, timeout=0.2, tries=2) as one:
        # The server still says who it is, so it is this request's fault: a row, or no run would ever end.
        (result,) = one.generate([ASK])
    assert result.reason == f"engine: {words} (2 tries)"
    assert time.monotonic() - begin < 3


def test_a_callback_that_raises_is_not_held_up_by_a_slow_server(server: Server) -> None:
    def answer(path: str, body: dict[str, Any]) -> Reply:
        if "meal 000" not in str(body):
            time.sleep(1.5)
        return (200, chat())

    def progress(done: int, total: int) -> None:
        raise KeyboardInterrupt

    server.answer = answer
    begin = time.monotonic()
    with engine(server, concurrency=3) as one, pytest.raises(KeyboardInterrupt):
        one.generate(prompts(9), progress)
    assert time.monotonic() - begin < 1.4


def test_a_closed_engine_says_so(server: Server) -> None:
    with engine(server) as one:
        one.generate([ASK])
    one.close()
    with pytest.raises(EngineError, match="has been closed"):
        one.generate([ASK])
