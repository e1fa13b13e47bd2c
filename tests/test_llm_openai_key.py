"""The key of a server: sent where it belongs, and seen nowhere else."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("httpx2", reason="pip install 'recgpt[openai]'")

from scripted import ASK, KEY, SCHEMA, Server, chat, engine, prompts, script

from recgpt.errors import EngineError, InvalidConfigError, ModelNotFoundError
from recgpt.llm import OpenAI, Recorded, remote
from recgpt.llm.engine import Request


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    # Waits between tries take milliseconds.
    monkeypatch.setattr(remote, "BASE", 0.004)
    with Server() as server:
        yield server


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
        # The refusal is asked for twice more.
        (200, chat(None, refusal=f"no, {KEY}")),
        (200, chat(None, refusal=f"no, {KEY}")),
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
