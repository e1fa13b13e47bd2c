"""Where training stood after its last epoch, on disk: a killed run goes on from there and ends with the same towers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recgpt.errors import BundleError, MissingExtraError
from recgpt.retrieval.config import Config

Array = npt.NDArray[Any]
FORMAT = 1
"""Version of the file."""


def fingerprint(arrays: list[Array], config: Config) -> str:
    """Name an input and its settings; where and on how many threads it is learned is not one of them."""
    settings = {name: value for name, value in vars(config).items() if name not in ("threads", "device")}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save(path: Path, key: str, arrays: Mapping[str, Array], words: Mapping[str, Any]) -> None:
    """Write aside, then rename: a reader sees the old checkpoint or the new one, never half of one.

    Raises:
        MissingExtraError: safetensors is not installed.
    """
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise MissingExtraError("checkpoints need safetensors; run: pip install 'recgpt[train]'") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    header = {"format": str(FORMAT), "key": key, "words": json.dumps(words)}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, part, metadata=header)
    os.replace(part, path)


def load(path: Path, key: str) -> tuple[dict[str, Array], dict[str, Any]] | None:
    """Read what `save` wrote; None where nothing was saved.

    Raises:
        BundleError: the file is damaged, or belongs to other input or other settings.
        MissingExtraError: safetensors is not installed.
    """
    if not path.exists():
        return None
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError("checkpoints need safetensors; run: pip install 'recgpt[train]'") from error
    try:
        with safe_open(path, framework="np") as file:
            header = file.metadata() or {}
            if header["format"] != str(FORMAT) or header["key"] != key:
                raise BundleError(
                    f"the checkpoint {path} belongs to other input, other settings or another version; remove it to "
                    "train from the start"
                )
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(header["words"])  # noqa: SIM118
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BundleError(
            f"expected a checkpoint in {path}, but it cannot be read ({type(error).__name__}: {error}); remove it to "
            "train from the start"
        ) from error
