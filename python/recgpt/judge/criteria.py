"""Criteria are data: one TOML file each, in `prompts/criteria/TASK/NAME.toml`. A shop adds its own with one more file.

    source = "Table 3, relevance"
    version = 1
    scale = ["Yes", "No"]          # best first; more than two words make a criterion of several levels
    passes = ["Yes"]
    decided_by = "llm"             # or "rule:NAME", one of `RULES`
    question = "Would somebody with the stated interest buy this for it?"

    [[positive]]                   # examples in a shop's own words, at least one of each kind
    text = "trail running vest for running"
    why = "runners wear it"

    [[negative]]
    ...

An output qualifies only if it passes every criterion of its task (sections 2.1.2, 2.2.1 and 2.4.1).
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from recgpt.errors import PromptError

TASKS = ("interests", "tags", "explanations")
"""The three tasks whose outputs are judged, under the words of their stages."""
RULES = {
    "interests": {"evidence"},
    "tags": {"specificity", "category", "past_month", "season"},
    "explanations": {"claims", "length", "safety", "copy"},
}
"""What a rule can decide, by task; `pipeline.judging` asks the stages' own checkers."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_KEYS = {"source", "version", "scale", "passes", "decided_by", "question", "positive", "negative"}


@dataclass(frozen=True, slots=True)
class Example:
    """One example of a criterion, and why it is one."""

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Criterion:
    """One question about one kind of output."""

    task: str
    name: str
    source: str
    version: int
    scale: tuple[str, ...]
    """Possible verdicts, best first: `("Yes", "No")`, or more for a criterion of several levels (section 3.1)."""
    passes: frozenset[str]
    """Verdicts with which an output qualifies."""
    rule: str
    """The rule that decides; empty where the LLM does."""
    question: str
    positive: tuple[Example, ...]
    negative: tuple[Example, ...]
    digest: str
    """SHA-256 of the file: labels of another wording are labels of another criterion."""

    @property
    def key(self) -> str:
        """Name it as tables do: `tags/relevance`."""
        return f"{self.task}/{self.name}"

    @property
    def levels(self) -> bool:
        """Tell whether there are more than two verdicts."""
        return len(self.scale) > 2


def load(folder: Path | str | None = None) -> dict[str, Criterion]:
    """Load all criteria, by key, in the order of tasks and names.

    Args:
        folder: a shop's own criteria; a file with the name of one of ours takes its place.

    Raises:
        PromptError: a file that is no criterion, or lies where no task is.
    """
    ours = resources.files("recgpt") / "prompts" / "criteria"
    found: dict[str, Criterion] = {}
    if folder is not None and not Path(folder).is_dir():
        raise PromptError(f"the folder of criteria {folder} was expected to hold TASK/NAME.toml, but there is none")
    for root in (ours, *([Path(folder)] if folder is not None else [])):
        for task, file in _files(root):
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise PromptError(f"criteria/{task}/{file.name} is not UTF-8 ({error}); save it as UTF-8") from error
            criterion = parse(task, file.name.removesuffix(".toml"), text)
            found[criterion.key] = criterion
    return dict(sorted(found.items(), key=lambda pair: (TASKS.index(pair[1].task), pair[1].name)))


def parse(task: str, name: str, text: str) -> Criterion:
    """Read one file.

    Raises:
        PromptError: naming the file, what was expected and what came.
    """
    where = f"criteria/{task}/{name}.toml"
    if task not in TASKS:
        raise PromptError(f"{where}: a task is one of {', '.join(TASKS)}, but it is {task!r}")
    if not _NAME.fullmatch(name):
        raise PromptError(f"{where}: a name has lower-case letters, digits and _, but it is {name!r}")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PromptError(f"{where} is not TOML: {error}") from error
    if data.keys() != _KEYS:
        odd = ", ".join(sorted(data.keys() ^ _KEYS))
        raise PromptError(f"{where} must have exactly {', '.join(sorted(_KEYS))}; missing or unknown: {odd}")
    scale, passes = _texts(where, "scale", data["scale"]), _texts(where, "passes", data["passes"])
    if len(scale) < 2 or len(set(scale)) < len(scale):
        raise PromptError(f"{where}: scale needs two or more different verdicts, best first, but it is {scale}")
    if not passes or passes != scale[: len(passes)] or len(passes) == len(scale):
        raise PromptError(f"{where}: passes must be the best verdicts of the scale and not all, but it is {passes}")
    by, question = data["decided_by"], data["question"]
    rule = by.removeprefix("rule:") if isinstance(by, str) and by.startswith("rule:") else ""
    if by != "llm" and rule not in RULES[task]:
        rules = ", ".join(sorted(RULES[task]))
        raise PromptError(f"{where}: decided_by is llm or rule:NAME with one of {rules} for {task}, not {by!r}")
    if not isinstance(question, str) or not question.strip() or not isinstance(data["version"], int):
        raise PromptError(f"{where}: question must be a text and version a whole number")
    return Criterion(
        task=task,
        name=name,
        source=str(data["source"]),
        version=data["version"],
        scale=scale,
        passes=frozenset(passes),
        rule=rule,
        question=question.strip(),
        positive=_examples(where, "positive", data["positive"]),
        negative=_examples(where, "negative", data["negative"]),
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def _files(root: Traversable | Path) -> Iterator[tuple[str, Traversable | Path]]:
    for folder in sorted(root.iterdir(), key=lambda entry: entry.name):
        if folder.name.endswith(".toml"):
            raise PromptError(f"{folder} lies in no task's folder; move it into one of {', '.join(TASKS)}")
        if folder.is_dir() and folder.name != "__pycache__":
            for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
                if file.name.endswith(".toml"):
                    yield folder.name, file


def _texts(where: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
        raise PromptError(f"{where}: {key} must be a list of words, but it is {value!r}")
    return tuple(value)


def _examples(where: str, key: str, value: Any) -> tuple[Example, ...]:
    rows = value if isinstance(value, list) else []
    if not rows or not all(isinstance(row, dict) and row.keys() == {"text", "why"} for row in rows):
        raise PromptError(f"{where}: {key} must hold at least one [[{key}]] with text and why")
    return tuple(Example(str(row["text"]), str(row["why"])) for row in rows)
