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
Part = tuple[Vectors, "_core.Codes | None"]
"""Some of an index's vectors, and the same as bytes; without those they are scanned as floats."""
FUSES = ("max", "sum", "lists")


class Questions(NamedTuple):
    """Checked arguments of a search."""

    users: Vectors
    tags: Vectors
    offsets: Rows
    exclude: Exclude | None = None
    caps: Caps | None = None
    allow: Rows | None = None
    deny: Rows | None = None
    fuse: str = "max"


RESULT = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("item_id", pa.large_string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("y_col", pa.float32(), nullable=False),
        pa.field("y_sem", pa.float32()),
        pa.field("tag", pa.int32(), nullable=False),
        pa.field("tag_side_alone", pa.bool_(), nullable=False),
    ]
)
"""`row`: in users. `y_sem`: null for a user without tags. `tag`: row of the winning tag in tags, or -1.
`tag_side_alone`: the user's own row, asked for k items under the same filters, would not have brought this one."""


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
    users: Any,
    tags: Any,
    offsets: Any,
    *,
    items: int,
    dim: int,
    exclude: Exclude | None = None,
    caps: Caps | None = None,
    allow: Rows | None = None,
    deny: Rows | None = None,
    fuse: str = "max",
) -> Questions:
    """Check all arrays of a search against an index of `items` rows with `dim` dimensions."""
    users = vectors(users, name="users", dim=dim)
    tags = vectors(tags, name="tags", dim=dim)
    offsets = integers(offsets, name="offsets", dtype=np.int64, length=len(users) + 1)
    if exclude is not None:
        values = integers(exclude[0], name="exclude", dtype=np.int64)
        exclude = (values, integers(exclude[1], name="exclude offsets", dtype=np.int64, length=len(users) + 1))
    if caps is not None:
        limit = at_least_one(caps[1], name="caps limit")
        caps = (integers(caps[0], name="caps categories", dtype=np.int32, length=items), limit)
    allow, deny = (
        None if rows is None else integers(rows, name=name, dtype=np.int64)
        for rows, name in ((allow, "allow"), (deny, "deny"))
    )
    return Questions(users, tags, offsets, exclude, caps, allow, deny, fuse)


def knobs(beta: float, k: int, fuse: str) -> None:
    """Check the plain arguments of a search."""
    if isinstance(beta, bool) or not isinstance(beta, int | float | np.floating) or not 0 <= beta <= 1:
        raise InvalidConfigError(f"`beta` must be a number from 0 (tags only) to 1 (user only), but it is {beta!r}")
    at_least_one(k, name="k")
    if fuse not in FUSES:
        raise InvalidConfigError(
            f'`fuse` must be "max" (the best tag of a user counts), "sum" (all count alike) or "lists" (a list for '
            f"each tag), but it is {fuse!r}"
        )


def at_least_one(value: Any, *, name: str) -> int:
    """Check a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InvalidConfigError(f"`{name}` must be a whole number of at least 1, but it is {value!r}")
    return int(value)


def search(
    parts: Sequence[Part],
    asked: Questions,
    *,
    beta: float,
    k: int,
    kernel: str = "bytes",
    removed: Rows | None = None,
) -> tuple[npt.NDArray[Any], ...]:
    """Run the fused kernel: user row, item row, score, y_col, y_sem, tag row, whether the tag side found it alone."""
    return _core.search(
        parts,
        asked.users,
        asked.tags,
        asked.offsets,
        float(beta),
        # No catalogue has more items, and a larger number does not fit through the boundary.
        min(int(k), 2**31),
        asked.fuse,
        kernel,
        asked.exclude,
        asked.allow,
        asked.deny,
        removed,
        asked.caps,
    )


def codes(matrix: Vectors) -> _core.Codes:
    """Make the bytes that are scanned in the place of checked vectors."""
    return _core.Codes(matrix)


def scores(parts: Sequence[Part], user: Vectors, tags: Vectors, *, beta: float) -> tuple[npt.NDArray[Any], ...]:
    """Score every item for one `user (1, d)`: score, y_col, y_sem, tag row."""
    return _core.scores(parts, user, tags, float(beta))


def result(columns: tuple[npt.NDArray[Any], ...], item_ids: pa.Array) -> pa.Table:
    """Make the table of `RESULT` from the kernel's seven columns."""
    rows, items, score, y_col, y_sem, tag, alone = columns
    return pa.Table.from_arrays(
        [
            pa.array(rows),
            item_ids.take(pa.array(items)),
            pa.array(score),
            pa.array(y_col),
            pa.array(y_sem, mask=tag < 0),
            pa.array(tag),
            pa.array(alone),
        ],
        schema=RESULT,
    )
