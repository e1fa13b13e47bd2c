"""Stage 1 of alignment: samples of 16 subtasks, each after those it builds on (section 2.1.2, Appendix C)."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa

from recgpt.alignment import advanced, foundation, intermediate, subtasks
from recgpt.alignment.draft import Builder
from recgpt.alignment.facts import Facts
from recgpt.alignment.samples import SAMPLES
from recgpt.errors import AlignmentError
from recgpt.llm import prompts
from recgpt.schema import rows
from recgpt.text import neutralize

BUILDERS: dict[str, Builder] = {
    name: getattr({"foundation": foundation, "intermediate": intermediate, "advanced": advanced}[one.level], name)
    for name, one in subtasks.SUBTASKS.items()
}
_IN_VAIN = 50
"""Drafts in a row that only repeat what is there end a subtask: some builders never run dry."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many samples of one subtask there are."""

    made: int
    asked: int
    paper: int
    """In the report."""


@dataclass(frozen=True)
class Curriculum:
    """What was built."""

    samples: pa.Table
    """SAMPLES, subtask by subtask in topological order."""
    counts: dict[str, Count]
    """By subtask, in topological order."""


def build(
    facts: Facts,
    *,
    scale: float = 1.0,
    seed: int = 0,
    only: Iterable[str] | None = None,
    folder: Path | None = None,
) -> Curriculum:
    """Make the curriculum of a shop.

    Args:
        facts: what every answer is taken from.
        scale: the report's counts are multiplied by it; a subtask for which the data have less has less.
        seed: decides what is drawn; the same facts and seed give the same samples, whatever else is asked for.
        only: some of the subtasks; all by default.
        folder: prompts of a shop's own, `SUBTASK.md` with one slot `given`; by default `prompts/curriculum`.

    Raises:
        AlignmentError: an unknown subtask, or the data have nothing for any of them.
        PromptError: a prompt file is missing or wrong.
    """
    wanted = subtasks.quotas(scale, only)
    folder = folder or Path(str(resources.files("recgpt") / "prompts" / "curriculum"))
    records: list[dict[str, object]] = []
    counts: dict[str, Count] = {}
    for name in (one for one in subtasks.order() if one in wanted):
        made = _samples(name, facts, wanted[name], seed, folder)
        records += made
        counts[name] = Count(len(made), wanted[name], subtasks.SUBTASKS[name].paper)
    if not records:
        raise AlignmentError(
            f"{facts.origin} has nothing for {', '.join(wanted)}: they need items with titles and categories, "
            "purchases, searches or reviews; docs/alignment.md says what each needs"
        )
    return Curriculum(rows(records, SAMPLES), counts)


def _samples(name: str, facts: Facts, most: int, seed: int, folder: Path) -> list[dict[str, object]]:
    template = prompts.load(name, folder)
    draw = random.Random(f"{seed}/{name}")
    seen: set[str] = set()
    made: list[dict[str, object]] = []
    vain = 0
    for draft in BUILDERS[name](facts, draw):
        # One question, one answer: what was shown before with another answer would teach to guess.
        if draft.given in seen:
            vain += 1
            if vain > _IN_VAIN:
                break
            continue
        vain = 0
        seen.add(draft.given)
        prompt = template.render(given=draft.given)
        made.append({
            "subtask": name, "level": subtasks.SUBTASKS[name].level, "system": prompt.system, "prompt": prompt.user,
            "beginning": prompt.answer, "answer": neutralize(draft.answer), "others": [], "user_id": draft.user,
            "at": draft.at, "origin": facts.origin, "prompt_digest": template.digest,
        })  # fmt: skip
        if len(made) == most:
            break
    return made


def arrange(samples: pa.Table, order: str = "topological", *, seed: int = 0) -> pa.Table:
    """Put samples in the order of training; inside a subtask, or over all, by a hash of content and seed.

    Args:
        samples: SAMPLES.
        order: `topological` (easier subtasks first, each after what it builds on) or `shuffled`.
        seed: another one gives another order of equals.

    Raises:
        AlignmentError: there is no such order.
    """
    if order not in ("topological", "shuffled"):
        raise AlignmentError(f"order must be topological or shuffled, but it is {order!r}")
    place = {name: at for at, name in enumerate(subtasks.order())}
    keys = [
        (place[name] if order == "topological" else 0, hashlib.sha256(f"{seed}/{name}/{prompt}".encode()).digest())
        for name, prompt in zip(samples["subtask"].to_pylist(), samples["prompt"].to_pylist(), strict=True)
    ]
    return samples.take(np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64))
