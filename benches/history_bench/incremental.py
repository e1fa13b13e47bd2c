"""A day's events into yesterday's state, against compressing everything anew."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import history, schema
from recgpt.llm.tokenizer import Tokenizer

from . import ours
from .workload import NOW, Workload


def measure(
    work: Workload,
    counts: Tokenizer,
    *,
    layout: str,
    rounds: int,
    threads: int,
    budget: int | None = None,
    warm_up: int = 2,
) -> dict[str, Any]:
    """Add the last days of a log one by one, and compress the whole log before each time; in one process, in turns.

    Every day's result must equal the full one, or the bench stops.
    """
    data = ours.prepare(work, counts, categories=budget is not None)
    briefs = data.catalogue
    options = {"tokenizer": counts, "keep": schema.RELIABLE, "layout": layout, "threads": threads, "budget": budget}
    moments = [NOW - timedelta(days=back) for back in range(rounds, -1, -1)]
    state = history.State(briefs, **options)
    build, _ = _timed(lambda: state.add(_between(work.events, None, moments[0]), now=moments[0]))
    rows: list[dict[str, float]] = []
    for before, now in pairwise(moments):
        seen, day = _between(work.events, None, now), _between(work.events, before, now)
        for _ in range(warm_up if not rows else 0):
            _compress(seen, briefs, now, options)
        full, whole = _timed(lambda seen=seen, now=now: _compress(seen, briefs, now, options))
        add, changed = _timed(lambda day=day, now=now: state.add(day, now=now))
        table, got = _timed(state.table)
        if not got.equals(whole, check_metadata=True):
            raise SystemExit(f"the state of {now:%Y-%m-%d} does not equal the full compression")
        written = int(pc.sum(pc.binary_length(changed["text"])).as_py() or 0)
        rows.append(
            {
                "full_wall": full[0],
                "full_cpu": full[1],
                "add_wall": add[0],
                "add_cpu": add[1],
                "table_wall": table[0],
                "records": day.num_rows,
                "share_of_records": day.num_rows / seen.num_rows,
                "users": changed.num_rows,
                "share_of_users": changed.num_rows / whole.num_rows,
                "share_of_text": written / ours.output_bytes(whole),
            }
        )
    median = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return {
        "over_full": round(median["add_wall"] / median["full_wall"], 4),
        "over_full_cpu": round(median["add_cpu"] / median["full_cpu"], 4),
        "build_seconds": round(build[0], 3),
        **{key: round(value, 5) for key, value in median.items()},
    }


def lines(title: str, row: dict[str, Any]) -> str:
    """Say it in words."""
    return (
        f"  {title}: {row['records']:,.0f} new records ({row['share_of_records']:.3%}) of {row['users']:.0f} users who "
        f"have {row['share_of_text']:.0%} of all text: {row['add_wall'] * 1e3:.1f} ms against "
        f"{row['full_wall'] * 1e3:.1f} ms in full, {row['over_full']:.1%} (CPU {row['over_full_cpu']:.1%}); the whole "
        f"table {row['table_wall'] * 1e3:.1f} ms; the first build {row['build_seconds']:.2f} s; all days equal"
    )


def _compress(events: pa.Table, briefs: history.Catalogue, now: datetime, options: dict[str, Any]) -> pa.Table:
    return history.compress(events, briefs, now=now, stable=True, **options)


def _between(events: pa.Table, start: datetime | None, end: datetime) -> pa.Table:
    stamp = events["timestamp"]
    mask = pc.less(stamp, pa.scalar(end, stamp.type))
    if start is not None:
        mask = pc.and_(mask, pc.greater_equal(stamp, pa.scalar(start, stamp.type)))
    return events.filter(mask).combine_chunks()


def _timed(call: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    cpu, start = time.process_time(), time.perf_counter()
    result = call()
    return (time.perf_counter() - start, time.process_time() - cpu), result
