"""The engine for OpenAI-compatible servers against a scripted one: order, bounds, dialects, who answers, the ledger."""

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("httpx2", reason="pip install 'recgpt[openai]'")

from scripted import ASK, KEY, SCHEMA, Reply, Server, chat, engine, prompts, script

from recgpt.errors import InvalidConfigError, MissingExtraError, ModelNotFoundError
from recgpt.llm import OpenAI, Recorded, grammar, remote
from recgpt.llm.engine import Prompt, Request


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    # Waits between tries take milliseconds.
    monkeypatch.setattr(remote, "BASE", 0.004)
    with Server() as server:
        yield server


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
