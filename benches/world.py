"""How fast does a planted world stream to Parquet, in how much memory, and how far do shortcuts get in it?

    python benches/world.py --users 2000            # a few seconds; --users 100000 --events 1050 is the whole claim
    python benches/world.py --only shortcuts

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from recgpt import datasets
from recgpt.datasets import world
from recgpt.evaluation.planted import shortcuts as short

K = 20
TEST_DAYS = 14


def stream(args: argparse.Namespace) -> dict[str, object]:
    """Write a world and say what that took."""
    config = world.Config(users=args.users, items=args.items, days=args.days, events=args.events, seed=args.seed)
    folder = Path(tempfile.mkdtemp(prefix="world-", dir=args.folder))
    try:
        begin, spent = time.perf_counter(), time.process_time()

        def told(done: int, whole: int) -> None:
            if sys.stderr.isatty() or done % 10_000 == 0:
                print(f"{done:,} of {whole:,} users, {time.perf_counter() - begin:.0f} s", file=sys.stderr)

        made = world.stream(config, folder, progress=told)
        wall, spent = time.perf_counter() - begin, time.process_time() - spent
    finally:
        shutil.rmtree(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {
        "users": made.users,
        "events": made.events,
        "gigabytes": round(made.bytes / 1e9, 3),
        "seconds": round(wall, 1),
        "cpu_seconds": round(spent, 1),
        "events_per_cpu_second": round(made.events / spent),
        "peak_mib": round(peak),
    }
    print("stream: " + ", ".join(f"{name} {value:,}" for name, value in figures.items()))
    return figures


def shortcuts(args: argparse.Namespace) -> dict[str, object]:
    """Judge every shortcut beside what could be shown."""
    options = {"users": args.judged, "items": args.judged_items, "days": 400, "seed": args.seed}
    now = world.START + timedelta(days=400 - TEST_DAYS)
    data = datasets.load("world", now=now, **options)
    users = data.users["user_id"].to_pylist()
    judge = short.Judge(data.events, data.truth, data.items, users, now=now)
    found = short.shortcuts(judge, short.past(data.events, data.items, users, now=now), K)
    found["what could be shown"] = judge.reached(short.perfect(data.truth["shown"], data.items, users), K)
    print(f"{args.judged:,} users, {args.judged_items:,} items, lists of {K}, {TEST_DAYS} days")
    print(f"{'':20} HR@{K}  recall  wanted next")
    for name, reached in found.items():
        print(f"{name:20} {reached.hits.mean:.3f}  {reached.recall.mean:.3f}   {reached.wants.mean:.3f}")
    return {
        name: {"hr": reached.hits.mean, "recall": reached.recall.mean, "wants": reached.wants.mean}
        for name, reached in found.items()
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("stream", "shortcuts"), default=None)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=730)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--judged", type=int, default=1000, help="users for the shortcuts")
    parser.add_argument("--judged-items", type=int, default=5000)
    parser.add_argument("--folder", default=None, help="where the streamed world stands while it is written")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    line: dict[str, object] = {}
    for name, part in (("stream", stream), ("shortcuts", shortcuts)):
        if args.only in (None, name):
            line[name] = part(args)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
