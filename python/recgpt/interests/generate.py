"""`generate`: a capable model writes interests under a schema; nothing of it is believed before it is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recgpt.interests.cases import Case
from recgpt.interests.config import Config
from recgpt.interests.pool import Pool
from recgpt.llm.engine import Engine, Progress, Request, Result
from recgpt.llm.prompts import Template


class InterestEntry(BaseModel):
    """One interest as a model writes it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, Field(max_length=60)]
    """Id in the preset list; empty for an extended interest."""
    interest: Annotated[str, Field(min_length=2, max_length=60)]
    stage: Literal["long-term", "short-term"]
    reason: Annotated[str, Field(min_length=1, max_length=240)]
    evidence: Annotated[list[int], Field(min_length=1, max_length=6)]


class InterestAnswer(BaseModel):
    """A whole answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    interests: Annotated[list[InterestEntry], Field(max_length=30)]


class ReasonedInterestAnswer(BaseModel):
    """A whole answer with room for thought before it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reasoning: Annotated[str, Field(max_length=1999)]
    interests: Annotated[list[InterestEntry], Field(max_length=30)]


Answer = InterestAnswer | ReasonedInterestAnswer


def ask(
    cases: Sequence[Case], *, engine: Engine, pool: Pool, template: Template, config: Config, progress: Progress | None
) -> tuple[list[tuple[Answer | None, str]], list[Result]]:
    """Ask for every user's interests in one engine call.

    Returns:
        For each case the answer, or None and why there is none; and the engine's results with the raw texts.
    """
    model = ReasonedInterestAnswer if config.reasoning_tokens else InterestAnswer
    requests = [
        Request(
            template.render(
                history=case.text,
                attributes=case.attributes,
                pool=[pool.interests[match.index] for match in case.matches],
                most=config.most,
                reasoning=bool(config.reasoning_tokens),
            ),
            max_tokens=config.answer_tokens + config.reasoning_tokens,
            schema=schema_of(model),
            seed=config.seed,
            key=f"interests/{case.user_id}",
        )
        for case in cases
    ]
    results = engine.generate(requests, progress) if requests else []
    return [parse(result, model) for result in results], results


def parse(result: Result, model: type[Answer]) -> tuple[Answer | None, str]:
    """Validate an answer again, whatever the engine says of it; never repair it."""
    if result.status != "ok":
        return None, result.reason or "engine: no answer"
    try:
        return model.model_validate_json(result.text), ""
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return None, f"schema: {'.'.join(map(str, first['loc'])) or 'answer'}: {first['msg']}"


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Derive the JSON schema that becomes a grammar: references written out, titles and descriptions left away."""
    whole = model.model_json_schema()
    definitions = whole.pop("$defs", {})

    def inline(node: Any) -> Any:
        if isinstance(node, list):
            return [inline(part) for part in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return inline(definitions[node["$ref"].rpartition("/")[2]])
        kept = {key: value for key, value in node.items() if key not in ("title", "description")}
        return {
            key: {name: inline(part) for name, part in value.items()} if key == "properties" else inline(value)
            for key, value in kept.items()
        }

    flat: dict[str, Any] = inline(whole)
    return flat
