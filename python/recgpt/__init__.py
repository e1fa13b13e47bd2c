"""recgpt: recommendations that start from intent, after the RecGPT Technical Report (arXiv 2507.22879).

Submodules load when they are first touched, so `import recgpt` brings neither torch nor llama.cpp.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recgpt import (
        behaviors,
        categories,
        datasets,
        errors,
        evaluation,
        explanations,
        history,
        index,
        interests,
        judge,
        llm,
        logs,
        pipeline,
        retrieval,
        schema,
        serving,
        tags,
    )
    from recgpt.serving import Recommender

__version__ = "0.1.0"

__all__ = [
    "Recommender",
    "behaviors",
    "categories",
    "datasets",
    "errors",
    "evaluation",
    "explanations",
    "history",
    "index",
    "interests",
    "judge",
    "llm",
    "logs",
    "pipeline",
    "retrieval",
    "schema",
    "serving",
    "tags",
]


def __getattr__(name: str) -> Any:
    if name == "Recommender":
        return importlib.import_module("recgpt.serving").Recommender
    if name in __all__:
        return importlib.import_module(f"recgpt.{name}")
    raise AttributeError(f"module 'recgpt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
