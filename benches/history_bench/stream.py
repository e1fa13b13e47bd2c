"""The physical bound: read every byte of the input once and write every byte of the output once, and do nothing else.

Reading is a reduction over each column's buffer, cut evenly between threads (numpy lets go of the GIL). Three
reductions are tried and the fastest counts, so that what is measured is the memory, not the arithmetic. Writing is a
fill of an array as long as the output, which is there already, so no page faults are in it. A compression has to do
both, so its time is given as a multiple of their sum.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .workload import Workload

REDUCTIONS: dict[str, Callable[[npt.NDArray[np.uint64]], object]] = {
    "or": np.bitwise_or.reduce,
    "add": np.add.reduce,
    "max": np.maximum.reduce,
}


@dataclass
class Prepared:
    columns: list[npt.NDArray[np.uint64]]
    out: npt.NDArray[np.uint64]
    threads: int
    pool: ThreadPoolExecutor


def prepare(work: Workload, threads: int, output_bytes: int) -> Prepared:
    """Take the log's own buffers, and room for `output_bytes`."""
    buffers = []
    for name in ("user_id", "timestamp", "behavior", "item_id"):
        array = work.events[name].combine_chunks()
        array = array.indices if name == "behavior" else array
        # Whole words; what is left over at the end of a column is less than 8 bytes.
        raw = np.frombuffer(array.buffers()[1], np.uint8)[: len(array) * array.type.bit_width // 8 // 8 * 8]
        buffers.append(raw.view(np.uint64))
    out = np.zeros(max(1, output_bytes // 8), np.uint64)
    out.fill(1)
    return Prepared(buffers, out, threads, ThreadPoolExecutor(threads))


def run(data: Prepared) -> dict[str, float]:
    """Measure once: seconds to read, to write, and both."""
    read = min(_timed(data, lambda part, one=one: [one(column) for column in part]) for one in REDUCTIONS.values())
    start = time.perf_counter()
    list(data.pool.map(lambda part: part.fill(7), _cut(data.out, data.threads)))
    write = time.perf_counter() - start
    return {"wall": read + write, "read": read, "write": write}


def _timed(data: Prepared, reduce: Callable[[list[npt.NDArray[np.uint64]]], object]) -> float:
    parts = list(zip(*(_cut(column, data.threads) for column in data.columns), strict=True))
    start = time.perf_counter()
    list(data.pool.map(reduce, parts))
    return time.perf_counter() - start


def _cut(array: npt.NDArray[np.uint64], parts: int) -> list[npt.NDArray[np.uint64]]:
    edges = [len(array) * part // parts for part in range(parts + 1)]
    return [array[start:end] for start, end in pairwise(edges)]
