"""The plain peer: dictionaries and loops, as one would write it first. Also the truth that the others must equal."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from .rules import BITS, BUCKET_OF_DAY, RELIABLE, masked_label
from .workload import DAY_US, NOW_US, START_US, Workload


def prepare(work: Workload) -> tuple[Any, ...]:
    events = work.events
    codes = events["behavior"].combine_chunks().indices
    stamps = events["timestamp"].cast("int64")
    columns = (events["user_id"].to_pylist(), stamps.to_pylist(), codes.to_pylist(), events["item_id"].to_pylist())
    return *columns, work.texts, BUCKET_OF_DAY.tolist()


def compress(prepared: tuple[Any, ...]) -> list[tuple[int, str]]:
    users, stamps, behaviors, items, texts, bucket_of_day = prepared
    contexts: dict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for user, stamp, behavior, item in zip(users, stamps, behaviors, items, strict=True):
        if behavior < RELIABLE and stamp < NOW_US:
            contexts[user][item].add(bucket_of_day[(stamp - START_US) // DAY_US] << BITS | behavior)
    out = []
    for user, of_item in contexts.items():
        lines: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for item, seen in of_item.items():
            lines[tuple(sorted(seen))].append(item)
        written = (f"{_label(seen)} | {', '.join([texts[item] for item in lines[seen]])}" for seen in sorted(lines))
        out.append((user, "\n".join(written)))
    return out


def _label(contexts: tuple[int, ...]) -> str:
    masks: dict[int, int] = defaultdict(int)
    for context in contexts:
        masks[context >> BITS] |= 1 << (context & 7)
    return ", ".join(masked_label(bucket, mask) for bucket, mask in masks.items())


def pairs(result: list[tuple[int, str]]) -> list[tuple[int, str]]:
    return result
