"""Warns when the tag side narrows what people see, or when tags find nothing that is close to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recgpt.evaluation.sweep import SweepRow, Vectors

NEAR = 0.3
"""A tag whose best item has a lower cosine found nothing close; a tag of unknown words has 0 with every item."""
MANY = 0.1
"""A larger share of such tags is worth a warning."""
UNEVEN = 0.01
"""Gini may be so much above the user tower's: the figure has no standard error."""
TAGS = 2000
"""Tags asked, evenly over those given."""


def closest(tags: Vectors, items: Vectors) -> Vectors:
    """Best cosine of each tag with any item: (min(t, TAGS),) float32, for vectors of length one.

    Args:
        tags: (t, d) float32.
        items: (m, d) float32.
    """
    rows = np.unique(np.linspace(0, len(tags) - 1, min(TAGS, len(tags))).astype(np.int64))
    best = [(tags[part] @ items.T).max(axis=1) for part in np.array_split(rows, max(1, len(rows) // 64))]
    return np.concatenate(best).astype(np.float32)


def warnings(sweep: Sequence[SweepRow], *, beta: float, near: Vectors, k: int = 20) -> list[str]:
    """Say what is wrong with the tag side at the served beta; nothing if nothing measurable is.

    Categories are fewer if the difference, user by user, is more than two standard errors.

    Args:
        sweep: Rows of `beta_sweep`, that of the user tower alone (beta 1) among them.
        beta: The served weight; the nearest row of the sweep stands for it.
        near: As `closest` gives it.
        k: The sweep's.
    """
    found = []
    served = min(sweep, key=lambda row: abs(row.beta - beta))
    alone = next(row for row in sweep if row.beta == 1.0)
    fewer = alone.categories.per_user - served.categories.per_user
    if fewer.mean() > 2 * fewer.std() / np.sqrt(len(fewer)):
        found.append(
            f"at beta {served.beta:g} the first {k} span {served.categories.mean:.1f} categories, fewer than the "
            f"{alone.categories.mean:.1f} of the user tower alone; raise beta, or ask for tags of more categories"
        )
    if served.gini > alone.gini + UNEVEN:
        found.append(
            f"at beta {served.beta:g} exposure is more uneven (Gini {served.gini:.3f}) than with the user tower alone "
            f"({alone.gini:.3f}); raise beta"
        )
    lost = float((near < NEAR).mean()) if len(near) else 0.0
    if lost > MANY:
        found.append(
            f"{lost:.0%} of the tags have no item with a cosine of {NEAR:g} or more; are they about this catalogue, "
            "in its language?"
        )
    return found
