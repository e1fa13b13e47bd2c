"""LoRA adapters by stage: one model in memory, and before each stage's requests the adapter that was tuned for it.

An adapter belongs to llama.cpp's context, not to a sequence, so requests with different adapters are worked on one
adapter after the other, and what was computed with another one is never shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from recgpt.errors import EngineError, ModelNotFoundError
from recgpt.llm.engine import Engine, Progress, Request, Result, ScoreRequest, ScoreResult
from recgpt.llm.ledger import Recorded, View


class Adaptable(Engine, Protocol):
    """An engine that can answer with an adapter: `llama_cpp`, `openai`, `fake`."""

    def adapted(self, adapter: str) -> Engine:
        """Return a view of this engine with an adapter. It shares model and connections with this one."""


class Base(Protocol):
    """What `Adapted` needs of `LlamaCpp`."""

    context_tokens: int

    @property
    def name(self) -> str:
        """Model and settings."""

    def load_adapter(self, path: str) -> None:
        """Load an adapter, or raise."""

    def generate(
        self, requests: Sequence[Request], progress: Progress | None = None, *, adapter: str = ""
    ) -> list[Result]:
        """Answer with an adapter."""

    def score(
        self, requests: Sequence[ScoreRequest], progress: Progress | None = None, *, adapter: str = ""
    ) -> list[ScoreResult]:
        """Score with an adapter."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of plain texts."""

    def close(self) -> None:
        """Free the model."""


class Adapted:
    """`LlamaCpp` with a LoRA adapter. Its name holds the adapter's digest: a new adapter is a new ledger key."""

    def __init__(self, base: Base, adapter: str | Path) -> None:
        """Check the file; the child loads it at the first call.

        Raises:
            ModelNotFoundError: there is no GGUF file at `adapter`.
        """
        self.base = base
        self.path, self.digest = adapter_file(adapter)
        self._loaded = False

    @property
    def name(self) -> str:
        """The base engine's name and the adapter's."""
        return f"{self.base.name},adapter={self.path.name}/{self.digest[:16]}"

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus answer, in tokens."""
        return self.base.context_tokens

    @property
    def hands_over(self) -> bool:
        """Whether the base engine gives each answer to a progress that takes it (`engine.Arrivals`)."""
        return getattr(self.base, "hands_over", False)

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        """Answer every request; results in the order of the requests.

        Raises:
            EngineError: the adapter does not fit the model.
        """
        return self.base.generate(requests, progress, adapter=self._ready())

    def score(self, requests: Sequence[ScoreRequest], progress: Progress | None = None) -> list[ScoreResult]:
        """Score every request's candidates; results in the order of the requests.

        Raises:
            EngineError: the adapter does not fit the model.
        """
        return self.base.score(requests, progress, adapter=self._ready())

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of plain texts; an adapter changes no tokenizer."""
        return self.base.count_tokens(texts)

    def close(self) -> None:
        """Free the model, for the base engine too. Closing twice is allowed."""
        self.base.close()

    def _ready(self) -> str:
        path = str(self.path)
        if not self._loaded:
            self.base.load_adapter(path)
            self._loaded = True
        return path


def adapter_file(adapter: str | Path) -> tuple[Path, str]:
    """Return an adapter's whole path and the SHA-256 of its content.

    Raises:
        ModelNotFoundError: there is no GGUF file.
    """
    path = Path(adapter).resolve()
    if not path.is_file():
        raise ModelNotFoundError(f"a LoRA adapter was expected at {adapter}, but there is no such file; check the path")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        magic = file.read(4)
    if magic != b"GGUF":
        raise ModelNotFoundError(
            f"the LoRA adapter {adapter} does not begin with the bytes GGUF but with {magic!r}; convert it to GGUF"
        )
    return path, digest


class Holder(Engine, Protocol):
    """What stands in for an engine and can stand in for another: `planning.Planned`."""

    engine: Engine

    def with_engine(self, engine: Engine) -> Engine:
        """Return a view of this one for another engine."""


def adapt(recorded: Recorded | Holder, adapter: str) -> Engine:
    """Return a view of a ledger whose engine answers with an adapter; both write to the same ledger and count together.

    Raises:
        EngineError: the engine knows no adapters.
        ModelNotFoundError: there is no such adapter.
    """
    engine = recorded.engine
    if not hasattr(engine, "adapted"):
        raise EngineError(f"the engine {engine.name} knows no adapters")
    adapted = engine.adapted(adapter)
    return View(recorded, adapted) if isinstance(recorded, Recorded) else recorded.with_engine(adapted)
