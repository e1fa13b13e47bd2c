"""What compression costs: the same users mined from every variant of their history, with paired differences.

Every variant goes through the same stage with the same engine, one user at a time and without the ledger, so that
seconds are the model's own. Texts that are equal are asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recgpt import interests
from recgpt.evaluation import metrics
from recgpt.evaluation.planted import behind as truths
from recgpt.evaluation.planted import interests as interest_scores
from recgpt.evaluation.planted.behind import Behind
from recgpt.evaluation.planted.interests import InterestScores
from recgpt.evidence import parse_rows
from recgpt.llm.engine import Engine
from recgpt.pipeline import engines, planted, tables, variants
from recgpt.pipeline.run import Stages
from recgpt.pipeline.variants import Written

MARGIN = 0.05
"""F1 that compression may cost."""
PAPER = 0.29
"""The paper's gain in inference efficiency by compression (section 2.1.1)."""
BASE, RAW = "cheapest", "raw"


class Spent(NamedTuple):
    """What mining one user took, and gave."""

    table: pa.Table
    prompt_tokens: int
    seconds: float


def ablate(run: Stages, users: Sequence[str], *, margin: float = MARGIN) -> dict[str, Any]:
    """Mine every user from every variant and compare.

    Args:
        run: stages up to `history`, on a world.
        users: whom to mine.
        margin: F1 that compression may cost.

    Returns:
        `variants`: a row each with F1, evidence precision, share of the events that the text tells of, history and
        prompt tokens and seconds a user, and the paired difference of F1 to `cheapest`; `verdict` on the margin, and
        the share of the model's time that is saved from raw to cheapest beside the paper's.
    """
    pool = planted.Pool()
    written = variants.texts(run, users)
    weighted = pool.pool.weighted([parse_rows(one[BASE].text) for one in written.values()])
    engine = engines.model(run.config.llm)
    step = run.clock.steps(sum(len({own.text for own in one.values()}) for one in written.values()))
    spent: dict[str, dict[str, Spent]] = {user: {} for user in users}
    try:
        # The model is loaded with the first request; that is nobody's time.
        first = next(iter(written.items()))
        _mine(run, engine, weighted, first[0], first[1][BASE].text)
        for turn, (user, own) in enumerate(written.items()):
            answers: dict[str, Spent] = {}
            names = list(own)
            # Another variant goes first with each user, so that none always meets a cold or a busy machine.
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                text = own[name].text
                if text not in answers:
                    answers[text] = _mine(run, engine, weighted, user, text)
                    step()
                spent[user][name] = answers[text]
    finally:
        engine.close()
    known = _known(run, pool, users)
    scores = {
        name: interest_scores.score(
            pa.concat_tables([spent[user][name].table for user in users if name in spent[user]]),
            {user: written[user][name].text for user in users if name in written[user]},
            known,
            resolve=pool.resolve,
            necessities=pool.necessities,
        )
        for name in dict.fromkeys(name for own in written.values() for name in own)
    }
    return _compared(run, users, written, spent, scores, margin)


def _mine(run: Stages, engine: Engine, pool: interests.Pool, user: str, text: str) -> Spent:
    shown = pa.table({"user_id": pa.array([user], pa.large_string()), "text": pa.array([text], pa.large_string())})
    begin = perf_counter()
    mined = interests.mine(
        tables.only(run.users, [user]),
        shown,
        engine=engine,
        now=run.now,
        pool=pool,
        mode=run.config.llm.mode,
        config=replace(run.config.interests, control=False),
    )
    return Spent(mined.table, int(mined.counts["prompt_tokens"]), perf_counter() - begin)


def _known(run: Stages, pool: planted.Pool, users: Sequence[str]) -> dict[str, Behind]:
    """The truth, the same for every variant; clicks and returns count, because raw logs show them."""
    assert run.now is not None
    return truths.behind(
        run.data.events,
        run.data.truth,
        run.items,
        run.briefs,
        users,
        now=run.now,
        hits=pool.hits,
        reliable=[*run.config.behaviors.reliable, "click", "return"],
    )


def _compared(
    run: Stages,
    users: Sequence[str],
    written: dict[str, dict[str, Written]],
    spent: dict[str, dict[str, Spent]],
    scores: dict[str, InterestScores],
    margin: float,
) -> dict[str, Any]:
    def column(name: str, value: Callable[[Spent], float]) -> metrics.Floats:
        return np.array([value(spent[user][name]) if name in spent[user] else np.nan for user in users])

    rows = []
    for name, score in scores.items():
        seconds = column(name, lambda one: one.seconds)
        own = [written[user][name] for user in users if name in written[user]]
        tokens = run.tokenizer.count([one.text for one in own])
        rows.append(
            {
                "variant": name,
                "f1": planted.estimate(score.f1),
                "f1_difference": planted.estimate(_difference(score, scores[BASE])),
                "precision": planted.stated(score.precision.mean),
                "recall": planted.stated(score.recall.mean),
                "evidence": planted.estimate(score.evidence),
                "history_tokens": float(np.mean(tokens)),
                "kept": float(np.mean([one.kept for one in own])),
                "prompt_tokens": float(np.nanmean(column(name, lambda one: one.prompt_tokens))),
                "seconds": float(np.nanmean(seconds)),
            }
        )
    loss = _difference(scores[BASE], scores[RAW])
    low, high = metrics.interval(loss.per_user)
    verdict = "holds" if low >= -margin else "broken" if high < -margin else "open"
    time = metrics.ratio(column(BASE, lambda one: one.seconds), column(RAW, lambda one: one.seconds))
    return {
        "users": len(users),
        "budget": run.config.history.budget,
        "variants": rows,
        "f1_cheapest_minus_raw": planted.estimate(loss),
        "margin": margin,
        "verdict": verdict,
        "time_saved": {
            "value": planted.stated(1 - time.value),
            "low": planted.stated(1 - time.high),
            "high": planted.stated(1 - time.low),
        },
        "time_saved_paper": PAPER,
    }


def _difference(first: InterestScores, second: InterestScores) -> metrics.Score:
    """Each user's F1, first minus second."""
    return interest_scores.mean((first.f1.per_user - second.f1.per_user).tolist())
