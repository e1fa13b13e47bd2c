"""A replay for people: one self-contained page, and the tables for a notebook. No script; every text is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from recgpt.evaluation import svg
from recgpt.evaluation.replay import ALL
from recgpt.evaluation.report import environment, save, versions

if TYPE_CHECKING:
    from recgpt.evaluation.replay import Replay


def write(path: str | Path, found: Replay, *, title: str = "recgpt replay") -> Path:
    """Write the page; an old one stays until the new one is whole."""
    page = environment().get_template("replay.html.j2").render(**_shown(found), title=title, ran=found.ran | versions())
    return save(path, page)


def fragment(found: Replay) -> str:
    """Give the tables alone, as a notebook shows them."""
    return environment().get_template("replay_tables.html.j2").render(**_shown(found))


def _shown(found: Replay) -> dict[str, Any]:
    measures = list(dict.fromkeys(name for row in found.rows for name in row.figures))
    forests = []
    for measure in measures:
        tests = [one for one in found.tests if (one.segment, one.measure) == (ALL, measure)]
        marks = [svg.Bar(f"- {one.baseline}"[:11], *_whisker(one.paired.difference)) for one in tests]
        forests.append((measure, svg.forest(marks, title=f"{measure}: the bundle minus each baseline", digits=3)))
    points = [svg.Point(f"{row.beta:g}", row.categories.mean, row.hit_rate.mean, 0, "sweep") for row in found.sweep]
    x, y = f"distinct categories in the first {found.k}", f"HR@{found.k}, new items"
    sweep = svg.scatter(points, x=x, y=y, title="Beta sweep")
    return {
        "found": found,
        "measures": measures,
        "forests": forests,
        "sweep": sweep,
        "whole": [one for one in found.tests if one.segment == ALL],
        "parts": [one for one in found.tests if one.segment != ALL],
    }


def _whisker(one: Any) -> tuple[float, int, float, float]:
    return one.value, 0, one.low, one.high
