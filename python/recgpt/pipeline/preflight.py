"""Checks before any work starts: the model's file, the prompt files, and that every prompt fits into the context."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import resources
from typing import Any, NamedTuple

from recgpt.errors import InvalidConfigError, PromptError
from recgpt.interests import Pool
from recgpt.llm import FakeEngine, LlamaCpp
from recgpt.llm.adapters import adapter_file
from recgpt.llm.prompts import load
from recgpt.pipeline import engines
from recgpt.pipeline.config import Config

LEAST = 64
"""Tokens that must be left for a prompt's data: less than one line of a history would be no history."""
TURNS = 48
"""Tokens for the marks of a chat template around system and user text, more than the common ones take."""
SHOPPER = 128
"""Tokens for a user's attributes, which `text.clean` cuts at 400 characters."""
CANDIDATE = 32
"""Tokens for the longest candidate."""


class Fitted(NamedTuple):
    """A configuration whose prompts fit."""

    config: Config
    notes: list[str]
    """What was shortened, and why; empty when nothing was."""


class _Use(NamedTuple):
    """One prompt file and what comes beside its own words."""

    name: str
    data: int
    """Tokens for the data that the configuration allows; shortened where that is possible."""
    data_from: str
    answer: int
    answer_from: str


def folders(config: Config) -> None:
    """Check that the folders of the outputs can be made.

    Raises:
        InvalidConfigError: one lies below a file, or where nothing may be written; the message names it.
    """
    for key, folder in (("out", config.out), ("serving.bundles", config.serving.bundles)):
        # The nearest that is there: a dangling link counts, since no folder can be made in its place.
        found = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
        if not found.is_dir():
            raise InvalidConfigError(f"`{key}` must name a folder, but {found} is none; name another or move that")
        if not os.access(found, os.W_OK | os.X_OK):
            raise InvalidConfigError(f"`{key}` is {folder}, but {found} may not be written; name another or allow it")


def check(config: Config) -> Fitted:
    """Check the model's file and every prompt of the LLM stages, and shorten what must be shorter to fit.

    Raises:
        EngineError, ModelNotFoundError, TokenizerError: the model's file cannot be used.
        PromptError: a prompt file is wrong, or too long by its own words; the message names the file and the numbers.
    """
    engine = engines.model(config.llm)
    context = engine.check() if isinstance(engine, LlamaCpp) else engine.context_tokens
    engine.close()
    if config.llm.server is None:
        for adapter in config.llm.adapters.values():
            adapter_file(adapter)
    if isinstance(engine, FakeEngine):
        count: Callable[[Sequence[str]], Iterable[int]] = engine.count_tokens
    else:
        count = engines.tokenizer(config.llm).count
    room = {use.name: _room(use, config, context, count) for use in _uses(config)}
    notes = []
    history, shopper = room["interests_rank" if config.llm.mode == "rank" else "interests"] - SHOPPER, config.tags
    if history < config.history.budget:
        notes.append(f"histories cut to {history:,} tokens instead of {config.history.budget:,} to fit {context:,}")
        config = config.model_copy(update={"history": config.history.model_copy(update={"budget": history})})
    sequences = room["tags_rank" if config.llm.mode == "rank" else "tags"]
    if sequences < shopper.prompt_tokens:
        notes.append(f"tag prompts cut to {sequences:,} tokens instead of {shopper.prompt_tokens:,} to fit {context:,}")
        config = config.model_copy(update={"tags": replace(shopper, prompt_tokens=sequences)})
    return Fitted(config, notes)


def _uses(config: Config) -> list[_Use]:
    interests, tags, texts = config.interests, config.tags, config.explanations
    explanations = _Use("explanations", 256, "an item", texts.answer_tokens, "explanations.answer_tokens")
    if config.llm.mode == "generate":
        answer = interests.answer_tokens + interests.reasoning_tokens
        return [
            _Use("interests", config.history.budget + SHOPPER, "history.budget", answer, "interests.answer_tokens"),
            _Use("tags", tags.prompt_tokens, "tags.prompt_tokens", tags.answer_tokens, "tags.answer_tokens"),
            explanations,
        ]
    return [
        _Use("interests_rank", config.history.budget + SHOPPER, "history.budget", CANDIDATE, "a candidate"),
        _Use("interest_reason", 256, "items", interests.reason_tokens, "interests.reason_tokens"),
        _Use("tags_rank", tags.prompt_tokens, "tags.prompt_tokens", CANDIDATE, "a candidate"),
        _Use("tags_reason", 128, "an item", tags.reason_tokens, "tags.reason_tokens"),
        explanations,
    ]


def _room(use: _Use, config: Config, context: int, count: Callable[[Sequence[str]], Iterable[int]]) -> int:
    """Return how many tokens of data fit into one prompt."""
    template = load(use.name)
    empty: dict[str, Any] = dict.fromkeys(template.inputs, "")
    for name, value in {
        "pool": [*Pool.load(config.llm.pool).interests][: config.interests.candidates],
        "items": [],
        "most": config.interests.most,
        "quantity": config.tags.quantity,
        "reasoning": bool(config.interests.reasoning_tokens),
    }.items():
        if name in empty:
            empty[name] = value
    prompt = template.render(**empty)
    fixed = int(sum(count([prompt.system, prompt.user, prompt.answer]))) + TURNS
    left = context - fixed - use.answer
    least = LEAST + (SHOPPER if use.data_from == "history.budget" else 0)
    if left < least:
        path = resources.files("recgpt") / "prompts" / f"{use.name}.md"
        raise PromptError(
            f"the prompt {path} does not fit: its own words take {fixed:,} tokens and the answer {use.answer:,} "
            f"({use.answer_from}), so that {left:,} of a context of {context:,} (llm.context_tokens, or what the model "
            f"was trained for) are left for its data, and at least {least} are needed; shorten one or raise the other"
        )
    return left
