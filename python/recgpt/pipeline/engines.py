"""Opens the engine that a configuration names, behind the ledger."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from recgpt.llm import FakeEngine, LlamaCpp, OpenAI, Recorded, Tokenizer, default_model_path
from recgpt.pipeline import servers
from recgpt.pipeline.config import LlmConfig


def model_path(config: LlmConfig) -> Path:
    """Resolve the model: `smollm2` is the one that comes as a package, anything else is a path."""
    return default_model_path() if config.model == "smollm2" else Path(config.model)


def tokenizer(config: LlmConfig) -> Tokenizer:
    """Give the tokenizer of the model that will read the texts; the scripted engine reads bytes."""
    if config.server is not None:
        return servers.tokenizer(config.server)
    return Tokenizer.bytes() if config.engine == "fake" else _read(model_path(config))


@lru_cache(maxsize=1)
def _read(path: Path) -> Tokenizer:
    """Read a tokenizer once a process: checks, histories and estimates all count with it."""
    return Tokenizer.from_gguf(path)


def model(config: LlmConfig) -> LlamaCpp | FakeEngine | OpenAI:
    """Make the engine; its model is loaded at the first question."""
    if config.server is not None:
        return servers.remote(config, config.server)
    if config.engine == "fake":
        return FakeEngine(context_tokens=config.context_tokens)
    return LlamaCpp(
        model_path(config),
        context_tokens=config.context_tokens,
        threads=config.threads,
        n_gpu_layers=config.gpu_layers,
        flash_attention=config.flash_attention,
        kv_type=config.kv_type,
        weights=config.weights,
        patience=config.patience,
    )


def open_engine(config: LlmConfig, ledger: Path) -> Recorded:
    """Open the engine; answers that the ledger holds are not asked again."""
    return servers.check_adapters(config, Recorded(model(config), ledger))
