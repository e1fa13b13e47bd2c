"""Which index a catalogue needs: exact search as long as one pass over the items is the faster way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa

from recgpt.errors import InvalidConfigError
from recgpt.index.approximate import USearchIndex
from recgpt.index.arrays import Vectors
from recgpt.index.device import TorchIndex
from recgpt.index.exact import ExactIndex

GRAPH_FROM = 10_000_000
"""Items from which "auto" builds a graph. In turns on a busy machine a fused list by the scan took 12.3 ms of a million
clustered items, 18.9 of two, 30.9 of four and 60.2 of eight million, by USearch 40.1 of a million; USearch grows by 1.6
where items grow by five (docs/log.md), so they meet at some ten million. The scan misses nothing and needs no build. A
search with `allow` is scanned at any size: a graph cannot pass by what it may not return."""


def build(
    vectors: Vectors, ids: Sequence[str] | pa.Array, *, index: Literal["auto", "exact", "torch", "usearch"] = "auto"
) -> ExactIndex | USearchIndex:
    """Build the index that suits `vectors (n, d) float32`: "auto" is exact below `GRAPH_FROM` items.

    "torch" is `TorchIndex` on a GPU where there is one. "auto" never takes it: torch takes seconds to import.

    Raises:
        InvalidArrayError: as `ExactIndex`.
        InvalidConfigError: for an unknown `index`.
        MissingExtraError: "torch" without torch.
    """
    if index not in ("auto", "exact", "torch", "usearch"):
        raise InvalidConfigError(f'`index` must be "auto", "exact", "torch" or "usearch", but it is {index!r}')
    if index == "torch":
        return TorchIndex(vectors, ids)
    graph = index == "usearch" or (index == "auto" and len(vectors) >= GRAPH_FROM)
    return USearchIndex(vectors, ids) if graph else ExactIndex(vectors, ids)
