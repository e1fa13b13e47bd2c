"""recgpt's own compression, called as a user calls it."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import behaviors, history, schema
from recgpt.llm.tokenizer import Tokenizer

from .catalogue import ITEMS
from .workload import NOW, Workload

IN_ONE = "keep" in inspect.signature(history.compress).parameters
"""The kernel filters by itself; else `behaviors.extract` does it, inside the timed part, on string ids."""


@dataclass
class Prepared:
    events: pa.Table
    briefs: pa.Table
    tokenizer: Tokenizer


def tokenizer(model: Path | None) -> Tokenizer:
    return Tokenizer.from_gguf(model) if model else Tokenizer.bytes()


def prepare(work: Workload, counts: Tokenizer, *, categories: bool = False) -> Prepared:
    """Bring the log to the kernel's door; with `categories` a tight budget can fold items by their kind of thing."""
    rows = len(work.texts)
    columns: dict[str, Any] = {"item_id": np.arange(rows, dtype=np.int32), "brief": work.texts}
    columns |= {"tokens": np.zeros(rows, np.uint32), "category": pa.nulls(rows, pa.large_string())}
    if categories:
        columns["category"] = pa.array(
            [None if '"' in text else text.split()[3] for text in work.texts], pa.large_string()
        )
    briefs = pa.table(columns | {"source": pa.nulls(rows, pa.large_string())})
    if IN_ONE:
        return Prepared(work.events, briefs, counts)
    # As strings, and queries in a column of their own, without the quotes that the line gives them.
    item = work.events["item_id"]
    asked = pc.greater_equal(item, ITEMS)
    queries = pa.array([text.strip('"') for text in work.texts], pa.large_string())
    events = pa.table(
        {
            "user_id": work.events["user_id"].cast(pa.large_string()),
            "timestamp": work.events["timestamp"],
            "behavior": work.events["behavior"],
            "item_id": pc.if_else(asked, None, item).cast(pa.large_string()),
            "query": queries.take(pc.if_else(asked, item, None).combine_chunks()),
        }
    )
    briefs = briefs.set_column(0, "item_id", briefs["item_id"].cast(pa.large_string())).cast(schema.BRIEFS)
    return Prepared(events, briefs.slice(0, ITEMS), counts)


def compress(data: Prepared, **options: Any) -> pa.Table:
    """Compress with `item` lines unless told otherwise; `keep` are the behaviors that stay."""
    keep = options.pop("keep", schema.RELIABLE)
    options = {"now": NOW, "tokenizer": data.tokenizer, "layout": "item"} | options
    if IN_ONE:
        return history.compress(data.events, data.briefs, keep=keep, **options)
    return history.compress(behaviors.extract(data.events, reliable=keep), data.briefs, **options)


def pairs(result: pa.Table) -> list[tuple[int, str]]:
    return [
        (int(user), text)
        for user, text in zip(*(result[name].to_pylist() for name in ("user_id", "text")), strict=True)
    ]


def output_bytes(result: pa.Table) -> int:
    """Bytes of all texts."""
    return int(pc.sum(pc.binary_length(result["text"])).as_py())


def count_share(result: pa.Table) -> float | None:
    """Give the share of the kernel's time that went into counting tokens, if the result says so."""
    told = (result.schema.metadata or {}).get(b"recgpt.seconds")
    seconds = json.loads(told) if told else {}
    return seconds["counting"] / seconds["total"] if {"counting", "total"} <= seconds.keys() else None
