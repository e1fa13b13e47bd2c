"""Commands for people who label: `recgpt judge review`, `lists` and `repetition`, and labels out and in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recgpt.cli.commands import AsJson, ConfigFile
from recgpt.cli.judge import Task, commands, left_out
from recgpt.errors import InvalidConfigError

if TYPE_CHECKING:
    from recgpt.pipeline.config import Config

Own = Annotated[Path | None, typer.Option("--criteria", help="A folder of your own criteria, TASK/NAME.toml.")]
Place = Annotated[
    Path, typer.Argument(metavar="CONFIG-or-BUFFER", help="A run's TOML file, or a buffer's SQLite file.")
]


@commands.command()
def review(
    place: Place,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. [8765]")] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no page, print its address only.")] = False,
    annotators: Annotated[int, typer.Option(min=1, max=20, help="People a sample.")] = 1,
    gold_every: Annotated[int, typer.Option(min=0, help="Each so many-th sample is a gold question; 0: none.")] = 8,
    rules: Annotated[bool, typer.Option("--rules", help="Also ask people what rules decide.")] = False,
    task: Task = None,
    criteria: Own = None,
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback let others in.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A host name under which people reach the server.")
    ] = None,
) -> None:
    """Label samples in the browser: one key a verdict, every answer saved at once. Ctrl-C ends it."""
    from recgpt import judge
    from recgpt.judge import review as page
    from recgpt.pipeline import reviewing

    for one in task or ():
        if one not in judge.TASKS:
            raise InvalidConfigError(f"--task is one of {', '.join(judge.TASKS)}, but it is {one!r}")
    settings = page.Settings(
        annotators=annotators, gold_every=gold_every, rules=rules, tasks=tuple(task or judge.TASKS)
    )
    questions = page.Questions(reviewing.open_store(_place(place), criteria), settings)
    page.serve(
        questions,
        say=typer.echo,
        port=page.PORT if port is None else port,
        host=host,
        names=allow_host or (),
        browser=not no_browser,
    )


@commands.command()
def lists(
    config: ConfigFile,
    first: Annotated[Path, typer.Argument(help="A bundle, or a table of user_id and item_id in order.")],
    second: Annotated[Path, typer.Argument(help="The other arm.")],
    users: Annotated[int, typer.Option(min=1, help="Shoppers to compare (the report asks about 500).")] = 500,
    k: Annotated[int, typer.Option(min=1, help="Items a list.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Put two arms' lists beside each other for `review`: three people say, unnamed, whether they repeat themselves."""
    from recgpt import pipeline
    from recgpt.pipeline import reviewing

    settings = pipeline.load(config)
    found = reviewing.pairs(settings, reviewing.arms(first, second), users=users, k=k)
    made = found.pairs
    new = reviewing.open_store(settings).add_pairs(made)
    for name, count in found.unknown.items():
        typer.echo(f"{name}: the catalogue lacks {count:,} of its items; people see their ids alone", err=True)
    if found.cut:
        typer.echo(f"{found.cut:,} of {len(made):,} pairs were cut to the shorter of their lists", err=True)
    told = {"comparison": made[0].comparison, "pairs": len(made), "new": new}
    typer.echo(
        json.dumps(told | {"unknown_items": found.unknown, "cut": found.cut})
        if as_json
        else f"{made[0].comparison}: {len(made)} pairs of lists, {new} of them new; compare them with: recgpt judge "
        f"review {config}"
    )


@commands.command()
def repetition(place: Place, as_json: AsJson = False) -> None:
    """Print perceived repetition of the two arms' lists for top 4, top 8 and all, unanimous answers of three only."""
    from rich.console import Console

    from recgpt.cli.render import listing
    from recgpt.judge.review import Store
    from recgpt.judge.review.repetition import figures
    from recgpt.pipeline import reviewing

    found = figures(Store(*reviewing.existing(_place(place))).read())
    if as_json:
        typer.echo(json.dumps(found))
        return
    for one in found:
        rows = [
            {"depth": row["depth"]}
            | {
                arm: "-" if row[arm]["share"] is None else f"{row[arm]['share']:.1%} of {row[arm]['unanimous']}"
                for arm in one["arms"]
            }
            for row in one["repetition"]
        ]
        typer.echo(f"{one['comparison']}: {one['answered']} of {one['pairs']} pairs have {one['annotators']} answers")
        listing(Console(highlight=False), "perceived repetition", ("depth", *one["arms"]), rows)
    if not found:
        typer.echo("no lists are compared in this buffer yet; `recgpt judge lists` puts them in")


@commands.command("export")
def export_labels(
    place: Place,
    file: Annotated[Path, typer.Argument(help="FILE.json for Label Studio, FILE.parquet for pandas.")],
    task: Task = None,
    criteria: Own = None,
    as_json: AsJson = False,
) -> None:
    """Write samples, labels and verdicts: Label Studio's JSON with its labeling setup beside it, or a Parquet table."""
    from recgpt.judge import exchange
    from recgpt.pipeline import reviewing

    buffer, known = reviewing.existing(_place(place), criteria)
    said = exchange.write(buffer, known, file, tasks=task)
    left = left_out(buffer, known, task)
    typer.echo(json.dumps({"written": said, "answers_left_out": left}) if as_json else said)


@commands.command("dataset")
def training_set(
    place: Place,
    file: Annotated[Path, typer.Argument(help="FILE.jsonl or FILE.parquet.")],
    task: Task = None,
    criteria: Own = None,
    per_class: Annotated[
        int | None, typer.Option(min=1, help="Labels of each class and criterion; else as many as the rarest has.")
    ] = None,
    half_life: Annotated[float, typer.Option(help="Rounds after which half as much of a round is kept.")] = 1.0,
    hold_out: Annotated[
        list[int] | None, typer.Option("--hold-out", help="A round to judge on; it goes into FILE.held-out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed chooses the same labels.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Write a training set for the judge: people's labels as chats, each class of a criterion equally large."""
    from recgpt.judge import training
    from recgpt.pipeline import reviewing

    buffer, known = reviewing.existing(_place(place), criteria)
    left = left_out(buffer, known, task)
    found = training.gather(
        buffer, known,
        tasks=task, per_class=per_class, half_life=half_life, held_out=hold_out or (), seed=seed,
    )  # fmt: skip
    files = [str(path) for path in training.write(found, file)]
    classes = found.classes()
    if as_json:
        told = {"files": files, "labels": found.chosen.num_rows, "held_out": found.held_out.num_rows}
        typer.echo(json.dumps(told | {"classes": classes, "left_out": found.left_out, "answers_left_out": left}))
        return
    typer.echo(f"{found.chosen.num_rows} labels, {found.held_out.num_rows} held out, in {' and '.join(files)}")
    for key, count in classes.items():
        typer.echo(f"{key}: {', '.join(f'{word} {number}' for word, number in count.items())}")
    for why in found.left_out.values():
        typer.echo(f"left out: {why}")


@commands.command("import")
def import_labels(
    place: Place,
    file: Annotated[Path, typer.Argument(help="Label Studio's JSON, or what `export` wrote.")],
    criteria: Own = None,
) -> None:
    """Take samples and labels in, all or none: what is there already is not doubled, what contradicts is refused."""
    from recgpt.judge import Buffer, exchange
    from recgpt.pipeline.criteria import criteria_of
    from recgpt.pipeline.milestones import buffer_path

    where = _place(place)
    # Read first: what is wrong there leaves no empty buffer behind.
    known = criteria_of(where, criteria)
    typer.echo(exchange.read(Buffer(where if isinstance(where, Path) else buffer_path(where)), known, file))


def _place(place: Path) -> Config | Path:
    from recgpt import pipeline

    return pipeline.load(place) if place.suffix == ".toml" else place
