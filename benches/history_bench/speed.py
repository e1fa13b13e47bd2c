"""The race: recgpt against polars, DuckDB and the stream bound."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from typing import Any

from .plan import Plan, has, start, stored
from .rotation import Lane, Worker, rotate, table
from .workload import Workload, generate

FINALISTS = 2
"""How many of polars' forms by wall time, and by CPU time, take part in the rotation after one run each."""


def speed(plan: Plan) -> dict[str, Any]:
    """Time against polars, DuckDB and the stream bound, unsorted and sorted by user."""
    figures: dict[str, Any] = {}
    unsorted = generate(plan.records)
    for name, work in (("unsorted", unsorted), ("sorted", unsorted.by_user())):
        figures |= {f"{key}_{name}": value for key, value in _speed(plan, name, work).items()}
    figures["threads_2_over_1"] = figures["threads_2_over_1_unsorted"]
    figures["vs_duckdb"] = figures["vs_duckdb_unsorted"]
    return figures


def _speed(plan: Plan, name: str, work: Workload) -> dict[str, Any]:
    threads = dict.fromkeys((plan.threads, 1))
    with stored(work) as folder, ExitStack() as stack:
        lanes: list[Lane] = []

        def add(title: str, worker: Worker, *forms: str) -> None:
            lanes.extend(Lane(f"{title} {form}".strip(), worker, form) for form in forms)

        for count in threads:
            add("recgpt", stack.enter_context(start(plan, folder, "ours", count)), "item")
        told = lanes[0].worker.ask("run", "item")
        for count in threads:
            streaming = Worker(folder, "stream", count, output_bytes=told["output_bytes"])
            add("stream bound", stack.enter_context(streaming), "")
            if has("polars"):
                worker = stack.enter_context(Worker(folder, "polars", count))
                add("polars", worker, *_finalists(worker, f"{name}, polars, {count} threads"))
            if has("duckdb"):
                worker = stack.enter_context(Worker(folder, "duckdb", count))
                add("duckdb", worker, *("lists", "mask", "sums")[: 3 if count == plan.threads else 1])
        rotate(lanes, plan.rounds)
        print(table(f"{work.name} {name}: {work.events.num_rows:,} records", lanes, work.events.num_rows))
        for lane in (lane for lane in lanes if lane.worker.method == "stream"):
            bound = {key: statistics.median(answer[key] for answer in lane.answers) for key in lane.answers[0]}
            print(
                f"  stream bound of {lane.worker.threads} threads: read {bound['read'] * 1e3:.1f} ms, write "
                f"{bound['write'] * 1e3:.1f} ms; with a partition by user {bound['partitioned'] * 1e3:.1f} ms"
            )
        return _ratios(lanes, list(threads))


def _finalists(worker: Worker, title: str) -> list[str]:
    """Run every form of polars once, print all, and give the fastest ones."""
    from . import peer_polars

    worker.ask("run", f"{next(iter(peer_polars.FORMS))}/in-memory")  # Warms up the allocator; not counted.
    forms = [f"{form}/{engine}" for form in peer_polars.FORMS for engine in peer_polars.ENGINES]
    took = {form: worker.ask("run", form) for form in forms}
    ranked = sorted(forms, key=lambda form: took[form]["wall"])
    print(f"{title}, one run of each form (wall, cpu seconds)")
    for form in ranked:
        print(f"  {form:32} {took[form]['wall']:8.3f} {took[form]['cpu']:8.3f}", flush=True)
    # On a busy machine one wall time says little, so the forms that used the processor least take part as well.
    thrifty = sorted(forms, key=lambda form: took[form]["cpu"])
    return list(dict.fromkeys([*ranked[:FINALISTS], *thrifty[:FINALISTS]]))


def _ratios(lanes: list[Lane], threads: list[int]) -> dict[str, Any]:
    """Divide the figures of one rotation; a peer is the best of its forms at the same number of threads.

    Medians give the fields of the last line. Beside them stand ratios of each one's best round and of CPU seconds,
    because neighbors on a shared machine disturb those less.
    """

    def least(method: str, count: int, measure: str) -> float | None:
        of = [lane for lane in lanes if lane.worker.method == method and lane.worker.threads == count]
        return min((lane.figure(measure) for lane in of), default=None)

    def over(above: float | None, below: float | None) -> float | None:
        return round(above / below, 2) if above and below else None

    figures: dict[str, Any] = {}
    for count in threads:
        suffix = "" if count == threads[0] else "_1_thread"
        for measure in ("median", "best", "cpu"):
            mine = least("ours", count, measure)
            ratios = {f"vs_{peer}": over(least(peer, count, measure), mine) for peer in ("polars", "duckdb")}
            if measure != "cpu":
                ratios["vs_stream_bound"] = over(mine, least("stream", count, measure))
            if measure == "median":
                figures |= {name + suffix: ratio for name, ratio in ratios.items()}
            else:
                figures[f"by_{measure}{suffix}"] = ratios
        seconds = {lane.name: round(lane.figure("median"), 4) for lane in lanes if lane.worker.threads == count}
        figures[f"seconds{suffix}"] = seconds
    one, most = least("ours", 1, "median"), least("ours", threads[0], "median")
    figures["threads_2_over_1"] = over(one, most) if threads[0] == 2 else None
    return figures
