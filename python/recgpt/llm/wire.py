"""Requests and results as JSON: what crosses the pipe to the worker and what the ledger keeps. Nothing is pickled."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from recgpt.llm.engine import Prompt, Request, Result, ScoreRequest, ScoreResult, Usage


def prompt_to(prompt: Prompt) -> dict[str, str]:
    """Write a prompt."""
    return {"system": prompt.system, "user": prompt.user, "answer": prompt.answer}


def prompt_from(data: dict[str, str]) -> Prompt:
    """Read a prompt."""
    return Prompt(data["system"], data["user"], data["answer"])


def request_to(request: Request | ScoreRequest) -> dict[str, Any]:
    """Write everything of a request that its answer depends on; `key` is not part of that."""
    common: dict[str, Any] = {"prompt": prompt_to(request.prompt)}
    if isinstance(request, ScoreRequest):
        return {**common, "kind": "score", "candidates": list(request.candidates)}
    return {
        **common,
        "kind": "generate",
        "max_tokens": request.max_tokens,
        "schema": request.schema,
        "stop": list(request.stop),
        "temperature": request.temperature,
        "seed": request.seed,
    }


def digest(engine: str, request: Request | ScoreRequest) -> str:
    """Return the SHA-256 of the engine's name and the whole request: 64 hexadecimal digits."""
    # Schemas keep their order: the order of properties is the order of the answer.
    text = json.dumps([engine, request_to(request)], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def result_to(result: Result | ScoreResult) -> dict[str, Any]:
    """Write a result."""
    usage = [result.usage.prompt_tokens, result.usage.computed_tokens, result.usage.answer_tokens]
    common = {"status": result.status, "reason": result.reason, "usage": usage}
    if isinstance(result, ScoreResult):
        return {**common, "logprobs": list(result.logprobs), "tokens": list(result.tokens)}
    return {**common, "text": result.text, "value": result.value}


def result_from(data: dict[str, Any]) -> Result | ScoreResult:
    """Read a result.

    Raises:
        KeyError, TypeError, ValueError: the data are not what `result_to` writes.
    """
    usage = Usage(*data["usage"])
    if data["status"] not in ("ok", "unscored"):
        raise ValueError(f"a status was expected, not {data['status']!r}")
    if "logprobs" in data:
        return ScoreResult(data["status"], tuple(data["logprobs"]), tuple(data["tokens"]), data["reason"], usage)
    return Result(data["status"], data["text"], data["value"], data["reason"], usage)
