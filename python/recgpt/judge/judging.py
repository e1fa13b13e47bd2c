"""Verdicts: rules where a rule decides, normalized log-probabilities of an LLM where judgment is needed.

All criteria of a sample stand behind its text, so that an engine computes that once. A verdict is a word of the
criterion's scale and comes from the probabilities of these words alone: nothing in a judged text can change its form.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from recgpt import schema
from recgpt.judge.criteria import Criterion
from recgpt.judge.sample import Sample
from recgpt.llm import prompts
from recgpt.llm.engine import Engine, Progress, Prompt, ScoreRequest

Calibrated = Callable[[float], float]
"""From the judge's probability that an output passes to the share of people who agreed."""


@dataclass
class Judged:
    """What the judge said."""

    table: pa.Table
    """`schema.VERDICTS`: a row for every sample and criterion, in the order given."""
    counts: Counter[str] = field(default_factory=Counter)
    """`samples`, `qualified` (passes all), verdicts by `rule`, `llm` and `people`, `unscored` ones, `prompt_tokens`,
    `computed_tokens`; behind `reasons.explain` also `reasons` and `reasons_unscored`."""
    calibrated: dict[str, str] = field(default_factory=dict)
    """By key of a criterion that the model decides: on what its scores were calibrated."""
    uncalibrated: dict[str, str] = field(default_factory=dict)
    """By key of a criterion that the model decides: why its scores are taken as they come."""

    def qualified(self) -> dict[str, list[bool]]:
        """Tell by task of each sample with a verdict under every criterion of its task whether it passes all.

        A sample that is unscored under one criterion is left out even if it fails another: else only failures would be
        known of such samples, and their share would be too high.
        """
        verdicts: dict[str, dict[str, list[bool | None]]] = {}
        for row in self.table.select(["task", "sample", "passed"]).to_pylist():
            verdicts.setdefault(row["task"], {}).setdefault(row["sample"], []).append(row["passed"])
        return {task: [all(own) for own in samples.values() if None not in own] for task, samples in verdicts.items()}

    def pass_rates(self) -> dict[str, float | None]:
        """Share of the `qualified` samples of each task that pass; None where there is none."""
        return {task: sum(passed) / len(passed) if passed else None for task, passed in self.qualified().items()}


def judge(
    samples: Sequence[Sample],
    criteria: Mapping[str, Criterion],
    *,
    engine: Engine | None,
    calibration: Mapping[str, Calibrated] | None = None,
    thresholds: Mapping[str, float] | None = None,
    backward: bool = False,
    progress: Progress | None = None,
) -> Judged:
    """Judge every sample by every criterion of its task.

    Args:
        samples: equal ones are asked about once.
        criteria: by key (`criteria.load`).
        engine: answers what no rule decides; None leaves those verdicts unscored.
        calibration: by key of criterion; others are taken as they come.
        thresholds: least probability with which an output passes, by key; .5 where none is given.
        backward: name the words of a scale, and their examples, worst first: what changes is position bias.
        progress: called with (done, total) requests.

    Returns:
        Verdicts with counts. The same samples, criteria and engine give the same verdicts, whatever their order.
    """
    template = prompts.load("judge")
    asked: dict[tuple[str, str], ScoreRequest] = {}
    for sample in samples:
        for criterion in criteria.values():
            if criterion.task == sample.task and not criterion.rule and engine is not None:
                request = ScoreRequest(
                    ask(template, sample, criterion, backward=backward),
                    tuple(f" {word}" for word in criterion.scale),
                    key=f"judge/{criterion.key}/{sample.id}",
                )
                asked.setdefault((sample.id, criterion.key), request)
    results = engine.score(list(asked.values()), progress) if engine is not None and asked else []
    answers = dict(zip(asked, results, strict=True))
    counts: Counter[str] = Counter(samples=len(samples))
    counts["prompt_tokens"] = sum(result.usage.prompt_tokens for result in results)
    counts["computed_tokens"] = sum(result.usage.computed_tokens for result in results)
    rows: list[dict[str, Any]] = []
    for sample in samples:
        own = [criterion for criterion in criteria.values() if criterion.task == sample.task]
        passes: list[bool | None] = []
        for criterion in own:
            row = _row(sample, criterion)
            if criterion.rule:
                _by_rule(row, sample, criterion)
            elif (result := answers.get((sample.id, criterion.key))) is None or result.status != "ok":
                row["reason"] = "no engine was given" if result is None else result.reason or "engine"
            else:
                _by_scores(row, criterion, result.logprobs, calibration or {}, thresholds or {})
            counts["unscored" if row["passed"] is None else row["decided_by"]] += 1
            passes.append(row["passed"])
            rows.append(row)
        counts["qualified"] += bool(own) and all(passes)
    return Judged(schema.rows(rows, schema.VERDICTS), counts)


def ask(template: prompts.Template, sample: Sample, criterion: Criterion, *, backward: bool = False) -> Prompt:
    """Write one question: the sample first, because its other questions begin with it too."""
    examples = [
        "\n".join(f"{word}: {one.text}" for one in kind)
        for word, kind in ((criterion.scale[0], criterion.positive), (criterion.scale[-1], criterion.negative))
    ]
    scale = criterion.scale[::-1] if backward else criterion.scale
    return template.render(
        sample=sample.lines(),
        question=criterion.question,
        examples="\n".join(reversed(examples) if backward else examples),
        scale=f"{', '.join(scale[:-1])} or {scale[-1]}",
    )


def probabilities(logprobs: Sequence[float]) -> list[float]:
    """Normalize the log-probabilities of a scale's words among themselves.

    >>> [round(one, 3) for one in probabilities([-1.0, -1.0 - math.log(3)])]
    [0.75, 0.25]
    """
    top = max(logprobs)
    weights = [math.exp(one - top) for one in logprobs]
    return [weight / math.fsum(weights) for weight in weights]


def _row(sample: Sample, criterion: Criterion) -> dict[str, Any]:
    return {
        "sample": sample.id,
        "task": sample.task,
        "user_id": sample.user_id,
        "criterion": criterion.name,
        "decided_by": "rule" if criterion.rule else "llm",
        "verdict": None,
        "score": None,
        "passed": None,
        "reason": None,
        "as_of": sample.as_of,
    }


def _by_rule(row: dict[str, Any], sample: Sample, criterion: Criterion) -> None:
    fault = sample.ruled.get(criterion.rule)
    if fault is None:
        row["reason"] = f"the rule {criterion.rule} could not tell"
        return
    row |= {"passed": not fault, "verdict": criterion.scale[-1 if fault else 0], "reason": fault or None}


def _by_scores(
    row: dict[str, Any],
    criterion: Criterion,
    logprobs: Sequence[float],
    calibration: Mapping[str, Calibrated],
    thresholds: Mapping[str, float],
) -> None:
    if not all(math.isfinite(one) for one in logprobs):
        row["reason"] = "engine: a score is not a finite number"
        return
    shares = probabilities(logprobs)
    score = math.fsum(share for word, share in zip(criterion.scale, shares, strict=True) if word in criterion.passes)
    if criterion.key in calibration:
        score = min(1.0, max(0.0, calibration[criterion.key](score)))
    least = thresholds.get(criterion.key, 0.5)
    passed = score >= least
    # The likeliest word on the side of the verdict, so that word and verdict never contradict each other.
    side = [place for place, word in enumerate(criterion.scale) if (word in criterion.passes) == passed]
    row |= {"score": score, "passed": passed, "verdict": criterion.scale[max(side, key=lambda place: shares[place])]}
    row["reason"] = None if passed else f"{row['verdict']}: {score:.2f}, and it passes from {least:.2f} on"
