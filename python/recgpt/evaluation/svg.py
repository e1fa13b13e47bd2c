"""Small inline SVG plots: no script, no outside resource, colors from the page's style sheet, every text escaped.

A plot is built from `Markup` pieces only: `Markup.format` escapes whatever is not Markup, so that a hostile label stays
a label. Sizes are in user units; the page scales each plot to its column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import NamedTuple

from markupsafe import Markup

WIDTH = 460
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 40
COLORS = 8
"""How many series colors the style sheet has: classes c0 to c7."""


class Point(NamedTuple):
    """One mark of a scatter plot; points of the same non-empty `line` are joined in order."""

    label: str
    x: float
    y: float
    color: int = 0
    line: str = ""


class Bar(NamedTuple):
    """One bar; `low` and `high` draw a whisker."""

    label: str
    value: float
    color: int = 0
    low: float | None = None
    high: float | None = None


class Lane(NamedTuple):
    """One row of a timeline: a label and spans of days, ends excluded."""

    label: str
    spans: list[tuple[date, date]]
    color: int


def scatter(points: Sequence[Point], *, x: str, y: str, title: str, levels: Sequence[Bar] = ()) -> Markup:
    """Draw labelled points on two linear axes, both starting where the data does; `levels` are dashed heights."""
    height = 300
    shown = [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]
    if not shown:
        return _nothing(title)
    at_x = _scale([point.x for point in shown], LEFT + 8, WIDTH - RIGHT - 34)
    levels = [level for level in levels if math.isfinite(level.value)]
    heights = [*(point.y for point in shown), *(level.value for level in levels)]
    at_y = _scale(heights, height - BOTTOM - 8, TOP + 16)
    parts = _grid(at_x, at_y, height, x=x, y=y)
    taken: list[tuple[float, float, float]] = []
    for level in levels:
        shape = '<path class="level c{}" d="M{} {:.1f}H{}"/>'
        parts.append(Markup(shape).format(level.color, LEFT, at_y(level.value), WIDTH - RIGHT))
        parts.append(_text(LEFT + 4, _free(taken, LEFT, LEFT + 110, at_y(level.value) - 5), level.label, css="mark"))
    lines: dict[str, list[Point]] = {}
    for point in shown:
        if point.line:
            lines.setdefault(point.line, []).append(point)
    for line in lines.values():
        where = " ".join(f"{at_x(point.x):.1f},{at_y(point.y):.1f}" for point in line)
        parts.append(Markup('<polyline class="line c{}" points="{}"/>').format(line[0].color, where))
    for point in shown:
        shape = '<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="5"><title>{}: {:.4g}, {:.4g}</title></circle>'
        px, py = at_x(point.x), at_y(point.y)
        parts.append(Markup(shape).format(point.color, px, py, point.label, point.x, point.y))
        anchor, dx, length = (
            ("end", -9, -6.6 * len(point.label)) if px > WIDTH / 2 else ("start", 9, 6.6 * len(point.label))
        )
        left, right = sorted((px + dx, px + dx + length))
        parts.append(_text(px + dx, _free(taken, left, right, py - 7), point.label, anchor=anchor, css="mark"))
    return _svg(parts, height, title)


def bars(rows: Sequence[Bar], *, title: str, digits: int = 3, beside: bool = False) -> Markup:
    """Draw horizontal bars with their values written out; labels stand above the bars, or `beside` them."""
    shown = [bar for bar in rows if math.isfinite(bar.value)]
    if not shown:
        return _nothing(title)
    top = max(max(bar.value, bar.high or 0) for bar in shown) or 1.0
    left, step, drop = (150, 27, 0) if beside else (0, 44, 16)
    wide = WIDTH - 66 - left
    parts: list[Markup] = []
    for number, bar in enumerate(shown):
        y = 8 + number * step + drop
        label = bar.label if len(bar.label) <= 20 or not beside else bar.label[:19] + "…"
        parts.append(_text(0, y + (11 if beside else -6), label, css="name"))
        parts.append(Markup('<rect class="track" x="{}" y="{}" width="{}" height="14" rx="4"/>').format(left, y, wide))
        shape = '<rect class="fill c{}" x="{}" y="{}" width="{:.1f}" height="14" rx="4"><title>{}</title></rect>'
        hint = f"{bar.label}: {bar.value:.{digits}f}"
        parts.append(Markup(shape).format(bar.color, left, y, max(0.0, bar.value / top * wide), hint))
        if bar.low is not None and bar.high is not None and math.isfinite(bar.low + bar.high):
            low, high = left + bar.low / top * wide, left + bar.high / top * wide
            shape = '<path class="whisker" d="M{0:.1f} {2}H{1:.1f}M{0:.1f} {3}v6M{1:.1f} {3}v6"/>'
            parts.append(Markup(shape).format(low, high, y + 7, y + 4))
        parts.append(_text(WIDTH - 2, y + 12, f"{bar.value:,.{digits}f}", anchor="end", css="value"))
    return _svg(parts, 8 + step * len(shown), title)


def forest(rows: Sequence[Bar], *, title: str, digits: int = 2) -> Markup:
    """Draw each value as a dot with its whisker on one axis with 0 on it, the values written out."""
    shown = [bar for bar in rows if bar.low is not None and bar.high is not None and math.isfinite(bar.low + bar.high)]
    if not shown:
        return _nothing(title)
    step, height = 28, 16 + 28 * len(shown) + 26
    at = _scale([0.0, *(bar.low or 0.0 for bar in shown), *(bar.high or 0.0 for bar in shown)], 66, WIDTH - 72)
    parts: list[Markup] = []
    for tick in at.ticks:
        parts.append(Markup('<path class="grid" d="M{:.1f} 8V{}"/>').format(at(tick), height - 24))
        parts.append(_text(at(tick), height - 10, f"{tick:.4g}", anchor="middle", css="tick"))
    parts.append(Markup('<path class="axis" d="M{:.1f} 8V{}"/>').format(at(0.0), height - 24))
    for number, bar in enumerate(shown):
        y, (low, high) = 22 + number * step, (at(bar.low or 0.0), at(bar.high or 0.0))
        parts.append(_text(0, y + 4, bar.label, css="name"))
        shape = '<path class="whisker" d="M{0:.1f} {2}H{1:.1f}M{0:.1f} {3}v6M{1:.1f} {3}v6"/>'
        parts.append(Markup(shape).format(low, high, y, y - 3))
        parts.append(Markup('<circle class="dot c{}" cx="{:.1f}" cy="{}" r="5"/>').format(bar.color, at(bar.value), y))
        parts.append(_text(WIDTH - 2, y + 4, f"{bar.value:+.{digits}f}", anchor="end", css="value"))
    return _svg(parts, height, title)


def ridges(rows: Mapping[str, Sequence[float]], *, x: str, title: str, bins: int = 44) -> Markup:
    """Draw one histogram a row on a shared logarithmic axis, with each row's median."""
    kept = {label: sorted(value for value in values if value > 0) for label, values in rows.items()}
    kept = {label: values for label, values in kept.items() if values}
    if not kept:
        return _nothing(title)
    low = math.floor(math.log10(min(values[0] for values in kept.values())))
    high = max(low + 1, math.log10(max(values[-1] for values in kept.values())) * 1.01)
    step, base = 74, 60

    def at(value: float) -> float:
        return 6 + (math.log10(value) - low) / (high - low) * (WIDTH - 12)

    height = base + step * (len(kept) - 1) + 44
    parts: list[Markup] = []
    for power in range(low, math.floor(high) + 1):
        parts.append(Markup('<path class="grid" d="M{:.1f} 10V{}"/>').format(at(10.0**power), height - 38))
        parts.append(_text(at(10.0**power), height - 24, f"{10**power:,}", anchor="middle", css="tick"))
    for number, (label, values) in enumerate(kept.items()):
        bottom = base + number * step
        counts = [0] * bins
        for value in values:
            counts[min(bins - 1, int((math.log10(value) - low) / (high - low) * bins))] += 1
        wide = (WIDTH - 12) / bins
        shape = "".join(
            f"M{6 + slot * wide:.1f} {bottom}v-{count / max(counts) * 40:.1f}h{wide:.2f}V{bottom}z"
            for slot, count in enumerate(counts)
            if count
        )
        parts.append(Markup('<path class="fill c{}" d="{}"/>').format(number % COLORS, shape))
        parts.append(Markup('<path class="axis" d="M6 {}H{}"/>').format(bottom, WIDTH - 6))
        middle = _median(values)
        parts.append(Markup('<path class="median" d="M{:.1f} {}v-46"/>').format(at(middle), bottom))
        parts.append(_text(8, bottom - 46, label, css="name"))
        anchor, dx = ("end", -5) if at(middle) > WIDTH * 0.6 else ("start", 5)
        parts.append(_text(at(middle) + dx, bottom - 38, f"median {middle:,.0f}", anchor=anchor, css="mark"))
    parts.append(_text(WIDTH / 2, height - 6, x, anchor="middle", css="label"))
    return _svg(parts, height, title)


def curve(series: Mapping[str, Sequence[float]], *, x: str, y: str, title: str, lowest: bool = False) -> Markup:
    """Draw one line a series over 1, 2, 3, ..., with the best (highest, or `lowest`) point of each marked."""
    height = 260
    kept = {name: [value for value in values if math.isfinite(value)] for name, values in series.items()}
    kept = {name: values for name, values in kept.items() if values}
    if not kept:
        return _nothing(title)
    at_x = _scale([1.0, float(max(len(values) for values in kept.values()))], LEFT + 4, WIDTH - RIGHT - 10, whole=True)
    at_y = _scale([value for values in kept.values() for value in values], height - BOTTOM - 6, TOP + 14)
    parts = _grid(at_x, at_y, height, x=x, y=y)
    for number, (name, values) in enumerate(kept.items()):
        where = " ".join(f"{at_x(place):.1f},{at_y(value):.1f}" for place, value in enumerate(values, start=1))
        parts.append(Markup('<polyline class="line c{}" points="{}"/>').format(number % COLORS, where))
        best = (min if lowest else max)(range(len(values)), key=values.__getitem__)
        px, py = at_x(best + 1), at_y(values[best])
        parts.append(Markup('<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="5"/>').format(number % COLORS, px, py))
        label = f"{name} {values[best]:.4g}" if len(kept) > 1 else f"{values[best]:.4g}"
        parts.append(_text(px, py - 9, label, anchor="end" if px > WIDTH * 0.6 else "start", css="mark"))
    return _svg(parts, height, title)


def timeline(lanes: Sequence[Lane], *, start: date, end: date, title: str) -> Markup:
    """Draw spans of days on a calendar axis, one lane a row."""
    days = max(1, (end - start).days)
    wide, step = 860, 34

    def at(day: date) -> float:
        return 4 + min(1.0, max(0.0, (day - start).days / days)) * (wide - 8)

    height = 10 + step * len(lanes) + 24
    parts: list[Markup] = []
    for tick in _months(start, end):
        parts.append(Markup('<path class="grid" d="M{:.1f} 4V{}"/>').format(at(tick), height - 22))
        parts.append(_text(at(tick) + 3, height - 8, f"{tick:%b %y}", css="tick"))
    for number, lane in enumerate(lanes):
        y = 10 + number * step
        parts.append(_text(4, y + 9, lane.label, css="name"))
        parts.append(
            Markup('<rect class="track" x="4" y="{}" width="{}" height="10" rx="3"/>').format(y + 15, wide - 8)
        )
        for first, last in lane.spans:
            length = max(3.0, at(last) - at(first))
            shape = (
                '<rect class="fill c{}" x="{:.1f}" y="{}" width="{:.1f}" height="10" rx="2"><title>{}</title></rect>'
            )
            label = f"{first}" if (last - first).days <= 1 else f"{first} to {last - timedelta(days=1)}"
            x = min(at(first), wide - 4 - length)
            parts.append(Markup(shape).format(lane.color % COLORS, x, y + 15, length, label))
    return _svg(parts, height, title, width=wide)


def _months(start: date, end: date) -> list[date]:
    """First days of months, at most about seven."""
    months = [
        date(year, month, 1)
        for year in range(start.year, end.year + 1)
        for month in range(1, 13)
        if start <= date(year, month, 1) < end - timedelta(days=20)
    ]
    return months[:: max(1, math.ceil(len(months) / 7))]


class _Scale(NamedTuple):
    place: Callable[[float], float]
    ticks: list[float]

    def __call__(self, value: float) -> float:
        return self.place(value)


def _scale(values: Sequence[float], first: float, last: float, *, whole: bool = False) -> _Scale:
    low, high = min(values), max(values)
    if high == low:
        low, high = low - (abs(low) or 1.0) * 0.1, high + (abs(high) or 1.0) * 0.1
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in (1, 2, 2.5, 5, 10) if power * one >= rough)
    if whole:
        step = max(1.0, round(step))
    ticks = [tick * step for tick in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return _Scale(lambda value: first + (value - low) / (high - low) * (last - first), ticks)


def _grid(at_x: _Scale, at_y: _Scale, height: int, *, x: str, y: str) -> list[Markup]:
    parts: list[Markup] = []
    for tick in at_y.ticks:
        parts.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(LEFT, at_y(tick), WIDTH - RIGHT))
        parts.append(_text(LEFT - 6, at_y(tick) + 4, f"{tick:.4g}", anchor="end", css="tick"))
    parts.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(LEFT, height - BOTTOM, WIDTH - RIGHT))
    for tick in at_x.ticks:
        parts.append(_text(at_x(tick), height - BOTTOM + 16, f"{tick:.4g}", anchor="middle", css="tick"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, height - 6, x, anchor="middle", css="label"))
    parts.append(_text(2, TOP - 2, y, css="label"))
    return parts


def _free(taken: list[tuple[float, float, float]], left: float, right: float, wanted: float) -> float:
    """The nearest height to `wanted` where a label from `left` to `right` meets no earlier one."""
    for offset in (0, 13, -13, 26, -26, 39, 52, 65):
        y = wanted + offset
        if all(right < a or left > b or abs(y - c) >= 12 for a, b, c in taken):
            break
    taken.append((left, right, y))
    return y


def _median(values: Sequence[float]) -> float:
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _text(x: float, y: float, text: str, *, anchor: str = "start", css: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(css, x, y, anchor, text)


def _nothing(title: str) -> Markup:
    return _svg([_text(WIDTH / 2, 44, "nothing to show in this run", anchor="middle", css="label")], 80, title)


def page(plots: Sequence[Markup]) -> str:
    """Put plots below each other into one SVG document of its own, with the few styles that it needs."""
    heights = [float(re.findall(r'viewBox="0 0 \d+ ([\d.]+)"', plot)[0]) for plot in plots]
    placed = [
        Markup('<svg y="{:.0f}" height="{:.0f}" {}').format(sum(heights[:row]), height, Markup(plot[len("<svg ") :]))
        for row, (plot, height) in enumerate(zip(plots, heights, strict=True))
    ]
    return Markup('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {:.0f}"><style>{}</style>{}</svg>\n').format(
        WIDTH, sum(heights), Markup(_STYLE), Markup("").join(placed)
    )


_STYLE = (
    "text{font:12px sans-serif;fill:#555}.line{fill:none;stroke-width:2}.grid,.axis{stroke:#ccc;fill:none}"
    ".c0{stroke:#2563eb}.c1{stroke:#b45309}.c2{stroke:#15803d}.dot{fill:#fff;stroke-width:2}"
)


def _svg(parts: Sequence[Markup], height: float, title: str, *, width: int = WIDTH) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        width, height, title, Markup("").join(parts)
    )
