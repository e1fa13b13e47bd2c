"""The one door through which arrays reach an index: shape, dtype and content are judged here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import _core
from recgpt.errors import InvalidArrayError, InvalidConfigError

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

Exclude = tuple[Rows, Rows]
"""Item rows that may not appear: `values (e,) int64` and `offsets (n_users + 1,) int64`."""
Caps = tuple[npt.NDArray[np.int32], int]
"""`categories (n_items,) int32` and how many items of one category a result may hold."""


class Questions(NamedTuple):
    """Checked arguments of a search."""

    users: Vectors
    tags: Vectors
    offsets: Rows
    exclude: Exclude | None
    caps: Caps | None


RESULT = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("item_id", pa.large_string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("y_col", pa.float32(), nullable=False),
        pa.field("y_sem", pa.float32()),
        pa.field("tag", pa.int32(), nullable=False),
    ]
)
"""`row`: in users. `y_sem`: null for a user without tags. `tag`: row of the winning tag in tags, or -1."""


def vectors(array: Any, *, name: str, dim: int | None = None) -> Vectors:
    """Check `(n, d) float32` vectors; a C-contiguous array is used as it is, anything else is copied once.

    Raises:
        InvalidArrayError: naming what came, or the row and value that is NaN, infinite or beyond half precision.
    """
    wanted = f"`{name}` must be a numpy array of float32 with shape (n, {dim or 'd'})"
    if not isinstance(array, np.ndarray):
        raise InvalidArrayError(f"{wanted}, but it is a {type(array).__name__}; convert it with numpy.asarray(...)")
    if array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != (dim or array.shape[1]) or not array.shape[1]:
        raise InvalidArrayError(
            f"{wanted}, but it is {array.dtype} with shape {array.shape}; convert it with .astype(numpy.float32)"
        )
    checked = np.ascontiguousarray(array)
    _core.check_vectors(checked, name)
    return checked


def integers(array: Any, *, name: str, dtype: type[np.signedinteger[Any]], length: int | None = None) -> Any:
    """Check a one-dimensional array of one integer type and, if given, one length."""
    wanted = (
        f"`{name}` must be a numpy array of {np.dtype(dtype).name} with shape ({'n' if length is None else length},)"
    )
    if not isinstance(array, np.ndarray):
        raise InvalidArrayError(f"{wanted}, but it is a {type(array).__name__}; convert it with numpy.asarray(...)")
    if array.dtype != dtype or array.ndim != 1 or (length is not None and len(array) != length):
        raise InvalidArrayError(f"{wanted}, but it is {array.dtype} with shape {array.shape}")
    return np.ascontiguousarray(array)


def ids(values: Sequence[str] | pa.Array, *, rows: int) -> pa.Array:
    """Check item ids: text, one for each of `rows` vectors, no two alike."""
    try:
        column = values if isinstance(values, pa.Array) else pa.array(values, pa.large_string())
        column = column.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeEncodeError) as error:
        raise InvalidArrayError(f"`ids` must be a sequence of str, one a vector; {error}") from error
    if len(column) != rows:
        raise InvalidArrayError(f"`ids` has {len(column)} rows but `vectors` has {rows}; they must be equal")
    if column.null_count:
        raise InvalidArrayError(f"`ids` has a null in row {pc.index(column.is_null(), True).as_py()}; name every item")
    if len(column.unique()) != rows:
        counts = column.value_counts()
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"]
        first = pc.index(column, twice).as_py()
        second = pc.index(column, twice, start=first + 1).as_py()
        raise InvalidArrayError(
            f"`ids` must differ, but rows {first} and {second} are both {twice.as_py()!r}; keep one vector an item"
        )
    return column


def questions(
    users: Any, tags: Any, offsets: Any, *, items: int, dim: int, exclude: Exclude | None, caps: Caps | None
) -> Questions:
    """Check all arrays of a search against an index of `items` vectors with `dim` dimensions."""
    users = vectors(users, name="users", dim=dim)
    tags = vectors(tags, name="tags", dim=dim)
    offsets = integers(offsets, name="offsets", dtype=np.int64, length=len(users) + 1)
    if exclude is not None:
        values = integers(exclude[0], name="exclude", dtype=np.int64)
        exclude = (values, integers(exclude[1], name="exclude offsets", dtype=np.int64, length=len(users) + 1))
    if caps is not None:
        limit = at_least_one(caps[1], name="caps limit")
        caps = (integers(caps[0], name="caps categories", dtype=np.int32, length=items), limit)
    return Questions(users, tags, offsets, exclude, caps)


def ragged_rows(exclude: Exclude, *, items: int) -> None:
    """Check offsets and item rows as the kernel does, for an index that filters before it calls the kernel."""
    values, offsets = exclude
    if offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
        raise InvalidArrayError(
            f"`exclude offsets` must start at 0, never fall and end at {len(values)}, but they are {offsets.tolist()}"
        )
    bad = np.flatnonzero((values < 0) | (values >= items))
    if len(bad):
        raise InvalidArrayError(
            f"`exclude` must be item rows from 0 to {items}, {items} not included, but row {bad[0]} is {values[bad[0]]}"
        )


def knobs(beta: float, k: int, fuse: str) -> None:
    """Check the plain arguments of a search."""
    if isinstance(beta, bool) or not isinstance(beta, int | float | np.floating) or not 0 <= beta <= 1:
        raise InvalidConfigError(f"`beta` must be a number from 0 (tags only) to 1 (user only), but it is {beta!r}")
    at_least_one(k, name="k")
    if fuse != "max":
        raise InvalidConfigError(f'`fuse` must be "max" (the best tag of a user counts), but it is {fuse!r}')


def at_least_one(value: Any, *, name: str) -> int:
    """Check a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InvalidConfigError(f"`{name}` must be a whole number of at least 1, but it is {value!r}")
    return int(value)


def search(matrix: Vectors, asked: Questions, *, beta: float, k: int) -> tuple[npt.NDArray[Any], ...]:
    """Run the fused kernel: user row, item row, score, y_col, y_sem, tag row."""
    exclude, exclude_offsets = asked.exclude or (None, None)
    categories, limit = asked.caps or (None, None)
    # A panel of k + 32 answers a user is the kernel's memory, so a k beyond the catalogue must not reach it.
    k = min(int(k), max(len(matrix), 1))
    return _core.search(
        matrix,
        asked.users,
        asked.tags,
        asked.offsets,
        float(beta),
        k,
        exclude,
        exclude_offsets,
        categories,
        limit,
    )


def result(columns: tuple[npt.NDArray[Any], ...], item_ids: pa.Array) -> pa.Table:
    """Make the table of `RESULT` from the kernel's six columns."""
    rows, items, score, y_col, y_sem, tag = columns
    return pa.Table.from_arrays(
        [
            pa.array(rows),
            item_ids.take(pa.array(items)),
            pa.array(score),
            pa.array(y_col),
            pa.array(y_sem, mask=tag < 0),
            pa.array(tag),
        ],
        schema=RESULT,
    )
