"""recgpt's own compression, called as a user calls it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import _core, history, schema
from recgpt.llm.tokenizer import Tokenizer

from .catalogue import ITEMS
from .workload import NOW, Workload


@dataclass
class Prepared:
    events: pa.Table
    catalogue: history.Catalogue


def tokenizer(model: Path | None) -> Tokenizer:
    return Tokenizer.from_gguf(model) if model else Tokenizer.bytes()


def prepare(work: Workload, counts: Tokenizer, *, categories: bool = False) -> Prepared:
    """Load the catalogue; with `categories` a tight budget can fold items by their kind of thing."""
    rows = len(work.texts)
    kinds = [text.split()[3] if row < ITEMS else None for row, text in enumerate(work.texts)]
    briefs = pa.table(
        {
            "item_id": pa.array(np.arange(rows)).cast(pa.large_string()),
            "brief": work.texts,
            "tokens": np.zeros(rows, np.uint32),
            "category": pa.array(kinds if categories else [None] * rows, pa.large_string()),
        }
    )
    data = Prepared(work.events, history.catalogue(briefs, tokenizer=counts))
    # The table of ids is made when it is first asked for, but it belongs to the catalogue, not to a call.
    _ = data.catalogue.numbers
    return data


def as_texts(work: Workload) -> Workload:
    """Give the log with ids as texts, as most shops have them."""
    events = work.events
    for name in ("user_id", "item_id"):
        events = events.set_column(events.column_names.index(name), name, events[name].cast(pa.large_string()))
    return Workload(f"{work.name}, ids as texts", events, work.texts)


def with_positions(work: Workload) -> Workload:
    """Give the log with a position in each record, here the row."""
    rows = pa.array(np.arange(work.events.num_rows))
    return Workload(f"{work.name}, with positions", work.events.append_column("position", rows), work.texts)


COLUMNS = {"numbers": lambda work: work, "texts": as_texts, "positions": with_positions}
"""The kinds of columns in which a log may come."""


def compress(data: Prepared, **options: Any) -> pa.Table:
    """Compress with `item` lines unless told otherwise; `keep` are the behaviors that stay."""
    options = {"keep": schema.RELIABLE, "now": NOW, "layout": "item"} | options
    return history.compress(data.events, data.catalogue, tokenizer=data.catalogue.tokenizer, **options)


def uncounted(data: Prepared, **options: Any) -> pa.Table:
    """Compress without counting tokens, to learn what counting costs."""
    with mock.patch.object(_core, "compress_history", partial(_core.compress_history, count=False)):
        return compress(data, **options)


def pairs(result: pa.Table) -> list[tuple[int, str]]:
    return [
        (int(user), text)
        for user, text in zip(*(result[name].to_pylist() for name in ("user_id", "text")), strict=True)
    ]


def output_bytes(result: pa.Table) -> int:
    """Bytes of all texts."""
    return int(pc.sum(pc.binary_length(result["text"])).as_py())
