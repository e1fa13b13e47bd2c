"""What a configuration says of servers and adapters, made into engines."""

from __future__ import annotations

from typing import TypeVar

from recgpt.errors import InvalidConfigError
from recgpt.llm import OpenAI, Recorded, Tokenizer
from recgpt.llm.adapters import adapt
from recgpt.llm.dialects import NO_SCORES
from recgpt.llm.engine import Engine
from recgpt.llm.planning import Planned
from recgpt.pipeline.config import LlmConfig, ServerConfig, Stage

_Engine = TypeVar("_Engine", Recorded, Planned)


def remote(config: LlmConfig, server: ServerConfig) -> OpenAI:
    """Make the engine of a server, and see whether the server can do what the mode needs.

    Raises:
        InvalidConfigError: it cannot score, and the mode is `rank`.
        EngineError: it cannot be reached.
    """
    engine = OpenAI(
        server.url,
        model=server.model,
        dialect=server.dialect,
        api_key_env=server.api_key_env,
        context_tokens=config.context_tokens,
        concurrency=server.concurrency,
        timeout=server.timeout,
        tries=server.tries,
        tokenizer=tokenizer(server) if server.tokenizer else None,
        extra=server.extra,
    )
    try:
        if not engine.scores and config.mode == "rank":
            raise InvalidConfigError(f"[llm.server] {server.url}: {NO_SCORES}")
    except BaseException:
        engine.close()
        raise
    return engine


def tokenizer(server: ServerConfig) -> Tokenizer:
    """Give the tokenizer that counts for a server's model; without one bytes are counted, which is never too few."""
    return Tokenizer.from_gguf(server.tokenizer) if server.tokenizer else Tokenizer.bytes()


def check_adapters(config: LlmConfig, engine: _Engine) -> _Engine:
    """Look for every adapter now, so that a missing one is an error before any model works; return the engine.

    Raises:
        ModelNotFoundError: an adapter is not there.
    """
    try:
        for stage in config.adapters:
            engine_of(config, engine, stage)
    except BaseException:
        engine.close()
        raise
    return engine


def engine_of(config: LlmConfig, engine: Recorded | Planned, stage: Stage) -> Engine:
    """Return the engine with the stage's adapter, if it has one.

    Raises:
        EngineError: the engine knows no adapters.
        ModelNotFoundError: there is no such adapter.
    """
    adapter = config.adapters.get(stage)
    return adapt(engine, adapter) if adapter is not None else engine


def names(config: LlmConfig, engine: Recorded | Planned) -> dict[str, str]:
    """Stage -> the engine's name with its adapter and the adapter's digest, for stages that have one."""
    return {stage: engine_of(config, engine, stage).name for stage in config.adapters}
