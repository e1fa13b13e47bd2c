"""Briefs prepared for the kernel: once for a catalogue, for as many calls as one likes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import _core, schema
from recgpt.errors import InvalidConfigError, InvalidTableError
from recgpt.history.wording import is_plain, plain
from recgpt.llm.tokenizer import Tokenizer

Codes = npt.NDArray[np.int32]
Texts = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]
"""Offsets and UTF-8 bytes."""


@dataclass(frozen=True)
class Catalogue:
    """Every item's brief with its token counts, in the form the kernel reads; make it with `catalogue`."""

    ids: pa.LargeStringArray
    """Item ids, ascending, by value if all are whole numbers; an item's entry is its place here."""
    tokenizer: Tokenizer
    core: _core.Catalogue
    """The briefs and, after them, the categories that items fold into."""
    texts: pa.LargeStringArray
    """What each item, and then each category, is called in a line."""
    folds: Codes
    """The row of each text's category among the texts, or -1."""

    @cached_property
    def digest(self) -> str:
        """Identify the ids, texts and categories."""
        digest = hashlib.sha256()
        for column in (self.ids, self.texts, pa.array(self.folds)):
            # The buffers of a slice hold more than its values, and null bits may be there or not.
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, pa.schema([("", column.type)])) as writer:
                writer.write_batch(pa.record_batch([pa.concat_arrays([column])], [""]))
            digest.update(sink.getvalue())
        return digest.hexdigest()

    @cached_property
    def numbers(self) -> tuple[int, Codes | None] | None:
        """Where all ids are whole numbers, nearly without gaps: the least one, and the entry of each from there on.

        Without any gap an id's distance from the least one is its entry, and nothing need be looked up.
        """
        numbers = schema.whole_numbers(self.ids)
        if numbers is None:
            return None
        values = numbers.to_numpy()
        base, span = int(values.min()), int(values.max()) - int(values.min()) + 1
        if span > 4 * len(values) + 65_536:
            return None
        if span == len(values):
            return base, None
        entries = np.full(span, -1, np.int32)
        entries[values - base] = np.arange(len(values), dtype=np.int32)
        return base, entries


def catalogue(
    briefs: schema.ArrowStream,
    *,
    tokenizer: Tokenizer,
    categories: Mapping[str, str] | schema.ArrowStream | None = None,
) -> Catalogue:
    """Prepare briefs for `compress`, which takes the result in the place of `briefs`.

    Worth it where a catalogue serves several calls: each text is cleaned, placed and counted once.

    Args:
        briefs: `schema.BRIEFS`.
        tokenizer: counts the tokens; `compress` must be given the same one.
        categories: what items fold into: a mapping or a table of `item_id, category`; default: the column of `briefs`.

    Raises:
        InvalidTableError: a table does not fit or an item has two briefs.
    """
    table = schema.table(briefs, schema.BRIEFS, name="briefs")
    numbers = schema.whole_numbers(table["item_id"])
    table = table.take(pc.array_sort_indices(table["item_id"] if numbers is None else numbers))
    ids = table["item_id"].combine_chunks()
    if pc.count_distinct(ids).as_py() != len(ids):
        twice = next(row for row in ids.value_counts().to_pylist() if row["counts"] > 1)
        raise InvalidTableError(
            f"`briefs` must have one row an item, but item {twice['values']!r} has {twice['counts']}"
        )
    texts = [
        (brief if brief and is_plain(brief) else plain(brief)) or named(item_id)
        for brief, item_id in zip(table["brief"].to_pylist(), ids.to_pylist(), strict=True)
    ]
    came = list(_categories(ids.to_pylist(), table, categories))
    cleaned = {name: plain(name) for name in set(came)}
    fold = {name: len(texts) + row for row, name in enumerate(sorted({name for name in cleaned.values() if name}))}
    rows = [fold.get(cleaned[name], -1) for name in came] + [-1] * len(fold)
    offsets, text = flat([*texts, *fold])
    folds = np.array(rows, np.int32)
    core = _core.Catalogue(offsets, text, folds, tokenizer.core)
    named_so = pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(text))
    return Catalogue(ids, tokenizer, core, named_so, folds)


def prepared(
    briefs: schema.ArrowStream | Catalogue,
    tokenizer: Tokenizer,
    categories: Mapping[str, str] | schema.ArrowStream | None,
) -> Catalogue:
    """Prepare briefs, or judge whether what was prepared fits.

    Raises:
        InvalidConfigError: a catalogue was made with another tokenizer, or categories come too late for it.
    """
    if not isinstance(tokenizer, Tokenizer):
        raise InvalidConfigError(
            f"`tokenizer` must be a recgpt.llm.Tokenizer, but it is {tokenizer!r}; Tokenizer.from_gguf(path), or "
            "Tokenizer.bytes() without a model"
        )
    if not isinstance(briefs, Catalogue):
        return catalogue(briefs, tokenizer=tokenizer, categories=categories)
    if briefs.tokenizer is not tokenizer or categories is not None:
        raise InvalidConfigError(
            "`tokenizer` must be the one that the catalogue was made with, and `categories` go into it: "
            "history.catalogue(briefs, tokenizer=tokenizer, categories=categories)"
        )
    return briefs


def named(item_id: str) -> str:
    """Name an item that has no brief."""
    return plain(f"item {item_id}")


def flat(texts: Sequence[str]) -> Texts:
    """Lay texts out in one buffer."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return offsets, np.frombuffer(b"".join(encoded), np.uint8)


def _categories(
    ids: Sequence[str], briefs: pa.Table, categories: Mapping[str, str] | schema.ArrowStream | None
) -> Iterable[str | None]:
    if categories is None:
        known: list[str | None] = briefs["category"].to_pylist()
        return known
    if isinstance(categories, Mapping):
        return [categories.get(item_id) for item_id in ids]
    wanted = pa.schema([schema.ITEMS.field("item_id"), schema.ITEMS.field("category")])
    table = schema.table(categories, wanted, name="categories")
    found = dict(zip(table["item_id"].to_pylist(), table["category"].to_pylist(), strict=True))
    return [found.get(item_id) for item_id in ids]
