"""Commands that train: `recgpt align train`, `merge` and `parity`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer
from rich.console import Console
from rich.text import Text

from recgpt.cli.align import commands, ids
from recgpt.cli.commands import AsJson, ConfigFile
from recgpt.errors import AlignmentError, InvalidConfigError

Samples = Annotated[list[Path], typer.Argument(help="Parquet files of samples, learned in this order.")]
BaseModel = Annotated[
    str, typer.Option("--base", help="A GGUF file, a folder as transformers keeps models, or `smollm2`.")
]


@commands.command()
def train(
    samples: Samples,
    out: Annotated[Path, typer.Option("--out", help="The adapter to write, NAME.gguf; NAME.json goes beside it.")],
    base: BaseModel = "smollm2",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as rank=8; docs/alignment.md lists them.")
    ] = None,
    start: Annotated[Path | None, typer.Option("--start", help="An adapter to go on from.")] = None,
    validation: Annotated[Path | None, typer.Option("--validation", help="Samples that are only scored.")] = None,
    hold_out: Annotated[
        Path | None, typer.Option("--hold-out", help="A file of user ids, one a line: a sample of one is refused.")
    ] = None,
    origin: Annotated[
        list[str] | None, typer.Option("--hold-out-origin", help="A log no sample may be of, as world/seed=0.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it would take; train nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train an adapter on samples; the same command goes on after an interruption."""
    from recgpt.alignment import HeldOut, training
    from recgpt.cli.watch import Terminal

    config, model = settings_of(settings or []), base_of(base)
    held = HeldOut(ids(hold_out) if hold_out else (), origins=origin or ())
    rows = pa.concat_tables([_read(path) for path in samples])
    if plan:
        return _show(dataclasses.asdict(training.plan(rows, base=model, config=config, held_out=held)), as_json)
    watch = Terminal()
    watch.begin("training", str(out))
    try:
        found = training.train(
            rows,
            base=model,
            out=out,
            config=config,
            held_out=held,
            validation=_read(validation) if validation else None,
            start=start,
            progress=lambda done, total, said: watch.progress(done, total),
        )
    finally:
        watch.stop()
    if found.manifest:
        about = dict(found.manifest["training"])
        curve = about.pop("curve")
        checked = found.manifest["validation"] or {}
        about |= {"loss_first": curve[0]["loss"], "loss_last": curve[-1]["loss"], "file": str(found.path)}
        about |= {f"{name}_{when}": value for when, both in checked.items() for name, value in both.items()}
        _show(about, as_json)


@commands.command()
def merge(
    adapter: Annotated[Path, typer.Argument(help="An adapter as GGUF.")],
    out: Annotated[Path, typer.Option("--out", help="The GGUF model to write.")],
    base: Annotated[
        str, typer.Option("--base", help="The GGUF model that it was trained on, or `smollm2`.")
    ] = "smollm2",
    weights: Annotated[str, typer.Option("--weights", help="Of the changed tensors: f32, f16 or q8_0.")] = "f16",
) -> None:
    """Add an adapter to a model's weights: one GGUF file that needs no adapter."""
    from recgpt.alignment.training import adapters

    adapters.merge(Path(base_of(base)), adapter, out, weights=weights)
    typer.echo(str(out))


@commands.command()
def parity(
    adapter: Annotated[Path, typer.Argument(help="An adapter as GGUF.")],
    samples: Annotated[Path, typer.Argument(help="A Parquet file of samples, whose prompts are computed.")],
    base: Annotated[
        str, typer.Option("--base", help="The GGUF model that it was trained on, or `smollm2`.")
    ] = "smollm2",
    prompts: Annotated[int, typer.Option("--prompts", min=1, help="How many.")] = 4,
    as_json: AsJson = False,
) -> None:
    """Compare the logits of torch and of llama.cpp with an adapter."""
    from recgpt.alignment.training import parity as logits

    _show(dataclasses.asdict(logits.compare(base_of(base), adapter, _read(samples), prompts=prompts)), as_json)


def base_of(name: str) -> str:
    """Give the path of a base; `smollm2` is the model that comes as a package."""
    from recgpt.llm.models import default_model_path

    return str(default_model_path()) if name == "smollm2" else name


def settings_of(pairs: list[str], start: Any = None) -> Any:
    """Read settings of a training from NAME=VALUE; what is not named is as in `start`, by default as in `Config()`.

    Raises:
        InvalidConfigError: there is no such setting, or its value does not fit.
    """
    from recgpt.alignment.training import Config

    usual = start or Config()
    known = {field.name: getattr(usual, field.name) for field in dataclasses.fields(Config)}
    found: dict[str, Any] = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or name not in known:
            raise InvalidConfigError(f"--set takes NAME=VALUE with one of {', '.join(known)}, but it is {pair!r}")
        try:
            # JSON has the numbers and truth values; what it does not know is a word.
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
        kind = type(known[name]) if known[name] is not None else int
        if kind is float and type(found[name]) is int:
            found[name] = float(found[name])
        if type(found[name]) is not kind:
            raise InvalidConfigError(f"training.{name} must be of the kind {kind.__name__}, but it is {value!r}")
    return dataclasses.replace(usual, **found)


def _read(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    from recgpt.alignment import SAMPLES

    try:
        found = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise AlignmentError(f"a Parquet file of samples was expected at {path}, but: {error}") from error
    missing = [name for name in SAMPLES.names if name not in found.column_names]
    if missing:
        raise AlignmentError(f"{path} is no table of samples: it lacks {', '.join(missing)}")
    return found.select(SAMPLES.names).cast(SAMPLES)


def _show(values: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(values))
        return
    console = Console(highlight=False)
    for name, value in values.items():
        shown = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if isinstance(value, float) else str(value)
        console.print(Text(f"{name:<18} {shown}"), soft_wrap=True)


@commands.command()
def default(
    config: ConfigFile,
    out: Annotated[Path, typer.Option("--out", help="The folder of the adapters.")] = Path("adapters"),
    base: BaseModel = "smollm2",
    only: Annotated[list[str] | None, typer.Option("--only", help="interests, tags or explanations.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make the adapters that come with recgpt: hours on two cores; the same command goes on where it was stopped."""
    from recgpt.alignment import default as aligned
    from recgpt.cli.watch import Terminal

    watch = Terminal()
    try:
        found = aligned.make(config, out, base=base_of(base), only=only, watch=watch)
    finally:
        watch.stop()
    said = {
        name: "was there" if one is None else f"{one.manifest['training']['seconds']} s" for name, one in found.items()
    }
    _show(said, as_json)
