"""Reasons on request: a short sentence of the model behind a verdict that it gave; it explains, it decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from recgpt.judge.criteria import Criterion
from recgpt.judge.sample import Sample
from recgpt.llm import grammar, prompts
from recgpt.llm.engine import Engine, Progress, Request
from recgpt.text import clean

MAX_TOKENS = 60


class Reason(BaseModel):
    """What the model answers."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=3, max_length=160)]


def explain(
    rows: Sequence[dict[str, Any]],
    samples: Sequence[Sample],
    criteria: Mapping[str, Criterion],
    *,
    engine: Engine,
    counts: Counter[str],
    progress: Progress | None = None,
) -> None:
    """Put a reason into every row that the model decided; where it wrote none that fits, the row stays as it is.

    Args:
        rows: of `schema.VERDICTS`, changed in place.
        samples: those of the rows, in any order.
        criteria: by key.
        engine: the one that judged.
        counts: gets `reasons` and `reasons_unscored`.
        progress: called with (done, total) requests.
    """
    template, schema = prompts.load("judge_reason"), grammar.from_model(Reason)
    known = {sample.id: sample for sample in samples}
    asked: dict[tuple[str, str], Request] = {}
    for row in rows:
        if row["decided_by"] == "llm" and row["verdict"] is not None:
            sample, criterion = known[row["sample"]], criteria[f"{row['task']}/{row['criterion']}"]
            prompt = template.render(sample=sample.lines(), question=criterion.question, verdict=row["verdict"])
            key = f"judge/reason/{criterion.key}/{sample.id}"
            asked[sample.id, criterion.key] = Request(prompt, MAX_TOKENS, schema=schema, key=key)
    answers = dict(zip(asked, engine.generate(list(asked.values()), progress), strict=True)) if asked else {}
    for row in rows:
        answer = answers.get((row["sample"], f"{row['task']}/{row['criterion']}"))
        if answer is None or row["decided_by"] != "llm":
            continue
        text = clean(answer.value["reason"], limit=160) if answer.status == "ok" else ""
        counts["reasons" if text else "reasons_unscored"] += 1
        row["reason"] = text or row["reason"]
