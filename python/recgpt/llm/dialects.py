"""How servers are asked: any OpenAI-compatible one, and vLLM. `llama_server` has the third kind.

Each puts the shared instructions first and the user's text last, so that a server with a prefix cache computes what
requests share once. Answers are read with distrust: each field is checked, and the JSON in them is parsed and
validated as for every engine.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from recgpt.errors import EngineError
from recgpt.llm import grammar
from recgpt.llm.answers import judged, refused
from recgpt.llm.engine import Prompt, Request, Result, Usage
from recgpt.llm.remote import Malformed, Refused, Remote

Ask = Callable[[str, dict[str, Any]], dict[str, Any]]
"""`ask(path, body) -> answer`: one request to the server, with its retries."""

FLOOR = -104.0
"""Nats. llama-server computes probabilities in float32, whose smallest is e**-103.3: less comes as -3.4e38."""
SEEDS = 2**31
FOR_ALL = frozenset({401, 403, 404, 405})
"""4xx that every request would meet, so that nothing is gained by asking on."""
NO_SCORES = (
    "this server speaks only OpenAI's dialect, which gives no log-probabilities of texts that we choose, so it cannot "
    'score; set mode = "generate", or use llama-server or vLLM'
)
_NEW_LIMIT = "max_completion_tokens"
_TOO_LONG = re.compile(r"context|too (long|many tokens)|maximum.{0,40}tokens|max_model_len", re.I)


class Dialect(Protocol):
    """One kind of server."""

    name: str
    model: str
    identity: str
    """What of the server's own words about the model goes into the ledger key."""
    context_tokens: int
    scores: bool
    """Whether it gives log-probabilities of texts that we choose."""

    def generate(self, ask: Ask, request: Request) -> Result:
        """Answer one request."""

    def encode(self, ask: Ask, prompt: Prompt) -> list[int]:
        """Return a prompt's tokens. Only where `scores`."""

    def tokenize(self, ask: Ask, text: str) -> list[int]:
        """Return a plain text's tokens. Only where `scores`."""

    def step(self, ask: Ask, tokens: Sequence[int], token: int) -> tuple[float, int]:
        """Return the log-probability of `token` after `tokens`, and how many tokens were computed for it."""


class OpenAIDialect:
    """`/v1/chat/completions` as OpenAI documents it. A forced beginning of the answer is asked for in words."""

    name = "openai"
    scores = False
    lengths = False
    """Whether a schema may hold minLength and maxLength; OpenAI's strict mode refuses them, we check them anyway."""

    def __init__(
        self, server: Remote, model: str, context_tokens: int, identity: str, extra: Mapping[str, Any]
    ) -> None:
        self.server = server
        self.model = model
        self.context_tokens = context_tokens
        self.identity = identity
        self.extra = dict(extra)
        self.limit = "max_tokens"

    def generate(self, ask: Ask, request: Request) -> Result:
        """Answer one request."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": self.messages(request.prompt),
            self.limit: request.max_tokens + grammar.reasoning_tokens(request.schema),
            "temperature": request.temperature,
        }
        if request.temperature > 0:
            body["seed"] = request.seed % SEEDS
        if request.stop:
            body["stop"] = [storable(stop) for stop in request.stop]
        if request.schema is not None:
            schema = plain_schema(request.schema, lengths=self.lengths)
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": schema},
            }
        try:
            answer = ask("/v1/chat/completions", body | self.more(request.prompt) | self.extra)
        except Refused as refused:
            # OpenAI's newer models know the limit by this name only, other servers by the old one only.
            if refused.status == 400 and _NEW_LIMIT in refused.message and self.limit != _NEW_LIMIT:
                self.limit = _NEW_LIMIT
                return self.generate(ask, request)
            return refusal(refused)
        return self.read(answer, request)

    def messages(self, prompt: Prompt) -> list[dict[str, str]]:
        """Write a prompt as messages, instructions first."""
        user = prompt.user.strip()
        if prompt.answer:
            user += f"\n\nBegin your answer with exactly these words, then continue: {prompt.answer}"
        return [message("system", prompt.system.strip()), message("user", user)]

    def more(self, prompt: Prompt) -> dict[str, Any]:
        """Return what this kind of server needs beside the common fields."""
        return {}

    def begin(self, text: str, prompt: Prompt) -> str | None:
        """Take the forced beginning off an answer; None when it is not there."""
        text, begin = text.lstrip(), prompt.answer.strip()
        return text.removeprefix(begin) if text.startswith(begin) else None

    def read(self, answer: dict[str, Any], request: Request) -> Result:
        """Judge an answer."""
        usage = usage_of(answer)
        choices = answer.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            raise Malformed("malformed answer: no choices[0].message")
        ending, text = choice.get("finish_reason"), message.get("content")
        if isinstance(message.get("refusal"), str) and message["refusal"]:
            words = self.server.scrub(message["refusal"])
            return Result("unscored", words, None, f"refusal: {words}"[:200], usage)
        if ending == "content_filter":
            return Result("unscored", storable(text), None, "refusal: the server's content filter", usage)
        if ending == "length":
            # A model that thinks can reach its limit before the first word: then there is no text at all.
            return judged(storable(text), request, usage, cut=True)
        if not isinstance(text, str):
            raise Malformed("malformed answer: choices[0].message.content is no text")
        text = storable(text)
        if ending not in (None, "stop", "eos"):
            raise Malformed(f"malformed answer: it ended with {self.server.scrub(str(ending))!r}")
        if request.prompt.answer:
            rest = self.begin(text, request.prompt)
            if rest is None:
                reason = refused(text) or "schema: the forced beginning of the answer is missing"
                return Result("unscored", text, None, reason, usage)
            text = rest
        return judged(text, request, usage)

    def encode(self, ask: Ask, prompt: Prompt) -> list[int]:
        """There is no such call."""
        raise EngineError(NO_SCORES)

    def tokenize(self, ask: Ask, text: str) -> list[int]:
        """There is no such call."""
        raise EngineError(NO_SCORES)

    def step(self, ask: Ask, tokens: Sequence[int], token: int) -> tuple[float, int]:
        """There is no such call."""
        raise EngineError(NO_SCORES)


class VllmDialect(OpenAIDialect):
    """vLLM: the same chat call with a continued last message, and a tokenizer that lets us score.

    A candidate's token is scored by allowing only that token and asking for its log-probability, which vLLM takes from
    the model's own distribution (`--logprobs-mode raw_logprobs`, its default); the prompt comes from its prefix cache.
    """

    name = "vllm"
    scores = True
    lengths = True

    def messages(self, prompt: Prompt) -> list[dict[str, str]]:
        """Write a prompt as messages; the forced beginning is the assistant's, left open."""
        found = [message("system", prompt.system.strip()), message("user", prompt.user.strip())]
        return [*found, message("assistant", prompt.answer)] if prompt.answer else found

    def more(self, prompt: Prompt) -> dict[str, Any]:
        """Undo what a model's generation_config.json would set, and continue a forced beginning."""
        # The model's own advice on sampling is vLLM's default; greedy and temperature mean ours alone.
        plain = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        return plain | self._template(prompt)

    def begin(self, text: str, prompt: Prompt) -> str | None:
        """Take nothing off: the server answers with the continuation alone."""
        return text

    def encode(self, ask: Ask, prompt: Prompt) -> list[int]:
        """Return a prompt's tokens, by the server's chat template."""
        body = {"model": self.model, "messages": self.messages(prompt)} | self._template(prompt)
        return tokens_of(ask("/tokenize", body))

    def tokenize(self, ask: Ask, text: str) -> list[int]:
        """Return a plain text's tokens."""
        body = {"model": self.model, "prompt": storable(text), "add_special_tokens": False}
        return tokens_of(ask("/tokenize", body))

    def step(self, ask: Ask, tokens: Sequence[int], token: int) -> tuple[float, int]:
        """Return the log-probability of `token` after `tokens`, and how many tokens were computed for it."""
        answer = ask(
            "/v1/completions",
            {
                "model": self.model,
                "prompt": list(tokens),
                "max_tokens": 1,
                "temperature": 0.0,
                "allowed_token_ids": [token],
                "logprobs": 1,
                "return_tokens_as_token_ids": True,
                "ignore_eos": True,
                "add_special_tokens": False,
            },
        )
        try:
            found = answer["choices"][0]["logprobs"]
            name, logprob = found["tokens"][0], found["token_logprobs"][0]
        except (KeyError, IndexError, TypeError):
            raise Malformed("malformed answer: no choices[0].logprobs") from None
        if name != f"token_id:{token}":
            raise Malformed(f"malformed answer: token {token} was forced, {self.server.scrub(str(name))!r} came")
        return logprob_of(logprob), usage_of(answer).computed_tokens

    def _template(self, prompt: Prompt) -> dict[str, Any]:
        opened = bool(prompt.answer)
        return {
            "add_generation_prompt": not opened,
            "continue_final_message": opened,
            "chat_template_kwargs": {"enable_thinking": False},
        }


def message(role: str, content: str) -> dict[str, str]:
    """Write one message; lone surrogates are no UTF-8."""
    return {"role": role, "content": storable(content)}


def plain_schema(schema: Mapping[str, Any], *, lengths: bool) -> dict[str, Any]:
    """Copy a schema for a server: without our own marks, and without string lengths unless `lengths`."""
    dropped = () if lengths else ("minLength", "maxLength")
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key.startswith("x-") or key in dropped:
            continue
        if key == "properties":
            found[key] = {name: plain_schema(child, lengths=lengths) for name, child in value.items()}
        elif key == "items":
            found[key] = plain_schema(value, lengths=lengths)
        else:
            found[key] = value
    if "enum" in found:
        found.setdefault("type", "string")
    return found


def refusal(refused: Refused, usage: Usage | None = None) -> Result:
    """Turn a request that the server does not take into a row; what concerns every request is raised again."""
    if refused.status in FOR_ALL:
        raise refused
    if refused.status in (400, 413, 422) and _TOO_LONG.search(refused.message):
        return Result("unscored", "", None, f"length: {refused}"[:300], usage or Usage())
    return Result("unscored", "", None, f"engine: {refused}"[:300], usage or Usage())


def storable(text: Any) -> str:
    """Make a text that can be stored: no lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8") if isinstance(text, str) else ""


def number(value: Any) -> int:
    """Read a count; anything else is 0."""
    return value if type(value) is int and 0 <= value < 1 << 53 else 0


def usage_of(answer: dict[str, Any]) -> Usage:
    """Read OpenAI's usage; what is missing counts as nothing."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return Usage()
    details = usage.get("prompt_tokens_details")
    cached = number(details.get("cached_tokens")) if isinstance(details, dict) else 0
    prompt = number(usage.get("prompt_tokens"))
    return Usage(prompt, max(0, prompt - cached), number(usage.get("completion_tokens")))


def tokens_of(answer: dict[str, Any]) -> list[int]:
    """Read the tokens of an answer."""
    found = answer.get("tokens")
    if not isinstance(found, list) or not all(type(token) is int for token in found):
        raise Malformed("malformed answer: a list of tokens was expected")
    return found


def logprob_of(value: Any) -> float:
    """Read a log-probability, in nats."""
    if not isinstance(value, int | float) or math.isnan(value) or value > 0.01:
        raise Malformed("malformed answer: a log-probability was expected")
    return max(FLOOR, min(0.0, float(value)))
