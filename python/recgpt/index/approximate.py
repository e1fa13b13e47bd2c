"""Approximate fused search: USearch finds candidates, exact scores in float32 decide. Never searched while it changes.

USearch takes any vector and any file without a word: one NaN spoils the graph, one flipped byte can end the process.
So vectors are checked before every add and query, files by checksum before every open, and a graph is never changed:
items that come later are scanned beside it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from recgpt.errors import BundleError, InvalidConfigError
from recgpt.index import arrays, candidates, why
from recgpt.index.arrays import Caps, Exclude, Questions, Rows, Vectors
from recgpt.index.candidates import Columns, Wanted
from recgpt.index.exact import ExactIndex
from recgpt.index.why import WhyNot

_FORMAT = 3
_ASKED = 100
"""Searches that recall is measured with."""


class USearchIndex:
    """The protocol and the columns of `ExactIndex`, for catalogues where one pass over all items is too long."""

    def __init__(
        self,
        vectors: Vectors,
        ids: Sequence[str] | pa.Array,
        *,
        dtype: Literal["f32", "f16", "i8"] = "f16",
        expansion: int = 128,
        threads: int = 1,
    ) -> None:
        """Build the graph.

        Args:
            vectors: (n, d) float32; kept, because exact scores decide.
            ids: one distinct id a row.
            dtype: how the graph stores vectors. "i8" takes half the memory of "f16"; it keeps directions only, so all
                vectors must have the same norm, and more candidates are scored.
            expansion: how widely USearch looks around while it adds and searches; more is slower and finds more.
            threads: with more than one, the graph differs a little from build to build.

        Raises:
            InvalidArrayError: as `ExactIndex`.
            InvalidConfigError: for an unknown dtype, or "i8" with vectors of several norms.
        """
        self._exact = ExactIndex(vectors, ids)
        mine = self._exact.parts[0][0]
        if dtype not in ("f32", "f16", "i8"):
            raise InvalidConfigError(f'`dtype` must be "f32", "f16" or "i8", but it is {dtype!r}')
        if dtype == "i8" and len(mine):
            norms = np.linalg.norm(mine, axis=1)
            if norms.max() > 1.01 * norms.min():
                raise InvalidConfigError(
                    f'`dtype` "i8" needs vectors of one norm, but they go from {norms.min():.4g} to {norms.max():.4g}; '
                    'use "f16"'
                )
        self._settings = {
            "ndim": self._exact.dim,
            "metric": "ip",
            "dtype": dtype,
            "expansion": arrays.at_least_one(expansion, name="expansion"),
            "threads": arrays.at_least_one(threads, name="threads"),
        }
        self._graph = _graph(self._settings)
        if len(mine):
            self._graph.add(np.arange(len(mine), dtype=np.uint64), mine, threads=self._threads)
        self._recall = self._measure()

    @property
    def _threads(self) -> int:
        # USearch crashes when it is asked for more threads than the machine has.
        return min(int(str(self._settings["threads"])), os.cpu_count() or 1)

    @property
    def _wide(self) -> int:
        # By i8 alone recall ends at .96; what ranks wrongly among bytes still is among four times as many.
        return 4 if self._settings["dtype"] == "i8" else 2

    @property
    def recall(self) -> float:
        """Share of the exact best 100 that was found when the graph was built, for 100 items' own vectors."""
        return self._recall

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def dim(self) -> int:
        """How many dimensions a vector has."""
        return self._exact.dim

    @property
    def ids(self) -> pa.Array:
        """The item ids, `(n,) large_string`, in row order; null where an item was removed."""
        return self._exact.ids

    def add(self, vectors: Vectors, ids: Sequence[str] | pa.Array) -> USearchIndex:
        """Give an index that has these items too, as `ExactIndex.add` does.

        The graph is shared and stays as it is: later items are scanned, exactly. Build the index again when they are
        so many that the scan is felt.
        """
        return self._with(self._exact.add(vectors, ids))

    def remove(self, ids: Sequence[str] | pa.Array) -> USearchIndex:
        """Give an index without these items, as `ExactIndex.remove` does; the graph is shared."""
        return self._with(self._exact.remove(ids))

    def _with(self, exact: ExactIndex) -> USearchIndex:
        index = copy.copy(self)
        index._exact = exact
        return index

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
        allow: Rows | None = None,
        deny: Rows | None = None,
    ) -> pa.Table:
        """Search as `ExactIndex.search` does; an item can be missed, but a score is never approximate.

        Because y is the largest of the products with beta * user + (1 - beta) * tag, the graph is asked with exactly
        these vectors, for twice `k` at first and for more until `k` items survive the filters or all were seen. With
        `allow`, which may leave few items anywhere near, all items are scanned, and so are those added later.
        """
        arrays.knobs(beta, k, fuse)
        asked = arrays.questions(
            users,
            tags,
            offsets,
            items=len(self.ids),
            dim=self.dim,
            exclude=exclude,
            caps=caps,
            allow=allow,
            deny=deny,
            fuse=fuse,
        )
        if allow is not None:
            return arrays.result(self._exact.columns(asked, beta=beta, k=k), self.ids)
        candidates.judge(self._exact.parts, asked)
        gone = self._exact.removed if asked.deny is None else np.union1d(self._exact.removed, asked.deny)
        nobody = Questions(asked.users[:0], asked.tags[:0], np.zeros(1, np.int64))
        found = [self._exact.columns(nobody, beta=beta, k=1)]
        found += [self._one(one, asked, gone, beta=beta, k=k) for one in candidates.wanted(asked)]
        return arrays.result(tuple(np.concatenate(columns) for columns in zip(*found, strict=True)), self.ids)

    def _one(self, one: Wanted, asked: Questions, gone: Rows, *, beta: float, k: int) -> Columns:
        """Make one list; `gone`: rows that nobody may get."""
        user, tags = asked.users[one.row : one.row + 1], asked.tags[one.first : one.last]
        mixed = tags.mean(axis=0, keepdims=True) if asked.fuse == "sum" and len(tags) else tags
        fused = user if not len(tags) else np.float32(beta) * user + np.float32(1 - beta) * mixed
        # The user's own row is asked too: its list tells what the tag side found alone.
        fused = arrays.vectors(np.concatenate([user, fused]), name="users and tags, fused")
        banned = np.union1d(gone, candidates.excluded(asked, one.row))
        later = self._later(one, asked, beta=beta, k=k)
        width = self._wide * k
        while True:
            width = min(width, len(self._graph))
            near = np.setdiff1d(np.union1d(self._candidates(fused, width), later), banned)
            found = candidates.decide(self._exact.parts, near, one, asked, beta=beta, k=k)
            if len(found[1]) >= k or width >= len(self._graph):
                return found
            width *= 4

    def _later(self, one: Wanted, asked: Questions, *, beta: float, k: int) -> Rows:
        """The best `k` of the items that the graph does not have, under all filters, with the tags and without."""
        rows = np.arange(len(self._graph), len(self.ids), dtype=np.int64)
        if not len(rows):
            return rows
        banned = candidates.excluded(asked, one.row)
        both = asked._replace(
            users=np.repeat(asked.users[one.row : one.row + 1], 2, axis=0),
            tags=asked.tags[one.first : one.last],
            offsets=np.array([0, one.last - one.first, one.last - one.first], np.int64),
            exclude=(np.tile(banned, 2), np.array([0, len(banned), 2 * len(banned)], np.int64)),
            allow=rows,
        )
        found: Rows = self._exact.columns(both, beta=beta, k=k)[1]
        return np.unique(found)

    def _candidates(self, fused: Vectors, width: int) -> Rows:
        if width == len(self._graph):
            # All of its items are asked for: the graph could only lose some of them.
            return np.arange(width, dtype=np.int64)
        found = self._graph.search(fused, width, threads=self._threads)
        keys = np.asarray(found.keys).reshape(-1).astype(np.int64)
        return np.unique(keys[(keys >= 0) & (keys < len(self._graph))])

    def _measure(self) -> float:
        """Search for some of the items by their own vectors: the share of exact answers that is found."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(_ASKED, len(self))).astype(np.int64))
        vectors = self._exact.parts[0][0]
        asked = vectors[rows], vectors[:0], np.zeros(len(rows) + 1, np.int64)
        exact, graph = self._exact.search(*asked, k=100), self.search(*asked, k=100)
        wanted, came = (
            set(zip(found["row"].to_pylist(), found["item_id"].to_pylist(), strict=True)) for found in (exact, graph)
        )
        return len(wanted & came) / max(len(wanted), 1)

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
        allow: Rows | None = None,
        deny: Rows | None = None,
    ) -> WhyNot:
        """Say as `ExactIndex.why_not` does where an item stands; `missed` names what the graph did not find."""
        banned, one = why.alone_exclude(exclude), why.alone(user, tags)
        found = self.search(*one, beta=beta, k=k, exclude=banned, caps=caps, allow=allow, deny=deny)
        lists, parts = why.Lists(exclude, allow, deny), self._exact.parts
        return why.explain(parts, self.ids, found, user, tags, item_id, beta=beta, k=k, caps=caps, lists=lists)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph to `path`, settings and checksum to `path` + `.json`; vectors and ids stay the caller's.

        Items that were added later are not in the graph and need not be: `open` takes them as they come. The rows that
        were removed are written.
        """
        target = Path(path)
        beside = target.with_name(target.name + ".tmp")
        self._graph.save(str(beside))
        written = {
            "format": _FORMAT,
            **self._settings,
            "count": len(self._graph),
            "removed": self._exact.removed.tolist(),
            "recall": self._recall,
            "bytes": beside.stat().st_size,
            "sha256": _sha256(beside),
            "vectors": _digest(candidates.take(self._exact.parts, np.arange(len(self._graph)))),
        }
        os.replace(beside, target)
        sidecar = target.with_name(target.name + ".json")
        beside = target.with_name(target.name + ".json.tmp")
        beside.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(beside, sidecar)

    @classmethod
    def open(cls, path: str | os.PathLike[str], vectors: Vectors, ids: Sequence[str] | pa.Array) -> USearchIndex:
        """Open what `save` wrote, with the same vectors and ids, those of removed items included.

        Rows beyond those of the graph were added later, before it was saved or since.

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
            recall, removed = float(written["recall"]), np.array(written["removed"], np.int64)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"index {target} cannot be read ({error!r}); {mend}") from error
        if came != expected:
            raise BundleError(f"index {target} must have (format, bytes, sha256) {expected}, but has {came}; {mend}")
        index = cls.__new__(cls)
        index._exact = ExactIndex(vectors, ids)
        if written["vectors"] != _digest(index._exact.parts[0][0][: written["count"]]):
            raise BundleError(f"index {target} was built from other vectors than those handed in; {mend}")
        if len(removed):
            index._exact = index._exact.remove(index._exact.ids.take(pa.array(removed)))
        index._settings, index._recall = settings, recall
        index._graph = _graph(settings)
        # The file is read whole, never viewed: a viewed graph that is added to ends the process.
        index._graph.load(str(target))
        if len(index._graph) != written["count"]:
            raise BundleError(f"index {target} holds {len(index._graph)} vectors, not {written['count']}; {mend}")
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(matrix: Vectors) -> str:
    return hashlib.sha256(matrix.tobytes()).hexdigest()
