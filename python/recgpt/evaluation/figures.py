"""All figures of a run: the held-out part computed here, and one summary that no figure can be missing from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recgpt.errors import InvalidConfigError
from recgpt.evaluation import metrics
from recgpt.evaluation.held_out import HeldOut, buy_again, popularity, truths
from recgpt.evaluation.metrics import Ints, Matthew, Ragged, Score
from recgpt.evaluation.sweep import BETAS, Index, SweepRow, Towers, beta_sweep, category_codes, queries, rank

MEASURES = ("hr@20", "ndcg@20", "hr@20_new", "ndcg@20_new")
RANKERS = ("", "_popularity", "_buy_again")
"""Suffixes of a measure: the towers have none."""

KEYS = (
    *("users", "users_evaluated", "llm_users", "events", "events_kept"),
    *("tokens_raw", "tokens_compressed", "tokens_budgeted", "within_budget"),
    *("interests_per_user", "tags_per_user", "answers_valid_raw"),
    *("evidence_supported_raw", "evidence_supported_base", "rejected", "unscored"),
    *("interests_changed_by_shuffle", "interests_changed_by_model", "category_accuracy", "beta"),
    *(measure + ranker for ranker in RANKERS for measure in MEASURES),
    *("beta_sweep", "llm_hr@20_new", "llm_hr@20_new_swapped", "llm_beta_sweep"),
    *("llm_hr@30_category", "llm_hr@30_category_popularity", "llm_n"),
    *("explained_by_interest", "explained_by_item", "explained_by_rule", "below_category_floor"),
    *("pass_interests", "pass_tags", "pass_explanations", "pass_n", "pass_calibrated", "pass_decided_by"),
    *("llm_calls", "llm_reused", "seconds", "report", "bundle"),
)
"""The keys of the demo's last line, in its order."""


class Evaluation(NamedTuple):
    """Held-out figures of the towers and of both baselines."""

    figures: dict[str, Any]
    """`users_evaluated`, `beta`, `beta_sweep` and the twelve measures of `KEYS`."""
    intervals: dict[str, tuple[float, float]]
    """Per measure: 95 % bootstrap interval by users."""
    scores: dict[str, Score]
    """Per measure: mean and the value of each user of `held_out`."""
    sweep: list[SweepRow]
    held_out: HeldOut
    cold: int
    """Evaluated users without a vector: they get popularity, as in serving, and are counted."""
    places: dict[str, Matthew]
    """Which items get the places of the lists of new items, and which were bought: see `_places`."""


def evaluate(
    events: pa.Table,
    items: pa.Table,
    towers: Towers,
    index: Index,
    tags: pa.Table,
    *,
    now: datetime | None,
    until: datetime | None = None,
    beta: float = 0.5,
    betas: Iterable[float] = BETAS,
    k: int = 20,
    seed: int = 0,
    behavior: str = "purchase",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Judge towers, index and tags on the purchases in [now, until], beside popularity and buy-again.

    Args:
        events: EVENTS, with what happened after `now`.
        items: ITEMS, for the categories.
        towers: user and tag vectors; `towers.item_ids` is the ranked catalogue in the order of the index.
        index: `recgpt.index` over the item vectors.
        tags: TAGS of all users (`source` may be `rule` or an LLM's).
        now: aware; see `held_out.cut`. None for a log without times: `held_out.leave_last_out`.
        until: the log's last event if left out.
        beta: the weight of the user tower in the main figures.
        betas: of the sweep.
        k: how many items count; the names of the figures carry it.
        seed: of the bootstrap.
        behavior: what counts as a truth.
        progress: called with (done, total) searches over all evaluated users, `2 + len(betas)` in all.

    Raises:
        EmptyLogError: if there is no truth to judge on.
    """
    betas = list(betas)
    searched = count(1)

    def step() -> None:
        if progress is not None:
            progress(next(searched), 2 + len(betas))

    held_out = truths(events, towers.item_ids, now=now, until=until, behavior=behavior)
    asked = queries(towers, tags, held_out.user_ids)
    scores: dict[str, Score] = {}
    found = {}
    for new in (False, True):
        found[new] = rank(index, asked, held_out, beta=beta, k=k, new=new)
        step()
    for new, truth in ((False, held_out.any), (True, held_out.new)):
        lists: dict[str, Ragged] = {
            "": found[new],
            "_popularity": popularity(held_out, k, new=new),
            "_buy_again": buy_again(held_out, k, new=new),
        }
        for ranker, ranked in lists.items():
            scores[f"hr@{k}{'_new' * new}{ranker}"] = metrics.hit_rate(ranked, truth, k)
            scores[f"ndcg@{k}{'_new' * new}{ranker}"] = metrics.ndcg(ranked, truth, k)
    codes = category_codes(items, held_out.item_ids)
    known = {beta: found[True]}
    sweep = beta_sweep(index, asked, held_out, categories=codes, betas=betas, k=k, known=known, step=step)
    figures: dict[str, Any] = {"users_evaluated": len(held_out.user_ids), "beta": beta}
    figures |= {name: score.mean for name, score in scores.items()}
    figures["beta_sweep"] = [row.figures(k) for row in sweep]
    intervals = {name: metrics.interval(score.per_user, seed=seed) for name, score in scores.items()}
    lists = {"served": found[True], "popularity": popularity(held_out, k, new=True), "bought": held_out.new}
    # One item alone makes no groups.
    places = {name: _places(ranked, held_out) for name, ranked in lists.items()} if len(held_out.item_ids) > 1 else {}
    return Evaluation(figures, intervals, scores, sweep, held_out, int((~asked.known).sum()), places)


def _places(ranked: Ragged, held_out: HeldOut) -> Matthew:
    """The Matthew effect without exposures: a place in a list stands for a page view, a hit on new items for a click.

    Items are grouped by their sales before `now`; the paper (section 4.2) does not say by what it groups them.
    """
    items = len(held_out.item_ids)

    def pairs(lists: Ragged) -> Ints:
        users = np.repeat(np.arange(len(held_out.user_ids)), lists.sizes)
        return (users * items + lists.values)[lists.values >= 0]

    placed = pairs(ranked)
    hits = placed[np.isin(placed, pairs(held_out.new))]
    shown, hit = (np.bincount(found % items, minlength=items) for found in (placed, hits))
    return metrics.matthew(held_out.sales, shown, hit, shown, groups=min(10, items))


def summary(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Put the figures of a run together as the demo's last line: exactly `KEYS`, in that order, plain JSON values.

    Floats are rounded to 6 digits, so that three are right where a page rounds again; what is not finite becomes null,
    paths become strings.

    Raises:
        InvalidConfigError: naming every key that is missing or unknown, so that no figure can be forgotten.
    """
    missing, unknown = [key for key in KEYS if key not in parts], sorted(set(parts) - set(KEYS))
    if missing or unknown:
        raise InvalidConfigError(
            f"the summary wants exactly its {len(KEYS)} figures; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        )
    return {key: plain(parts[key], digits=6) for key in KEYS}


def plain(value: Any, digits: int = 4) -> Any:
    """Bring a value to plain JSON, floats rounded to `digits`.

    >>> plain({"a": np.float32(0.5), "b": [float("nan"), 1 / 3]})
    {'a': 0.5, 'b': [None, 0.3333]}
    """
    match value:
        case bool() | int() | str() | None:
            return value
        case float():
            return round(float(value), digits) if math.isfinite(value) else None
        case Path():
            return str(value)
        case np.generic():
            return plain(value.item(), digits)
        case np.ndarray():
            return plain(value.tolist(), digits)
        case Mapping():
            return {str(key): plain(one, digits) for key, one in value.items()}
        case list() | tuple():
            return [plain(one, digits) for one in value]
    raise InvalidConfigError(f"a figure must be a number, text, list or mapping, but it is a {type(value).__name__}")
