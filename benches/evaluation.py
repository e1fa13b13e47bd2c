"""How fast is a log of exposures counted, against pandas on the same work, and in how much memory?

A seeded log: some users and items far oftener than others, 5 % of exposures clicked, 90 days. Asked are CTR, IPV, DCAU,
DT, ATC, EICD and CICD with every user's own sums, and exposures, clicks and page views of every item. Both hold their
columns in memory, in the form they like best; the answers are compared before anything is timed; rounds alternate and
ratios are of medians. Then the same log is read from Parquet by a process of its own, whose peak memory is printed.

    pip install "recgpt[bench]"        # pandas
    python benches/evaluation.py --rows 50000000 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recgpt.evaluation import metrics

DAYS, CATEGORIES, BATCH = 90, 300, 1_000_000


def catalogue(items: int) -> pa.Table:
    codes = np.random.default_rng(1).integers(0, CATEGORIES, items)
    return pa.table({"item_id": [str(n) for n in range(items)], "category": [f"c{code}" for code in codes]})


def log(rows: int, users: int, items: int) -> pa.Table:
    """Batches of a million rows, each with its own seed, so that any length begins alike."""
    parts = []
    for start in range(0, rows, BATCH):
        rng = np.random.default_rng([7, start])
        size = min(BATCH, rows - start)
        moments = np.sort(rng.integers(0, DAYS * 86_400, size)) * 1_000_000
        click = (rng.random(size) < 0.05).astype(np.uint8)
        columns = {
            "user_id": (rng.random(size) ** 2 * users).astype(np.int64),
            "item_id": (rng.random(size) ** 3 * items).astype(np.int64),
            "timestamp": pa.array(moments, pa.timestamp("us", "UTC")),
            "click": click,
            "cart": (click & (rng.random(size) < 0.1)).astype(np.uint8),
            "dwell": click * rng.gamma(2.0, 15.0, size),
        }
        parts.append(pa.record_batch(columns))
    return pa.Table.from_batches(parts)


def ours(table: pa.Table, items: pa.Table) -> dict[str, float]:
    found = metrics.Exposures(items).add(table).engagement()
    return {
        "ctr": found.ctr.value,
        "ipv": found.ipv.value,
        "dcau": found.dcau.value,
        "dt": found.dwell_time.value,
        "atc": found.atc.value,
        "eicd": found.eicd.value,
        "cicd": found.cicd.value,
        "items": float((found.items.page_views**2).sum()),
    }


def pandas_form(table: pa.Table, items: pa.Table) -> tuple[pd.DataFrame, np.ndarray]:
    """Give pandas whole numbers in numpy columns, and categories as codes by item: its fastest form."""
    codes = items["category"].combine_chunks().dictionary_encode().indices.to_numpy()
    frame = pd.DataFrame({name: table[name].to_numpy() for name in table.column_names})
    return frame, codes


def pandas(frame: pd.DataFrame, codes: np.ndarray) -> dict[str, float]:
    """Count with sums by user and distinct pairs; pairs are single numbers, which pandas hashes fastest."""
    frame = frame.assign(hit=frame["click"] > 0, category=codes[frame["item_id"].to_numpy()])
    by_user = frame.groupby("user_id", sort=False)
    sums = by_user.agg(
        shown=("click", "size"),
        hit=("hit", "sum"),
        views=("click", "sum"),
        carts=("cart", "sum"),
        dwell=("dwell", "sum"),
    )
    hits = frame[frame["hit"]]
    day = hits["timestamp"].to_numpy().astype("datetime64[D]").astype(np.int64)

    def distinct(users: pd.Series, other: np.ndarray) -> float:
        pairs = pd.Series(pd.unique(pd.Series(users.to_numpy() * 1_000_000 + other)) // 1_000_000)
        return float(pairs.value_counts(sort=False).sum())

    by_item = frame.groupby("item_id", sort=False).agg(n=("click", "size"), h=("hit", "sum"), v=("click", "sum"))
    ends = frame["timestamp"].min(), frame["timestamp"].max()
    days = (ends[1].normalize() - ends[0].normalize()).days + 1
    n = len(sums)
    return {
        "ctr": sums["hit"].sum() / sums["shown"].sum(),
        "ipv": sums["views"].sum() / n,
        "dcau": distinct(hits["user_id"], day) / days,
        "dt": sums["dwell"].sum() / n,
        "atc": sums["carts"].sum() / n,
        "eicd": distinct(frame["user_id"], frame["category"].to_numpy()) / n,
        "cicd": distinct(hits["user_id"], hits["category"].to_numpy()) / n,
        "items": float((by_item["v"].astype(np.int64) ** 2).sum()),
    }


def peak() -> int:
    """Give this process's largest resident set, in MiB; `getrusage` would count the parent's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


def stream(path: str, items: int) -> None:
    """Read a Parquet file in batches; print rows, seconds, and how much the sums and the process took at most."""
    counter = metrics.Exposures(catalogue(items))
    before = peak()
    start = time.perf_counter()
    # What is read ahead by default is kept until the end: memory would grow with the file.
    file = pq.ParquetFile(path, pre_buffer=False)
    for batch in file.iter_batches(BATCH):
        counter.add(pa.table(batch))
    found = counter.engagement()
    seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "rows": file.metadata.num_rows,
                "seconds": round(seconds, 2),
                "sums_mib": round(counter.nbytes / 2**20, 1),
                "process_mib": peak(),
                "process_before_mib": before,
                "users": len(found.user_id),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stream", metavar="FILE", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stream:
        return stream(asked.stream, asked.items)
    print(f"{platform.machine()}, {os.cpu_count()} cores, pandas {pd.__version__}, pyarrow {pa.__version__}")
    items = catalogue(asked.items)
    table = log(asked.rows, asked.users, asked.items)
    frame, codes = pandas_form(table, items)
    mine, theirs = ours(table, items), pandas(frame, codes)
    for name, value in mine.items():
        if not np.isclose(value, theirs[name], rtol=1e-9):
            raise SystemExit(f"{name} differs: ours {value}, pandas {theirs[name]}")
    print("answers are equal: " + ", ".join(f"{name} {value:.4g}" for name, value in mine.items()))
    took: dict[str, list[float]] = {"ours": [], "pandas": []}
    for turn in range(asked.rounds):
        for name, ask in (("ours", lambda: ours(table, items)), ("pandas", lambda: pandas(frame, codes))):
            start = time.perf_counter()
            ask()
            took[name].append(time.perf_counter() - start)
        print(f"round {turn + 1}: " + ", ".join(f"{name} {seconds[-1]:.2f} s" for name, seconds in took.items()))
    medians = {name: statistics.median(seconds) for name, seconds in took.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exposures.parquet"
        pq.write_table(table, path)
        command = [sys.executable, __file__, "--stream", str(path), "--items", str(asked.items)]
        streamed: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(
        json.dumps(
            {
                "rows": asked.rows,
                "vs_pandas": round(medians["pandas"] / medians["ours"], 1),
                "seconds": round(medians["ours"], 3),
                "pandas_seconds": round(medians["pandas"], 3),
                "streamed": streamed,
            }
        )
    )


if __name__ == "__main__":
    main()
