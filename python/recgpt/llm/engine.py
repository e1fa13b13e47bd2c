"""The protocol between stages and any LLM: batched, and honest about what did not work.

A stage builds requests and reads results; which engine answers is the pipeline's choice. Requests of one call are
independent: their order and company change no answer. Engines share the longest common prefix of prompts by themselves,
so put what many requests share (instructions, then the user's history) first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Progress = Callable[[int, int], None]
"""Called with (done, total) requests."""


class Arrivals(Protocol):
    """A progress that also takes each answer as it comes, for engines that say `hands_over`.

    Such an engine is given all requests at once, so that a finished one's place is filled again, and yet an
    interruption loses little.
    """

    def __call__(self, done: int, total: int) -> None:
        """Tell how far the call is."""

    def arrived(self, index: int, answer: Result | ScoreResult) -> None:
        """Take the answer to the request at `index`."""


def tell(progress: Progress | None, index: int, answer: Result | ScoreResult, done: int, total: int) -> None:
    """Hand an answer to a progress that takes it, and tell how far the call is."""
    if (arrived := getattr(progress, "arrived", None)) is not None:
        arrived(index, answer)
    if progress is not None:
        progress(done, total)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One chat prompt. The engine applies the model's own chat template.

    Text in `system` and `user` is always tokenized as plain text: a control token inside it has no power.
    """

    system: str
    """Instructions; the same for every user of a stage, so that its tokens are computed once."""
    user: str
    """Rendered input; untrusted text in it is fenced (`recgpt.text.fence`)."""
    answer: str = ""
    """The forced beginning of the answer, after the assistant's turn has begun."""


@dataclass(frozen=True, slots=True)
class Request:
    """Ask for free text, or for JSON under a schema."""

    prompt: Prompt
    max_tokens: int
    schema: dict[str, Any] | None = None
    """A JSON schema of the subset in `recgpt.llm.grammar`; None means free text that ends at `stop`."""
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    """0 is greedy; otherwise sampled with `seed`."""
    seed: int = 0
    key: str = ""
    """Who asks (for example `interests/user/3`): for logs and the ledger's report, never part of the answer."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request cost. `prompt_tokens` counts the whole prompt, `computed_tokens` what was not shared."""

    prompt_tokens: int = 0
    computed_tokens: int = 0
    answer_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to a `Request`. An unscored result keeps its raw text and says why."""

    status: Literal["ok", "unscored"]
    text: str
    """Raw text, without the prompt and without `Prompt.answer`; never repaired."""
    value: Any = None
    """The parsed JSON when the request had a schema and the status is `ok`."""
    reason: str = ""
    """Why it is unscored: `length` (cut), `length: ...` (the prompt does not fit), `refusal: ...`, `leak: ...`,
    `parse: ...`, `schema: ...`, `engine: ...`."""
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Ask how likely each candidate is as the continuation of a prompt."""

    prompt: Prompt
    candidates: tuple[str, ...]
    """Plain texts, each continuing `prompt` (and `prompt.answer`) directly: mind the leading space."""
    key: str = ""


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """Log-probabilities in nats. `logprobs[i]` is the sum over the `tokens[i]` tokens of candidate i."""

    status: Literal["ok", "unscored"]
    logprobs: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    reason: str = ""
    usage: Usage = field(default_factory=Usage)

    def means(self) -> list[float]:
        """Mean log-probability a token of each candidate, which compares candidates of different lengths."""
        return [total / count for total, count in zip(self.logprobs, self.tokens, strict=True)]


class Engine(Protocol):
    """What a stage needs of an LLM. `llama_cpp`, `openai` and `fake` are some; `ledger.Recorded` wraps any."""

    @property
    def name(self) -> str:
        """Identifies model and settings (file hash, template, context length): part of every ledger key."""

    @property
    def context_tokens(self) -> int:
        """Longest prompt plus answer, in tokens."""

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        """Answer every request; results in the order of the requests."""

    def score(self, requests: Sequence[ScoreRequest], progress: Progress | None = None) -> list[ScoreResult]:
        """Score every request's candidates; results in the order of the requests."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of plain texts with the model's own tokenizer."""

    def close(self) -> None:
        """Free the model. Closing twice is allowed."""
