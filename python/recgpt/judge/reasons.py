"""Reasons on request: a short sentence of the model behind a verdict that it gave; it explains, it decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from recgpt import schema
from recgpt.judge.criteria import Criterion
from recgpt.judge.judging import Judged
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
    judged: Judged,
    final: Judged,
    samples: Sequence[Sample],
    criteria: Mapping[str, Criterion],
    *,
    engine: Engine,
    progress: Progress | None = None,
) -> Judged:
    """Put a reason behind every verdict of the model that stands; where it writes none that fits, the row stays.

    Args:
        judged: what rules and model said.
        final: the same after people had the last word (`people.decide`): what they decided, or what the model may not
            decide, gets no reason of the model.
        samples: those of the rows, in any order.
        criteria: by key.
        engine: the one that judged.
        progress: called with (done, total) requests.

    Returns:
        `judged` with reasons, and `reasons` and `reasons_unscored` among its counts.
    """
    template, form = prompts.load("judge_reason"), grammar.from_model(Reason)
    known = {sample.id: sample for sample in samples}
    asked: dict[tuple[str, str], Request] = {}
    for row in final.table.to_pylist():
        if row["decided_by"] == "llm" and row["verdict"] is not None:
            sample, criterion = known[row["sample"]], criteria[f"{row['task']}/{row['criterion']}"]
            prompt = template.render(sample=sample.lines(), question=criterion.question, verdict=row["verdict"])
            key = f"judge/reason/{criterion.key}/{sample.id}"
            asked[sample.id, criterion.key] = Request(prompt, MAX_TOKENS, schema=form, key=key)
    answers = dict(zip(asked, engine.generate(list(asked.values()), progress), strict=True)) if asked else {}
    rows, counts = judged.table.to_pylist(), Counter(judged.counts)
    counts.update(reasons=0, reasons_unscored=0)
    for row in rows:
        answer = answers.get((row["sample"], f"{row['task']}/{row['criterion']}"))
        if answer is None:
            continue
        text = clean(answer.value["reason"], limit=160) if answer.status == "ok" else ""
        counts["reasons" if text else "reasons_unscored"] += 1
        row["reason"] = text or row["reason"]
    return replace(judged, table=schema.rows(rows, schema.VERDICTS), counts=counts)
