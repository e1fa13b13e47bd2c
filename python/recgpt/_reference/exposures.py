"""Exposure logs in plain Python: a list of rows a user."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping


def count_exposures(
    rows: Iterable[tuple[str, str, str, int, int, float]], categories: Mapping[str, str | None]
) -> dict[str, tuple[int, int, int, int, int, int, int, float]]:
    """Add up rows of (user, item, local day, clicks, carts, seconds) by user.

    Gives exposures, exposures with a click, clicks, carts, distinct categories shown and clicked, distinct days with a
    click, and seconds.
    """
    by_user: dict[str, list[tuple[str, str, str, int, int, float]]] = defaultdict(list)
    for row in rows:
        by_user[row[0]].append(row)
    sums = {}
    for user, own in by_user.items():
        clicked = [row for row in own if row[3]]
        sums[user] = (
            len(own),
            len(clicked),
            sum(row[3] for row in own),
            sum(row[4] for row in own),
            len({categories.get(row[1]) for row in own} - {None}),
            len({categories.get(row[1]) for row in clicked} - {None}),
            len({row[2] for row in clicked}),
            sum(row[5] for row in own),
        )
    return sums
