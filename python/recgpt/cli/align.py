"""Commands of alignment: `recgpt align curriculum`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from recgpt.cli.commands import AsJson, ConfigFile
from recgpt.errors import AlignmentError

commands = typer.Typer(
    help="Make a model that knows the shop (sections 2.1.2 and 2.2.2, Appendix C).", no_args_is_help=True
)


@commands.callback()
def _one_command_is_a_group_too() -> None:
    """Typer would take a single command for the whole group."""


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
