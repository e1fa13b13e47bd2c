"""What a model knows of real households: does it rank what they bought next, better from their own history?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from recgpt.alignment import next_tags
from recgpt.alignment.next_tags import Asked
from recgpt.alignment.report.auc import Mask, auc, compare, crossed
from recgpt.alignment.report.estimates import mean
from recgpt.alignment.shop import Shop
from recgpt.errors import AlignmentError
from recgpt.evaluation.category_hits import category_hits
from recgpt.evaluation.metrics import Floats
from recgpt.llm.engine import Engine, Progress

CANDIDATES = 160
TOP = 30
"""The paper's HR@30."""
SEGMENTS = {"all": "all", "new": "not bought for 30 days"}


@dataclass(frozen=True)
class Households:
    """Held-out households as of `now`."""

    shop: Shop
    now: datetime
    counts: dict[str, int]
    """What is ranked, and how often everybody bought it before `now`; most first."""
    asked: list[Asked]


def households(shop: Shop, now: datetime, *, users: int, seed: int = 0) -> Households:
    """Take some of the held-out households and write their prompts.

    Raises:
        AlignmentError: nobody bought something in the days after `now`, with a history before; or more are asked for
            than are held out.
    """
    drawn = next_tags.held_out(shop, now)
    if not drawn:
        raise AlignmentError(
            f"no user of {shop.origin} has a history before {now:%Y-%m-%d} and buys in the days after, so that nothing "
            "can be judged; take a longer log"
        )
    if not 2 <= users <= len(drawn):
        raise AlignmentError(
            f"{len(drawn)} households of {shop.origin} are held out, so 2 to {len(drawn)} can be judged, but {users} "
            "were asked for (--users)"
        )
    # Some of those who were held out: another number of strata would draw others, who may have been learned from.
    some = sorted(np.random.default_rng(seed).permutation(len(drawn))[:users].tolist())
    asked = next_tags.ask(shop, [drawn[at] for at in some], now)
    return Households(shop, now, next_tags.candidates(shop, now, most=CANDIDATES), asked)


def rank(judged: Households, engine: Engine, progress: Progress | None = None) -> Floats:
    """Score every candidate after every household's prompt.

    Returns:
        (households, candidates) mean log-probabilities; NaN rows where the engine gave none.
    """
    results = engine.score([next_tags.request(one, judged.counts) for one in judged.asked], progress)
    nothing = [float("nan")] * len(judged.counts)
    return np.array([result.means() if result.status == "ok" else nothing for result in results], np.float64)


def figures(judged: Households, scores: Floats) -> dict[str, Any]:
    """Compare one model's ranking with another household's, and with popularity.

    Returns:
        `households`, `unscored`, `candidates`, `auc` by segment (`Compared`), `hr` by segment: `model`, `popularity`
        and their paired `difference`.
    """
    some: Mask = np.asarray(np.isfinite(scores).all(axis=1))
    asked = [one for one, kept in zip(judged.asked, some, strict=True) if kept]
    names = list(judged.counts)
    right = np.array([[name in one.bought for name in names] for one in asked])
    recent = np.array([[name in one.recent for name in names] for one in asked])
    popular = np.array(list(judged.counts.values()), np.float64)
    found: dict[str, Any] = {"households": len(asked), "unscored": int((~some).sum()), "candidates": len(names)}
    if not asked:
        raise AlignmentError("the engine scored no household; what it said stands in the ledger's report")
    counted: dict[str, Mask] = {"all": np.ones_like(recent), "new": ~recent}
    found["auc"] = {
        name: compare(
            crossed(scores[some], right, open_),
            np.array([auc(popular[keep], truth[keep]) for truth, keep in zip(right, open_, strict=True)]),
        ).as_dict()
        for name, open_ in counted.items()
    }
    found["hr"] = {name: _hits(judged, asked, scores[some], past_month=name == "new") for name in SEGMENTS}
    return found


def _hits(judged: Households, asked: list[Asked], scores: Floats, *, past_month: bool) -> dict[str, Any]:
    """HR@30 of the ranking (`evaluation.category_hits`): the model's best 30 names as tags."""
    shop, names = judged.shop, list(judged.counts)
    # The whole ranking stands there, because what was bought in the past month is passed over before 30 are taken.
    order = np.argsort(-scores, axis=1, kind="stable")
    table = pa.table(
        {
            "user_id": pa.array([one.user for one in asked for _ in names], pa.large_string()),
            "rank": np.tile(np.arange(len(names)), len(asked)),
            "tag": [names[at] for best in order.tolist() for at in best],
        }
    )
    named = pa.array([shop.name_of.get(item) for item in shop.items["item_id"].to_pylist()], pa.large_string())
    at = shop.items.schema.get_field_index("category")
    hits = category_hits(
        table,
        shop.events,
        shop.items.set_column(at, "category", named),
        categories=list,
        now=judged.now,
        k=TOP,
        past_month=past_month,
    )
    return {
        "model": mean(hits.tags.per_user),
        "popularity": mean(hits.popularity.per_user),
        "difference": mean(hits.tags.per_user - hits.popularity.per_user, share=False),
    }
