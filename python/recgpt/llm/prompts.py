"""Prompts are files: a TOML header, then the sections `# system`, `# user` and optionally `# answer`.

    +++
    version = 1
    inputs = ["attributes", "history"]
    output = "InterestAnswer"
    +++
    # system
    ...

Templates are rendered by Jinja2 in its immutable sandbox with strict undefined: data enters as variables only. A file
is checked when it is loaded: every input must have a slot, every slot an input.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

from jinja2 import StrictUndefined, TemplateError, meta, nodes
from jinja2 import Template as JinjaTemplate
from jinja2.sandbox import ImmutableSandboxedEnvironment

from recgpt.errors import PromptError
from recgpt.llm.engine import Prompt
from recgpt.text import fence

_FILE = re.compile(r"\A\+\+\+\n(?P<header>.*?)\n\+\+\+\n(?P<body>.*)\Z", re.S)
_SECTION = re.compile(r"^# (system|user|answer)\n", re.M)
_HEADER_KEYS = {"version", "inputs", "output"}
INPUTS = {
    "briefs": {"item", "max_chars"},
    "interests": {"history", "attributes", "pool", "most", "reasoning"},
    "interests_rank": {"history", "attributes"},
    "interest_reason": {"items", "opening"},
    "tags": {"attributes", "interests", "clicks", "purchases", "searches", "date", "season", "quantity"},
    "tags_rank": {"attributes", "interests", "clicks", "purchases", "searches", "date", "season"},
    "tags_reason": {"facts", "beginning"},
    "judge": {"sample", "question", "examples", "scale"},
    "judge_reason": {"sample", "question", "verdict"},
    "explanations": {"item", "interest", "date", "season", "beginning"},
}
"""What the stages hand to their prompts. A wording of one's own must have a slot for each."""
FLAGS = {"reasoning"}
"""Inputs that only decide what is said."""

_environment = ImmutableSandboxedEnvironment(
    undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False
)
# `{{ history | fence("history") }}` is how untrusted text enters a prompt.
_environment.filters["fence"] = fence


@lru_cache(maxsize=64)
def _compiled(body: str) -> JinjaTemplate:
    """Compile a section once: doing so for every prompt took half of the scripted pipeline's time."""
    return _environment.from_string(body)


@dataclass(frozen=True, slots=True)
class Template:
    """One prompt file, checked when it is loaded."""

    name: str
    version: int
    inputs: tuple[str, ...]
    output: str
    sections: dict[str, str]
    digest: str
    """SHA-256 of the file: part of every ledger key, so that an edit re-runs just what depends on it."""

    def render(self, **inputs: object) -> Prompt:
        """Fill the slots.

        Raises:
            PromptError: naming the missing or unexpected inputs.
        """
        missing, unknown = set(self.inputs) - inputs.keys(), inputs.keys() - set(self.inputs)
        if missing or unknown:
            raise PromptError(
                f"prompt `{self.name}` takes {', '.join(self.inputs)}"
                + (f"; missing: {', '.join(sorted(missing))}" if missing else "")
                + (f"; unexpected: {', '.join(sorted(unknown))}" if unknown else "")
            )
        try:
            parts = {section: _compiled(body).render(**inputs).strip("\n") for section, body in self.sections.items()}
        except TemplateError as error:
            raise PromptError(f"prompt `{self.name}` cannot be rendered: {error}") from error
        return Prompt(parts["system"], parts["user"], parts.get("answer", ""))


def load(name: str, folder: Path | None = None) -> Template:
    """Load `prompts/NAME.md` of the package, or of `folder` for a shop's own wording.

    Raises:
        PromptError: the file is missing, or its header or sections are wrong.
    """
    source = (folder or resources.files("recgpt") / "prompts") / f"{name}.md"
    if not source.is_file():
        raise PromptError(f"prompt file {name}.md was expected in {folder or 'recgpt/prompts'}")
    text = source.read_text(encoding="utf-8")
    match = _FILE.match(text)
    if match is None:
        raise PromptError(f"{name}.md must begin with a TOML header between two +++ lines")
    try:
        header = tomllib.loads(match["header"])
    except tomllib.TOMLDecodeError as error:
        raise PromptError(f"the header of {name}.md is not TOML: {error}") from error
    if header.keys() != _HEADER_KEYS:
        raise PromptError(
            f"the header of {name}.md must have exactly {', '.join(sorted(_HEADER_KEYS))}, but it has "
            f"{', '.join(sorted(header)) or 'nothing'}"
        )
    pieces = _SECTION.split(match["body"])
    sections = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    if not {"system", "user"} <= sections.keys():
        raise PromptError(f"{name}.md must have the sections `# system` and `# user`")
    _check_slots(name, set(header["inputs"]), sections)
    return Template(
        name=name,
        version=int(header["version"]),
        inputs=tuple(header["inputs"]),
        output=str(header["output"]),
        sections=sections,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )


def _check_slots(name: str, inputs: set[str], sections: dict[str, str]) -> None:
    """Compare what a file's header says with its slots, and with what its stage hands in."""
    slots: set[str] = set()
    for section, body in sections.items():
        try:
            tree = _environment.parse(body)
        except TemplateError as error:
            raise PromptError(f"{name}.md, section `# {section}`, is not a Jinja2 template: {error}") from error
        # A history that only decides an `{% if %}` would never be read: what counts is what is written or looped over.
        written = [found for node in tree.find_all(nodes.Output) for found in node.find_all(nodes.Name)]
        looped = [node.iter for node in tree.find_all(nodes.For) if isinstance(node.iter, nodes.Name)]
        used = {node.name for node in (*written, *looped)} | FLAGS
        undeclared = meta.find_undeclared_variables(tree)
        slots |= (undeclared & used) | (undeclared - inputs)
    for found, expected, says in (
        (slots, inputs, "the header's inputs"),
        (inputs, INPUTS.get(name, inputs), "what its stage hands in"),
    ):
        missing, unknown = sorted(expected - found), sorted(found - expected)
        if missing or unknown:
            raise PromptError(
                f"the slots of {name}.md do not fit {says}"
                + (f"; missing: {', '.join('{{ ' + slot + ' }}' for slot in missing)}" if missing else "")
                + (f"; unknown: {', '.join('{{ ' + slot + ' }}' for slot in unknown)}" if unknown else "")
            )
