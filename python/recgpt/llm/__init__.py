"""LLM engines behind one protocol, prompts as files, validated answers, a ledger of finished work.

Names load when they are first used: importing this package loads neither llama.cpp nor a model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recgpt.llm.fake import FakeEngine
    from recgpt.llm.ledger import Recorded
    from recgpt.llm.llama_cpp import LlamaCpp
    from recgpt.llm.models import default_model_path
    from recgpt.llm.openai import OpenAI
    from recgpt.llm.tokenizer import Tokenizer

_HOMES = {
    "FakeEngine": "fake",
    "LlamaCpp": "llama_cpp",
    "OpenAI": "openai",
    "Recorded": "ledger",
    "Tokenizer": "tokenizer",
    "default_model_path": "models",
}

__all__ = ["FakeEngine", "LlamaCpp", "OpenAI", "Recorded", "Tokenizer", "default_model_path"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
