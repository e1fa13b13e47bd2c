"""Commands: `run` and one per stage work on a configuration; `recommend`, `inspect`, `why-not` ask a bundle."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from recgpt.errors import InvalidConfigError, RecGPTError, UnknownUserError

app = typer.Typer(
    help="Recommendations that start from intent (RecGPT Technical Report, arXiv 2507.22879).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

ConfigFile = Annotated[Path, typer.Argument(help="A TOML file; see runs/demo.toml.")]
Bundles = Annotated[Path, typer.Option(help="The bundles folder, or one bundle.")]
Households = Annotated[int | None, typer.Option(min=0, help="Users for the LLM stages, instead of the file's number.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Empty the ledger and the trained towers first.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
User = Annotated[str, typer.Argument(help="A user id.")]

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, what typer returns for it."""

# The stages in the order in which data flows; `recgpt STAGE CONFIG` runs up to and including one.
STAGES = {
    "logs": "Read, validate and normalize the log",
    "behaviors": "Keep the reliable behaviors",
    "history": "Compress every user's behaviors into one text",
    "interests": "Mine interests from the histories",
    "tags": "Predict the tags of what users may want next",
    "retrieval": "Train the towers and build the index",
    "explanations": "Write the interest-item-explanation table",
}


@app.command()
def run(
    config: ConfigFile,
    households: Households = None,
    fresh: Fresh = False,
    status: Annotated[bool, typer.Option("--status", help="Show how far the run is; start nothing.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would cost; keep nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Run every stage, print two users' whole chain and the figures; the same command continues after Ctrl-C."""
    from recgpt import pipeline
    from recgpt.cli import render
    from recgpt.cli.watch import Terminal

    if status:
        found = pipeline.status(config)
        _print([dataclasses.asdict(row) for row in found]) if as_json else render.status(found)
        return
    watch = Terminal()
    if dry_run:
        try:
            planned = pipeline.plan(config, llm_users=households, fresh=fresh, watch=watch)
        finally:
            watch.stop()
        _print(dataclasses.asdict(planned)) if as_json else render.plan(planned)
        return
    try:
        outcome = pipeline.run(config, llm_users=households, fresh=fresh, watch=watch)
    finally:
        watch.stop()
    if not as_json:
        for inspection, events in outcome.shown:
            render.chain(inspection, events=events)
        for verdict in outcome.verdicts:
            typer.echo(f"- {verdict}")
    typer.echo(json.dumps(outcome.figures))


def _stage_command(stage: str, does: str) -> None:
    def command(config: ConfigFile, households: Households = None, as_json: AsJson = False) -> None:
        from recgpt import pipeline
        from recgpt.cli.watch import Terminal

        watch = Terminal()
        try:
            outcome = pipeline.run(config, llm_users=households, until=stage, watch=watch)
        finally:
            watch.stop()
        summary = outcome.summaries[stage]
        typer.echo(
            json.dumps({"stage": stage, "summary": summary, "folder": str(outcome.folder / stage)})
            if as_json
            else summary
        )

    command.__doc__ = f"{does}, running the stages before it first."
    app.command(name=stage)(command)


for _stage, _does in STAGES.items():
    _stage_command(_stage, _does)


@app.command()
def evaluate(
    config: Annotated[
        Path | None,
        typer.Argument(help="A TOML file; with --data a bundle, or the folder of bundles; --world goes without."),
    ] = None,
    households: Households = None,
    as_json: AsJson = False,
    world: Annotated[
        bool, typer.Option("--world", help="Score every stage on a generated world whose truth is known.")
    ] = False,
    ablate: Annotated[
        Literal["history"] | None,
        typer.Option(help="With --world: what do raw logs, both readings and each rung of the ladder cost?"),
    ] = None,
    noise: Annotated[
        bool, typer.Option("--noise", help="With --world: what do ever more accidental events do to interests?")
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="Replay a bundle on this log: a folder, a data set's name, or a run's TOML file.")
    ] = None,
    time_zone: Annotated[str | None, typer.Option(help="With --data: IANA zone of times that carry none.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="With --data: OWN=OURS, such as users.country=attributes.")
    ] = None,
    now: Annotated[str | None, typer.Option(help="With --data: where to cut, ISO 8601; else the bundle's own.")] = None,
    k: Annotated[int, typer.Option(min=1, help="With --data: how many items count.")] = 20,
    html: Annotated[Path | None, typer.Option(help="With --data: write a page here.")] = None,
) -> None:
    """Run every stage, or replay a bundle on a log, and print how well what was held out was foreseen."""
    if data is not None:
        if config is None:
            raise InvalidConfigError("a bundle, or the folder of bundles, was expected before --data")
        if world or ablate or noise or households is not None:
            raise InvalidConfigError(
                "--world, --ablate, --noise and --households run the stages, and --data replays what they made; "
                "choose one"
            )
        from recgpt.cli.proof import replay

        replay(config, data, time_zone=time_zone, columns=column or [], now=now, k=k, html=html, as_json=as_json)
        return
    if html is not None or now is not None or time_zone is not None or column:
        raise InvalidConfigError("--html, --now, --time-zone and --column belong to a replay; name its log with --data")
    from recgpt import pipeline
    from recgpt.cli import planted, render
    from recgpt.cli.watch import Terminal

    if not world and (ablate or noise):
        raise InvalidConfigError("--ablate and --noise ask a world whose truth is known; add --world")
    if not world and config is None:
        raise InvalidConfigError("a configuration file was expected; only --world goes without one")
    settings = pipeline.load(config) if config is not None else None
    if settings is not None and not settings.data.test_days:
        raise InvalidConfigError(f"{config} holds nothing out: data.test_days is 0; set it to the days to judge on")
    watch = Terminal()
    try:
        if world:
            asked = {"ablation": ablate == "history", "noise": noise}
            found = pipeline.evaluate_world(settings, llm_users=households, watch=watch, **asked)
        else:
            assert settings is not None  # asked above
            outcome = pipeline.run(settings, llm_users=households, watch=watch)
    finally:
        watch.stop()
    if world:
        _print(found) if as_json else planted.show(found)
        return
    typer.echo(json.dumps(outcome.figures)) if as_json else render.figures(outcome.figures, outcome.verdicts)


@app.command()
def recommend(
    user: User,
    k: Annotated[int, typer.Option(help="How many items.")] = 20,
    beta: Annotated[
        float | None, typer.Option(help="Weight of the collaborative score, instead of the bundle's.")
    ] = None,
    bundles: Bundles = Path("bundles"),
    as_json: AsJson = False,
) -> None:
    """Answer one user from the bundle, without torch and without llama.cpp."""
    import pyarrow.compute as pc

    from recgpt.cli.render import recommendations
    from recgpt.serving import Recommender

    recommender = Recommender.open(bundles)
    answers = recommender.recommend([user], k=k, beta=beta)
    _print(answers.to_pylist()) if as_json else recommendations(answers)
    if pc.any(answers["cold"]).as_py():
        try:
            recommender.inspect(user, k=1)
        except UnknownUserError as error:
            # A new shopper is answered, and a mistyped id looks like one.
            typer.echo(f"recgpt: {error}; what is popular was shown", err=True)


@app.command()
def inspect(user: User, bundles: Bundles = Path("bundles"), as_json: AsJson = False) -> None:
    """Show all that a bundle knows of one user: attributes, history, interests, tags, items, explanations."""
    from recgpt.cli.render import chain
    from recgpt.serving import Recommender

    inspection = Recommender.open(bundles).inspect(user)
    _print(dataclasses.asdict(inspection)) if as_json else chain(inspection)


@app.command("why-not")
def why_not(
    user: User,
    item: Annotated[str, typer.Argument(help="An item id.")],
    bundles: Bundles = Path("bundles"),
    as_json: AsJson = False,
) -> None:
    """Say why an item is not among a user's recommendations: its rank and scores, a filter, or not in the index."""
    from recgpt.serving import Recommender

    verdict = dataclasses.asdict(Recommender.open(bundles).why_not(user, item))
    if as_json:
        _print(verdict)
        return
    for name, value in verdict.items():
        typer.echo(f"{name:<12} {'-' if value is None else value}")


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, default=str, ensure_ascii=False))


def main() -> None:
    """Run the command line: an error of recgpt is one line on standard error and exit status 1."""
    try:
        # In standalone mode typer would print wrong usage as a box of many lines, and end silently on Ctrl-C.
        status = app(standalone_mode=False)
    except (RecGPTError, OSError) as error:
        _fail(str(error), 1)
    except Exception as error:
        # Wrong usage is one of click's exceptions, which newer versions of typer keep under a private name.
        if not hasattr(error, "format_message"):
            raise
        _fail(f"{error.format_message()} (see recgpt --help)", 2)
    if status == INTERRUPTED:
        _fail("stopped; the same command continues where this one ended", INTERRUPTED)
    sys.exit(status)


def _fail(message: str, status: int) -> NoReturn:
    typer.echo(f"recgpt: {' '.join(message.split())}", err=True)
    sys.exit(status)
