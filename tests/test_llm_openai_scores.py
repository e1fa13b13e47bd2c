"""Log-probabilities from a server that forces one token at a time."""

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("httpx2", reason="pip install 'recgpt[openai]'")

from scripted import ASK, Reply, Server, engine

from recgpt.errors import EngineError
from recgpt.llm import Tokenizer, remote
from recgpt.llm.engine import Prompt, ScoreRequest


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    # Waits between tries take milliseconds.
    monkeypatch.setattr(remote, "BASE", 0.004)
    with Server() as server:
        yield server


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
