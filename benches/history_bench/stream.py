"""The physical bound: read every byte of the input once and write every byte of the output once, and do nothing else.

Reading is a reduction over each column's buffer, cut evenly between threads (numpy lets go of the GIL). Three
reductions are tried and the fastest counts, so that what is measured is the memory, not the arithmetic. Writing is a
fill of an array as long as the output, which is there already, so no page faults are in it. A compression has to do
both, so its time is given as a multiple of their sum. On 5M records numpy read as fast as a C probe with 512-bit loads
(2.9 and 9.6 ms at best on a busy machine) and wrote as fast as memset and non-temporal stores (1.8, 2.0 and 2.5 ms).

Unsorted input cannot be compressed in one pass. `partitioned` is the bound of a method that counts users first, then
moves 16 bytes a kept record to its user and reads them back; it is printed beside, and never divides anything.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .rules import RELIABLE
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
    moved: npt.NDArray[np.uint64]
    """16 bytes a kept record."""
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
    kept = int((work.events["behavior"].combine_chunks().indices.to_numpy() < RELIABLE).sum())
    moved = np.ones(2 * kept, np.uint64)
    return Prepared(buffers, out, moved, threads, ThreadPoolExecutor(threads))


def run(data: Prepared) -> dict[str, float]:
    """Measure seconds to read, to write, and both; each is the median of 5, since one takes milliseconds only."""
    user, _, behavior, _ = data.columns
    read = statistics.median(_read(data, data.columns) for _ in range(5))
    write = statistics.median(_write(data, data.out) for _ in range(5))
    counted = statistics.median(_read(data, [user, behavior]) for _ in range(5))
    there = statistics.median(_write(data, data.moved) for _ in range(5))
    back = statistics.median(_read(data, [data.moved]) for _ in range(5))
    wall = read + write
    return {"wall": wall, "read": read, "write": write, "partitioned": wall + counted + there + back}


def _read(data: Prepared, columns: list[npt.NDArray[np.uint64]]) -> float:
    parts = list(zip(*(_cut(column, data.threads) for column in columns), strict=True))
    times = []
    for reduction in REDUCTIONS.values():
        start = time.perf_counter()
        list(data.pool.map(lambda part, one=reduction: [one(column) for column in part], parts))
        times.append(time.perf_counter() - start)
    return min(times)


def _write(data: Prepared, out: npt.NDArray[np.uint64]) -> float:
    start = time.perf_counter()
    list(data.pool.map(lambda part: part.fill(7), _cut(out, data.threads)))
    return time.perf_counter() - start


def _cut(array: npt.NDArray[np.uint64], parts: int) -> list[npt.NDArray[np.uint64]]:
    edges = [len(array) * part // parts for part in range(parts + 1)]
    return [array[start:end] for start, end in pairwise(edges)]
