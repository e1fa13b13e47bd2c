"""What compression costs: the same users mined from every variant of their history, with paired differences.

Every variant goes through the same stage with the same engine, one user at a time. Texts that are equal are asked once;
each other text is asked under a label of its own in the ledger, so that no variant profits from what another one asked,
and a command that was stopped goes on with the seconds that it had measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recgpt import interests
from recgpt.evaluation import metrics
from recgpt.evaluation.metrics import Score
from recgpt.evaluation.planted import behind as truths
from recgpt.evaluation.planted import interests as interest_scores
from recgpt.evaluation.planted.behind import Behind
from recgpt.evaluation.planted.interests import InterestScores
from recgpt.evidence import parse_rows
from recgpt.llm.engine import Prompt, Request
from recgpt.llm.ledger import Recorded
from recgpt.pipeline import planted, servers, tables, variants
from recgpt.pipeline.fingerprint import fingerprint
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
    computed_tokens: int
    """Those of the prompts that were not shared."""
    seconds: float
    """The engine's, without what stands around it."""


def ablate(run: Stages, users: Sequence[str], *, margin: float = MARGIN) -> dict[str, Any]:
    """Mine every user from every variant and compare.

    Args:
        run: stages up to `history`, on a world.
        users: whom to mine.
        margin: F1 that compression may cost.

    Returns:
        `variants`: a row each with F1, evidence precision, share of the events that the text tells of, history tokens,
        and prompt tokens and seconds a user; `..._difference` is paired, the variant minus `cheapest`. `verdict` on the
        margin, and the share of the engine's time that is saved from raw to cheapest beside the paper's.
    """
    pool = planted.Pool()
    written = variants.texts(run, users)
    weighted = pool.pool.weighted([parse_rows(one[BASE].text) for one in written.values()])
    engine = servers.engine_of(run.config.llm, run.engine, "interests")
    assert isinstance(engine, Recorded)
    step = run.clock.steps(sum(len({own.text for own in one.values()}) for one in written.values()))
    spent: dict[str, dict[str, Spent]] = {user: {} for user in users}
    # The model is loaded with the first request; that is nobody's time, so it is not the ledger's either.
    engine.engine.generate([Request(Prompt("", "tea"), max_tokens=1)])
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


def _mine(run: Stages, engine: Recorded, pool: interests.Pool, user: str, text: str) -> Spent:
    shown = pa.table({"user_id": pa.array([user], pa.large_string()), "text": pa.array([text], pa.large_string())})
    config = replace(run.config.interests, control=False)
    apart = engine.apart("ablation=" + fingerprint(user, text, repr(config), run.config.llm.mode))
    mined = interests.mine(
        tables.only(run.users, [user]),
        shown,
        engine=apart,
        now=run.now,
        pool=pool,
        mode=run.config.llm.mode,
        config=config,
    )
    counts = mined.counts
    return Spent(mined.table, int(counts["prompt_tokens"]), int(counts["computed_tokens"]), apart.seconds())


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
    def column(name: str, value: Callable[[Spent], float]) -> Score:
        return interest_scores.mean(
            [value(spent[user][name]) if name in spent[user] else float("nan") for user in users]
        )

    costs: dict[str, Callable[[Spent], float]] = {
        "prompt_tokens": lambda one: one.prompt_tokens,
        "computed_tokens": lambda one: one.computed_tokens,
        "seconds": lambda one: one.seconds,
    }
    rows = []
    for name, score in scores.items():
        own = [written[user][name] for user in users if name in written[user]]
        paired = {"f1": (score.f1, scores[BASE].f1), "evidence": (score.evidence, scores[BASE].evidence)}
        paired |= {cost: (column(name, value), column(BASE, value)) for cost, value in costs.items()}
        row: dict[str, Any] = {"variant": name}
        for figure, (one, base) in paired.items():
            row[figure] = planted.estimate(one)
            row[f"{figure}_difference"] = planted.estimate(_difference(one, base))
        row["precision"], row["recall"] = planted.stated(score.precision.mean), planted.stated(score.recall.mean)
        row["history_tokens"] = float(np.mean(run.tokenizer.count([one.text for one in own])))
        row["kept"] = float(np.mean([one.kept for one in own]))
        rows.append(row)
    loss = _difference(scores[BASE].f1, scores[RAW].f1)
    low, high = metrics.interval(loss.per_user)
    verdict = "holds" if low >= -margin else "broken" if high < -margin else "open"
    both = [user for user in users if {BASE, RAW} <= spent[user].keys()]
    time = metrics.ratio(*(np.array([spent[user][name].seconds for user in both]) for name in (BASE, RAW)))
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


def _difference(first: Score, second: Score) -> Score:
    """Subtract user by user."""
    return interest_scores.mean((first.per_user - second.per_user).tolist())
