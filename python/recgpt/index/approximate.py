"""Approximate fused search: USearch finds candidates, exact scores in float32 decide. Never searched while it changes.

USearch takes any vector and any file without a word: one NaN spoils the graph, one flipped byte can end the process.
So vectors are checked before every add and query, files by checksum before every open, and nothing can be added later.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from recgpt.errors import BundleError, InvalidConfigError
from recgpt.index import arrays
from recgpt.index.arrays import Caps, Exclude, Questions, Rows, Vectors
from recgpt.index.exact import ExactIndex, WhyNot, alone, alone_exclude, explain

_FORMAT = 1


class USearchIndex:
    """The protocol and the columns of `ExactIndex`, for catalogues where one pass over all items is too long."""

    def __init__(
        self,
        vectors: Vectors,
        ids: Sequence[str] | pa.Array,
        *,
        dtype: Literal["f32", "f16"] = "f16",
        expansion: int = 128,
        threads: int = 1,
    ) -> None:
        """Build the graph.

        Args:
            vectors: (n, d) float32; kept, because exact scores decide.
            ids: one distinct id a row.
            dtype: how the graph stores vectors.
            expansion: how widely USearch looks around while it adds and searches; more is slower and finds more.
            threads: with more than one, the graph differs a little from build to build.

        Raises:
            InvalidArrayError: as `ExactIndex`.
        """
        self._exact = ExactIndex(vectors, ids)
        self._vectors = arrays.vectors(vectors, name="vectors")
        if dtype not in ("f32", "f16"):
            raise InvalidConfigError(f'`dtype` must be "f32" or "f16", but it is {dtype!r}')
        self._settings = {
            "ndim": self._exact.dim,
            "metric": "ip",
            "dtype": dtype,
            "expansion": arrays.at_least_one(expansion, name="expansion"),
            "threads": arrays.at_least_one(threads, name="threads"),
        }
        self._graph = _graph(self._settings)
        if len(self._vectors):
            self._graph.add(np.arange(len(self._vectors), dtype=np.uint64), self._vectors, threads=self._threads)

    @property
    def _threads(self) -> int:
        # USearch crashes when it is asked for more threads than the machine has.
        return min(int(str(self._settings["threads"])), os.cpu_count() or 1)

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def dim(self) -> int:
        """How many dimensions a vector has."""
        return self._exact.dim

    @property
    def ids(self) -> pa.Array:
        """The item ids, `(n,) large_string`, in row order."""
        return self._exact.ids

    def search(
        self,
        users: Vectors,
        tags: Vectors,
        offsets: Rows,
        *,
        beta: float = 0.5,
        k: int = 100,
        fuse: str = "max",
        exclude: Exclude | None = None,
        caps: Caps | None = None,
    ) -> pa.Table:
        """Search as `ExactIndex.search` does; an item can be missed, but a score is never approximate.

        Because y is the largest of the products with beta * user + (1 - beta) * tag, the graph is asked with exactly
        these vectors, for twice `k` at first and for more until `k` items survive the filters or all were seen.
        """
        arrays.knobs(beta, k, fuse)
        asked = arrays.questions(users, tags, offsets, items=len(self), dim=self.dim, exclude=exclude, caps=caps)
        # One empty search lets the kernel judge offsets and excluded rows before any of them is used here.
        arrays.search(self._vectors[:0], asked._replace(exclude=None, caps=None), beta=beta, k=1)
        if asked.exclude is not None:
            arrays.ragged_rows(asked.exclude, items=len(self))
        parts = [self._one(row, asked, beta=beta, k=k) for row in range(len(asked.users))]
        empty = arrays.search(self._vectors[:0], _nobody(asked), beta=beta, k=1)
        columns = tuple(np.concatenate([first, *rest]) for first, *rest in zip(empty, *parts, strict=True))
        return arrays.result(columns, self.ids)

    def _one(self, row: int, asked: Questions, *, beta: float, k: int) -> tuple[Any, ...]:
        user = asked.users[row : row + 1]
        tags = asked.tags[asked.offsets[row] : asked.offsets[row + 1]]
        fused = user if not len(tags) else np.float32(beta) * user + np.float32(1 - beta) * tags
        fused = arrays.vectors(fused, name="users and tags, fused")
        banned = np.empty(0, np.int64)
        if asked.exclude is not None:
            banned = asked.exclude[0][asked.exclude[1][row] : asked.exclude[1][row + 1]]
        width = 2 * k
        while True:
            width = min(width, len(self))
            candidates = np.setdiff1d(self._candidates(fused, width), banned)
            gathered = Questions(
                user,
                tags,
                np.array([0, len(tags)], np.int64),
                None,
                None if asked.caps is None else (asked.caps[0][candidates], asked.caps[1]),
            )
            _, items, score, y_col, y_sem, tag = arrays.search(self._vectors[candidates], gathered, beta=beta, k=k)
            if len(items) >= k or width >= len(self):
                tag = np.where(tag < 0, tag, tag + asked.offsets[row]).astype(np.int32)
                return np.full(len(items), row, np.int32), candidates[items], score, y_col, y_sem, tag
            width *= 4

    def _candidates(self, fused: Vectors, width: int) -> Rows:
        if width == len(self):
            # All items are asked for: the graph could only lose some of them.
            return np.arange(len(self), dtype=np.int64)
        found = self._graph.search(fused, width, threads=self._threads)
        keys = np.asarray(found.keys).reshape(-1).astype(np.int64)
        return np.unique(keys[(keys >= 0) & (keys < len(self))])

    def why_not(
        self,
        user: Vectors,
        tags: Vectors,
        item_id: str,
        *,
        beta: float = 0.5,
        k: int = 100,
        exclude: Rows | None = None,
        caps: Caps | None = None,
    ) -> WhyNot:
        """Say as `ExactIndex.why_not` does where an item stands; `missed` names what the graph did not find."""
        found = self.search(*alone(user, tags), beta=beta, k=k, exclude=alone_exclude(exclude), caps=caps)
        return explain(self._exact, found, user, tags, item_id, beta=beta, k=k, exclude=exclude, caps=caps)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph to `path`, settings and checksum to `path` + `.json`; vectors and ids stay the caller's."""
        target = Path(path)
        beside = target.with_name(target.name + ".tmp")
        self._graph.save(str(beside))
        written = {
            "format": _FORMAT,
            **self._settings,
            "count": len(self),
            "bytes": beside.stat().st_size,
            "sha256": _sha256(beside),
            "vectors": _digest(self._vectors),
        }
        os.replace(beside, target)
        sidecar = target.with_name(target.name + ".json")
        beside = target.with_name(target.name + ".json.tmp")
        beside.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(beside, sidecar)

    @classmethod
    def open(cls, path: str | os.PathLike[str], vectors: Vectors, ids: Sequence[str] | pa.Array) -> USearchIndex:
        """Open what `save` wrote, with the same vectors and ids.

        Raises:
            BundleError: if a file is missing or damaged, or the vectors are not those of the graph.
        """
        target = Path(path)
        mend = "build the index again and save it"
        try:
            written = json.loads(target.with_name(target.name + ".json").read_text(encoding="utf-8"))
            came = (written["format"], target.stat().st_size, _sha256(target))
            expected = (_FORMAT, written["bytes"], written["sha256"])
            settings = {key: written[key] for key in ("ndim", "metric", "dtype", "expansion", "threads")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"index {target} cannot be read ({error!r}); {mend}") from error
        if came != expected:
            raise BundleError(f"index {target} must have (format, bytes, sha256) {expected}, but has {came}; {mend}")
        index = cls.__new__(cls)
        index._exact = ExactIndex(vectors, ids)
        index._vectors = arrays.vectors(vectors, name="vectors")
        if written["vectors"] != _digest(index._vectors):
            raise BundleError(f"index {target} was built from other vectors than those handed in; {mend}")
        index._settings = settings
        index._graph = _graph(settings)
        # The file is read whole, never viewed: a viewed graph that is added to ends the process.
        index._graph.load(str(target))
        if len(index._graph) != len(index):
            raise BundleError(f"index {target} holds {len(index._graph)} vectors instead of {len(index)}; {mend}")
        return index


def _graph(settings: dict[str, Any]) -> Any:
    from usearch.index import Index

    return Index(
        ndim=settings["ndim"],
        metric=settings["metric"],
        dtype=settings["dtype"],
        expansion_add=settings["expansion"],
        expansion_search=settings["expansion"],
    )


def _nobody(asked: Questions) -> Questions:
    return Questions(asked.users[:0], asked.tags[:0], np.zeros(1, np.int64), None, None)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(matrix: Vectors) -> str:
    return hashlib.sha256(matrix.tobytes()).hexdigest()
