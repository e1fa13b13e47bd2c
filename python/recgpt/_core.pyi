"""The compiled kernels. Written by hand, checked against the binary by stubtest."""

from collections.abc import Sequence
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "Catalogue",
    "Codes",
    "Exposures",
    "Tokenizer",
    "build_profile",
    "check_vectors",
    "compress_history",
    "history_rows",
    "keep_reliable",
    "kernels",
    "scores",
    "search",
]

build_profile: Final[str]
"""`"release"` or `"debug"`."""

@final
class Tokenizer:
    """Counts and encodes text exactly as one model does; control tokens in the text are plain text."""

    @staticmethod
    def bytes() -> Tokenizer:
        """Make one token a UTF-8 byte."""
    @staticmethod
    def bpe(tokens: list[str], types: list[int], merges: list[str], pre: str) -> Tokenizer:
        """Make a byte-level BPE; `tokens[i]` is the text of id `i`, a merge is two texts with a space between.

        GGUF `types` stand beside the tokens: user-defined ones are taken out of a text before all else.
        """
    @staticmethod
    def spm(tokens: list[str], scores: list[float], types: list[int], prefix: bool, strip: bool) -> Tokenizer:
        """Make a SentencePiece-like one; `scores` and GGUF `types` stand beside the tokens.

        `prefix`: a space goes before a text. `strip`: white space after a user-defined token is left out.
        """
    def count(self, texts: list[str]) -> npt.NDArray[np.uint32]:
        """Count tokens: `(len(texts),) uint32`."""
    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Encode: `(n_tokens,) uint32`."""

# ---- behaviors and history

def keep_reliable(
    behaviors: npt.NDArray[np.int32],
    reliable: list[bool],
    rules: list[tuple[int, npt.NDArray[np.float64], float, float, int | None]],
) -> npt.NDArray[np.int32]:
    """Give each event the behavior it counts as, or -1: `(n_events,) int32`.

    A rule is (behavior, values `(n_events,)` with NaN where missing, above, below, becomes).
    """

@final
class Catalogue:
    """Texts of items and, after them, of categories, with their token counts; what history lines name."""

    def __new__(
        cls,
        offsets: npt.NDArray[np.int64],
        bytes: npt.NDArray[np.uint8],
        categories: npt.NDArray[np.int32],
        tokenizer: Tokenizer,
    ) -> Catalogue:
        """Take text offsets `(n + 1,)`, UTF-8 bytes, and the row of each text's category or -1."""
    def __len__(self) -> int: ...

_Nullable = tuple[npt.NDArray[Any], tuple[npt.NDArray[np.uint8], int] | None]
"""Values, and where there are nulls validity bits and the offset of the first one, as in Arrow."""
_Batch = tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[Any], _Nullable, _Nullable | None]
"""User, moment, behavior, item, query of some rows."""
_Meaning = tuple[int, npt.NDArray[np.int32] | None, int]
"""Base, map and size: a value means `map[value - base]`, or without a map `value - base`; below size."""
_HistoryChunk = tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.uint8],
    npt.NDArray[np.uint32],
    npt.NDArray[np.int64],
    npt.NDArray[np.uint8],
]
"""User codes, text offsets, UTF-8 bytes, tokens, receipts `(7 * n_users,)`, layouts."""

def compress_history(
    batches: list[_Batch],
    meanings: tuple[_Meaning, _Meaning, _Meaning, _Meaning],
    nothing: int,
    catalogue: Catalogue,
    extra: tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]],
    behaviors: list[str],
    tokenizer: Tokenizer,
    *,
    clock: tuple[int, int] | None,
    days: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    today: int,
    budget: int | None,
    layout: int | None,
    counts: bool,
    long_labels: bool,
    stable: bool,
    row_ids: bool,
    threads: int,
    count: bool = True,
) -> list[_HistoryChunk]:
    """Compress every user's events.

    `meanings`: of users, behaviors (-1: left out), items and queries (entries). `nothing`: the entry of neither.
    `extra`: texts of the entries after those of the catalogue. `clock`: `now` in UTC microseconds and the earliest
    second; None where moments are ranks. `days`: from which UTC second on local time is ahead by so many seconds, or
    from which rank on it is which local day. `count=False` is for the bench, which asks what counting tokens costs.
    """

_RowsChunk = tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.int64],
    npt.NDArray[np.uint16],
    npt.NDArray[np.uint32],
    npt.NDArray[np.int32],
]
"""User codes, offsets of their cells, and of each cell the row of its label, its behaviors as bits, and its item."""

def history_rows(
    batches: list[_Batch],
    meanings: tuple[_Meaning, _Meaning, _Meaning, _Meaning],
    nothing: int,
    *,
    items: int,
    entries: int,
    behaviors: int,
    clock: tuple[int, int] | None,
    days: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    today: int,
    stable: bool,
    threads: int,
) -> tuple[list[str], list[_RowsChunk]]:
    """Give every user's cells as numbers, and the label of each bucket, oldest first.

    `entries`: how many the log may name; those from `items` on are left out. `behaviors`: how many there are. The rest
    is as in `compress_history`.
    """

# ---- index

def check_vectors(vectors: npt.NDArray[np.float32], name: str) -> None:
    """Refuse NaN, infinities, and values or row norms beyond 65504 in `(n, d) float32`, naming the first bad row."""

def kernels() -> list[str]:
    """Name the kernels that this processor has, the fastest first; the last is `portable`."""

@final
class Codes:
    """Items as bytes, with bounds of what the bytes leave out. The vectors must not change afterwards."""

    def __new__(cls, vectors: npt.NDArray[np.float32]) -> Codes:
        """Code `(n, d) float32`."""
    def __len__(self) -> int:
        """How many items are coded; none beyond 65,536 dimensions, where only floats are scanned."""

def scores(
    items: Sequence[tuple[npt.NDArray[np.float32], Codes | None]],
    user: npt.NDArray[np.float32],
    tags: npt.NDArray[np.float32],
    beta: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Score every item for one `user (1, d)`: score, y_col, y_sem (NaN without tags), tag row (or -1)."""

def search(
    items: Sequence[tuple[npt.NDArray[np.float32], Codes | None]],
    users: npt.NDArray[np.float32],
    tags: npt.NDArray[np.float32],
    offsets: npt.NDArray[np.int64],
    beta: float,
    k: int,
    fuse: str,
    kernel: str = "bytes",
    exclude: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None,
    allow: npt.NDArray[np.int64] | None = None,
    deny: npt.NDArray[np.int64] | None = None,
    removed: npt.NDArray[np.int64] | None = None,
    caps: tuple[npt.NDArray[np.int32], int] | None = None,
) -> tuple[
    npt.NDArray[np.int32],
    npt.NDArray[np.int64],
    npt.NDArray[np.float32],
    npt.NDArray[np.float32],
    npt.NDArray[np.float32],
    npt.NDArray[np.int32],
    npt.NDArray[np.bool_],
]:
    """Find the best `k` items for `users (m, d)`, whose tags are `tags (t, d)` cut by `offsets (m + 1,)`.

    `items`: parts of the catalogue, each with its codes or, to be scanned as floats, without. `kernel`: `bytes` or
    `floats`, by the fastest kernel or by the one named before it (`avx2 floats`); it changes the time alone.

    Returns seven columns of equal length: user row, item row, score, y_col, y_sem (NaN without tags), tag row (or -1),
    and whether the user's own row does not bring the item into the same k.
    """

# ---- evaluation

@final
class Exposures:
    """What a log of exposures adds up to, batch by batch."""

    def __new__(cls, categories: npt.NDArray[np.int32], threads: int) -> Exposures:
        """Begin at nothing; `categories` is `(n_items,)`, negative where an item has none."""
    def numbers(self, offsets: npt.NDArray[np.int64], bytes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Number texts as Arrow lays them out, the same text always the same: `(len(offsets) - 1,) int64`."""
    def add(
        self,
        user: npt.NDArray[np.int64],
        item: npt.NDArray[np.int32],
        day: npt.NDArray[np.int32],
        click: npt.NDArray[np.uint32],
        cart: npt.NDArray[np.uint32],
        dwell: npt.NDArray[np.float64],
    ) -> None:
        """Add a batch of rows, or nothing of it when a value is refused; item -1 is unknown to the catalogue."""
    def users(self) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.uint64]], npt.NDArray[np.float64]]:
        """Give ids, ascending; exposures, clicked, clicks, carts, categories shown and clicked, click days; dwell."""
    def items(self) -> list[npt.NDArray[np.uint64]]:
        """Give exposures, clicked and clicks: each `(n_items + 1,)`, the last row for unknown items."""
    def names(self) -> list[str]:
        """Give the numbered texts, by number."""
    def nbytes(self) -> int:
        """Count the bytes held."""
