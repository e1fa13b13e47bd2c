"""Commands of alignment: `recgpt align curriculum` and `recgpt align incremental`."""

from __future__ import annotations

import json
from datetime import datetime
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
        config, scale=scale, seed=seed, only=subtask, order=order, held_out=_ids(hold_out) if hold_out else ()
    )
    rows = run.listed(built)
    if as_json:
        typer.echo(json.dumps({"samples": len(built.samples), "subtasks": rows, "file": str(path)}))
    else:
        render.curriculum(rows, path)


@commands.command()
def incremental(
    config: ConfigFile,
    until: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The window's end; by default where the run's own judging begins."),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Go on from it; by default llm.adapters.tags, else the base.")
    ] = None,
    users: Annotated[int, typer.Option(help="Learn from so many users at most.", min=1)] = 200,
    hold_out: Annotated[
        Path | None, typer.Option("--hold-out", help="A file of user ids, one a line, who are kept for judging.")
    ] = None,
    only_samples: Annotated[bool, typer.Option("--only-samples", help="Write the samples; do not train.")] = False,
    seed: Annotated[int, typer.Option(help="Decides what is drawn.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Learn what users did in the last 14 days (section 2.2.2): write the window's samples and the next adapter."""
    from recgpt.alignment import incremental as window
    from recgpt.alignment import update
    from recgpt.cli import render

    made = update.update(
        config,
        until=until,
        current=adapter,
        held_out=_ids(hold_out) if hold_out else (),
        settings=window.Config(users=users, seed=seed),
        only_samples=only_samples,
    )
    if as_json:
        adapter_file = str(made.adapter) if made.adapter else None
        found = {"until": made.until.isoformat(), "counts": made.window.counts, "samples": str(made.samples)}
        typer.echo(json.dumps({**found, "adapter": adapter_file}))
    else:
        render.incremental(made.window.counts, [made.samples, *([made.adapter] if made.adapter else [])])


def _ids(path: Path) -> list[str]:
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise AlignmentError(f"a file of user ids was expected at {path}, but it cannot be read: {error}") from error
    if not found:
        raise AlignmentError(f"{path} holds no user id; write one a line, or leave out --hold-out")
    return found
