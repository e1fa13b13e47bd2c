"""Exact fused search in one pass over the items, in Rust. The oracle of every other index, and fast enough for most."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt.errors import InvalidArrayError
from recgpt.index import arrays, why
from recgpt.index.arrays import Caps, Exclude, Part, Questions, Rows, Vectors
from recgpt.index.candidates import Columns
from recgpt.index.why import WhyNot


class ExactIndex:
    """Exact search: no item is ever missed, filters act inside the scan. Immutable, so threads may share it.

    Items are scanned as bytes (a quarter of the memory beside the vectors) under a bound that proves what cannot be in
    the answer; the rest is scored in float32. So answers are those of float32, to the last bit.

    >>> vectors = np.array([[1, 0], [0, 1]], np.float32)
    >>> index = ExactIndex(vectors, ["hose", "soil"])
    >>> found = index.search(np.array([[1, 0]], np.float32), np.array([[0, 2]], np.float32), np.array([0, 1]), k=1)
    >>> found.select(["item_id", "score", "y_col", "y_sem", "tag", "tag_side_alone"]).to_pylist()
    [{'item_id': 'soil', 'score': 1.0, 'y_col': 0.0, 'y_sem': 2.0, 'tag': 0, 'tag_side_alone': True}]
    >>> more = index.add(np.array([[0, 3]], np.float32), ["seeds"]).remove(["soil"])
    >>> more.search(np.array([[0, 1]], np.float32), vectors[:0], np.array([0, 0]), k=3)["item_id"].to_pylist()
    ['seeds', 'hose']
    """

    def __init__(self, vectors: Vectors, ids: Sequence[str] | pa.Array, *, kernel: str = "bytes") -> None:
        """Take `vectors (n, d) float32` and one distinct id a row; a contiguous array is used without a copy.

        Args:
            vectors: see above; they must not change afterwards.
            ids: see above.
            kernel: "bytes" or "floats", or by name as in "avx2 floats": it changes the time alone. For benches and
                tests.

        Raises:
            InvalidArrayError: for a wrong dtype or shape, NaN, infinity, a value or norm beyond 65504 (half precision),
                or ids that repeat; the message names row and value.
        """
        checked = arrays.vectors(vectors, name="vectors")
        self._ids = arrays.ids(ids, rows=len(checked))
        self._parts: tuple[Part, ...] = (_part(checked),)
        self._removed: Rows = np.empty(0, np.int64)
        self._kernel = kernel

    def __len__(self) -> int:
        return len(self._ids) - len(self._removed)

    @property
    def dim(self) -> int:
        """How many dimensions a vector has."""
        return int(self._parts[0][0].shape[1])

    @property
    def ids(self) -> pa.Array:
        """The item ids, `(n,) large_string`, in row order; null where an item was removed."""
        return self._ids

    @property
    def parts(self) -> tuple[Part, ...]:
        """The vectors, in row order."""
        return self._parts

    @property
    def removed(self) -> Rows:
        """The rows whose items were removed, rising."""
        return self._removed

    def add(self, vectors: Vectors, ids: Sequence[str] | pa.Array) -> Self:
        """Give an index that has these items too, in rows after all others; this one stays as it is.

        Nothing is built again: the new index shares the old one's vectors. Small additions are joined, so that n single
        ones make log n parts.
        """
        added = arrays.vectors(vectors, name="vectors", dim=self.dim)
        column = arrays.ids(ids, rows=len(added))
        known = pc.is_in(self._ids, column.cast(self._ids.type))
        if pc.any(known).as_py():
            twice = self._ids.filter(known)[0].as_py()
            raise InvalidArrayError(f"`ids` must be new, but the index has {twice!r} already; remove it first")
        parts = list(self._parts)
        while parts and len(parts[-1][0]) <= len(added):
            added = np.concatenate([parts.pop()[0], added])
        return self._with((*parts, _part(added)), pa.concat_arrays([self._ids, column]), self._removed)

    def remove(self, ids: Sequence[str] | pa.Array) -> Self:
        """Give an index without these items; this one stays as it is, and so does every other item's row.

        Raises:
            InvalidArrayError: naming an id that the index does not have.
        """
        column = arrays.ids(ids, rows=len(ids))
        unknown = column.filter(pc.invert(pc.is_in(column, self._ids)))
        if len(unknown):
            raise InvalidArrayError(f"`ids` must be in the index, but {unknown[0].as_py()!r} is not; leave it out")
        gone = pc.is_in(self._ids, column)
        kept = pc.if_else(gone, pa.scalar(None, pa.large_string()), self._ids)
        return self._with(self._parts, kept, np.flatnonzero(kept.is_null()).astype(np.int64))

    def _with(self, parts: tuple[Part, ...], ids: pa.Array, removed: Rows) -> Self:
        index = copy.copy(self)
        index._parts, index._ids, index._removed = parts, ids, removed
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
        """Find each user's best items by y = beta * y_col + (1 - beta) * y_sem.

        Args:
            users: (n, d) float32.
            tags: (t, d) float32, all users' tags one after another.
            offsets: (n + 1,) int64; user i owns tags[offsets[i]:offsets[i + 1]]. Without tags, y = y_col.
            beta: weight of the user side, 0 to 1.
            k: how many items a list has at most.
            fuse: what y_sem is. "max": the product with the tag that suits the item best, so every intent of a user can
                bring its items; what the paper's many tags are for. "sum": the product with the mean of all tags; an
                item must suit the whole user, and single intents drown (a list of 100 shares few items with the list
                of "max"); `tag` is the one that gives the item most. "lists": no fusion: one list for each tag, rows
                in the order of the tags.
            exclude: item rows that may not appear, as values and offsets per user.
            caps: categories (n_items,) int32 and a limit. Greedy and exact: best items first, an item is skipped when
                its category already has `limit` items in the list.
            allow: item rows, int64: for all users only these may appear.
            deny: item rows, int64: for no user these may appear.

        Returns:
            row int32 (in users), item_id, score, y_col, y_sem float32 (null without tags), tag int32 (row in tags, or
            -1), tag_side_alone bool (the user's own row would not have brought the item into the same k); a list's rows
            stand together, best first, ties by the item's row.

        Raises:
            InvalidArrayError: for vectors that are not usable, or offsets that do not fit.
            InvalidConfigError: for beta, k, fuse or a cap out of range.
        """
        arrays.knobs(beta, k, fuse)
        asked = arrays.questions(
            users,
            tags,
            offsets,
            items=len(self._ids),
            dim=self.dim,
            exclude=exclude,
            caps=caps,
            allow=allow,
            deny=deny,
            fuse=fuse,
        )
        return arrays.result(self._lists(asked, beta=beta, k=k), self._ids)

    def _lists(self, asked: Questions, *, beta: float, k: int) -> Columns:
        """Answer checked questions; another way to the same lists takes the place of this."""
        return self.columns(asked, beta=beta, k=k)

    def columns(self, asked: Questions, *, beta: float, k: int) -> Columns:
        """Search for checked questions: the columns of the answer, with item rows in the place of ids."""
        return arrays.search(self._parts, asked, beta=beta, k=k, kernel=self._kernel, removed=self._removed)

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
        """Say for one user, `user (d,)` with `tags (t, d)`, where `item_id` stands and what kept it out.

        Args as in `search` with fuse "max"; `exclude` is `(e,) int64` item rows.
        """
        banned, one = why.alone_exclude(exclude), why.alone(user, tags)
        found = self.search(*one, beta=beta, k=k, exclude=banned, caps=caps, allow=allow, deny=deny)
        lists = why.Lists(exclude, allow, deny)
        return why.explain(self._parts, self._ids, found, user, tags, item_id, beta=beta, k=k, caps=caps, lists=lists)


def _part(vectors: Vectors) -> Part:
    return vectors, arrays.codes(vectors)
