"""The command of two-weekly learning: `recgpt align incremental`."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from recgpt.cli.align import commands, ids
from recgpt.cli.commands import AsJson, ConfigFile
from recgpt.cli.training import settings_of


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
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the training, such as learning_rate=2e-4.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides what is drawn.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Learn what users did in the last 14 days (section 2.2.2): write the window's samples and the next adapter."""
    from recgpt.alignment import incremental as window
    from recgpt.alignment import update
    from recgpt.cli import render
    from recgpt.cli.watch import Terminal

    watch = Terminal()
    watch.begin("incremental", "learning the last two weeks")
    try:
        made = update.update(
            config,
            until=until,
            current=adapter,
            held_out=ids(hold_out) if hold_out else (),
            settings=window.Config(users=users, seed=seed),
            training=settings_of(settings or []),
            only_samples=only_samples,
            progress=lambda done, total, said: watch.progress(done, total),
        )
    finally:
        watch.stop()
    if as_json:
        adapter_file = str(made.adapter) if made.adapter else None
        found = {"until": made.until.isoformat(), "counts": made.window.counts, "samples": str(made.samples)}
        typer.echo(json.dumps({**found, "adapter": adapter_file}))
    else:
        render.incremental(made.window.counts, [made.samples, *([made.adapter] if made.adapter else [])])
