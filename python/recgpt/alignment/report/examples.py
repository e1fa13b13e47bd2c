"""Texts of two models side by side, of shoppers drawn by the seed and not by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from recgpt import explanations, interests, tags
from recgpt.alignment.report.world import World
from recgpt.interests import generate
from recgpt.interests.cases import cases_of
from recgpt.llm.engine import Engine, Progress
from recgpt.llm.prompts import load
from recgpt.pipeline import planted, tables

WRITTEN_TOKENS = 320
"""Room for a written answer: about three interests. A model that comes to no end is cut there, and the example says
so."""
KINDS = {
    "written": "writes interests (mode generate)",
    "interest": "chose an interest, and why",
    "tag": "chose a tag, and why",
    "text": "explains an item",
}


def drawn(world: World, count: int) -> list[str]:
    """Draw the shoppers of the examples among those who are judged."""
    random = np.random.default_rng(world.config.seed)
    return [world.drawn[at] for at in sorted(random.permutation(len(world.drawn))[:count].tolist())]


def written(
    world: World, users: Sequence[str], engine: Engine, config: interests.Config, progress: Progress | None = None
) -> dict[str, str]:
    """Let a model write the interests of some shoppers.

    Returns:
        By user the interests with stage and reason; as the model wrote it where it cannot be read, and why not.
    """
    pool = planted.Pool().pool
    some = tables.only(world.run.budgeted, users)
    cases, _ = cases_of(world.users(), some, pool, config)
    found, results = generate.ask(
        cases,
        engine=engine,
        pool=pool,
        template=load("interests"),
        config=replace(config, answer_tokens=WRITTEN_TOKENS),
        progress=progress,
    )
    return {
        case.user_id: _listed(answer) if answer is not None else f"{result.text} [{fault}]"
        for case, (answer, fault), result in zip(cases, found, results, strict=True)
    }


def of_model(
    users: Sequence[str],
    wrote: Mapping[str, str],
    mined: interests.Mined,
    predicted: tags.Predicted,
    explained: explanations.Written,
    *,
    seed: int,
) -> dict[str, dict[str, str]]:
    """Take one text of each kind for each shopper; where a model gave none, why.

    The first interest that was kept, the first tag that was answered, and the text of one drawn item, the same for
    every model.
    """
    random = np.random.default_rng(seed)
    lines = explained.first
    at = random.permutation(len(lines))[: len(users)].tolist()
    found: dict[str, dict[str, str]] = {}
    for place, user in enumerate(users):
        found[user] = {
            "written": wrote.get(user, "(not asked: too thin a history)"),
            "interest": _interest(user, mined),
            "tag": _tag(user, predicted),
            "text": _text(lines[at[place]]) if place < len(at) else "",
        }
    return found


def _listed(answer: generate.InterestAnswer) -> str:
    return "; ".join(f"{one.interest} ({one.stage}): {one.reason}" for one in answer.interests) or "no interest"


def _interest(user: str, mined: interests.Mined) -> str:
    rows = sorted((row for row in mined.table.to_pylist() if row["user_id"] == user), key=lambda row: row["rank"])
    if rows:
        return f"{rows[0]['interest']}: {rows[0]['reason']}"
    refused = [row for row in mined.rejections.to_pylist() if row["user_id"] == user]
    return f"none kept; {refused[0]['text'] or 'nothing chosen'} [{refused[0]['reason']}]" if refused else "none chosen"


def _tag(user: str, predicted: tags.Predicted) -> str:
    first = next((one for one in predicted.first if one.user == user), None)
    if first is None:
        return "none chosen"
    said = f"{first.tag}: {first.reason}" if first.reason else first.tag
    return f"{said} [{first.fault}]" if first.fault else said


def _text(one: explanations.FirstTry) -> str:
    broken = f" [{', '.join(f'{name}: {fault}' for name, fault in one.faults.items())}]" if one.faults else ""
    return f"{one.name}{f', {one.interest}' if one.interest else ''}: {one.text}{broken}"
