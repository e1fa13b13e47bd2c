"""Commands of the judge: `recgpt judge run` and `criteria`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recgpt.cli.commands import AsJson, ConfigFile
from recgpt.errors import InvalidConfigError

if TYPE_CHECKING:
    from recgpt.judge import Buffer, Criterion

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
    from recgpt.pipeline.criteria import criteria_of

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
    left = left_out(judge.Buffer(milestones.buffer_path(settings)), criteria_of(settings), task)
    rates = judging.rates(found)
    if as_json:
        shown = {"criteria": rates, "pass": found.pass_rates(), "counts": found.counts}
        shown |= {"decided_by": judging.decided(found.counts)}
        shown |= {"calibrated": found.calibrated, "uncalibrated": found.uncalibrated}
        shown |= {"answers_left_out": left}
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


def left_out(
    buffer: Buffer, criteria: Mapping[str, Criterion], tasks: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """Say on standard error which answers of people a command does not see, and how to bring them; give their counts.

    Args:
        buffer: with the answers.
        criteria: those that the command knows.
        tasks: only these; all by default.
    """
    how = {
        "unknown": "there is no such criterion here; name its folder by --criteria FOLDER or `judge.criteria`",
        "reworded": "its file was worded otherwise then; bring the old wording back by --criteria FOLDER or "
        "`judge.criteria`, or let people answer the new one",
    }
    found = [one for one in buffer.unread(criteria) if not tasks or one["task"] in tasks]
    for one in found:
        many = "1 answer is" if one["answers"] == 1 else f"{one['answers']:,} answers are"
        typer.echo(f"{many} left out, under {one['criterion']}: {how[one['why']]}", err=True)
    return found
