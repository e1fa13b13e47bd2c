"""Mode `generate` of the tags stage: a capable model writes the triplets as JSON; every one is validated again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from recgpt.llm import grammar, prompts
from recgpt.llm.engine import Request
from recgpt.tags import checkers
from recgpt.tags.context import Context, FirstAnswer, Household
from recgpt.tags.sequences import render
from recgpt.tags.words import split, stems
from recgpt.text import clean


class TagAnswer(BaseModel):
    """One triplet as the model writes it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tag: str = Field(min_length=1, max_length=80)
    interest: str = Field(max_length=120)
    """Exactly one of the user's interests; empty when none was mined."""
    reason: str = Field(min_length=1, max_length=240)


def answer_schema(quantity: int) -> dict[str, Any]:
    """Give the JSON schema of the whole answer: `{"tags": [triplet, ...]}` with room for a fifth more than asked."""
    return {
        "type": "object",
        "properties": {
            "tags": {
                "type": "array",
                "items": grammar.from_model(TagAnswer),
                "minItems": 1,
                "maxItems": quantity * 6 // 5 + 1,
            }
        },
        "required": ["tags"],
        "additionalProperties": False,
    }


def written(triplets: Sequence[tuple[str, str, str]]) -> str:
    """Write (tag, interest, reason) triplets as an answer that this mode reads.

    >>> written([("rye bread", "", "They had butter before.")])
    '{"tags": [{"tag": "rye bread", "interest": "", "reason": "They had butter before."}]}'
    """
    answers = [TagAnswer(tag=tag, interest=interest, reason=reason).model_dump() for tag, interest, reason in triplets]
    return json.dumps({"tags": answers}, ensure_ascii=False)


def run(context: Context) -> None:
    """Fill the context's table, rejections and counts."""
    households = context.households
    rendered = render(
        prompts.load("tags"),
        [household.sequences for household in households],
        [{**context.inputs(household), "quantity": context.config.quantity} for household in households],
        count_tokens=context.engine.count_tokens,
        config=context.config,
    )
    schema = answer_schema(context.config.quantity)
    requests = [
        Request(
            prompt,
            max_tokens=context.config.answer_tokens,
            schema=schema,
            seed=context.config.seed,
            key=f"tags/{household.user}",
        )
        for household, prompt in zip(households, rendered, strict=True)
    ]
    answers: list[tuple[Household, TagAnswer]] = []
    for household, result in zip(households, context.engine.generate(requests, context.progress), strict=True):
        # Parsed again, whatever the engine says of its own answer.
        parsed = grammar.parse(result.text, schema) if result.status == "ok" else None
        if parsed is None or parsed.reason:
            context.counts["answers_total"] += 1
            reason = parsed.reason if parsed is not None else result.reason or "engine: no answer"
            context.reject(household.user, None, "unscored", reason, result.text)
            continue
        for value in parsed.value["tags"]:
            context.counts["answers_total"] += 1
            answers.append((household, TagAnswer.model_validate(value)))
    category_of = context.mapped([_tag(answer) for _, answer in answers])
    for household in households:
        own = [answer for other, answer in answers if other is household]
        _validate(context, household, own, category_of)


def _tag(answer: TagAnswer) -> str:
    return " ".join(split(clean(answer.tag, limit=80)))


def _validate(context: Context, household: Household, answers: list[TagAnswer], category_of: dict[str, str]) -> None:
    seen: set[tuple[str, ...]] = set()
    passed: list[TagAnswer] = []
    for answer in answers:
        tag = _tag(answer)
        fault = _reason_fault(household, answer, tag) or ""
        reason = clean(answer.reason, limit=240)
        context.first.append(
            FirstAnswer(household.user, tag, answer.interest or None, category_of[tag] or None, reason, fault)
        )
        failure = _failure(context, household, answer, category_of[tag], seen) or fault
        if failure:
            context.reject(household.user, tag, "rejected", failure, answer.model_dump_json())
        else:
            seen.add(tuple(sorted(stems(tag))))
            passed.append(answer)
    context.counts["answers_valid"] += len(passed)
    order = checkers.diverse(
        [category_of[_tag(answer)] for answer in passed], context.config.min_categories, context.config.quantity
    )
    for place in sorted(set(range(len(passed))) - set(order)):
        context.reject(household.user, _tag(passed[place]), "rejected", "one_sided", passed[place].model_dump_json())
    for rank, place in enumerate(order, start=1):
        answer = passed[place]
        interest = next((own for own in household.interests if own.casefold() == answer.interest.casefold()), None)
        context.table.append(
            {
                "user_id": household.user,
                "rank": rank,
                "tag": _tag(answer),
                "interest": interest,
                "reason": clean(answer.reason, limit=240),
                "category": category_of[_tag(answer)],
                "score": None,
                "source": "generate",
                "as_of": context.now,
            }
        )


def _failure(
    context: Context, household: Household, answer: TagAnswer, category: str, seen: set[tuple[str, ...]]
) -> str | None:
    tag = _tag(answer)
    if tuple(sorted(stems(tag))) in seen:
        return "duplicate"
    failure = (
        context.tag_rule(tag, category)
        or checkers.fresh(tag, household.recent)
        or checkers.interest_known(answer.interest or None, household.interests)
    )
    # Without categories the association is word overlap alone, which a good tag need not have.
    if failure is None and answer.interest and context.known:
        own = next(text for text in household.interests if text.casefold() == answer.interest.casefold())
        # A capable model may go beyond the terms, so the interest's own words and Tag-to-Cate count as well.
        said = max(found(own, tag, category) for found in (context.associations.between, context.associations.by_words))
        failure = checkers.relevant(said, context.config.min_association)
    return failure


def _reason_fault(household: Household, answer: TagAnswer, tag: str) -> str | None:
    reason = clean(answer.reason, limit=240)
    known = " ".join([household.attributes, *household.interests, *household.history, tag])
    return (
        checkers.has_substance(reason)
        or checkers.brief(reason)
        or checkers.no_foreign_number(reason, known)
        or checkers.grounded(reason, [*household.history, *household.interests], household.attributes)
    )
