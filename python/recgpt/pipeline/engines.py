"""Opens the engine that a configuration names, behind the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from recgpt.errors import InvalidConfigError
from recgpt.llm import FakeEngine, LlamaCpp, OpenAI, Recorded, Tokenizer, default_model_path
from recgpt.llm.adapters import adapt
from recgpt.llm.dialects import NO_SCORES
from recgpt.pipeline.config import LlmConfig, Stage


class Engines:
    """One ledger, and a view of it for each stage that has an adapter of its own."""

    def __init__(self, base: Recorded, adapters: Mapping[Stage, str]) -> None:
        """Look at every adapter now, so that a missing one is an error before any model works.

        Raises:
            ModelNotFoundError: an adapter is not there.
        """
        self.base = base
        try:
            self._views = {stage: adapt(base, adapter) for stage, adapter in adapters.items()}
        except BaseException:
            base.close()
            raise

    @property
    def name(self) -> str:
        """Model and settings, without adapters."""
        return self.base.name

    @property
    def adapters(self) -> dict[str, str]:
        """Stage -> model, settings and adapter, for stages that have one."""
        return {stage: view.name for stage, view in self._views.items()}

    @property
    def calls(self) -> int:
        """Distinct requests that were passed to the model."""
        return sum(engine.calls for engine in (self.base, *self._views.values()))

    @property
    def reused(self) -> int:
        """Distinct requests that the ledger had already."""
        return sum(engine.reused for engine in (self.base, *self._views.values()))

    def of(self, stage: Stage) -> Recorded:
        """Return the engine of a stage."""
        return self._views.get(stage, self.base)

    def close(self) -> None:
        """Free the model and the ledger."""
        self.base.close()


def model_path(config: LlmConfig) -> Path:
    """Resolve the model: `smollm2` is the one that comes as a package, anything else is a path."""
    return default_model_path() if config.model == "smollm2" else Path(config.model)


def tokenizer(config: LlmConfig) -> Tokenizer:
    """Give the tokenizer of the model that will read the texts; the scripted engine reads bytes."""
    if config.server is not None:
        return Tokenizer.from_gguf(config.server.tokenizer) if config.server.tokenizer else Tokenizer.bytes()
    return Tokenizer.bytes() if config.engine == "fake" else Tokenizer.from_gguf(model_path(config))


def open_engine(config: LlmConfig, ledger: Path) -> Recorded:
    """Open the engine; answers that the ledger holds are not asked again."""
    if config.engine == "fake":
        return Recorded(FakeEngine(context_tokens=config.context_tokens), ledger)
    if config.server is not None:
        return Recorded(_remote(config), ledger)
    engine = LlamaCpp(
        model_path(config),
        context_tokens=config.context_tokens,
        threads=config.threads,
        n_gpu_layers=config.gpu_layers,
        weights=config.weights,
    )
    return Recorded(engine, ledger)


def _remote(config: LlmConfig) -> OpenAI:
    """Make the engine of a server, and see whether the server can do what the mode needs."""
    server = config.server
    assert server is not None
    engine = OpenAI(
        server.url,
        model=server.model,
        dialect=server.dialect,
        api_key_env=server.api_key_env,
        context_tokens=config.context_tokens,
        concurrency=server.concurrency,
        timeout=server.timeout,
        tries=server.tries,
        tokenizer=tokenizer(config) if server.tokenizer else None,
        extra=server.extra,
    )
    try:
        if config.mode == "rank" and not engine.scores:
            raise InvalidConfigError(f"[llm.server] {server.url}: {NO_SCORES}")
    except BaseException:
        engine.close()
        raise
    return engine
