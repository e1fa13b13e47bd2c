"""A sample: one output of a stage with what somebody must see to judge it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from recgpt.text import clean

MAX_FIELD = 1200
"""Longest field of a sample, in characters: a history is cut to its cited rows before."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What is judged. Two outputs that look alike to a judge are one sample."""

    task: str
    """One of `criteria.TASKS`."""
    fields: Mapping[str, str]
    """What a person and the LLM see, in this order: label -> text of strangers. The last is the output itself."""
    user_id: str | None = None
    ruled: Mapping[str, str] = field(default_factory=dict)
    """What rules decided: rule -> what is wrong, empty where nothing is. A rule that is missing could not tell."""
    as_of: datetime | None = None

    @property
    def id(self) -> str:
        """Content hash: task and fields, nothing else."""
        text = json.dumps([self.task, list(self.fields.items())], ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]

    def lines(self) -> str:
        """Show the fields, a line each, cleaned: a label that stands in a text begins no line of its own."""
        return "\n".join(f"{label}: {clean(text, limit=MAX_FIELD) or '-'}" for label, text in self.fields.items())
