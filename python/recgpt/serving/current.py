"""Which bundle is served: one line in `CURRENT`, replaced by one rename."""

from __future__ import annotations

import os
from pathlib import Path

from recgpt.errors import BundleError
from recgpt.serving.bundle import HASH, MANIFEST, Bundle, load, sync

CURRENT, PREVIOUS = "CURRENT", "PREVIOUS"


def publish(root: str | os.PathLike[str], name: str) -> None:
    """Serve the bundle `root/name` from now on: check it, remember what was served, replace `CURRENT` by one rename."""
    parent = Path(root)
    _checked_name(name, parent)
    read(parent / name)
    before = _line(parent / CURRENT)
    if before == name:
        return
    if before is not None:
        # Remembered first: a crash in between leaves a harmless repeated line, never a bundle without a way back.
        _replace(parent / PREVIOUS, "".join(f"{line}\n" for line in (*_lines(parent / PREVIOUS), before)))
    _replace(parent / CURRENT, f"{name}\n")


def rollback(root: str | os.PathLike[str]) -> str:
    """Serve the bundle that was served before; returns its hash.

    Raises:
        BundleError: if none was served before, or it is damaged; `CURRENT` then stays as it is.
    """
    parent = Path(root)
    now = _line(parent / CURRENT)
    before = _lines(parent / PREVIOUS)
    while before and before[-1] == now:
        before.pop()
    if not before:
        raise BundleError(f"{parent / PREVIOUS} names no earlier bundle to go back to; publish another one")
    name = _checked_name(before.pop(), parent)
    read(parent / name)
    _replace(parent / CURRENT, f"{name}\n")
    _replace(parent / PREVIOUS, "".join(f"{line}\n" for line in before))
    return name


def resolve(path: str | os.PathLike[str]) -> Path:
    """Find the bundle that `path` means: a bundle itself, or the one that `CURRENT` names in a parent folder."""
    folder = Path(path)
    if (folder / MANIFEST).exists() or HASH.match(folder.name):
        return folder
    name = _line(folder / CURRENT)
    if name is None:
        raise BundleError(
            f"{folder} holds neither {MANIFEST} nor {CURRENT}, so it is no bundle and no parent of one; "
            "run the pipeline, or publish a bundle"
        )
    return folder / _checked_name(name, folder)


def read(path: str | os.PathLike[str]) -> Bundle:
    """Open the bundle that `path` means, every checksum compared before a byte is used.

    Raises:
        BundleError: naming the file that is missing, unexpected, of another format, truncated or changed.
    """
    folder = resolve(path)
    return load(folder, folder.resolve().name)


def _checked_name(name: str, parent: Path) -> str:
    if not HASH.match(name):
        raise BundleError(f"{parent} must name a bundle by 32 hex digits, but names {name!r}; publish a bundle")
    return name


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read ({error}); remove it and publish a bundle") from error


def _line(path: Path) -> str | None:
    lines = _lines(path)
    if len(lines) > 1 or (path.exists() and not lines):
        raise BundleError(f"{path} must hold one line, the hash of a bundle, but holds {len(lines)}; publish a bundle")
    return lines[0] if lines else None


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    beside.write_text(text, encoding="ascii")
    sync(beside)
    beside.replace(path)
    sync(path.parent)
