"""Commands of the judge: `recgpt judge run` and `criteria`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from recgpt.cli.commands import AsJson, ConfigFile
from recgpt.errors import InvalidConfigError

commands = typer.Typer(
    help="Judge what a run's LLM stages kept, by rules and by the model (section 3).", no_args_is_help=True
)

Task = Annotated[list[str] | None, typer.Option("--task", help="interests, tags or explanations; all by default.")]


@commands.command()
def run(
    config: ConfigFile,
    task: Task = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most samples a task, instead of the file's.")] = None,
    reasons: Annotated[
        bool, typer.Option("--reasons", help="Let the model say why, in one sentence a verdict.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Judge what `recgpt run` left, print pass rates, and keep verdicts and samples for people to check."""
    from recgpt import judge, pipeline
    from recgpt.cli import render
    from recgpt.cli.watch import Terminal
    from recgpt.pipeline import judging, milestones

    settings = pipeline.load(config)
    for one in task or ():
        if one not in judge.TASKS:
            raise InvalidConfigError(f"--task is one of {', '.join(judge.TASKS)}, but it is {one!r}")
    watch = Terminal()
    try:
        watch.begin("judge", "judging")
        found = judging.run(settings, limit=limit, tasks=task, reasons=reasons, progress=watch.progress)
    finally:
        watch.stop()
    rates = judging.rates(found)
    if as_json:
        shown = {"criteria": rates, "pass": found.pass_rates(), "counts": found.counts}
        shown |= {"decided_by": judging.decided(found.counts)}
        shown |= {"calibrated": found.calibrated, "uncalibrated": found.uncalibrated}
        typer.echo(json.dumps(shown))
    else:
        notes = [judging.trust(found), milestones.notice(settings)]
        notes += [f"{key}: {why}" for key, why in found.uncalibrated.items()]
        if reasons:
            notes.append(f"{found.counts['reasons']} reasons, {found.counts['reasons_unscored']} without one that fits")
        rows = [one | {"decided_by": judging.deciders(one["decided_by"])} for one in rates]
        last = f"decided by {judging.deciders(judging.decided(found.counts))}; {settings.out / 'judge'}"
        render.judged(rows, found.pass_rates(), last, notes=notes)


@commands.command()
def criteria(
    folder: Annotated[Path | None, typer.Argument(help="A folder of your own criteria, TASK/NAME.toml.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the criteria: who decides, what passes, and the question."""
    from recgpt import judge
    from recgpt.cli import render

    rows = [
        {
            "criterion": one.key,
            "decided by": f"rule {one.rule}" if one.rule else "model",
            "passes": f"{' or '.join(word for word in one.scale if word in one.passes)} of {', '.join(one.scale)}",
            "question": one.question,
        }
        for one in judge.load(folder).values()
    ]
    typer.echo(json.dumps(rows)) if as_json else render.criteria(rows)
