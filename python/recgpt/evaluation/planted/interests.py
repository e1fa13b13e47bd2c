"""How right mined interests are: precision, recall and F1 with the paper's classes of errors, stage and evidence.

Table 1 of the paper calls an interest right where it is willed and the behavior shows it strongly. Here both are known:

    right           planted in the user, and shown by at least one reliable event before `now`
    necessity       the events whose words hit it were mostly for a daily or seasonal need
    weak            some were on things of that interest, but as a gift, by accident or for a promotion
    none            its words stand only in things of something else (tennis bracelet)
    hallucination   no reliable event hits it at all

    precision(u) = right / mined,   recall(u) = planted ones found / planted ones with at least 3 reliable events,
    F1(u) = 2 precision recall / (precision + recall), 0 where nothing is right.

Users without such an interest have no recall and no F1; users for whom nothing was mined have no precision and, where
something was to be found, F1 = 0. Figures are means over users, so that everyone counts alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recgpt.evaluation.metrics import Score
from recgpt.evaluation.planted.behind import Behind, as_rows, hit_by_name, thing
from recgpt.evidence import parse_rows

ERRORS = ("necessity", "weak", "none", "hallucination")
NEEDS = ("necessity", "season")
"""Causes that nobody chose: survival needs and situational requirements, as Table 1 has them."""


class InterestScores(NamedTuple):
    """Scores over users, in their order; NaN = has no value."""

    precision: Score
    recall: Score
    f1: Score
    stage: Score
    """Share of the right interests whose stage is right."""
    evidence: Score
    """Share of the cited rows that show something done for the interest that cites them; 0 for a wrong interest."""
    live: Score
    """Share of the right interests that still go on at `now`."""
    hallucination: Score
    """Share of the mined interests that are hallucinations."""
    classes: dict[str, int]
    """How many mined interests are `right`, and how many of each class of `ERRORS`."""


def score(
    mined: pa.Table,
    histories: Mapping[str, str],
    truth: Mapping[str, Behind],
    *,
    resolve: Callable[[str], str | None],
    necessities: Collection[str] = (),
) -> InterestScores:
    """Score mined interests.

    Args:
        mined: INTERESTS.
        histories: each user's text with row ids, as the miner read it.
        truth: who is scored (`behind`).
        resolve: brings an interest's text to the name that the truth uses; None for what it does not know.
        necessities: names of daily needs.
    """
    users = list(truth)
    rows = as_rows(mined, users)
    columns: dict[str, list[float]] = {name: [] for name in InterestScores._fields[:7]}
    classes = Counter[str]()
    for user in users:
        one, own = truth[user], rows[user]
        names = [resolve(row["interest"]) or row["interest"] for row in own]
        right = [name in one.planted for name in names]
        wrong = [_class(one, name, necessities) for name, fits in zip(names, right, strict=True) if not fits]
        classes.update(wrong)
        classes["right"] += sum(right)
        good = [(name, row) for name, row, fits in zip(names, own, right, strict=True) if fits]
        precision = _share(sum(right), len(right))
        recall = _share(len(one.wanted & set(names)), len(one.wanted))
        columns["precision"].append(precision)
        columns["recall"].append(recall)
        columns["f1"].append(_f1(precision, recall))
        columns["stage"].append(_share(sum(row["stage"] == one.planted[name] for name, row in good), len(good)))
        columns["live"].append(_share(sum(name in one.live for name, _ in good), len(good)))
        columns["hallucination"].append(_share(wrong.count("hallucination"), len(names)))
        shown = {row.id: row.items for row in parse_rows(histories.get(user, ""))}
        cited = [
            bool(one.things[name] & {thing(item) for item in shown.get(at, ())}) if name in one.planted else False
            for name, row in zip(names, own, strict=True)
            for at in row["evidence"]
        ]
        columns["evidence"].append(_share(sum(cited), len(cited)))
    return InterestScores(
        *(mean(columns[name]) for name in InterestScores._fields[:7]),
        {name: classes[name] for name in ("right", *ERRORS)},
    )


def _class(one: Behind, name: str, necessities: Collection[str]) -> str:
    if name in necessities:
        return "necessity"
    hit = one.hit.get(name)
    if hit is None:  # not in the pool, or hit by nothing
        causes = hit_by_name(one, name)
        if not causes:
            return "hallucination"
        return "necessity" if _needed(causes) else "none"
    if _needed([cause for cause, _ in hit]):
        return "necessity"
    return "weak" if any(theme == name for _, theme in hit) else "none"


def _needed(causes: Sequence[str]) -> bool:
    return sum(cause in NEEDS for cause in causes) * 2 > len(causes)


def mean(values: Sequence[float]) -> Score:
    """Average over the users who have a value."""
    per_user = np.array(values, np.float64)
    known = per_user[~np.isnan(per_user)]
    return Score(float(known.mean()) if len(known) else float("nan"), per_user)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _f1(precision: float, recall: float) -> float:
    if np.isnan(recall):
        return float("nan")
    if np.isnan(precision) or not precision + recall:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def paired(first: Score, second: Score) -> Any:
    """Each user's difference, first minus second; NaN where either has no value."""
    return first.per_user - second.per_user
