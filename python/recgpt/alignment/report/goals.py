"""The goals that an aligned model is held against, each with what was reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recgpt.alignment.report.estimates import Estimate

HOUSEHOLDS = 200
"""Fewest households for the goals on real households."""
_GOALS: tuple[tuple[str, str, str, tuple[str, ...], float, bool], ...] = (
    ("own history above popularity, AUC", "over", "next", ("auc", "all", "own_minus_popularity"), 0.0, True),
    ("own history above another's, AUC", "at least", "next", ("auc", "all", "own_minus_other"), 0.08, True),
    ("HR@30 above popularity", "over", "next", ("hr", "all", "difference"), 0.0, True),
    ("interest F1, as the model chose", "at least", "interests", ("first", "f1"), 0.90, False),
    ("interest F1, as the rules kept", "at least", "interests", ("kept", "f1"), 0.90, False),
    ("hallucinated interests, as the model chose", "under", "interests", ("first", "hallucination"), 0.02, False),
    ("hallucinated interests, as the rules kept", "under", "interests", ("kept", "hallucination"), 0.02, False),
    ("tags that pass all four criteria, first answers", "at least", "tags", ("first", "all"), 0.848, False),
    ("explanations that pass, first tries", "at least", "explanations", ("all",), 0.958, False),
)
"""Name, relation, part, place of its figure, mark, whether it needs `HOUSEHOLDS`."""


def goals(parts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Hold the aligned model's figures against the goals.

    Args:
        parts: part -> model -> figures.

    Returns:
        For each `goal`, `relation`, `mark`, `reached` (an estimate, null where nothing was measured), `met` (null where
        it cannot be told) and `sure`: the whole interval is beyond the mark.
    """
    return [_goal(parts, *goal) for goal in _GOALS]


def _goal(
    parts: Mapping[str, Mapping[str, Any]],
    name: str,
    relation: str,
    part: str,
    path: tuple[str, ...],
    mark: float,
    many: bool,
) -> dict[str, Any]:
    found: Any = parts.get(part, {}).get("aligned")
    for step in path:
        found = found and found.get(step)
    reached: Estimate | None = found or None
    goal: dict[str, Any] = {"goal": name, "relation": relation, "mark": mark, "reached": reached, "met": None}
    if reached is None or reached["value"] is None:
        return goal | {"sure": None}
    enough = not many or reached["n"] >= HOUSEHOLDS
    worst = reached["high" if relation == "under" else "low"]
    goal["met"] = _beyond(reached["value"], relation, mark) if enough else None
    return goal | {"sure": bool(goal["met"]) and worst is not None and _beyond(worst, relation, mark)}


def _beyond(value: float, relation: str, mark: float) -> bool:
    if relation == "under":
        return value < mark
    return value > mark if relation == "over" else value >= mark
