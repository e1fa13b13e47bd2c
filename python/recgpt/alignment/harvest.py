"""From outputs that were kept to training samples, each under the prompt of its stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import pyarrow as pa

from recgpt import schema
from recgpt.alignment.outputs import Outputs
from recgpt.alignment.samples import SAMPLES, TASK
from recgpt.alignment.wording import drawn
from recgpt.interests.reasons import read
from recgpt.llm import grammar
from recgpt.llm.engine import Prompt, Request, Result
from recgpt.llm.prompts import load
from recgpt.tags.words import split
from recgpt.text import clean

NOTHING = " nothing else"
"""The candidate that every true interest comes before, and that comes before every wrong one."""
RIGHT, MIDDLE, WRONG = 2, 1, 0
"""Grades of a candidate: better ones come before worse ones, equal ones are not compared."""
MIDDLES = 4
"""Candidates of the grade in the middle of which one user's samples tell, at most."""
LEAST = 0.5
"""Share of a written list that has to be kept for the list to be worth imitating."""

Grade = Callable[[str, str], int]
"""(user, candidate) -> grade."""
Kept = Mapping[str, Sequence[Mapping[str, Any]]]
"""By stage, the rows of its table that nobody rejected."""
_TEXTS = {"interests": "interest_reason", "tags": "tags_reason", "explanations": "explanations"}


def harvest(outputs: Outputs, kept: Kept, grades: Mapping[str, Grade], *, origin: str) -> pa.Table:
    """Make samples of what rules and judges let through.

    Args:
        outputs: of an engine.
        kept: what of it was let through.
        grades: by stage that ranks, how good each candidate is for a user.
        origin: the name of the log.

    Returns:
        SAMPLES, those of one prompt behind each other, none twice.
    """
    rows: list[dict[str, Any]] = []
    now = outputs.stages.now
    for stage, grade in grades.items():
        for asked in outputs.ranked:
            if asked.key.startswith(f"{stage}/"):
                user = asked.key.split("/")[1]
                for answer, others in ranking(user, asked.candidates, grade, reference=stage == "interests"):
                    rows.append(_row(stage, f"{stage}_rank", asked.prompt, answer, others, user, origin, now))
    known = {stage: _known(stage, kept.get(stage, ())) for stage in _TEXTS}
    for request, result in outputs.texts:
        if result.status == "ok":
            stage = request.key.split("/")[0]
            name, answer, owner = _text(stage, request, result, kept.get(stage, ()), known[stage])
            if answer:
                # Behind a forced beginning an engine goes on with a space.
                answer = f" {answer}" if request.prompt.answer else answer
                rows.append(_row(stage, name, request.prompt, answer, [], owner, origin, now))
    distinct = {(row["prompt"], row["beginning"], row["answer"], *row["others"]): row for row in rows}
    return schema.rows(list(distinct.values()), SAMPLES)


def _text(
    stage: str,
    request: Request,
    result: Result,
    kept: Sequence[Mapping[str, Any]],
    known: Mapping[object, str | None],
) -> tuple[str, str, str | None]:
    """Give the prompt's name, what of a text is worth imitating (empty for none of it), and whose behavior it shows."""
    if request.schema is not None:
        user = request.key.split("/")[1]
        # Parsed again, with its reasoning, whatever the engine says of its own answer.
        whole = "" if grammar.parse(result.text, request.schema).reason else result.text
        own = [row for row in kept if row["user_id"] == user]
        return stage, listed(stage, json.loads(whole), own) if whole else "", user
    said = _said(stage, request, result)
    return (_TEXTS[stage], result.text.strip(), known[said]) if said in known else (_TEXTS[stage], "", None)


def graded(outputs: Outputs, kept: Kept) -> dict[str, Grade]:
    """Grade candidates by what an engine wrote of each user: what was kept is right, all else is wrong.

    A tag that was not written, but whose category a kept tag of the user has, stands in the middle. Of somebody of whom
    nothing was kept nothing is known: an engine that says nothing calls nothing wrong.
    """
    shelves = {(row["user_id"], row["category"]) for row in kept["tags"] if row["category"]}

    def grade(task: str, name: str) -> Grade:
        own = {(row["user_id"], row[name]) for row in kept[task]}
        known = {user for user, _ in own}

        def graded(user: str, text: str) -> int:
            if (user, text) in own:
                return RIGHT
            near = name == "tag" and (user, outputs.category_of.get(text)) in shelves
            return MIDDLE if near or user not in known else WRONG

        return graded

    return {"interests": grade("interests", "interest"), "tags": grade("tags", "tag")}


def ranking(user: str, candidates: Sequence[str], grade: Grade, *, reference: bool) -> Iterator[tuple[str, list[str]]]:
    """Give each right answer with those that it comes before; those of one prompt have the same.

    Args:
        user: whose candidates.
        candidates: as an engine scores them.
        grade: how good each is.
        reference: put " nothing else" between right and wrong, so that a score says more than an order.
    """
    graded = {one: grade(user, one.strip()) for one in candidates if one != NOTHING}
    right, middle, wrong = ([one for one, own in graded.items() if own == level] for level in (RIGHT, MIDDLE, WRONG))
    below = [*middle, *wrong, *([NOTHING] if reference else [])]
    if below:
        yield from ((one, below) for one in right)
    if wrong:
        some = sorted(middle, key=lambda one: drawn("0123456789abcdef", user, one))[:MIDDLES]
        yield from ((one, wrong) for one in [*some, *([NOTHING] if reference else [])])


def listed(stage: str, value: Mapping[str, Any], kept: Sequence[Mapping[str, Any]]) -> str:
    """Write a list again with the entries alone that were kept; empty where too few were."""
    name = "interest" if stage == "interests" else "tag"
    key, known = f"{name}s", {(row[name], row["reason"]) for row in kept}
    own = [one for one in value[key] if (_named(stage, one), clean(one["reason"])) in known]
    if not own or len(own) < LEAST * len(value[key]):
        return ""
    return written({**value, key: own})


def written(value: Any) -> str:
    """Write JSON with the spaces that `llm.grammar` lets a model write.

    >>> written({"tags": [{"tag": "tea", "row": 1}]})
    '{"tags": [{"tag": "tea","row": 1}]}'
    """
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}: {written(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _named(stage: str, entry: Mapping[str, Any]) -> str:
    return clean(entry["interest"]) if stage == "interests" else " ".join(split(clean(entry["tag"], limit=80)))


def _known(stage: str, kept: Sequence[Mapping[str, Any]]) -> dict[object, str | None]:
    """Give the texts that were kept, and of whose behavior each tells."""
    if stage == "interests":
        return {(row["user_id"], row["reason"]): row["user_id"] for row in kept}
    if stage == "tags":
        return {row["reason"]: row["user_id"] for row in kept}
    return {row["text"]: None for row in kept}


def _said(stage: str, request: Request, result: Result) -> object:
    """Put a text together as its stage does."""
    begun = request.prompt.answer
    if stage == "interests":
        return request.key.split("/")[1], read(result, begun)[0]
    if stage == "tags":
        return f"{begun} {result.text.strip()}."
    return clean(f"{begun} {clean(result.text)}").rstrip(".。 ")


def _row(
    stage: str,
    prompt_name: str,
    prompt: Prompt,
    answer: str,
    others: Sequence[str],
    user: str | None,
    origin: str,
    now: datetime | None,
) -> dict[str, Any]:
    return {
        "subtask": stage,
        "level": TASK,
        "system": prompt.system,
        "prompt": prompt.user,
        "beginning": prompt.answer,
        "answer": answer,
        "others": list(others),
        "user_id": user,
        # A stage reads what lies strictly before `now`.
        "at": now and now - timedelta(microseconds=1),
        "origin": origin,
        "prompt_digest": _digest(prompt_name),
    }


@cache
def _digest(prompt_name: str) -> str:
    return load(prompt_name).digest
