"""Commands of alignment: `recgpt align curriculum`, `teach` and `self-train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from recgpt.cli.commands import AsJson, ConfigFile
from recgpt.errors import AlignmentError

commands = typer.Typer(
    help="Make a model that knows the shop (sections 2.1.2 and 2.2.2, Appendix C).", no_args_is_help=True
)

HoldOut = Annotated[
    Path | None, typer.Option("--hold-out", help="A file of user ids, one a line, who are kept for judging.")
]


@commands.command()
def curriculum(
    config: ConfigFile,
    scale: Annotated[float, typer.Option(help="The report's counts are multiplied by it.")] = 1.0,
    order: Annotated[str, typer.Option(help="topological or shuffled.")] = "topological",
    subtask: Annotated[list[str] | None, typer.Option("--subtask", help="One subtask; may be repeated.")] = None,
    hold_out: HoldOut = None,
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
def teach(
    config: ConfigFile,
    teacher: Annotated[
        Literal["world", "engine"],
        typer.Option(help="world knows the truth of generated worlds; engine is the configuration's, on its own log."),
    ] = "world",
    seed: Annotated[int, typer.Option(help="Of the first world.")] = 100,
    worlds: Annotated[int, typer.Option(help="How many worlds, each at another time of the year.")] = 1,
    users: Annotated[int | None, typer.Option(help="Shoppers of all worlds together, or drawn from the log.")] = None,
    mode: Annotated[Literal["rank", "generate"], typer.Option(help="Which prompts a world answers.")] = "rank",
    hold_out: HoldOut = None,
    judge: Annotated[bool, typer.Option("--judge", help="Let the engine judge, too, where no rule decides.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a teacher answer the stages' own prompts; what rules, judge and people let through becomes samples."""
    from recgpt.alignment import teacher as teachers
    from recgpt.cli import render
    from recgpt.cli.watch import Terminal

    watch = Terminal()
    try:
        taught = teachers.teach(
            config,
            teacher=teacher,
            seed=seed,
            worlds=worlds,
            users=users,
            mode=mode,
            held_out=_ids(hold_out) if hold_out else (),
            judged=judge,
            watch=watch,
        )
    finally:
        watch.stop()
    if as_json:
        told = {"teacher": taught.teacher, "made": taught.made, "kept": taught.left, "outputs": taught.table()}
        typer.echo(json.dumps({**told, "samples": taught.samples.num_rows, "file": str(taught.path)}))
    else:
        render.taught(taught, paper=teachers.PAPER)


def _ids(path: Path) -> list[str]:
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise AlignmentError(f"a file of user ids was expected at {path}, but it cannot be read: {error}") from error
    if not found:
        raise AlignmentError(f"{path} holds no user id; write one a line, or leave out --hold-out")
    return found
