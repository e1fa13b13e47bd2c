"""What lines name: distinct items, queries and categories, as flat columns for the kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.errors import InvalidTableError
from recgpt.history.wording import is_plain, plain

NOTHING = "-"
"""Written for an event with neither item nor query."""


def codes(column: pa.ChunkedArray) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    """Give sorted distinct values and a code an event; nulls are -1."""
    encoded = pc.dictionary_encode(column.combine_chunks())
    order = pc.array_sort_indices(encoded.dictionary).to_numpy()
    ranks = np.full(len(order) + 1, -1, np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    # A null has index -1 here, which is the last rank, which is -1.
    return encoded.dictionary.take(pa.array(order)), ranks[encoded.indices.fill_null(-1).to_numpy()]


Entries = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.int32], npt.NDArray[np.int32]]


def entry_columns(
    events: pa.Table, briefs: pa.Table, categories: Mapping[str, str] | schema.ArrowStream | None
) -> tuple[npt.NDArray[np.int32], Entries, int]:
    """Give each event its entry: items in the order of their ids, then queries, `-` and categories."""
    items, item = codes(events["item_id"])
    asked, query = codes(pc.if_else(events["item_id"].is_valid(), None, events["query"]))
    if pc.count_distinct(briefs["item_id"]).as_py() != briefs.num_rows:
        twice = next(row for row in briefs["item_id"].value_counts().to_pylist() if row["counts"] > 1)
        raise InvalidTableError(
            f"`briefs` must have one row an item, but item {twice['values']!r} has {twice['counts']}"
        )
    rows = pc.index_in(items, value_set=briefs["item_id"].combine_chunks())
    ids: list[str] = items.to_pylist()
    texts = [
        (brief if brief and is_plain(brief) else plain(brief)) or plain(f"item {item_id}")
        for brief, item_id in zip(briefs["brief"].take(rows).to_pylist(), ids, strict=True)
    ]
    queries = [plain(text) for text in asked.to_pylist()]
    distinct = {text: len(texts) + row for row, text in enumerate(sorted({text for text in queries if text}))}
    nothing = len(texts) + len(distinct)
    texts += [f'"{text}"' for text in distinct] + [NOTHING]
    # The last place is for events without a query, whose code is -1.
    query_entry = np.array([distinct.get(text, nothing) for text in queries] + [nothing], np.int32)
    entry = np.where(item >= 0, item, query_entry[query]).astype(np.int32)

    came = list(_category_of(ids, rows, briefs, categories))
    cleaned = {name: plain(name) for name in set(came)}
    named = [cleaned[name] for name in came]
    fold = {name: len(texts) + row for row, name in enumerate(sorted({name for name in named if name}))}
    rest = [-1] * (len(texts) - len(ids) + len(fold))
    texts += fold
    same: dict[str, int] = {}
    equal = [same.setdefault(text, len(same)) for text in texts]
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return (
        entry,
        (
            offsets,
            np.frombuffer(b"".join(encoded), np.uint8),
            np.array(equal, np.int32),
            np.array([fold.get(name, -1) for name in named] + rest, np.int32),
        ),
        rows.null_count,
    )


def _category_of(
    ids: Sequence[str], rows: pa.Array, briefs: pa.Table, categories: Mapping[str, str] | schema.ArrowStream | None
) -> Iterable[str | None]:
    if categories is None:
        known: list[str | None] = briefs["category"].take(rows).to_pylist()
        return known
    if isinstance(categories, Mapping):
        return [categories.get(item_id) for item_id in ids]
    wanted = pa.schema([schema.ITEMS.field("item_id"), schema.ITEMS.field("category")])
    table = schema.table(categories, wanted, name="categories")
    found = dict(zip(table["item_id"].to_pylist(), table["category"].to_pylist(), strict=True))
    return [found.get(item_id) for item_id in ids]
