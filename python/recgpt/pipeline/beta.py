"""Chooses beta on the days before `now`, with towers and tags that have not seen them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from recgpt import evaluation, tags
from recgpt.evaluation import guard
from recgpt.evaluation.sweep import category_codes
from recgpt.index import ExactIndex
from recgpt.retrieval import Towers

if TYPE_CHECKING:
    from recgpt.pipeline.run import Stages

KEPT = "beta.json"
"""Beside the towers: the chosen beta and the sweep behind it."""
USERS = 600
"""Users asked, drawn by seed: searching with fifty tags each is what costs."""


def keep(run: Stages) -> None:
    """Choose beta beside freshly trained towers, where the configuration says `auto`."""
    if run.config.serving.beta == "auto":
        chosen, sweep = choose(
            run.events,
            run.items,
            run.item_tags,
            run.towers.validated,
            now=run.now,
            behavior=run.config.data.truth,
            seed=run.config.seed,
        )
        (run.towers_folder / KEPT).write_text(json.dumps({"beta": chosen, "sweep": sweep}, indent=1), encoding="utf-8")


def read(run: Stages) -> float:
    """Give the configured beta, or the one that was chosen beside the towers."""
    stated = run.config.serving.beta
    if stated != "auto":
        return stated
    return float(json.loads((run.towers_folder / KEPT).read_text(encoding="utf-8"))["beta"])


def warnings(run: Stages) -> list[str]:
    """Say where the tags narrow what people see at the served beta, or find nothing that is close to them."""
    texts = sorted(set(run.all_tags["tag"].to_pylist()))
    near = guard.closest(run.towers.tag_vectors(texts), run.towers.item_vectors)
    return [f"warning: {said}" for said in guard.warnings(run.judged.sweep, beta=run.beta, near=near)]


def choose(
    events: pa.Table,
    items: pa.Table,
    item_tags: pa.Table,
    towers: Towers | None,
    *,
    now: datetime | None,
    behavior: str = "purchase",
    seed: int = 0,
) -> tuple[float, list[dict[str, Any]]]:
    """Give the smallest beta that costs nothing measurable: within one standard error of the best of the sweep.

    Beta is judged by HR@20 on new items, over the held-out days of training. The tags are the rule's, made from what
    came before those days; a model's tags would cost a second run of the model. The error is that of the difference to
    the best beta, user by user.

    Args:
        events: EVENTS before `now`; in a log without times, without what each user did last.
        items: ITEMS.
        item_tags: ITEM_TAGS.
        towers: `Towers.validated`: those that did not see the held-out days; None where nothing was held out.
        now: aware; None for a log without times.
        behavior: what counts as a hit.
        seed: of the draw of users.

    Returns:
        Beta, and the sweep's figures; .5 and no figures where nothing was held out.
    """
    if towers is None:
        return 0.5, []
    then = now and now - timedelta(days=towers.config.validation_days)
    held_out = evaluation.truths(events, towers.item_ids, now=then, until=now, behavior=behavior)
    users = [user for user, size in zip(held_out.user_ids, held_out.new.sizes, strict=True) if size]
    drawn = np.random.default_rng(seed).permutation(len(users))[:USERS]
    held_out = held_out.subset(users[row] for row in drawn.tolist())
    known = events if then else events.filter(pa.array(~evaluation.leave_last_out(events, behavior=behavior)))
    ruled = tags.by_rule(known, item_tags, items, now=then, users=held_out.user_ids)
    sweep = evaluation.beta_sweep(
        ExactIndex(towers.item_vectors, towers.item_ids),
        evaluation.queries(towers, ruled, held_out.user_ids),
        held_out,
        categories=category_codes(items, held_out.item_ids),
    )
    hits = {row.beta: row.hit_rate.per_user for row in sweep}
    return smallest(hits), [row.figures(20) for row in sweep]


def smallest(hits: dict[float, np.ndarray[Any, np.dtype[np.float64]]]) -> float:
    """The smallest beta whose mean is within one standard error of the best one's.

    Args:
        hits: A beta: (n,) value of each user, NaN for none.
    """
    best = max(hits, key=lambda beta: (np.nanmean(hits[beta]), beta))
    for beta in sorted(hits):
        lost = hits[best] - hits[beta]
        lost = lost[np.isfinite(lost)]
        if len(lost) and lost.mean() <= lost.std(ddof=1 if len(lost) > 1 else 0) / np.sqrt(len(lost)):
            return beta
    return best
