"""Commands of alignment: `recgpt align curriculum` and `report`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from recgpt.cli.commands import AsJson, ConfigFile
from recgpt.errors import AlignmentError

commands = typer.Typer(
    help="Make a model that knows the shop (sections 2.1.2 and 2.2.2, Appendix C).", no_args_is_help=True
)


@commands.command()
def curriculum(
    config: ConfigFile,
    scale: Annotated[float, typer.Option(help="The report's counts are multiplied by it.")] = 1.0,
    order: Annotated[str, typer.Option(help="topological or shuffled.")] = "topological",
    subtask: Annotated[list[str] | None, typer.Option("--subtask", help="One subtask; may be repeated.")] = None,
    hold_out: Annotated[
        Path | None, typer.Option("--hold-out", help="A file of user ids, one a line, who are kept for judging.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides what is drawn.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Build training samples of 16 subtasks from the run's data, without the days that it is judged on."""
    from recgpt.alignment import run
    from recgpt.cli import render

    built, path = run.curriculum(
        config, scale=scale, seed=seed, only=subtask, order=order, held_out=ids(hold_out) if hold_out else ()
    )
    rows = run.listed(built)
    if as_json:
        typer.echo(json.dumps({"samples": len(built.samples), "subtasks": rows, "file": str(path)}))
    else:
        render.curriculum(rows, path)


@commands.command()
def report(
    config: ConfigFile,
    adapters: Annotated[
        Path | None, typer.Option(help="A folder of interests.gguf, tags.gguf, explanations.gguf, judge.gguf.")
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Measure the base alone, without adapters.")] = False,
    users: Annotated[int, typer.Option(min=2, help="Held-out households.")] = 240,
    shoppers: Annotated[int, typer.Option(min=2, help="Shoppers of the planted world.")] = 40,
    texts: Annotated[int, typer.Option(min=2, help="Explanations.")] = 160,
    examples: Annotated[int, typer.Option(min=0, help="Shoppers whose texts stand side by side.")] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would cost; keep nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure base and aligned on held-out users, in the form of the paper's Tables 2, 4, 5, 7 and 9."""
    from recgpt.alignment import report as reports
    from recgpt.cli import aligned
    from recgpt.cli.watch import Terminal

    if base == (adapters is not None):
        raise AlignmentError("give either --adapters FOLDER, or --base to measure the base alone")
    sizes = reports.Sizes(users=users, shoppers=shoppers, texts=texts, examples=examples)
    if dry_run:
        planned = reports.plan(config, folder=adapters, sizes=sizes)
        said = {stage: dataclasses.asdict(tally) for stage, tally in planned.items()}
        typer.echo(json.dumps(said)) if as_json else aligned.plan(planned)
        return
    found = reports.report(config, folder=adapters, sizes=sizes, watch=Terminal())
    typer.echo(json.dumps(found)) if as_json else aligned.report(found)


def ids(path: Path) -> list[str]:
    """Read user ids, one a line.

    Raises:
        AlignmentError: the file cannot be read, or holds none.
    """
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise AlignmentError(f"a file of user ids was expected at {path}, but it cannot be read: {error}") from error
    if not found:
        raise AlignmentError(f"{path} holds no user id; write one a line, or leave out --hold-out")
    return found
