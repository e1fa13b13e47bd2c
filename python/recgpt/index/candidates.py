"""Candidates of any origin, decided by their exact scores: what `USearchIndex` and `TorchIndex` have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recgpt.index import arrays
from recgpt.index.arrays import Part, Questions, Rows, Vectors

Columns = tuple[npt.NDArray[Any], ...]
"""As the kernel gives them: user row, item row, score, y_col, y_sem, tag row, whether the tag side found it alone."""


class Wanted(NamedTuple):
    """One list that is asked for: user `row` with the tags from `first` up to `last`."""

    row: int
    first: int
    last: int


def wanted(asked: Questions) -> Iterator[Wanted]:
    """Every list of a batch, in the order of the answer."""
    for row in range(len(asked.users)):
        first, last = int(asked.offsets[row]), int(asked.offsets[row + 1])
        if asked.fuse == "lists" and first < last:
            yield from (Wanted(row, tag, tag + 1) for tag in range(first, last))
        else:
            yield Wanted(row, first, last)


def judge(parts: Sequence[Part], asked: Questions) -> None:
    """Let the kernel judge offsets and rows before any of them is used outside of it; nothing is scored.

    Raises:
        InvalidArrayError: as the kernel's own search.
    """
    nobody = Questions(asked.users[:0], asked.tags[:0], np.zeros(1, np.int64), allow=asked.allow)
    arrays.search(parts, nobody, beta=1.0, k=1)
    nothing = asked._replace(allow=np.empty(0, np.int64), caps=None, fuse="max")
    arrays.search(parts, nothing, beta=1.0, k=1)


def excluded(asked: Questions, row: int) -> Rows:
    """The item rows that one user may not get."""
    if asked.exclude is None:
        return np.empty(0, np.int64)
    values, offsets = asked.exclude
    return values[offsets[row] : offsets[row + 1]]


def take(parts: Sequence[Part], rows: Rows) -> Vectors:
    """Vectors of some item rows."""
    if len(parts) == 1:
        return parts[0][0][rows]
    found = np.empty((len(rows), parts[0][0].shape[1]), np.float32)
    first = 0
    for vectors, _ in parts:
        mine = (rows >= first) & (rows < first + len(vectors))
        found[mine] = vectors[rows[mine] - first]
        first += len(vectors)
    return found


def decide(
    parts: Sequence[Part], candidates: Rows, one: Wanted, asked: Questions, *, beta: float, k: int, own: bool = False
) -> Columns:
    """Make one list of the best `k` candidates, rising item rows of which no filter but the cap removes any.

    Args:
        parts: All items.
        candidates: See above.
        one: The list.
        asked: The batch.
        beta: Weight of the user side.
        k: Length.
        own: The list of the user's own row, without tags.
    """
    tags = asked.tags[:0] if own else asked.tags[one.first : one.last]
    caps = None if asked.caps is None else (asked.caps[0][candidates], asked.caps[1])
    offsets = np.array([0, len(tags)], np.int64)
    asking = Questions(asked.users[one.row : one.row + 1], tags, offsets, caps=caps, fuse=asked.fuse)
    _, items, score, y_col, y_sem, tag, alone = arrays.search([(take(parts, candidates), None)], asking, beta=beta, k=k)
    tag = np.where(tag < 0, tag, tag + one.first).astype(np.int32)
    return np.full(len(items), one.row, np.int32), candidates[items], score, y_col, y_sem, tag, alone
