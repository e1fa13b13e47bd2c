"""The engine for OpenAI-compatible servers against a scripted server: failures, bounds, dialects, and a secret key."""

import itertools
import json
import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("httpx2", reason="pip install 'recgpt[openai]'")

from recgpt.errors import EngineError, InvalidConfigError, MissingExtraError, ModelNotFoundError
from recgpt.llm import OpenAI, Recorded, Tokenizer, grammar, remote
from recgpt.llm.engine import Prompt, Request, ScoreRequest

KEY = "sk-secret-4711"
ASK = Request(Prompt("Name a drink.", "breakfast"), max_tokens=5)
SCHEMA = {
    "type": "object",
    "properties": {"tag": {"type": "string", "minLength": 1, "maxLength": 9}, "kind": {"enum": ["new", "old"]}},
    "required": ["tag", "kind"],
    "additionalProperties": False,
}
Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]] | str


def chat(text: Any = "tea", ending: str | None = "stop", **message: Any) -> dict[str, Any]:
    """What a chat call answers."""
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
    return {
        "choices": [
            {"index": 0, "finish_reason": ending, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": usage,
    }


class Server:
    """Answers by a function of (path, body); counts what it sees."""

    def __init__(self) -> None:
        self.owner = "somebody"
        self.models: list[dict[str, Any]] | None = None
        self.answer: Callable[[str, dict[str, Any]], Reply] = lambda path, body: (200, chat())
        self.seen: list[tuple[str, dict[str, Any], dict[str, str], float]] = []
        self.flying = self.most = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.serve(self, {})

            def do_POST(self) -> None:
                outer.serve(self, json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            # One packet an answer: two would wait 40 ms for each other's acknowledgement.
            wbufsize = -1

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # Clients that left on purpose.
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def asked(self) -> list[dict[str, Any]]:
        """Bodies of all requests but the list of models."""
        return [body for path, body, _, _ in self.seen if path != "/v1/models"]

    def serve(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        with self._lock:
            self.seen.append((handler.path, body, dict(handler.headers), time.monotonic()))
            self.flying += 1
            self.most = max(self.most, self.flying)
        reply: Reply
        if handler.path == "/v1/models":
            reply = (200, {"data": self.models or [{"id": "small", "owned_by": self.owner, "max_model_len": 2000}]})
        else:
            reply = self.answer(handler.path, body)
        with self._lock:
            self.flying -= 1
        if isinstance(reply, str):
            if reply == "trickle":
                handler.send_response(200)
                handler.send_header("content-length", "1000")
                handler.end_headers()
                for _ in range(100):
                    handler.wfile.write(b" ")
                    handler.wfile.flush()
                    time.sleep(0.03)
            handler.close_connection = True
            handler.connection.close()
            return
        status, content, headers = reply[0], reply[1], reply[2] if len(reply) > 2 else {}
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        handler.send_response(status)
        for name, value in {"content-length": str(len(data)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BASE", 0.004)


def engine(server: Server, **settings: Any) -> OpenAI:
    return OpenAI(server.url, **{"timeout": 20.0, **settings})


def script(*replies: Reply) -> Callable[[str, dict[str, Any]], Reply]:
    """Give one reply after the other, the last one for ever."""
    left = iter(replies)
    lock = threading.Lock()

    def answer(path: str, body: dict[str, Any]) -> Reply:
        with lock:
            return next(left, replies[-1])

    return answer


def prompts(count: int) -> list[Request]:
    return [Request(Prompt("Name a drink.", f"meal {at:03d}"), 5) for at in range(count)]


# ---- failures


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


# ---- order, bounds, usage


def test_concurrency_is_bounded_and_used(server: Server) -> None:
    def answer(path: str, body: dict[str, Any]) -> Reply:
        time.sleep(0.02)
        return (200, chat())

    server.answer = answer
    with engine(server, concurrency=5) as one:
        one.generate(prompts(40))
    assert server.most == 5


def test_results_keep_their_order_and_usage_adds_up(server: Server) -> None:
    def answer(path: str, body: dict[str, Any]) -> Reply:
        words = body["messages"][-1]["content"]
        time.sleep(0.03 if words.endswith(("0", "3")) else 0)
        return (200, chat(words))

    server.answer = answer
    asked = prompts(20)[::-1]
    calls: list[tuple[int, int]] = []
    with engine(server, concurrency=4) as one:
        results = one.generate(asked, lambda done, total: calls.append((done, total)))
        assert [result.text for result in results] == [request.prompt.user for request in asked]
        assert calls == [(at + 1, 20) for at in range(20)]
        # 12 prompt tokens of which 8 came from the server's cache, 3 answer tokens.
        assert results[0].usage.computed_tokens == 4
        assert one.stats == {
            "prompt_tokens": 240, "computed_tokens": 80, "answer_tokens": 60, "sent": 21, "repeated": 0,
        }  # fmt: skip
        assert one.generate([]) == []


def test_instructions_come_first_and_equal_beginnings_together(server: Server) -> None:
    asked = [Request(Prompt(system, user), 5) for user in ("b", "a") for system in ("Two", "One")]
    with engine(server, concurrency=1) as one:
        one.generate(asked)
    assert [[message["content"] for message in body["messages"]] for body in server.asked] == [
        ["One", "a"], ["One", "b"], ["Two", "a"], ["Two", "b"],
    ]  # fmt: skip
    assert [message["role"] for message in server.asked[0]["messages"]] == ["system", "user"]


# ---- what an answer means


@pytest.mark.parametrize(
    ("reply", "reason", "text"),
    [
        (chat("te", "length"), "length", "te"),
        (chat(None, "length"), "length", ""),
        (chat("", "content_filter"), "refusal: the server's content filter", ""),
        (chat(None, refusal="I will not."), "refusal: I will not.", "I will not."),
        (chat('{"tag": "tea", "kind": "new"'), "parse: ", '{"tag": "tea", "kind": "new"'),
        (chat('{"tag": "tea", "kind": "odd"}'), "schema: ", '{"tag": "tea", "kind": "odd"}'),
        (
            chat('{"tag": "far too long a tag", "kind": "new"}'),
            "schema: ",
            '{"tag": "far too long a tag", "kind": "new"}',
        ),
    ],
)
def test_what_cannot_be_used_keeps_its_raw_text(server: Server, reply: Any, reason: str, text: str) -> None:
    server.answer = lambda path, body: (200, reply)
    with engine(server) as one:
        (result,) = one.generate([Request(ASK.prompt, 5, SCHEMA)])
    assert result.status == "unscored"
    assert result.reason.startswith(reason)
    assert result.text == text
    assert result.value is None


@pytest.mark.parametrize("owner", ["somebody", "vllm"])
def test_schema_and_reasoning_in_both_chat_dialects(server: Server, owner: str) -> None:
    server.owner = owner
    server.answer = lambda path, body: (200, chat('{"reasoning": "so", "tag": "tea", "kind": "new"}'))
    with engine(server) as one:
        schema = grammar.with_reasoning(SCHEMA, tokens=30)
        (result,) = one.generate([Request(ASK.prompt, 20, schema, temperature=0.5, seed=2**40 + 7, stop=("\n",))])
    assert result.value == {"tag": "tea", "kind": "new"}
    (body,) = server.asked
    assert body["max_tokens"] == 50
    assert (body["temperature"], body["seed"], body["stop"]) == (0.5, 7, ["\n"])
    sent = body["response_format"]["json_schema"]
    assert body["response_format"]["type"] == "json_schema"
    assert sent["strict"] is True
    assert list(sent["schema"]["properties"]) == sent["schema"]["required"] == ["reasoning", "tag", "kind"]
    assert sent["schema"]["properties"]["kind"] == {"enum": ["new", "old"], "type": "string"}
    assert "x-reasoning" not in sent["schema"]
    # OpenAI's strict mode refuses lengths of strings.
    assert ("maxLength" in sent["schema"]["properties"]["tag"]) == (owner == "vllm")


def test_a_forced_beginning(server: Server) -> None:
    asked = Request(Prompt("You are brief.", "Name a drink.", "I like"), 5)
    server.answer = script((200, chat("I like tea")), (200, chat("Tea!")))
    with engine(server) as one:
        (first,), (second,) = one.generate([asked]), one.generate([asked])
    assert (first.status, first.text) == ("ok", " tea")
    assert (second.text, second.reason) == ("Tea!", "schema: the forced beginning of the answer is missing")
    assert server.asked[0]["messages"][-1]["content"].endswith("I like")
    server.owner, server.seen, server.answer = "vllm", [], lambda path, body: (200, chat(" tea"))
    with engine(server) as one:
        assert one.generate([asked])[0].text == " tea"
    (body,) = server.asked
    assert body["messages"][-1] == {"role": "assistant", "content": "I like"}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_lone_surrogates_come_and_go_as_question_marks(server: Server) -> None:
    server.answer = lambda path, body: (200, b'{"choices": [{"message": {"content": "te\\ud800a"}}]}')
    with engine(server) as one:
        assert one.generate([Request(Prompt("s", "\udfff"), 5)])[0].text == "te?a"
    assert server.asked[0]["messages"][1]["content"] == "?"


def test_the_newer_name_of_the_token_limit_is_learned_once(server: Server) -> None:
    def answer(path: str, body: dict[str, Any]) -> Reply:
        if "max_tokens" in body:
            return (400, {"error": {"message": "'max_tokens' is not supported; use 'max_completion_tokens'"}})
        return (200, chat())

    server.answer = answer
    with engine(server, concurrency=1) as one:
        assert [result.status for result in one.generate(prompts(3))] == ["ok"] * 3
    assert [body.get("max_completion_tokens") for body in server.asked] == [None, 5, 5, 5]


# ---- scoring

WORDS = {" green": 1, " tea": 2, " black": 3, " coffee": 4}
# Log-probabilities of a word after the words before it.
TABLE = {(1,): -1.5, (3,): -0.75, (4,): -3.0, (1, 2): -0.25, (3, 2): -0.5, (3, 4): -2.0}


def vllm(path: str, body: dict[str, Any]) -> Reply:
    """A vLLM of four words, whose prompts are 100, 101, 102."""
    if path == "/tokenize":
        if "messages" in body:
            return (200, {"count": 3, "max_model_len": 2000, "tokens": [100, 101, 102]})
        words = [f" {word}" for word in body["prompt"].split()]
        return (200, {"tokens": [WORDS[word] for word in words]})
    assert path == "/v1/completions"
    assert body["prompt"][:3] == [100, 101, 102]
    (token,) = body["allowed_token_ids"]
    logprob = TABLE[(*body["prompt"][3:], token)]
    found = {
        "tokens": [f"token_id:{token}"],
        "token_logprobs": [logprob],
        "top_logprobs": [{f"token_id:{token}": logprob}],
    }
    return (200, {"choices": [{"logprobs": found}], "usage": {"prompt_tokens": len(body["prompt"])}})


def test_scores_by_forced_tokens_on_vllm(server: Server) -> None:
    server.owner, server.answer = "vllm", vllm
    asked = ScoreRequest(
        Prompt("You name drinks.", "breakfast", "I like"), (" black tea", " green tea", " black coffee")
    )
    calls: list[tuple[int, int]] = []
    with engine(server) as one:
        results = one.score([asked, asked], lambda done, total: calls.append((done, total)))
        assert results[0] == results[1]
        assert results[0].status == "ok"
        assert results[0].logprobs == (-1.25, -1.75, -2.75)
        assert results[0].tokens == (2, 2, 2)
        assert results[0].means() == [-0.625, -0.875, -1.375]
        assert calls == [(1, 2), (2, 2)]
        assert one.count_tokens([" green tea", "", " tea"]) == [2, 0, 1]
    steps = [body["prompt"][3:] + body["allowed_token_ids"] for body in server.asked if "allowed_token_ids" in body]
    # Five distinct steps a request: " black" is asked once for its two candidates.
    assert sorted(steps) == sorted([[1], [1, 2], [3], [3, 2], [3, 4]] * 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"token_logprobs": [float("nan")]}, "engine: malformed answer: a log-probability was expected"),
        ({"token_logprobs": [0.5]}, "engine: malformed answer: a log-probability was expected"),
        ({"token_logprobs": ["-1"]}, "engine: malformed answer: a log-probability was expected"),
        ({"tokens": ["token_id:9"]}, "engine: malformed answer: token "),
        ({"tokens": []}, "engine: malformed answer: no choices[0].logprobs"),
        ({"token_logprobs": [0.0]}, "engine: the server's probabilities exceed 1"),
    ],
)
def test_a_score_that_cannot_be_is_unscored(server: Server, change: dict[str, Any], reason: str) -> None:
    def answer(path: str, body: dict[str, Any]) -> Reply:
        reply = vllm(path, body)
        if path == "/v1/completions":
            reply[1]["choices"][0]["logprobs"].update(change)  # type: ignore[union-attr,index]
        return reply

    server.owner, server.answer = "vllm", answer
    with engine(server) as one:
        (result,) = one.score([ScoreRequest(ASK.prompt, (" black tea", " green tea"))])
    assert result.status == "unscored"
    assert result.reason.startswith(reason)


def test_score_requests_that_cannot_be_worked_on(server: Server) -> None:
    server.owner, server.answer = "vllm", vllm
    with engine(server) as one:
        results = one.score([ScoreRequest(ASK.prompt, ()), ScoreRequest(ASK.prompt, (" green", ""))])
        assert [result.reason for result in results] == [
            "schema: a request needs candidates", "schema: candidate 1 is an empty text",
        ]  # fmt: skip


def test_openais_dialect_says_that_it_cannot_score(server: Server) -> None:
    with engine(server) as one:
        assert not one.scores
        with pytest.raises(EngineError, match=r"gives no log-probabilities.*mode = \"generate\""):
            one.score([ScoreRequest(ASK.prompt, (" tea",))])
        assert one.count_tokens(["tea", "café"]) == [3, 5]
    with engine(server, tokenizer=Tokenizer.bytes(), dialect="vllm", model="small") as one:
        assert one.count_tokens(["café"]) == [5]
    assert server.asked == []


# ---- who answers


def test_without_the_extra_the_message_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'recgpt\[openai\]'"):
        OpenAI("http://127.0.0.1:1")


def test_importing_the_engine_loads_no_client() -> None:
    code = "import sys, recgpt.llm.openai, recgpt.pipeline; print({'httpx2', 'llama_cpp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_server_says_who_it_is(server: Server) -> None:
    with engine(server, context_tokens=8000) as one:
        assert (one.dialect, one.context_tokens) == ("openai", 2000)
        assert one.name.startswith("openai/openai/small/")
    server.owner = "vllm"
    with engine(server, context_tokens=1000) as one:
        assert (one.dialect, one.context_tokens) == ("vllm", 1000)
    with (
        engine(server, model="other") as one,
        pytest.raises(ModelNotFoundError, match="no model 'other'; it serves 'small'"),
    ):
        one.generate([ASK])
    server.models = [{"id": name, "owned_by": "vllm"} for name in "abcdefg"]
    with (
        engine(server) as one,
        pytest.raises(InvalidConfigError, match=r"which model is meant.*'a', 'b', 'c', 'd', 'e' and 2 more"),
    ):
        one.generate([ASK])


def test_adapters_of_vllm_are_models_with_a_parent(server: Server) -> None:
    server.models = [
        {"id": "base", "owned_by": "vllm", "root": "shop/base"},
        {"id": "tags-lora", "owned_by": "vllm", "root": "/adapters/tags", "parent": "base"},
    ]
    with engine(server) as one:
        tuned = one.adapted("tags-lora")
        one.generate([ASK])
        tuned.generate([ASK])
        assert [body["model"] for body in server.asked] == ["base", "tags-lora"]
        assert one.name != tuned.name
        assert tuned.name.endswith(",adapter=tags-lora")
        assert one.stats["prompt_tokens"] == 24
        with pytest.raises(ModelNotFoundError, match="has no adapter 'gone'; it serves 'base', 'tags-lora'"):
            one.adapted("gone")
    server.models = None
    with engine(server) as one, pytest.raises(ModelNotFoundError, match="knows no adapters"):
        one.adapted("tags-lora")


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "ftp://host"}, {"url": "host:8000"}, {"url": "http://"}, {"url": "http://host/v1?key=3"},
        {"dialect": "sglang"}, {"concurrency": 0}, {"tries": 0}, {"timeout": 0.0}, {"timeout": float("nan")},
        {"extra": {"messages": []}},
        {"extra": {"at": object}},
        {"extra": {"bias": float("inf")}},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_do_not_fit(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfigError):
        OpenAI(**{"url": "http://127.0.0.1:1", **settings})


# ---- the key


def everything(folder: Any) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_the_key_is_sent_and_appears_nowhere_else(
    server: Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHOP_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    hidden = "\u200b".join(KEY)
    server.answer = script(
        (200, chat("tea")),
        (200, chat(f"the key is {KEY}")),
        (400, {"error": {"message": f"bad key {KEY} or {hidden}"}}),
        (500, {"error": f"{KEY} {KEY}"}),
        (200, chat(None, refusal=f"no, {KEY}")),
        (200, chat("tea", f"odd {KEY}")),
        (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
    )
    with Recorded(engine(server, api_key_env="SHOP_KEY", tries=1, concurrency=1), tmp_path) as one:
        results = one.generate(prompts(6))
        with pytest.raises(EngineError) as caught:
            one.generate([ASK])
        shown = [one.name, repr(one.engine), str(caught.value), caplog.text, str(one.quarantined()), str(results)]
    assert [result.status for result in results] == ["ok"] + ["unscored"] * 5
    assert results[1].reason == "engine: the answer held the API key"
    assert "[key]" in str(caught.value)
    assert {headers["Authorization"] for _, _, headers, _ in server.seen} == {f"Bearer {KEY}"}
    for text in shown:
        assert KEY not in text
    assert caught.value.__context__ is None or KEY not in repr(caught.value.__context__)
    assert KEY.encode() not in everything(tmp_path)


def test_the_key_follows_no_redirect(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", KEY)
    server.answer = lambda path, body: (307, {}, {"location": "/elsewhere"})
    with engine(server, api_key_env="SHOP_KEY") as one:
        assert one.generate([ASK])[0].reason.startswith("engine: HTTP 307")
    assert [path for path, *_ in server.seen] == ["/v1/models", "/v1/chat/completions"]


def test_a_key_spelled_in_escapes_is_found_too(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", "sk-4711")
    spelled = "".join(f"\\u{ord(letter):04x}" for letter in "sk-4711")
    server.answer = lambda path, body: (200, chat(f'{{"tag": "{spelled}", "kind": "new"}}'))
    with engine(server, api_key_env="SHOP_KEY") as one:
        (result,) = one.generate([Request(ASK.prompt, 5, SCHEMA)])
    assert (result.text, result.value, result.reason) == ("", None, "engine: the answer held the API key")
    server.models = [{"id": "model-sk-4711", "owned_by": "vllm"}]
    with engine(server, api_key_env="SHOP_KEY") as one, pytest.raises(EngineError, match="holds the API key"):
        one.generate([ASK])
    with engine(server, api_key_env="SHOP_KEY", model="x") as one, pytest.raises(ModelNotFoundError) as caught:
        one.generate([ASK])
    assert str(caught.value).endswith("it serves 'model-[key]'")


@pytest.mark.parametrize("value", ["", "   ", "abc", "two words", "new\nline", "schlüssel", 'quo"te'])
def test_a_key_that_cannot_be_used_is_not_shown(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SHOP_KEY", value)
    with pytest.raises(InvalidConfigError, match="SHOP_KEY") as caught:
        OpenAI("http://127.0.0.1:1", api_key_env="SHOP_KEY")
    assert not value.strip() or value not in str(caught.value)


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidConfigError, match="must not hold a user or password") as caught:
        OpenAI(f"http://me:{KEY}@127.0.0.1:1/v1")
    assert KEY not in str(caught.value)


# ---- the ledger


def test_what_changes_an_answer_changes_the_ledger_key(
    server: Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", KEY)

    def calls(request: Request, **settings: Any) -> int:
        with Recorded(engine(server, **settings), tmp_path) as one:
            one.generate([request])
            return one.calls

    assert calls(ASK) == 1
    assert calls(ASK) == 0
    # Who asks, how often and how fast is no part of it.
    assert calls(ASK, api_key_env="SHOP_KEY", concurrency=3, tries=2, timeout=9.0) == 0
    assert calls(ASK, extra={"reasoning_effort": "low"}) == 1
    assert calls(ASK, model="big") == 1
    assert calls(ASK, dialect="vllm") == 1
    assert calls(Request(ASK.prompt, 5, temperature=0.5)) == 1
    assert calls(Request(ASK.prompt, 5, temperature=0.5, seed=1)) == 1


def test_rows_that_failed_are_asked_again_in_the_next_run(server: Server, tmp_path: Any) -> None:
    server.answer = lambda path, body: (500, {}) if "meal 002" in str(body) else (200, chat())
    for run, (calls, status) in enumerate(itertools.zip_longest([5, 1, 1, 0], ["unscored"] * 4)):
        with Recorded(engine(server, tries=1), tmp_path) as one:
            assert one.generate(prompts(5))[2].status == status
            assert one.calls == calls, run
