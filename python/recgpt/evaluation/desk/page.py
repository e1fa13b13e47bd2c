"""The desk for people: one self-contained page, and the tables for a notebook. No script; every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from recgpt.evaluation import svg
from recgpt.evaluation.desk.lift import MEANS
from recgpt.evaluation.report import by_popularity, environment, save, versions

if TYPE_CHECKING:
    from recgpt.evaluation.desk.compare import Desk

TEMPLATE, TABLES = "desk.html.j2", "desk_tables.html.j2"


def write(path: str | Path, desk: Desk, *, title: str = "A/B desk", days: Sequence[tuple[str, Markup]] = ()) -> Path:
    """Write the page; an old one stays until the new one is whole.

    Args:
        path: for example `out/desk.html`.
        desk: from `desk.compare`.
        title: of the page.
        days: further plots with their captions, such as a simulation's days.
    """
    page = (
        environment().get_template(TEMPLATE).render(**_shown(desk), title=title, days=days, ran=desk.ran | versions())
    )
    return save(path, page)


def fragment(desk: Desk) -> str:
    """Give the tables alone, as a notebook shows them."""
    return environment().get_template(TABLES).render(**_shown(desk))


def _shown(desk: Desk) -> dict[str, Any]:
    named = zip(desk.names, desk.users, desk.exposures, desk.span, strict=True)
    arms = [dict(zip(("name", "users", "exposures", "span"), one, strict=True)) for one in named]
    plots = []
    for one in desk.curves:
        arm = dict(zip(desk.names, one[1:], strict=True))
        plots.append(
            {
                "by": one.by,
                "ctr": by_popularity(arm, "ctr", f"CTR by popularity of the {one.by}"),
                "views": by_popularity(arm, "page_view_rate", f"Page views by {one.by}"),
                "slopes": [(name, curve.ctr_slope, curve.page_view_slope) for name, curve in arm.items()],
            }
        )
    marks = [
        svg.Bar(one.metric, 100 * one.lift.value, 0, 100 * one.lift.low, 100 * one.lift.high)
        for one in desk.lifts
        if one.lift
    ]
    forest = svg.forest(marks, title="Relative lift, percent")
    return {"desk": desk, "arms": arms, "plots": plots, "forest": forest, "means": MEANS}
