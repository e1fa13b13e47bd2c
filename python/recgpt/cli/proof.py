"""Shows a replay and the A/B desk on a terminal, and writes their pages."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from recgpt.cli.render import listing
from recgpt.errors import InvalidConfigError

if TYPE_CHECKING:
    from recgpt.evaluation.desk import Desk


def replay(
    bundles: Path,
    data: str,
    *,
    time_zone: str | None,
    columns: list[str],
    now: str | None,
    k: int,
    html: Path | None,
    as_json: bool,
) -> None:
    """Replay a bundle on a log and print what came of it."""
    from recgpt import pipeline
    from recgpt.evaluation import replay_page

    wrong = [one for one in columns if one.count("=") != 1]
    if wrong:
        raise InvalidConfigError(f"--column must be OWN=OURS, such as users.country=attributes, but it is {wrong[0]!r}")
    try:
        moment = None if now is None else datetime.fromisoformat(now)
    except ValueError:
        raise InvalidConfigError(f"--now must be a time such as 2011-11-11T00:00+00:00, but it is {now!r}") from None
    named = pipeline.data_of(data, time_zone=time_zone, columns=dict(one.split("=") for one in columns))
    console = Console(stderr=True, highlight=False)

    def step(what: str) -> None:
        console.print(Text(f"replay        {what}", style="dim"))

    found = pipeline.replay(bundles, named, now=moment, k=k, step=step)
    if html is not None:
        replay_page.write(html, found)
    if as_json:
        typer.echo(json.dumps(found.figures()))
        return
    _cautions(found.figures()["cautions"])
    cells = []
    for row in found.rows:
        cell: dict[str, Any] = {"segment": row.segment, "users": row.users, "ranker": row.ranker}
        measures = dict.fromkeys(name for one in found.rows for name in one.figures)
        # Intervals of every segment stand on the page and in --json; here they would be three screens.
        short = row.segment != "all"
        cells.append(cell | {name: _estimate(row.figures.get(name), short=short) for name in measures})
    listing(
        Console(width=160, highlight=False),
        f"held out: {found.users:,} users, {found.cold:,} cold",
        tuple(cells[0]),
        cells,
    )
    tests: list[dict[str, Any]] = [
        {
            "measure": one.measure,
            "recgpt minus": one.baseline,
            "difference": _estimate(one.paired.difference, signed=True),
            "p, Holm": f"{one.adjusted:.4f}",
            "better": one.paired.better,
            "worse": one.paired.worse,
        }
        for one in found.tests
        if one.segment == "all"
    ]
    listing(Console(width=120, highlight=False), "user by user", tuple(tests[0]) if tests else (), tests)
    sweep = [row.figures(found.k) for row in found.sweep]
    listing(Console(highlight=False), "beta", tuple(sweep[0]) if sweep else (), sweep)


def show(desk: Desk) -> None:
    """Print the desk: cautions first, then Table 8, tiers, curves, repetition and policies."""
    console = Console(width=140, highlight=False)
    if desk.simulation:
        console.print("SIMULATION: shoppers, clicks and lifts are a program's")
    first, second = desk.names
    counts = zip(desk.names, desk.users, desk.exposures, strict=True)
    told = "; ".join(f"{name}: {users:,} users, {shown:,} exposures" for name, users, shown in counts)
    console.print(Text(f"{told}; chance of so uneven a split {desk.split:.4f}"), soft_wrap=True)
    figures = desk.figures()
    _cautions(figures["cautions"])
    _lifts(console, f"{second} against {first}", figures["lifts"], desk.names)
    for tier in figures["tiers"]:
        _lifts(
            console,
            f"tier {tier['tier']}: {tier['users'][0]:,} and {tier['users'][1]:,} users",
            tier["lifts"],
            desk.names,
        )
    slopes = [
        {"by": one["by"], "arm": name, "CTR": one[name]["ctr_slope"], "page views": one[name]["page_view_slope"]}
        for one in figures["matthew"]
        for name in desk.names
    ]
    listing(console, "Matthew effect: slopes over popularity", ("by", "arm", "CTR", "page views"), slopes)
    repeats = [
        {
            "by": one.by,
            "places": f"top {one.k}" if one.k else "whole",
            "ads": "with" if one.ads else "without",
            first: f"{one.first.value:.1%}",
            second: f"{one.second.value:.1%}",
            "points": f"{100 * one.points.value:+.2f} ({100 * one.points.low:+.2f} to {100 * one.points.high:+.2f})",
        }
        for one in desk.repetition
    ]
    listing(console, "repeated places of a page", ("by", "places", "ads", first, second, "points"), repeats)
    policies = [
        {
            "log of": one.log,
            "own CTR": f"{one.own.value:.5f}",
            "IPS of the other": f"{one.ips.value:.5f}",
            "SNIPS": f"{one.snips.value:.5f}",
            "the other's own": f"{one.other.value:.5f}",
            "effective exposures": round(one.effective),
        }
        for one in desk.policies
    ]
    if policies:
        listing(console, "one policy from the other's log", tuple(policies[0]), policies)


def _lifts(console: Console, title: str, found: list[dict[str, Any]], names: tuple[str, str]) -> None:
    cells = []
    for one in found:
        lift = one["lift"]
        cells.append(
            {
                "metric": one["metric"],
                names[0]: f"{one['first']['value']:.4f}",
                names[1]: f"{one['second']['value']:.4f}",
                "lift": "-" if lift is None else f"{lift['value']:+.2%}",
                "95 %": "-" if lift is None or lift["low"] is None else f"{lift['low']:+.2%} to {lift['high']:+.2%}",
                "p, Holm": "-" if lift is None else f"{one['adjusted']:.4f}",
                "can find": "-" if lift is None else f"{one['detectable']:.2%}",
                "looked for": f"{one['effect']:.2%}",
                "users an arm": one["needed"],
            }
        )
    listing(console, title, tuple(cells[0]), cells)


def _cautions(found: list[dict[str, Any]]) -> None:
    console = Console(highlight=False)
    for one in found:
        console.print(Text(f"! {one['name'].replace('_', ' ')}: {one['text']}"), soft_wrap=True)
    if found:
        console.print()


def _estimate(one: Any, *, signed: bool = False, short: bool = False) -> str:
    if one is None:
        return "-"
    if short:
        return f"{one[0]:.3f}"
    return "{:{s}.3f} ({:{s}.3f} to {:{s}.3f})".format(*one, s="+" if signed else "")
