"""The bundle on disk: one immutable folder with all that serving needs, every byte checked before it is used.

    bundles/<hash>/MANIFEST.json   sizes and checksums of every file; <hash> is the hash of this manifest
    bundles/<hash>/*.arrow         tables and vectors as Arrow IPC, sorted by key, ready to be memory-mapped
    bundles/<hash>/items.usearch   only for very large catalogues: a graph over the items
    bundles/CURRENT                one line: the hash that is served
    bundles/PREVIOUS               the hashes served before, oldest first

The folder's name vouches for the manifest and the manifest for the files, so no byte is served unchecked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recgpt import schema
from recgpt.errors import BundleError
from recgpt.index import ExactIndex, USearchIndex
from recgpt.index.arrays import Vectors
from recgpt.serving.popularity import POPULARITY

FORMAT = 1
"""Version of the layout on disk, apart from the package's version."""
MANIFEST = "MANIFEST.json"

SEEN = pa.schema(
    [
        pa.field("user_id", pa.large_string(), nullable=False),
        pa.field("item_id", pa.large_string(), nullable=False),
    ]
)
"""What a user already has, for `exclude="seen"`."""

TABLES: dict[str, tuple[pa.Schema, tuple[str, ...]]] = {
    "users": (schema.USERS, ("user_id",)),
    "items": (schema.ITEMS, ("item_id",)),
    "tags": (schema.TAGS, ("user_id", "rank")),
    "interests": (schema.INTERESTS, ("user_id", "rank")),
    "explanations": (schema.EXPLANATIONS, ("item_id", "interest")),
    "history": (schema.HISTORY, ("user_id",)),
    "popularity": (POPULARITY, ("segment",)),
    "rejections": (schema.REJECTIONS, ("user_id",)),
    "seen": (SEEN, ("user_id", "item_id")),
}
"""Each table's schema and the columns that it is sorted by; the order of equal rows is kept."""
GRAPH = "items.usearch"
"""The graph of a catalogue that is too large to be scanned, with its settings and recall in `items.usearch.json`."""
VECTORS = {"user_vectors": "user_id", "item_vectors": "item_id", "tag_vectors": "tag"}

HASH = re.compile(r"[0-9a-f]{32}\Z")
# Every part of a name starts with a letter or digit, so neither `..` nor an absolute path can be written.
NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,99}/){0,3}[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")


@dataclass(frozen=True)
class Bundle:
    """An open bundle; tables and vectors are memory-mapped and stay valid even if the folder is deleted."""

    path: Path
    hash: str
    manifest: Mapping[str, Any]
    tables: Mapping[str, pa.Table]
    """By the names of `TABLES`, each with one chunk a column."""
    keys: Mapping[str, pa.Array]
    """By the names of `VECTORS`: sorted ids or tags, `(n,) large_string`."""
    vectors: Mapping[str, Vectors]
    """By the names of `VECTORS`: `(n, dim) float32`, read-only."""


def load(folder: Path, name: str) -> Bundle:
    """Open the bundle in `folder`, whose manifest must hash to `name`; every checksum is compared first.

    Raises:
        BundleError: naming the file that is missing, unexpected, of another format, truncated or changed.
    """
    mend = "restore the folder from a copy, roll back, or build the bundle again"
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder} has no {MANIFEST}; {mend}")
    if name_of(folder) != name:
        raise BundleError(
            f"{folder / MANIFEST} must hash to its folder's name {name}, but hashes to {name_of(folder)}; {mend}"
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise BundleError(
                f"{folder} has format {manifest['format']}, but this version reads {FORMAT}; build the bundle again"
            )
        _verify(folder, manifest["files"], mend)
        contents = {name: _map(folder / f"{name}.arrow") for name in (*TABLES, *VECTORS)}
        for table, (wanted, _) in TABLES.items():
            if contents[table].schema != wanted:
                raise BundleError(f"{folder / table}.arrow must have the columns of {table}; {mend}")
        keys = {name: _chunk(contents[name].column(key)) for name, key in VECTORS.items()}
        vectors = {name: matrix(contents[name], int(manifest["dim"])) for name in VECTORS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise BundleError(f"{folder} cannot be read ({error!r}); {mend}") from error
    return Bundle(folder, name, manifest, {table: contents[table] for table in TABLES}, keys, vectors)


def _verify(folder: Path, files: Mapping[str, Mapping[str, Any]], mend: str) -> None:
    present = {}
    for path in folder.rglob("*"):
        kind = path.lstat().st_mode
        if stat.S_ISLNK(kind):
            raise BundleError(f"{path} is a link, and a bundle holds plain files only; {mend}")
        if not stat.S_ISDIR(kind):
            present[path.relative_to(folder).as_posix()] = path
    for name, expected in files.items():
        if not NAME.match(name):
            raise BundleError(f"{folder / MANIFEST} names {name!r}, which is no name for a bundle's file; {mend}")
        if name not in present:
            raise BundleError(f"{folder / name} is missing; {mend}")
        came = present[name].stat().st_size
        if came != expected["bytes"]:
            raise BundleError(f"{folder / name} must have {expected['bytes']} bytes, but has {came}; {mend}")
        if sha256(present[name]) != expected["sha256"]:
            raise BundleError(f"{folder / name} is damaged: its sha256 is not {expected['sha256']}; {mend}")
    strangers = sorted(set(present) - set(files) - {MANIFEST})
    if strangers:
        raise BundleError(f"{folder / strangers[0]} is not in {MANIFEST}; remove it, or {mend}")


def _map(path: Path) -> pa.Table:
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    # Checksums vouch for the bytes, this for their meaning: no offset of a hostile file may leave its buffer.
    table.validate(full=True)
    return table


def open_index(bundle: Bundle) -> ExactIndex | USearchIndex:
    """Open the bundle's graph if it has one, else make the index that scans."""
    vectors, ids = bundle.vectors["item_vectors"], bundle.keys["item_vectors"]
    if GRAPH in bundle.manifest["files"]:
        return USearchIndex.open(bundle.path / GRAPH, vectors, ids)
    return ExactIndex(vectors, ids)


def _chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def matrix(table: pa.Table, dim: int) -> Vectors:
    """Give the column `vector` as `(n, dim) float32`."""
    values = _chunk(table.column("vector"))
    matrix: Vectors = np.asarray(values.flatten().to_numpy(zero_copy_only=len(values) > 0), np.float32)
    return matrix.reshape(len(values), dim)


def name_of(folder: Path) -> str:
    """Hash the manifest in a folder: the name that the folder must have."""
    return sha256(folder / MANIFEST)[:32]


def sha256(path: Path) -> str:
    """Hash one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Bring a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
