"""Build a bundle aside, check its answers, and move it to its place by one rename."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.errors import BundleError, InvalidArrayError, InvalidConfigError, InvalidTableError
from recgpt.index import USearchIndex
from recgpt.index import arrays as checks
from recgpt.index import build as build_index
from recgpt.index.arrays import Rows, Vectors
from recgpt.schema import ArrowStream
from recgpt.serving.bundle import (
    FORMAT,
    GRAPH,
    MANIFEST,
    NAME,
    SEEN,
    TABLES,
    VECTORS,
    Bundle,
    load,
    matrix,
    name_of,
    open_index,
    sha256,
    sync,
)

_CANARIES = 64
"""How many users are asked before a bundle may be published."""


def write(
    root: str | os.PathLike[str],
    *,
    user_ids: Sequence[str],
    user_vectors: Vectors,
    item_ids: Sequence[str],
    item_vectors: Vectors,
    tag_texts: Sequence[str],
    tag_vectors: Vectors,
    tags: ArrowStream,
    interests: ArrowStream,
    explanations: ArrowStream,
    history: ArrowStream,
    items: ArrowStream,
    users: ArrowStream,
    popularity: ArrowStream,
    beta: float,
    now: datetime | None,
    lineage: Mapping[str, Any],
    rejections: ArrowStream | None = None,
    seen: ArrowStream | None = None,
    extra_files: Mapping[str, str | os.PathLike[str]] | None = None,
    index: Literal["auto", "exact", "usearch"] = "auto",
) -> Path:
    """Build a bundle aside, check it against exact search on the arrays given, and move it to `root/<hash>`.

    Args:
        root: the parent of all bundles; made if it is not there.
        user_ids: ids of user_vectors (n, d) float32. Users without a vector are answered as cold.
        user_vectors: see `user_ids`.
        item_ids: ids of item_vectors (m, d) float32, the servable items; each must be in `items`.
        item_vectors: see `item_ids`.
        tag_texts: the distinct tags of `tags`, for tag_vectors (t, d) float32.
        tag_vectors: see `tag_texts`.
        tags: `schema.TAGS`.
        interests: `schema.INTERESTS`.
        explanations: `schema.EXPLANATIONS`; a null interest is an item's interest-free text.
        history: `schema.HISTORY`.
        items: `schema.ITEMS`.
        users: `schema.USERS`.
        popularity: `recgpt.serving.POPULARITY`.
        beta: the default weight of y_col.
        now: the run's `now`, timezone-aware. From it on the bundle's time goes as fast as the clock; explanations
            that end before the moment of a request are not served. None for a log without times: the bundle's time is
            the clock's.
        lineage: where the bundle comes from (models, configuration, checksums of inputs), plain JSON values.
        rejections: `schema.REJECTIONS`.
        seen: `SEEN`: user_id, item_id. Without it the bundle refuses `exclude="seen"`.
        extra_files: files to carry along, such as towers and prompts, by their name in the bundle (`prompts/tags.md`).
        index: as `recgpt.index.build`. A graph is kept in the bundle, and its measured recall in the manifest.

    Returns:
        The bundle's folder. It is not served before `publish`.

    Raises:
        InvalidTableError, InvalidArrayError, InvalidConfigError: for input that does not fit.
        BundleError: when the bundle cannot be written or does not answer as the arrays do.
    """
    if now is not None and now.tzinfo is None:
        raise InvalidConfigError(f"`now` must carry a time zone, but it is {now!r}; use datetime(..., tzinfo=UTC)")
    checks.knobs(beta, 1, "max")
    given = {
        "users": users,
        "items": items,
        "tags": tags,
        "interests": interests,
        "explanations": explanations,
        "history": history,
        "popularity": popularity,
        "rejections": schema.REJECTIONS.empty_table() if rejections is None else rejections,
        "seen": SEEN.empty_table() if seen is None else seen,
    }
    tables = {name: _sorted(given[name], name) for name in TABLES}
    dim = checks.vectors(item_vectors, name="item_vectors").shape[1]
    parts = {
        "user_vectors": _keyed(user_ids, user_vectors, "user_vectors", dim),
        "item_vectors": _keyed(item_ids, item_vectors, "item_vectors", dim),
        "tag_vectors": _keyed(tag_texts, tag_vectors, "tag_vectors", dim),
    }
    _covered(tables["tags"]["tag"], parts["tag_vectors"]["tag"], "every tag of `tags` needs a row in `tag_vectors`")
    _covered(
        parts["item_vectors"]["item_id"], tables["items"]["item_id"], "every item with a vector must be in `items`"
    )
    extra = {name: Path(source) for name, source in (extra_files or {}).items()}
    for name, source in extra.items():
        own = {MANIFEST, GRAPH, f"{GRAPH}.json"}
        if not NAME.match(name) or name in own or name.removesuffix(".arrow") in {**TABLES, **VECTORS}:
            raise InvalidConfigError(
                f"`extra_files` holds the name {name!r}; use letters, digits, `_`, `-` and `.`, at most three folders "
                "deep, and no name of the bundle's own files"
            )
        if not source.is_file():
            raise InvalidConfigError(f"`extra_files` names {source} for {name!r}, but there is no such file")
    parent = Path(root)
    parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".tmp-", dir=parent))
    try:
        for name, content in {**tables, **parts}.items():
            _write_table(aside / f"{name}.arrow", content)
        for name, source in extra.items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, aside / name)
        vectors = parts["item_vectors"]
        built = build_index(matrix(vectors, int(dim)), vectors["item_id"].combine_chunks(), index=index)
        if isinstance(built, USearchIndex):
            built.save(aside / GRAPH)
        names = sorted(path.relative_to(aside).as_posix() for path in aside.rglob("*") if path.is_file())
        created = datetime.now(UTC).replace(microsecond=0)
        manifest = {
            "format": FORMAT,
            "created": created.isoformat(),
            "now": (now or created).astimezone(UTC).isoformat(),
            "metric": "inner product",
            "dim": int(dim),
            "beta": float(beta),
            "seen": seen is not None,
            "recall": built.recall if isinstance(built, USearchIndex) else 1.0,
            "norms": {name: _norms(content) for name, content in parts.items()},
            "counts": {name: content.num_rows for name, content in {**tables, **parts}.items()},
            "files": {name: {"bytes": (aside / name).stat().st_size, "sha256": sha256(aside / name)} for name in names},
            "lineage": dict(lineage),
        }
        (aside / MANIFEST).write_text(_json(manifest), encoding="utf-8")
        for name in (*names, MANIFEST):
            sync(aside / name)
        for folder in {aside, *((aside / name).parent for name in names)}:
            sync(folder)
        target = parent / name_of(aside)
        _canaries(load(aside, target.name), user_ids, user_vectors, item_ids, item_vectors)
        if not target.exists():
            aside.chmod(0o755)
            aside.rename(target)
            sync(parent)
    except OSError as error:
        raise BundleError(
            f"a bundle cannot be written below {parent}: {error}; free space or choose a folder"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def _canaries(bundle: Bundle, user_ids: Sequence[str], users: Vectors, item_ids: Sequence[str], items: Vectors) -> None:
    """Ask the reopened bundle what plain numpy answers from the arrays that were handed in."""
    rows = np.unique(np.linspace(0, len(users) - 1, min(_CANARIES, len(users))).astype(np.int64))
    if not len(rows) or not len(items):
        return
    index = open_index(bundle)
    places = pc.index_in(pa.array([user_ids[row] for row in rows], pa.large_string()), bundle.keys["user_vectors"])
    asked = bundle.vectors["user_vectors"][places.to_numpy(zero_copy_only=False)]
    k = min(10, len(items))
    offsets: Rows = np.zeros(len(rows) + 1, np.int64)
    found = index.search(asked, asked[:0], offsets, k=k)
    place = {item: row for row, item in enumerate(item_ids)}
    for canary, row in enumerate(rows):
        scores = items.astype(np.float64) @ users[row].astype(np.float64)
        expected = np.sort(scores)[::-1][:k]
        answer = found.slice(canary * k, k)
        came = scores[[place[item] for item in answer["item_id"].to_pylist()]]
        # Ids may differ among equal scores, so scores are compared; float32 sums stray by parts in a million.
        if not np.allclose(came, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(scores).max()))):
            raise BundleError(f"the bundle answers user {user_ids[row]!r} otherwise than exact search; report this")


def _sorted(data: ArrowStream, name: str) -> pa.Table:
    wanted, keys = TABLES[name]
    table = schema.table(data, wanted, name=name)
    order = pc.sort_indices(table, [(key, "ascending") for key in keys])
    return table.take(order)


def _keyed(keys: Sequence[str], vectors: Vectors, name: str, dim: int) -> pa.Table:
    matrix = checks.vectors(vectors, name=name, dim=dim)
    try:
        column = checks.ids(keys, rows=len(matrix))
    except InvalidArrayError as error:
        raise InvalidArrayError(f"ids of `{name}`: {error}") from error
    order = pc.sort_indices(column)
    flat = pa.array(matrix[order.to_numpy()].reshape(-1))
    listed = pa.FixedSizeListArray.from_arrays(flat, dim)
    return pa.table({VECTORS[name]: column.take(order), "vector": listed})


def _norms(table: pa.Table) -> dict[str, float]:
    """Say how long vectors are: a training that ran away shows here first."""
    values = table["vector"].combine_chunks()
    norms = np.linalg.norm(values.flatten().to_numpy().reshape(len(values), -1), axis=1) if len(values) else np.zeros(1)
    quantiles = {"min": 0.0, "p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: float(np.quantile(norms, share)) for name, share in quantiles.items()}


def _covered(values: pa.ChunkedArray, known: pa.ChunkedArray, rule: str) -> None:
    unknown = values.filter(pc.invert(pc.is_in(values, known.combine_chunks())))
    if len(unknown):
        few = ", ".join(repr(value) for value in unknown.unique().to_pylist()[:3])
        raise InvalidTableError(
            f"{rule}, but {len(unknown.unique())} are not there, for example {few}; add or remove them"
        )


def _write_table(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=max(table.num_rows, 1))


def _json(manifest: Mapping[str, Any]) -> str:
    try:
        return json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InvalidConfigError(f"`lineage` must hold plain JSON values: {error}") from error
