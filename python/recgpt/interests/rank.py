"""`rank`: the model scores interests that were listed for it, and points at rows by missing them.

A score is the candidate's mean log-probability after the prompt minus its mean after the same prompt without attributes
and history, so that names which are likely anyway gain nothing. A model that has learned the task needs neither that
nor the user's median: `Config.reference` is a text that it has learned to put between what fits and what does not. The
source of such rows is `rank`; their stage is set by a rule on dates (`rules.stage`), not by the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from recgpt.interests.cases import Case, Choice
from recgpt.interests.config import Config
from recgpt.interests.pool import Pool
from recgpt.llm.engine import Engine, Progress, ScoreRequest, ScoreResult
from recgpt.llm.prompts import Template


@dataclass(frozen=True, slots=True)
class Scored:
    """One candidate; both figures in nats a token."""

    index: int
    """Position in the pool."""
    score: float
    """Mean log-probability minus the baseline's, or that of `Config.reference`."""
    mean: float
    """Mean log-probability."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """One user's scores."""

    case: Case
    scores: tuple[Scored, ...]
    """Every candidate, best first."""
    chosen: tuple[Scored, ...]
    """Those above the user's own median, or above `Config.reference`."""
    fault: str = ""
    """Why there are no scores."""


@dataclass(frozen=True, slots=True)
class Cited:
    """What taking out rows said about one choice."""

    raw: tuple[int, ...]
    """The rows whose absence lowers the score most, whatever they hold: the model's own pointing."""
    drops: tuple[tuple[int, float], ...]
    """(row id, loss in nats a token) of every row that was taken out, greatest loss first."""


def rank_cases(
    cases: Sequence[Case], *, engine: Engine, pool: Pool, template: Template, config: Config, progress: Progress | None
) -> tuple[list[Ranked], list[ScoreResult]]:
    """Score every case's candidates in one engine call.

    The baseline scores the whole pool once, whoever asks, so that neither a user's company nor their number changes it.
    """
    if not cases:
        return [], []
    candidates = [_candidates(case, pool, config) for case in cases]
    reference = (f" {config.reference}",) if config.reference else ()
    requests = []
    if not reference:
        names = tuple(f" {entry.name}" for entry in pool.interests)
        requests.append(ScoreRequest(template.render(history="", attributes=""), names, key="interests/baseline"))
    # Cases with the same history (a user's own, and the controls that borrow it) stand side by side: engines keep only
    # the latest prefixes. The two controls of one user share their whole prompt.
    order = sorted(range(len(cases)), key=lambda place: (cases[place].text, cases[place].attributes))
    requests += [
        ScoreRequest(
            template.render(history=cases[place].text, attributes=cases[place].attributes),
            tuple(f" {pool.interests[index].name}" for index in candidates[place]) + reference,
            key=f"interests/{cases[place].user_id}",
        )
        for place in order
    ]
    results = engine.score(requests, progress)
    baseline = None if reference else _means(results[0])
    of_case = dict(zip(order, results[-len(cases) :], strict=True))
    answers = []
    for place, (case, offered) in enumerate(zip(cases, candidates, strict=True)):
        result = of_case[place]
        means = _means(result)
        if means and reference:
            usual = [means.pop()] * len(means)
        elif means and baseline:
            usual = [baseline[index] for index in offered]
        else:
            fault = f"baseline: {results[0].reason}" if means else result.reason
            answers.append(Ranked(case, (), (), fault or "engine: a score is not a finite number"))
            continue
        scores = sorted(
            (Scored(index, mean - less, mean) for index, mean, less in zip(offered, means, usual, strict=True)),
            key=lambda one: (-one.score, one.index),
        )
        line = (0.0 if reference else median(one.score for one in scores)) + config.margin
        chosen = tuple(one for one in scores if one.score > line)[: config.most]
        answers.append(Ranked(case, tuple(scores), chosen))
    return answers, results


def _candidates(case: Case, pool: Pool, config: Config) -> tuple[int, ...]:
    """Take the matches, and unmatched interests in the order of the pool where there are too few to compare."""
    offered = [match.index for match in case.matches]
    if len(offered) < config.contrast:
        known = set(offered)
        others = (index for index in range(len(pool.interests)) if index not in known)
        offered += [index for index, _ in zip(others, range(config.contrast - len(offered)), strict=False)]
    return tuple(offered)


def _means(result: ScoreResult) -> list[float] | None:
    if result.status != "ok":
        return None
    means = result.means()
    return means if all(math.isfinite(mean) for mean in means) else None


def cite(
    choices: Sequence[Sequence[Choice]],
    strengths: Sequence[Sequence[dict[int, int]]],
    *,
    engine: Engine,
    template: Template,
    config: Config,
    progress: Progress | None,
) -> tuple[list[list[Cited | str]], list[ScoreResult]]:
    """Find evidence: score each user's interests on some of the rows, and again without each of them.

    Taking a row out of a whole history costs a whole history of tokens. So the rows that speak for the user's interests
    are shown alone, oldest first, and leave one by one; each new prompt shares all that stands before the missing row.
    Rows are taken in turn from each interest's strongest (most matching items) until `evidence_rows` or
    `evidence_tokens` is reached. The loss of *every* interest is measured for *every* row, matching or not: where the
    model points is its own choice, and whether that row supports the interest is `evidence.check`'s.

    Args:
        choices: the interests of each user, best first.
        strengths: for each of them, row id to number of matching items.

    Returns:
        For each choice what was cited, or why that is not known; and the engine's results.
    """
    counts = iter(engine.count_tokens([row.text for user in choices for row in (user[0].case.rows if user else ())]))
    requests: list[ScoreRequest] = []
    views: list[tuple[int, ...]] = []
    for user, strong in zip(choices, strengths, strict=True):
        if not user:
            views.append(())
            continue
        case = user[0].case
        tokens = {row.id: next(counts) for row in case.rows}
        view = _view(strong, tokens, config)
        views.append(view)
        if not view:
            continue
        names = tuple(f" {choice.interest}" for choice in user)
        # The whole history has been scored already, by `rank_cases`.
        for missing in view if len(view) == len(case.rows) else (None, *view):
            text = "\n".join(row.text for row in case.rows if row.id in view and row.id != missing)
            requests.append(
                ScoreRequest(
                    template.render(history=text, attributes=case.attributes),
                    names,
                    key=f"interests/{case.user_id}/without/{missing or 'nothing'}",
                )
            )
    results = engine.score(requests, progress) if requests else []
    left = iter(results)
    answers: list[list[Cited | str]] = []
    for user, view in zip(choices, views, strict=True):
        if not view:
            answers.append(["no row could be taken out within the budget" for _ in user])
            continue
        seen_whole = len(view) == len(user[0].case.rows)
        scored = [next(left) for _ in range(len(view) + (not seen_whole))]
        means = [_means(result) for result in scored]
        known = [values for values in means if values is not None]
        if len(known) < len(means):
            fault = next(result.reason for result, values in zip(scored, means, strict=True) if values is None)
            answers.append([fault or "engine: a score is not a finite number" for _ in user])
            continue
        if seen_whole:
            known.insert(0, [choice.mean for choice in user])
        answers.append([_cited(view, [values[place] for values in known], config) for place in range(len(user))])
    return answers, results


def _view(strong: Sequence[dict[int, int]], tokens: dict[int, int], config: Config) -> tuple[int, ...]:
    """Choose the rows to show, in turn from each interest; ids ascending, which is oldest first."""
    queues = [sorted(by_row, key=lambda row: (-by_row[row], -row)) for by_row in strong]
    view: list[int] = []
    for turn in range(config.evidence_rows):
        for queue in queues:
            if turn < len(queue) and queue[turn] not in view and len(view) < config.evidence_rows:
                wider = sorted([*view, queue[turn]])
                if _cost([tokens[row] for row in wider]) <= config.evidence_tokens:
                    view = wider
    return tuple(view)


def _cost(sizes: Sequence[int]) -> int:
    """Count the tokens of all rows once, and for each missing row those after it: what prompts do not share."""
    return sum(sizes) + sum(place * size for place, size in enumerate(sizes))


def _cited(view: Sequence[int], means: Sequence[float], config: Config) -> Cited:
    whole, *without = means
    drops = sorted(
        ((row, whole - mean) for row, mean in zip(view, without, strict=True)), key=lambda pair: (-pair[1], pair[0])
    )
    raw = tuple(row for row, drop in drops if drop >= config.evidence_drop)[: config.rows_per_interest]
    return Cited(raw, tuple(drops))
