"""The command that trains the judge: `recgpt align judge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from recgpt.cli.align import commands, ids
from recgpt.cli.commands import AsJson, ConfigFile
from recgpt.cli.training import BaseModel, base_of, settings_of


@commands.command()
def judge(
    config: ConfigFile,
    out: Annotated[Path, typer.Option("--out", help="The adapter to write, NAME.gguf; NAME.json goes beside it.")],
    labels: Annotated[
        Literal["people", "world"],
        typer.Option(help="people: of the run's buffer; world: by the truth of planted worlds, where nobody labeled."),
    ] = "people",
    hold_out_round: Annotated[
        list[int] | None, typer.Option("--hold-out-round", help="A round to measure on; the last one by default.")
    ] = None,
    hold_out: Annotated[
        Path | None, typer.Option("--hold-out", help="A file of user ids, one a line, who are kept for judging.")
    ] = None,
    per_class: Annotated[
        int | None, typer.Option(min=1, help="Labels of each class and criterion; by default of the rarest.")
    ] = None,
    half_life: Annotated[float, typer.Option(help="Rounds after which half as much of a round is kept.")] = 1.0,
    worlds: Annotated[int, typer.Option(help="world: how many to learn from.")] = 3,
    users: Annotated[int, typer.Option(help="world: shoppers of all of them together.")] = 120,
    seed: Annotated[int, typer.Option(help="world: of the first one.")] = 100,
    base: BaseModel = "smollm2",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the training, such as rank=16.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train the judge on rebalanced labels, and compare it with its base on a round that it has not seen."""
    from recgpt.alignment import judge_training
    from recgpt.alignment.report.tables import judge_tables
    from recgpt.cli.render import listing
    from recgpt.cli.watch import Terminal

    chosen = settings_of(settings or [], judge_training.SETTINGS)
    watch = Terminal()
    try:
        found = judge_training.make(
            config,
            out,
            base=base_of(base),
            source=labels,
            rounds=hold_out_round or None,
            users=ids(hold_out) if hold_out else (),
            per_class=per_class,
            half_life=half_life,
            settings=chosen,
            seed=seed,
            worlds=worlds,
            shoppers=users,
            watch=watch,
        )
    finally:
        watch.stop()
    if as_json:
        typer.echo(json.dumps(found))
        return
    console = Console(width=max(Console().width, 140), highlight=False)
    for table in judge_tables(found):
        console.print(Text(table.note), soft_wrap=True)
        listing(console, table.title, table.columns, [dict(zip(table.columns, row, strict=True)) for row in table.rows])
    for key, why in found["about"]["left_out"].items():
        console.print(Text(f"- left out: {key}: {why}"), soft_wrap=True)
    console.print(Text(f"- {found['file']}, {out}"), soft_wrap=True)
