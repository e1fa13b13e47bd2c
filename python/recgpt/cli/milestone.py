"""Commands of the people behind the judge: `recgpt judge milestone` and `recgpt judge card`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from recgpt.cli.commands import AsJson, ConfigFile
from recgpt.cli.judge import commands, left_out

if TYPE_CHECKING:
    from recgpt.pipeline.milestones import Milestone


@commands.command()
def milestone(
    config: ConfigFile,
    open_now: Annotated[bool, typer.Option("--open", help="Open one although none is due.")] = False,
    close_now: Annotated[
        bool, typer.Option("--close", help="Close the open one with the labels that are there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Open a milestone where one is due, show how far it is, or close it: does the judge still agree with people?"""
    from recgpt import pipeline
    from recgpt.pipeline import milestones, reviewing

    settings = pipeline.load(config)
    # Asked first: where nothing was ever judged, nothing is left behind.
    reviewing.existing(settings)
    found = milestones.visit(settings, open_now=open_now, close_now=close_now)
    typer.echo(json.dumps(dataclasses.asdict(found))) if as_json else show(found)


@commands.command()
def probe(
    config: ConfigFile,
    limit: Annotated[int | None, typer.Option(min=1, help="Most samples a task, instead of the file's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what sways the judge and should not: position, length, demands in a text. The card has it then."""
    from recgpt import pipeline
    from recgpt.cli.render import listing
    from recgpt.cli.watch import Terminal
    from recgpt.pipeline import probing

    settings, watch = pipeline.load(config), Terminal()
    try:
        watch.begin("probe", "measuring")
        found = probing.probe(settings, limit=limit, progress=watch.progress)
    finally:
        watch.stop()
    if as_json:
        typer.echo(json.dumps(found))
        return
    rows = [
        {
            "criterion": key,
            "verdicts": one["verdicts"],
            "position": _share(one["position"]),
            "length": "-" if one["length"] is None else f"{one['length']:+.2f}",
            "demand": _share(one["injections"]),
        }
        for key, one in found["criteria"].items()
    ]
    title = f"{found['judge']}: {found['samples']} samples, {found['demands']} demands"
    columns = ("criterion", "verdicts", "position", "length", "demand")
    listing(Console(highlight=False), title, columns, rows, whole=("criterion",))
    typer.echo("position: verdicts that turn when the scale is named backward; length: Spearman with the score;")
    typer.echo("demand: verdicts that turn when the text ends in one, such as `Answer Yes.`")


@commands.command()
def annotators(
    place: Annotated[Path, typer.Argument(metavar="CONFIG-or-BUFFER", help="A run's TOML file, or a buffer's file.")],
    criteria: Annotated[Path | None, typer.Option(help="A folder of your own criteria, TASK/NAME.toml.")] = None,
    as_json: AsJson = False,
) -> None:
    """List who labeled how much, how fast, and how well by gold questions: who errs more than a careful person."""
    from recgpt import pipeline
    from recgpt.cli.render import listing
    from recgpt.judge import gold
    from recgpt.pipeline import reviewing

    where = pipeline.load(place) if place.suffix == ".toml" else place
    buffer, known = reviewing.existing(where, criteria)
    found, left = gold.standings(buffer.labels(known)), left_out(buffer, known)
    if as_json:
        typer.echo(json.dumps({"annotators": [dataclasses.asdict(one) for one in found], "answers_left_out": left}))
        return
    rows = [
        {
            "annotator": one.annotator,
            "samples": one.samples,
            "labels": one.labels,
            "seconds a sample": "-" if one.seconds is None else f"{one.seconds:.1f}",
            "gold wrong": f"{one.wrong} of {one.gold}",
            "found at 5 % errors": f"{gold.power(0.05, one.gold):.0%}",
            "": f"errs more than a careful person (p = {one.p:.2g})" if one.careless else "",
        }
        for one in found
    ]
    columns = ("annotator", "samples", "labels", "seconds a sample", "gold wrong", "found at 5 % errors", "")
    listing(Console(highlight=False), "annotators", columns, rows)


@commands.command()
def card(
    config: ConfigFile,
    html: Annotated[
        Path | None, typer.Option(help="Write the page here; else judge/card-VERSION.html in `out`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the judge's card: model, prompts, thresholds, data, agreement with people, known failures."""
    from recgpt import pipeline
    from recgpt.pipeline import judge_card

    settings = pipeline.load(config)
    found = judge_card.gather(settings)
    path = judge_card.write(html, found) if html else judge_card.keep(settings, found)
    typer.echo(json.dumps(found) if as_json else f"{path} and {path.with_suffix('.json')}")


def show(found: Milestone) -> None:
    """Print a milestone for people."""
    console = Console(width=max(Console().width, 120), highlight=False)

    def say(text: str) -> None:
        console.print(Text(text), soft_wrap=True)

    late = ", OVERDUE" if found.overdue else ""
    console.rule(Text(f"milestone: {found.state}{late}", style="bold"))
    say(f"judge {found.judge}")
    for why in found.why:
        say(f"- {why}")
    for task, plan in found.plans.items():
        say(
            f"{task:<13} {plan['labels']} of {plan['outputs']} outputs to label; expected interval +-"
            f"{plan['half_width']:.3f}, drawn at random it would be +-{plan['half_width_at_random']:.3f}"
        )
    if found.state in ("opened", "open"):
        say(
            f"{found.labeled} of {found.asked} samples are labeled; label the others with `recgpt judge review`, or "
            "close the milestone with what is there (--close), as where everybody skipped some"
        )
    for reason, count in found.skipped.items():
        say(f"- skipped {count} times and answered by nobody yet: {reason}")
    _figures(console, "the milestone before", found.last)
    _figures(console, "before: the judge as it judged", found.before)
    _figures(console, "after: calibrated on these labels too, each fifth by the others", found.after)
    for fall in found.falls:
        say(f"- degraded: {fall}")
    for key, why in found.withheld.items():
        say(f"- {key}: {why}")
    if found.next:
        say(f"the next one is due on {found.next}")


def _figures(console: Console, title: str, figures: Mapping[str, Mapping[str, Any]]) -> None:
    from recgpt.cli.render import listing

    rows, classes = [], []
    for key, one in figures.items():
        passes, new = one["passes"], one["false_rejects_novel"]
        # Milestones of before have intervals for accuracy and kappa only.
        spread = one.get("intervals", {})
        rows.append(
            {
                "of": key,
                "labels": one["labels"],
                "accuracy": _number(passes["accuracy"], passes["accuracy_interval"]),
                **{name: _number(one[name], spread.get(name)) for name in ("precision", "recall", "f1")},
            }
        )
        classes.append(
            {
                "of": key,
                "kappa": _number(passes["kappa"], passes["kappa_interval"]),
                "by class: precision / recall of labels": "; ".join(
                    f"{name} {_number(part['precision'])} / {_number(part['recall'])} of {part['count']}"
                    for name, part in (one["words"] or passes)["by_class"].items()
                ),
                "novel: false rejects": f"{new['rejected']} of {new['passing']}" if new["passing"] else "-",
            }
        )
    if rows:
        listing(console, title, tuple(rows[0]), rows, whole=("of",))
        listing(console, "the same by class, and what is novel", tuple(classes[0]), classes, whole=("of",))
        kinds = {key: one["averaging"] for key, one in figures.items() if "/" not in key}
        said = ", ".join(f"{key} {kind}" for key, kind in kinds.items())
        console.print(Text(f"precision, recall, F1: {said}; in brackets 95 % intervals"))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")
