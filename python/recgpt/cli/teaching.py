"""Commands that make samples out of answers: `recgpt align teach` and `self-train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from recgpt.cli.align import commands, ids
from recgpt.cli.commands import AsJson, ConfigFile
from recgpt.cli.training import base_of, settings_of

HoldOut = Annotated[
    Path | None, typer.Option("--hold-out", help="A file of user ids, one a line, who are kept for judging.")
]
Judge = Annotated[bool, typer.Option("--judge", help="Let the engine judge, too, where no rule decides.")]
Seed = Annotated[int, typer.Option(help="Of the first world to learn from, and of what is drawn.")]


@commands.command()
def teach(
    config: ConfigFile,
    teacher: Annotated[
        Literal["world", "engine"],
        typer.Option(help="world knows the truth of generated worlds; engine is the configuration's, on its own log."),
    ] = "world",
    seed: Seed = 100,
    worlds: Annotated[int, typer.Option(help="How many worlds, each at another time of the year.")] = 1,
    users: Annotated[int | None, typer.Option(help="Shoppers of all worlds together, or drawn from the log.")] = None,
    mode: Annotated[Literal["rank", "generate"], typer.Option(help="Which prompts a world answers.")] = "rank",
    hold_out: HoldOut = None,
    judge: Judge = False,
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
            held_out=ids(hold_out) if hold_out else (),
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


@commands.command(name="self-train")
def self_train(
    config: ConfigFile,
    rounds: Annotated[int, typer.Option(help="How many in all, those of earlier calls included.")] = 1,
    tries: Annotated[int, typer.Option(help="How often each question is asked, the first time as the stage does.")] = 3,
    temperature: Annotated[float, typer.Option(help="Of the other tries.")] = 0.7,
    users: Annotated[int, typer.Option(help="From whose outputs is learned.")] = 24,
    gate_users: Annotated[int, typer.Option(help="Whom a round has to help; nothing is learned from them.")] = 24,
    base: Annotated[
        str | None, typer.Option("--base", help="What is trained, where it is not the configuration's model.")
    ] = None,
    start: Annotated[Path | None, typer.Option("--start", help="An adapter to begin with.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the training, such as rank=8.")
    ] = None,
    seed: Seed = 100,
    hold_out: HoldOut = None,
    judge: Judge = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the rounds of earlier calls.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a model learn from its own outputs, round by round; the same command goes on after an interruption."""
    from recgpt.alignment import self_training
    from recgpt.cli import render
    from recgpt.cli.watch import Terminal

    watch = Terminal()
    try:
        found = self_training.self_train(
            config,
            rounds=rounds,
            tries=tries,
            temperature=temperature,
            users=users,
            gate_users=gate_users,
            seed=seed,
            base=base_of(base) if base else None,
            start=start,
            held_out=ids(hold_out) if hold_out else (),
            judged=judge,
            fresh=fresh,
            settings=settings_of(settings or []),
            watch=watch,
        )
    finally:
        watch.stop()
    if as_json:
        told = {"rounds": found.rounds.to_pylist(), "adapter": found.adapter and str(found.adapter)}
        typer.echo(json.dumps({**told, "before": found.before.plain(), "after": found.after.plain()}))
    else:
        render.self_trained(found, paper=self_training.PAPER)
