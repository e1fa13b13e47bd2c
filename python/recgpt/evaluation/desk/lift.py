"""The paper's Table 8 from two arms: each metric of both, the relative lift, and what the sample could have found."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recgpt.evaluation.desk.arms import Arm, Caution
from recgpt.evaluation.metrics import Engagement, Estimate, Floats, Ints, ratio
from recgpt.evaluation.metrics.significance import change, holm, sample_ratio

PAPER = {"DT": 0.0482, "EICD": 0.0011, "CICD": 0.0696, "IPV": 0.0947, "CTR": 0.0633, "DCAU": 0.0372, "ATC": 0.0391}
"""Lifts of the paper's Table 8 (17 to 20 June 2025, scenario Guess), in its order."""
MEANS = {
    "DT": "seconds of dwell a user",
    "EICD": "distinct categories shown to a user",
    "CICD": "distinct categories clicked by a user",
    "IPV": "page views a user",
    "CTR": "exposures with a click / exposures",
    "DCAU": "users with a click, mean over days, as a share of the arm's users",
    "ATC": "additions to the cart a user",
}
BROKEN = 0.001
"""A sample ratio less likely than this is a broken split."""
MOST = 1e9
"""Effects that are so many times below what the sample finds want more users than a number need say."""
EFFECTS = 1e-6, 1e3
"""Changes that can be looked for."""
TOLD = 5
"""So many tiers are named in a caution."""
FEW = 100
"""With fewer users in an arm, an interval by the delta method is not to be trusted."""


class Lift(NamedTuple):
    """One metric of both arms."""

    metric: str
    first: Estimate
    second: Estimate
    lift: Estimate | None
    """Relative; None where it cannot be said, see `why`."""
    p: float | None
    adjusted: float | None
    """p after Holm over the metrics of the table."""
    detectable: float | None
    """Smallest relative change that this sample finds in 4 of 5 cases."""
    effect: float
    """The change that was looked for: the paper's, if nothing else was said."""
    needed: int | None
    """Users an arm that a change of `effect` wants; None if that is more than there are people."""
    why: str | None


class Tier(NamedTuple):
    """The same for the users of one activity tier."""

    tier: str
    users: tuple[int, int]
    split: float
    """`sample_ratio` within the tier."""
    lifts: list[Lift]


def sums(found: Engagement, present: set[str], days: int) -> dict[str, tuple[Floats | Ints, Floats | Ints]]:
    """Give each metric as a ratio of two sums over users; DT and ATC only if the log says anything of them.

    `days` is DCAU's D, one for both arms: with each arm's own, a last exposure some seconds after midnight was a day
    more, and of two equal arms of three days one lost a quarter.
    """
    one = np.ones(len(found.exposures))
    whole: dict[str, tuple[Floats | Ints, Floats | Ints]] = {
        "DT": (found.dwell, one),
        "EICD": (found.exposed_categories, one),
        "CICD": (found.clicked_categories, one),
        "IPV": (found.page_views, one),
        "CTR": (found.clicked, found.exposures),
        "DCAU": (found.click_days / days, one),
        "ATC": (found.carts, one),
    }
    return {metric: parts for metric, parts in whole.items() if metric in present}


def lifts(
    first: dict[str, tuple[Floats | Ints, Floats | Ints]],
    second: dict[str, tuple[Floats | Ints, Floats | Ints]],
    *,
    effect: float | None = None,
    among: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None,
) -> list[Lift]:
    """Compare both arms metric by metric.

    Args:
        first: `sums` of the arm that is the base.
        second: of the other.
        effect: the relative change that is looked for; each metric's own in the paper if left out.
        among: which users of each arm count; None = all.
    """
    found = []
    for metric in PAPER:
        if metric not in first:
            continue
        parts = (first[metric], second[metric])
        if among is not None:
            parts = ((parts[0][0][among[0]], parts[0][1][among[0]]), (parts[1][0][among[1]], parts[1][1][among[1]]))
        users = [len(below) for _, below in parts]
        a, b = (ratio(*part) for part in parts)
        moved, wanted = change(a, b), PAPER[metric] if effect is None else effect
        if moved is None or not math.isfinite(moved.detectable):
            near = "0" if not a.value else "nearly 0" if moved else None
            why = f"the first arm's figure is {near}, so that nothing can be related to it" if near else None
            why = why or "an arm has fewer than 2 users, so that chance cannot be told from change"
            found.append(Lift(metric, a, b, None, None, None, None, wanted, None, why))
            continue
        size = 2 / (1 / users[0] + 1 / users[1])
        times = moved.detectable / wanted
        needed = max(2, math.ceil(size * times**2)) if times < MOST else None
        found.append(Lift(metric, a, b, moved.lift, moved.p, None, moved.detectable, wanted, needed, None))
    said = iter(holm([one.p for one in found if one.p is not None]))
    return [one if one.p is None else one._replace(adjusted=next(said)) for one in found]


def tiers(
    first: dict[str, tuple[Floats | Ints, Floats | Ints]],
    second: dict[str, tuple[Floats | Ints, Floats | Ints]],
    arms: tuple[Arm, Arm],
    *,
    share: float,
    effect: float | None,
) -> tuple[list[Tier], list[Caution]]:
    """Compare within each activity tier that both arms have, and say who is in none of these."""
    rows: list[Tier] = []
    said: list[Caution] = []
    labels = _tier(arms[0], said), _tier(arms[1], said)
    for arm, own, others in zip(arms, labels, reversed(labels), strict=True):
        if alone := sorted(set(own) - set(others)):
            told = ", ".join(alone[:TOLD]) + (f" and {len(alone) - TOLD:,} more" if len(alone) > TOLD else "")
            text = f"only arm {arm.name} has tier {told}; its {int(np.isin(own, alone).sum()):,} users there"
            said.append(Caution("one_sided_tier", f"{text} are not in the table by tier"))
    for tier in sorted(set(labels[0]) & set(labels[1])):
        among = labels[0] == tier, labels[1] == tier
        users = int(among[0].sum()), int(among[1].sum())
        split = sample_ratio(*users, share=share)
        rows.append(Tier(str(tier), users, split, lifts(first, second, effect=effect, among=among)))
    return rows, said


def _tier(arm: Arm, said: list[Caution]) -> NDArray[np.str_]:
    """(u,) each user's tier, as the user's first page has it."""
    _, first = np.unique(arm.user, return_index=True)
    codes = arm.more["tier"][first]
    moved = len(np.unique(arm.user[arm.more["tier"] != codes[arm.user]]))
    if moved:
        text = f"arm {arm.name}: {moved:,} of {len(codes):,} users have more than one tier"
        said.append(Caution("two_tiers", f"{text}; each counts in that of their first page"))
    tiers: NDArray[np.str_] = arm.labels["tier"][codes]
    return tiers


def cautions(rows: list[Lift], names: tuple[str, str], users: tuple[int, int], *, share: float) -> list[Caution]:
    """Say what the table cannot: a broken split, arms too small, changes too small to be found."""
    found = []
    p = sample_ratio(*users, share=share)
    if p < BROKEN:
        found.append(
            Caution(
                "sample_ratio_mismatch",
                f"{users[0]:,} users in arm {names[0]} and {users[1]:,} in arm {names[1]} where {share:.0%} to "
                f"{1 - share:.0%} was meant (p = {p:.2g}): the split is broken, so trust no lift before it is mended",
            )
        )
    for name, count in zip(names, users, strict=True):
        if count < FEW:
            text = f"arm {name} has {count:,} users; with fewer than {FEW} the intervals are too narrow"
            found.append(Caution("few_users", text))
    small = [(one, one.detectable) for one in rows if one.detectable is not None and one.detectable > one.effect]
    if small:
        text = "; ".join(
            f"{one.metric} finds {least:.1%} or more, and {one.effect:{'.2%' if one.effect >= 1e-4 else '%'}} wants "
            + ("more users an arm than there are people" if one.needed is None else f"{one.needed:,} users an arm")
            for one, least in small
        )
        found.append(
            Caution("small_sample", f"too few users for the changes looked for (4 of 5 cases, at 5 %): {text}")
        )
    for one in rows:
        if one.lift is None:
            found.append(Caution("no_lift", f"{one.metric}: {one.why}"))
        elif not math.isfinite(one.lift.low):
            text = f"{one.metric}: the first arm's figure is not told from 0, so that its lift has no bounds"
            found.append(Caution("no_interval", text))
    return found
