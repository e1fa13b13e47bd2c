"""How often pages repeat themselves in either arm (paper section 4.5): top 4, top 8, whole; with and without ads.

The paper asked people (37.1 to 36.2 % of pages, in the top 4 27.7 to 25.3 %, without ads -1.57 points in the place of
-0.88); this counts, so its level is another and only the change can be compared.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from recgpt.evaluation.desk.arms import Arm, Catalogue, Caution
from recgpt.evaluation.metrics import Estimate, Ragged, ratio, redundancy, title_redundancy

CUTS = (4, 8, None)
TITLE_PAGES = 5_000
"""Titles are compared on so many pages of an arm, drawn by seed; codes on all of them."""


class Repetition(NamedTuple):
    """One cut of one kind, of both arms; shares of places that repeat an earlier one of their page."""

    by: str
    """`category`, `brand` or `title`."""
    k: int | None
    """None = whole pages."""
    ads: bool
    """Whether ads count as places."""
    first: Estimate
    second: Estimate
    points: Estimate
    """Second - first, as a share: -0.009 is 0.9 percentage points less."""
    pages: tuple[float, float]
    """Share of pages with any repetition."""


def repetition(first: Arm, second: Arm, known: Catalogue, *, seed: int = 0) -> tuple[list[Repetition], list[Caution]]:
    """Compare the pages of both arms; intervals are over users, whose pages stay together (delta method).

    What fewer than two users of an arm have has no interval, and is left out with a caution.
    """
    kinds = [("category", bool((known.category >= 0).any())), ("brand", bool((known.brand >= 0).any()))]
    by = [name for name, there in (*kinds, ("title", any(known.title))) if there]
    ads = bool(first.is_ad.any() or second.is_ad.any())
    rows: list[Repetition] = []
    said: list[Caution] = []
    for kind in by:
        for counted in (True, False) if ads else (True,):
            before = len(rows)
            for k in CUTS:
                found = [_arm(arm, known, kind, k, counted, seed) for arm in (first, second)]
                (a, touched_a), (b, touched_b) = found
                half = math.hypot(a.high - a.low, b.high - b.low) / 2
                apart = b.value - a.value
                points = Estimate(apart, apart - half, apart + half)
                if math.isfinite(half):
                    rows.append(Repetition(kind, k, counted, a, b, points, (touched_a, touched_b)))
            if len(rows) - before < len(CUTS):
                places = "places" if counted else "places that are no ads"
                text = f"fewer than 2 users of an arm have {places}, so redundancy by {kind} is left out for them"
                said.append(Caution("no_redundancy", text))
    return rows, said


def _arm(arm: Arm, known: Catalogue, kind: str, k: int | None, ads: bool, seed: int) -> tuple[Estimate, float]:
    pages = _pages(arm)
    owner = arm.user[pages.offsets[:-1]]
    use = np.arange(pages.users)
    if kind == "title" and pages.users > TITLE_PAGES:
        use = np.sort(np.random.default_rng(seed).permutation(pages.users)[:TITLE_PAGES])
    rows = np.flatnonzero(np.isin(pages.owners, use))
    shown = Ragged(pages.values[rows], np.concatenate([[0], np.cumsum(pages.sizes[use])]))
    skip = None if ads else arm.is_ad[rows]
    # A row beyond the catalogue for items that it does not have: no code, no title, like nothing.
    shown = shown._replace(values=np.where(shown.values < 0, len(known.ids), shown.values))
    if kind == "title":
        score = title_redundancy(shown, [*known.title, ""], k, skip=skip).per_user
    else:
        codes = np.append(known.category if kind == "category" else known.brand, -1)
        score = redundancy(shown, codes, k, skip=skip).per_user
    has = ~np.isnan(score)
    weight = np.bincount(owner[use][has], minlength=len(arm.user_ids)).astype(np.float64)
    total = np.bincount(owner[use][has], weights=score[has], minlength=len(arm.user_ids)).astype(np.float64)
    shared = weight > 0
    touched = float((score[has] > 0).mean()) if has.any() else float("nan")
    return ratio(total[shared], weight[shared]), touched


def _pages(arm: Arm) -> Ragged:
    starts = np.flatnonzero(np.append(True, arm.page[1:] != arm.page[:-1]))
    return Ragged(arm.item, np.append(starts, len(arm.item)))
