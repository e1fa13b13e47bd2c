"""From samples to an adapter file and its manifest."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from recgpt.alignment.held_out import HeldOut
from recgpt.alignment.training.base import Base
from recgpt.alignment.training.config import Config
from recgpt.alignment.training.trees import Tree, grow
from recgpt.errors import AlignmentError, MissingExtraError

FORMAT = 1
"""Version of the manifest."""


@dataclass(frozen=True)
class Trained:
    """What a training left."""

    path: Path
    """The adapter as GGUF; with `method = "full"` the whole model: a GGUF file, or a folder for a base that is one."""
    manifest: dict[str, Any]
    """What stands beside it as JSON."""

    @property
    def manifest_path(self) -> Path:
        """Where the manifest is."""
        return manifest_of(self.path)


def manifest_of(path: Path) -> Path:
    """Name the manifest of an adapter."""
    return path.with_suffix(".json")


def digest_of(samples: pa.Table) -> str:
    """Hash what is learned from samples, as manifests name it."""
    digest = hashlib.sha256()
    for row in samples.select(["system", "prompt", "beginning", "answer", "others"]).to_pylist():
        digest.update(json.dumps(list(row.values()), ensure_ascii=False).encode())
    return digest.hexdigest()


def train(
    samples: pa.Table,
    *,
    base: str | Path,
    out: str | Path,
    config: Config | None = None,
    held_out: HeldOut | None = None,
    validation: pa.Table | None = None,
    start: str | Path | None = None,
    progress: Any = None,
) -> Trained:
    """Train an adapter, or every weight, and write it with its manifest.

    The same command after an interruption goes on from the last state (`OUT.state`), and ends with the same weights.
    Started by `accelerate launch` or `torchrun`, every process takes its share of each step.

    Args:
        samples: SAMPLES, in the order in which they are learned.
        base: a GGUF file, or a folder as transformers keeps models.
        out: the file to write, `NAME.gguf`; the manifest becomes `NAME.json`.
        config: settings.
        held_out: what no sample may be of.
        validation: SAMPLES that are scored before and after; nothing is learned from them.
        start: an adapter as GGUF to go on from.
        progress: called with (steps done, steps planned, a short text).

    Raises:
        AlignmentError: the samples, the base or the settings do not go together, the loss left the finite numbers, or
            a file cannot be written.
        BundleError: the state belongs to other samples or settings.
        InvalidTableError: `samples` lacks columns.
        MissingExtraError: transformers or peft is not installed.
        ModelNotFoundError: there is no such base.
    """
    settings, model, path = config or Config(), Base(base), Path(out)
    if path.suffix != ".gguf":
        raise AlignmentError(f"the file to write must end in .gguf, but it is {path}")
    if held_out is not None:
        held_out.refuse(samples)
    trees = grow(samples, model, longest=model.shape.longest)
    asked = grow(validation, model, longest=model.shape.longest) if validation is not None else []
    try:
        from recgpt.alignment.training import adapters, fit
    except ImportError as error:
        raise MissingExtraError("training needs torch, transformers and peft: pip install 'recgpt[train]'") from error
    begin = adapters.read(Path(start), model.shape) if start is not None else None
    state = path.with_suffix(".state")
    fitted = fit.fit(model, trees, settings, state=state, start=begin, validation=asked, progress=progress)
    course = fitted.course
    if not fitted.main:
        return Trained(path, {})
    if settings.method == "lora":
        adapters.write(path, fit.lora_of(fitted.model, settings), model.shape, name=path.stem)
    else:
        path = _write_whole(fitted.model.model, model, path)
    manifest = {
        "format": FORMAT,
        "name": path.stem,
        "sha256": _digest(path),
        "base": {"name": model.path.name, "sha256": model.digest(), "family": model.shape.family},
        "start": None if start is None else {"name": Path(start).name, "sha256": _digest(Path(start))},
        "config": asdict(settings),
        "samples": _about(samples, trees),
        "held_out": None if held_out is None else held_out.digest(),
        "training": {
            "steps": course.step,
            "tokens": course.tokens,
            "seconds": round(course.seconds, 1),
            "tokens_per_second": round(course.tokens / max(course.seconds, 1e-9), 1),
            "peak_bytes": fitted.peak_bytes,
            "device": fitted.device,
            "curve": course.curve,
        },
        "validation": {"before": course.before, "after": course.after} if asked else None,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "accelerate", "recgpt")},
    }
    _write(manifest_of(path), manifest)
    state.unlink(missing_ok=True)
    return Trained(path, manifest)


def _about(samples: pa.Table, trees: list[Tree]) -> dict[str, Any]:
    """Say what was learned from: how much of what, from where, under which prompts, and a hash of all of it."""
    return {
        "samples": len(samples),
        "prompts": len(trees),
        "sha256": digest_of(samples),
        "subtasks": dict(sorted(Counter(samples["subtask"].to_pylist()).items())),
        "origins": sorted(set(samples["origin"].to_pylist())),
        "users": len(set(samples["user_id"].to_pylist()) - {None}),
        "prompt_digests": sorted(set(samples["prompt_digest"].to_pylist())),
    }


def _write_whole(model: Any, base: Base, path: Path) -> Path:
    """Write every weight: into a GGUF file by the base's own, or as safetensors where the base is a folder."""
    if not base.gguf:
        folder = path.with_suffix("")
        try:
            model.save_pretrained(folder)
            for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
                if (base.path / name).is_file():
                    shutil.copyfile(base.path / name, folder / name)
        except OSError as error:
            raise AlignmentError(f"{folder} cannot be written: {error.strerror or error}") from error
        return folder
    from recgpt.alignment.training import adapters

    adapters.merge(base.path, adapters.by_llama(model.state_dict(), base.shape), path, weights="f16")
    return path


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for one in [path] if path.is_file() else sorted(path.glob("*.safetensors")):
        with one.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _write(path: Path, manifest: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise AlignmentError(f"{path} cannot be written: {error.strerror or error}") from error
