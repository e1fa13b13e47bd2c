"""What the figures say, in words computed from them: also where a baseline wins, and where a difference is noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Verdict(NamedTuple):
    """One sentence or two; `kind` is `win`, `loss`, `open` (not decided) or `fact`."""

    kind: str
    text: str


READINGS = {
    "hr@20": ("Any purchase, HR@20", "shoppers that find something they buy among their first 20 items"),
    "ndcg@20": ("Any purchase, NDCG@20", "how high the bought items stand"),
    "hr@20_new": ("New items, HR@20", "shoppers that find something they had never bought before"),
    "ndcg@20_new": ("New items, NDCG@20", "how high the new items stand"),
}
BASELINES = {"_popularity": "popularity", "_buy_again": "buy-again"}
FEW = 3
"""A difference of fewer shoppers than this is called noise."""


def verdicts(figures: Mapping[str, Any], intervals: Mapping[str, tuple[float, float]] | None = None) -> list[Verdict]:
    """Say in words how the run did.

    Args:
        figures: the summary (`figures.KEYS`); what is missing or null is passed over.
        intervals: 95 % interval per measure, if known.
    """
    found = [one for measure in READINGS for one in _against_baselines(measure, figures, intervals or {})]
    return [*found, *_beta(figures), *_own_tags(figures), *_categories(figures), *_floor(figures), *_answers(figures)]


def _against_baselines(
    measure: str, figures: Mapping[str, Any], intervals: Mapping[str, tuple[float, float]]
) -> list[Verdict]:
    ours = number(figures.get(measure))
    others = {name: number(figures.get(measure + suffix)) for suffix, name in BASELINES.items()}
    if measure.endswith("_new"):  # Buy-again has no item of its own to show there: it is popularity by definition.
        others.pop("buy-again")
    marks = {name: value for name, value in others.items() if value is not None}
    if ours is None or not marks:
        return []
    name, best = max(marks.items(), key=lambda pair: pair[1])
    title = READINGS[measure][0]
    rest = "".join(f", {other} {value:.3f}" for other, value in marks.items() if other != name)
    low, high = intervals.get(measure, (math.nan, math.nan))
    close = low <= best <= high
    doubt = f" {name.capitalize()} lies inside the towers' 95 % interval ({low:.3f} to {high:.3f})." if close else ""
    if ours == best:
        return [Verdict("open", f"{title}: the towers and {name} are level at {best:.3f}{rest}.")]
    if ours > best:
        times = f", {ours / best:.2f} times as much" if best else ""
        text = f"{title}: the towers reach {ours:.3f} against {best:.3f} for {name}{rest}{times}.{doubt}"
        return [Verdict("open" if close else "win", text)]
    text = f"{title}: {name} wins with {best:.3f}; the towers reach {ours:.3f}{rest}.{doubt}"
    return [Verdict("open" if close else "loss", text)]


def _beta(figures: Mapping[str, Any]) -> list[Verdict]:
    rows = [row for row in figures.get("beta_sweep") or [] if number(row.get("hr@20_new")) is not None]
    alone = next((row for row in rows if row["beta"] == 1.0), None)
    if alone is None or len(rows) < 2:
        return []
    best = max(rows, key=lambda row: float(row["hr@20_new"]))
    wide = max(rows, key=lambda row: float(number(row.get("categories@20")) or 0))
    text = (
        f"Beta: new items are found best at {best['beta']:g} (HR@20 {best['hr@20_new']:.3f}; the user tower alone, "
        f"beta 1, has {alone['hr@20_new']:.3f})."
    )
    if number(wide.get("categories@20")):  # A catalogue without categories has none in any list.
        text += f" The first 20 are most varied at {wide['beta']:g} ({wide['categories@20']:.1f} categories" + (
            ")." if wide is alone else f"; {alone['categories@20']:.1f} at beta 1)."
        )
    said = [Verdict("fact", text)]
    used = next((row for row in rows if row["beta"] == figures.get("beta")), None)
    if used is not None and used is not best and used["hr@20_new"] < best["hr@20_new"]:
        lost = best["hr@20_new"] - used["hr@20_new"]
        said.append(
            Verdict(
                "loss", f"Beta: this run serves with {used['beta']:g}, which gives up {lost:.3f} HR@20 on new items."
            )
        )
    return said


def _own_tags(figures: Mapping[str, Any]) -> list[Verdict]:
    own, other, count = (number(figures.get(key)) for key in ("llm_hr@20_new", "llm_hr@20_new_swapped", "llm_n"))
    if own is None or other is None or not count:
        return []
    shoppers = round((own - other) * count)
    base = (
        f"LLM tags: HR@20 on new items is {own:.3f} with a shopper's own tags, "
        f"{other:.3f} with another's (n = {count:.0f})"
    )
    if abs(shoppers) < FEW:
        apart = "no shopper apart" if not shoppers else f"{abs(shoppers)} shopper{'s' * (abs(shoppers) > 1)} apart"
        return [Verdict("open", f"{base}: {apart}, which shows nothing either way.")]
    if shoppers > 0:
        return [Verdict("win", f"{base}: the own tags help {shoppers} shoppers.")]
    return [Verdict("loss", f"{base}: another shopper's tags do better by {-shoppers}.")]


def _categories(figures: Mapping[str, Any]) -> list[Verdict]:
    ours, best = (number(figures.get(f"llm_hr@30_category{end}")) for end in ("", "_popularity"))
    if ours is None or best is None:
        return []
    base = f"Categories of the next basket, HR@30: LLM tags {ours:.3f}, the 30 most popular categories {best:.3f}"
    if ours == best:
        return [Verdict("open", f"{base}: level.")]
    return [Verdict("win", f"{base}.") if ours > best else Verdict("loss", f"{base}: popularity wins.")]


def _floor(figures: Mapping[str, Any]) -> list[Verdict]:
    missed, users = number(figures.get("below_category_floor")), number(figures.get("llm_users"))
    if not missed or not users:
        return []
    text = (
        f"Tags: {missed:.0f} of {users:.0f} shoppers miss the floor of distinct categories that their tags should have."
    )
    return [Verdict("loss", text)]


def _answers(figures: Mapping[str, Any]) -> list[Verdict]:
    said = []
    whole, model = (number(figures.get(f"interests_changed_by_{what}")) for what in ("shuffle", "model"))
    if whole is not None and model is not None:
        # Two random halves of a list share a third of their union.
        text = (
            f"Another shopper's history changes {whole:.0%} of the chosen interests; with the shopper's own candidate "
            f"list it changes {model:.0%}, and that part is the model's: one that ignored histories would change none, "
            "one that chose at random about two thirds."
        )
        said.append(Verdict("fact", text))
    valid, proven = (number(figures.get(key)) for key in ("answers_valid_raw", "evidence_supported_raw"))
    base = number(figures.get("evidence_supported_base"))
    if valid is not None and proven is not None:
        against = "" if base is None else f", as {base:.0%} of the rows that it could choose from do anyway"
        text = (
            f"Before any filter {valid:.0%} of the model's answers were valid and {proven:.0%} of the cited evidence "
            f"supported its claim{against}. {figures.get('rejected') or 0} answers were rejected and "
            f"{figures.get('unscored') or 0} could not be scored; none of them is served."
        )
        said.append(Verdict("fact", text))
    return said


def number(value: Any) -> float | None:
    """Give a finite float, or None for null, NaN and everything that is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
