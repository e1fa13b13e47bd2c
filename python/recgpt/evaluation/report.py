"""`report.html`: one self-contained page: what a run reached, where a baseline wins, and each LLM shopper.

The page holds text that strangers wrote (titles, queries, attributes) and that a model wrote. Hence: Jinja2 escapes
every value, no value is marked safe, there is no script at all, and the page's own policy allows inline style and
nothing else, so that even a slip could neither run nor load anything.
"""

from __future__ import annotations

import os
import platform
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

import recgpt
from recgpt.errors import InvalidConfigError
from recgpt.evaluation import quality, svg
from recgpt.evaluation.category_hits import CategoryHits
from recgpt.evaluation.figures import KEYS, MEASURES
from recgpt.evaluation.metrics import Matthew
from recgpt.evaluation.verdicts import READINGS, number, verdicts

INTEREST = ("rank", "interest", "listed", "stage", "reason", "evidence", "score", "source")
TAG = ("rank", "tag", "interest", "reason", "category", "source")
ITEM = ("item_id", "title", "category", "score", "y_col", "y_sem", "tag", "interest", "explanation", "source", "bought")
PARTS = ("words", "measures", "stages")
"""Parts of the page that a notebook shows, each a template of its own."""
REJECTION = ("stage", "text", "status", "reason", "count")
JUDGED = ("task", "criterion", "decided_by", "passed", "failed", "unscored")


@dataclass(frozen=True)
class Household:
    """One shopper of the LLM stages, as the page shows them. Rows may miss any key; it is then left blank."""

    user_id: str
    attributes: str | None = None
    events: int = 0
    """Events before `now`."""
    kept: int = 0
    """Reliable ones among them."""
    tokens_raw: int | None = None
    """One line an event."""
    tokens_compressed: int | None = None
    """Both levels of compression, uncut."""
    tokens_budgeted: int | None = None
    """What the model read."""
    history: str = ""
    """What the model read: lines oldest first, with or without row ids."""
    receipt: Mapping[str, Any] = field(default_factory=dict)
    interests: Sequence[Mapping[str, Any]] = ()
    """Keys: rank, interest, listed, stage, reason, evidence (history row ids), score, source."""
    tags: Sequence[Mapping[str, Any]] = ()
    """Keys: rank, tag, interest, reason, category, source."""
    items: Sequence[Mapping[str, Any]] = ()
    """Keys: item_id, title, category, score, y_col, y_sem, tag, interest, explanation, source (of the explanation),
    bought (whether the shopper bought it after `now`)."""
    rejections: Sequence[Mapping[str, Any]] = ()
    """Keys: stage, text, status, reason."""


def write(
    path: str | Path,
    *,
    figures: Mapping[str, Any],
    households: Sequence[Household] = (),
    now: datetime | None = None,
    title: str = "recgpt report",
    intervals: Mapping[str, tuple[float, float]] | None = None,
    tokens: Mapping[str, Sequence[float]] | None = None,
    validation_curve: Mapping[str, Sequence[float]] | None = None,
    category_hits: Sequence[CategoryHits] = (),
    places: Mapping[str, Matthew] | None = None,
    rejections: Sequence[Mapping[str, Any]] = (),
    judged: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    ran: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page beside the bundle; the old page stays until the new one is whole.

    Args:
        path: of the page, for example `out/report.html`.
        figures: the run's summary, see `figures.summary`; missing figures leave their part of the page blank.
        households: one card each, the first two open.
        now: the run's cut; ends the time axis of the cards (else the latest history row does).
        title: of the page.
        intervals: 95 % interval per measure, see `figures.evaluate`.
        tokens: per name (`raw`, `compressed`, `budgeted`) the tokens of every shopper's history.
        validation_curve: per name one value an epoch; higher is better.
        category_hits: HR@30 through Tag-to-Cate, with and without the past-month rule.
        places: who gets the places of the lists, see `figures.Evaluation.places`.
        rejections: counts with keys stage, status, reason, count.
        judged: the judge's verdicts with keys task, criterion, decided_by (in words), passed, failed, unscored.
        notes: sentences about the data that a reader must know.
        ran: what ran on what: data, model, settings, versions, by name.

    Returns:
        The path written.
    """
    shown = {key: figures.get(key) for key in KEYS}
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            now=now,
            figures=shown,
            measures=_measures(shown, intervals or {}),
            verdicts=verdicts(shown, intervals),
            stages=quality.rows(shown, intervals or {}),
            plots=_plots(shown, intervals or {}, tokens or {}, validation_curve or {}, places or {}, households),
            category_hits=category_hits,
            places=places or {},
            rejections=_rows(rejections, REJECTION),
            judged=_rows(judged, JUDGED),
            notes=notes,
            ran=ran or {},
            households=[_card(household, now) for household in households],
        )
    )
    return save(path, page)


def fragment(figures: Mapping[str, Any], intervals: Mapping[str, tuple[float, float]] | None = None) -> str:
    """Give what the figures say, the held-out table and the quality of each stage, as a notebook shows them."""
    shown = {key: figures.get(key) for key in KEYS}
    values = {
        "verdicts": verdicts(shown, intervals),
        "measures": _measures(shown, intervals or {}),
        "stages": quality.rows(shown, intervals or {}),
    }
    found = environment()
    return "".join(found.get_template(f"report_{part}.html.j2").render(values) for part in PARTS)


def versions() -> dict[str, str]:
    """Name what computed a page, so that a reader can run it again."""
    packages = []
    for name in ("numpy", "pyarrow", "usearch", "torch", "llama-cpp-python"):
        with suppress(metadata.PackageNotFoundError):
            packages.append(f"{name} {metadata.version(name)}")
    return {
        "recgpt": recgpt.__version__,
        "python": platform.python_version(),
        "packages": ", ".join(packages),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
    }


def save(path: str | Path, page: str) -> Path:
    """Write a page; an old one stays until the new one is whole.

    Raises:
        InvalidConfigError: nothing can be written there.
    """
    path = Path(path)
    aside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(page, encoding="utf-8", errors="replace")
        os.replace(aside, path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise InvalidConfigError(
            f"{path} cannot be written: {error.strerror or error}; what was there stays; name a file in a folder that "
            "you may write to"
        ) from error
    return path


def environment() -> jinja2.Environment:
    """Templates of this folder, every value escaped and made visible."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"count": _count, "decimal": _decimal, "signed": _signed}
    return found


def _measures(figures: Mapping[str, Any], intervals: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """The rows of the held-out table, with the best of the three named."""
    rows = []
    for measure in MEASURES:
        values = {who: number(figures.get(measure + end)) for who, end in _RANKERS}
        known = [value for value in values.values() if value is not None]
        ends = {who: intervals.get(measure + end, (None, None)) for who, end in _RANKERS}
        best = [who for who, value in values.items() if known and value == max(known)]
        name, says = READINGS[measure]
        rows.append({"name": name, "says": says, "values": values, "best": best, "ends": ends})
    return rows


_RANKERS = (("towers", ""), ("popularity", "_popularity"), ("buy-again", "_buy_again"))
_COLORS = {"towers": 0, "popularity": 6, "buy-again": 1}


def _plots(
    figures: Mapping[str, Any],
    intervals: Mapping[str, tuple[float, float]],
    tokens: Mapping[str, Sequence[float]],
    validation_curve: Mapping[str, Sequence[float]],
    places: Mapping[str, Matthew],
    households: Sequence[Household],
) -> dict[str, Markup]:
    bars = {}
    for measure in ("hr@20", "hr@20_new"):
        rows = []
        for who, end in _RANKERS:
            value = number(figures.get(measure + end))
            if value is not None:
                low, high = intervals.get(measure + end, (None, None))
                rows.append(svg.Bar(who, value, _COLORS[who], low, high))
        bars[measure] = svg.bars(rows, title=READINGS[measure][0])
    sweep = [row for row in figures.get("beta_sweep") or [] if number(row.get("hr@20_new")) is not None]
    points = [
        svg.Point(
            f"{row['beta']:g}" + {1.0: " user alone", 0.0: " tags alone"}.get(row["beta"], ""),
            number(row.get("categories@20")) or 0.0,
            row["hr@20_new"],
            0,
            "sweep",
        )
        for row in sweep
    ]
    marks = [svg.Bar(f"beta {row['beta']:g}", row["hr@20_new"], 0) for row in sweep]
    levels: list[svg.Bar] = []
    for who in ("popularity", "buy-again"):
        value = number(figures.get(f"hr@20_new_{who.replace('-', '_')}"))
        if value is not None and sweep:
            levels.append(svg.Bar(who, value, _COLORS[who]))
    if len({level.value for level in levels}) == 1:
        levels = [svg.Bar(" and ".join(level.label for level in levels), levels[0].value, levels[0].color)]
    frontier = svg.scatter(
        points, x="distinct categories in the first 20", y="HR@20, new items", title="Beta sweep", levels=levels
    )
    seconds = figures.get("seconds")
    parts = seconds.items() if isinstance(seconds, Mapping) else ()
    spent = [svg.Bar(str(name), float(value), 2) for name, value in parts if number(value) is not None]
    return {
        "any": bars["hr@20"],
        "new": bars["hr@20_new"],
        "frontier": frontier,
        "betas": svg.bars([*marks, *levels], title="HR@20 on new items by beta, beside the baselines"),
        "places": by_popularity(places, "page_view_rate", "Share of all places"),
        # What was bought is a hit by its meaning.
        "hits": by_popularity({who: one for who, one in places.items() if who != "bought"}, "ctr", "Hits a place"),
        "tokens": svg.ridges(tokens, x="tokens a shopper (logarithmic)", title="Tokens of the histories"),
        "training": svg.curve(validation_curve, x="epoch", y="validation", title="Training of the towers"),
        "interests": svg.bars(
            [svg.Bar(one.user_id, float(len(one.interests)), 2) for one in households],
            title="Interests of each shopper",
            digits=0,
            beside=True,
        ),
        "seconds": svg.bars(spent, title="Seconds of each stage", digits=1, beside=True),
    }


def by_popularity(curves: Mapping[str, Matthew], field: str, title: str) -> Markup:
    """Draw one line a name over groups of items, from the least to the most popular; its label is at the last group."""
    points = []
    for color, (name, curve) in enumerate(curves.items()):
        values = getattr(curve, field)
        there = np.flatnonzero(np.isfinite(values))
        for place in there:
            label = name if place == there[-1] else ""
            points.append(svg.Point(label, float(place + 1), float(values[place]), color, name))
    return svg.scatter(points, x="group, least to most popular", y="", title=title)


def _card(household: Household, now: datetime | None) -> dict[str, Any]:
    """One shopper with every key present, and the color that follows an interest through tags and items."""
    interests = _rows(household.interests, INTEREST)
    color = {row["interest"]: number % svg.COLORS for number, row in enumerate(interests)}
    scores = [score for item in household.items if (score := number(item.get("score"))) is not None]
    items = _rows(household.items, ITEM)
    top = max(scores, default=0.0)
    for item in items:
        item["width"] = round(100 * max(0.0, number(item["score"]) or 0.0) / top, 1) if top > 0 else 0.0
    attributes = [part.strip() for part in (household.attributes or "").split(";") if part.strip()]
    return {
        "one": household,
        "attributes": attributes,
        "interests": interests,
        "tags": _rows(household.tags, TAG),
        "items": items,
        "rejections": _rows(household.rejections, REJECTION),
        "color": color,
        "evidence": _evidence(household, interests, now),
    }


def _rows(rows: Iterable[Mapping[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    return [{key: row.get(key) for key in keys} for row in rows]


_ROW_ID = re.compile(r"r(\d+) ")
_LABEL = re.compile(r"(?<![\d-])(\d{4}|\d{2})(?:-(\d{2}))?(?:-(\d{2}))? \(")


def _evidence(household: Household, interests: Sequence[Mapping[str, Any]], now: datetime | None) -> Markup | None:
    """Where each interest's evidence falls in time, over a lane with the whole history; None without dates."""
    spans: dict[int, list[tuple[date, date]]] = {}
    for place, line in enumerate(household.history.splitlines(), start=1):
        found = _ROW_ID.match(line)
        contexts = line.split(" | ", 1)[0]
        dated = [span for match in _LABEL.finditer(contexts) if (span := _span(*match.groups())) is not None]
        spans[int(found.group(1)) if found else place] = dated
    every = [span for dated in spans.values() for span in dated]
    if not every:
        return None
    end = (now.date() if now else max(last for _, last in every)) + timedelta(days=1)
    lanes = [svg.Lane(f"whole history, {len(spans)} rows", every, 6)]
    for place, row in enumerate(interests):
        cited = [span for one in row["evidence"] or () for span in spans.get(int(one), [])]
        lanes.append(svg.Lane(str(row["interest"]), cited, place))
    return svg.timeline(lanes, start=min(first for first, _ in every), end=end, title="Evidence in time")


def _span(year: str, month: str | None, day: str | None) -> tuple[date, date] | None:
    """The days that a history label covers, end excluded: `17-12-03`, `17-12`, `17`, or with four-digit years."""
    try:
        first = date(int(year) + (2000 if len(year) == 2 else 0), int(month or 1), int(day or 1))
        if day:
            return first, first + timedelta(days=1)
        if month:
            return first, (first + timedelta(days=31)).replace(day=1)
        return first, date(first.year + 1, 1, 1)
    except (ValueError, OverflowError):
        return None


def _visible(value: Any) -> Any:
    """Null becomes a dash; characters that hide, reorder or break text go. Escaping comes after this."""
    if value is None:
        return "–"
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "".join(
        letter
        for letter in value
        if letter in "\n\t\u200c\u200d" or unicodedata.category(letter) not in {"Cc", "Cf", "Cs", "Co", "Cn"}
    )


def _count(value: Any) -> str:
    """A whole number with thousands apart."""
    known = number(value)
    return "–" if known is None else f"{known:,.0f}"


def _decimal(value: Any, digits: int = 3) -> str:
    known = number(value)
    return "–" if known is None else f"{known:.{digits}f}"


def _signed(value: Any) -> str:
    known = number(value)
    return "–" if known is None else f"{known:+.3f}".replace("-", "−")
