"""What accidents cost: the same users in worlds with ever more of them, and what their interests then are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import behaviors, history, interests, logs, schema
from recgpt.datasets import world
from recgpt.evaluation.planted import behind as truths
from recgpt.evaluation.planted import interests as interest_scores
from recgpt.pipeline import planted, servers
from recgpt.pipeline.run import Stages

SHARES = (0.0, 0.1, 0.2, 0.4, 0.6)
"""Shares of visits that are accidents."""


def sweep(run: Stages, users: Sequence[str], shares: Sequence[float] = SHARES) -> list[dict[str, Any]]:
    """Mine the same users in worlds with ever more accidents; everything else in them stays the same.

    Args:
        run: stages up to `history`, on a world.
        users: whom to mine.
        shares: shares of visits that are accidents.

    Returns:
        A row a share: events of a user, interests mined, and what share of them is right, weak and hallucinated.
    """
    pool, rows = planted.Pool(), []
    numbers = [world.number(user) for user in users]
    engine = servers.engine_of(run.config.llm, run.engine, "interests")
    step = run.clock.steps(len(shares))
    assert run.now is not None
    for share in shares:
        made = world.World(replace(run.config.data.world, noise=share)).dataset(run.now, numbers=numbers)
        log = logs.from_dataset(made)
        past = log.events.filter(pc.less(log.events["timestamp"], pa.scalar(run.now, schema.TIMESTAMP)))
        kept = behaviors.extract(past, reliable=run.config.behaviors.reliable, rules=run.config.behaviors.rules)
        shown = history.compress(
            kept,
            run.briefs,
            now=run.now,
            tokenizer=run.tokenizer,
            time_zone=run.time_zone,
            budget=run.config.history.budget,
            row_ids=True,
        )
        mined = interests.mine(
            log.users,
            shown,
            engine=engine,
            now=run.now,
            pool=pool.pool,
            mode=run.config.llm.mode,
            config=replace(run.config.interests, control=False),
        ).table
        known = truths.behind(
            made.events,
            made.truth,
            log.items,
            run.briefs,
            users,
            now=run.now,
            hits=pool.hits,
            reliable=run.config.behaviors.reliable,
        )
        found = interest_scores.score(
            mined,
            dict(zip(shown["user_id"].to_pylist(), shown["text"].to_pylist(), strict=True)),
            known,
            resolve=pool.resolve,
            necessities=pool.necessities,
        )
        rows.append(
            {
                "noise": share,
                "reliable_events": kept.num_rows / len(users),
                "mined": mined.num_rows / len(users),
                "hallucination": planted.estimate(found.hallucination),
                "weak": found.classes["weak"] / max(1, mined.num_rows),
                "precision": planted.estimate(found.precision),
                "f1": planted.estimate(found.f1),
                "classes": found.classes,
            }
        )
        step()
    return rows
