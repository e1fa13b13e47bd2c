"""Commands that compare two arms: from logs of exposures, or from a simulation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from recgpt.cli.commands import AsJson, app

Html = Annotated[Path | None, typer.Option(help="Write the page here.")]


@app.command()
def ab(
    first: Annotated[Path, typer.Argument(help="Exposures of the base arm, Parquet or CSV.")],
    second: Annotated[Path, typer.Argument(help="Exposures of the other arm.")],
    items: Annotated[Path | None, typer.Option(help="The catalogue: item_id, title, category, brand.")] = None,
    popularity: Annotated[
        Path | None, typer.Option(help="Events before the test, or item_id and count: groups of the Matthew curves.")
    ] = None,
    share: Annotated[float, typer.Option(help="Part of all users that was meant for the first arm.")] = 0.5,
    effect: Annotated[
        float | None, typer.Option(help="Relative change looked for, such as 0.02; else the paper's of each metric.")
    ] = None,
    zone: Annotated[str, typer.Option(help="Where days begin, an IANA name.")] = "UTC",
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Compare two arms by their logs of exposures: lifts with intervals, sample ratio, Matthew effect, repetition."""
    from recgpt.cli.proof import show
    from recgpt.evaluation import desk
    from recgpt.evaluation.desk.arms import read

    names = (first.stem, second.stem) if first.stem != second.stem else ("A", "B")
    found = desk.compare(
        first,
        second,
        read(items) if items else None,
        names=names,
        popularity=read(popularity) if popularity else None,
        share=share,
        effect=effect,
        zone=zone,
    )
    if html is not None:
        desk.write(html, found)
    typer.echo(json.dumps(found.figures())) if as_json else show(found)


@app.command()
def simulate(
    users: Annotated[int, typer.Option(min=4, help="Shoppers, half of them an arm.")] = 200,
    items: Annotated[int, typer.Option(min=60, help="Goods of the shop.")] = 600,
    days: Annotated[int, typer.Option(min=1, help="Days of the loop.")] = 30,
    beta: Annotated[float, typer.Option(min=0, max=1, help="The recgpt arm's weight of the user tower.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """SIMULATION: let item-kNN and recgpt serve a planted world's shoppers in a closed loop, and compare them."""
    from recgpt.cli.proof import show
    from recgpt.evaluation import desk
    from recgpt.pipeline import simulation

    found = simulation.simulate(
        users=users,
        items=items,
        days=days,
        beta=beta,
        seed=seed,
        step=lambda day: typer.echo(f"simulation    day {day} of {days}", err=True),
    )
    if html is not None:
        desk.write(html, found.desk, title="Closed loop", days=found.plots())
    typer.echo(json.dumps(found.figures())) if as_json else show(found.desk)
