"""What compression is worth: tokens of every reading, coverage of context windows, and how much of a text stays put."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np
import pyarrow.compute as pc

from recgpt import history, schema
from recgpt.llm.tokenizer import Tokenizer

from . import ours
from .workload import NOW, Workload

WINDOWS = {"4k": 4_096, "8k": 8_192, "32k": 32_768, "128k": 131_072}
CHEAPEST = "cheapest"
PAPER = {"raw": 0.88, "compressed": 0.98}
"""The paper's shares of users within 128k tokens (section 2.1.1)."""


def _tokens(data: ours.Prepared, **options: Any) -> np.ndarray:
    return ours.compress(data, **options)["tokens"].to_numpy().astype(np.int64)


def layouts(work: Workload, counts: Tokenizer, *, long_labels: bool, threads: int | None) -> dict[str, Any]:
    """Give the tokens of each reading, and how the default compares with the best of them, user by user."""
    data = ours.prepare(work, counts, categories=True)
    options = {"long_labels": long_labels, "threads": threads}
    readings = {name: _tokens(data, layout=name, **options) for name in history.LAYOUTS}
    chosen = ours.compress(data, layout=CHEAPEST, **options)
    default = chosen["tokens"].to_numpy().astype(np.int64)
    least = np.min(list(readings.values()), axis=0)
    receipts = chosen["receipt"].combine_chunks()
    return {
        "raw": int(pc.sum(receipts.field("tokens_in")).as_py()),
        **{name: int(tokens.sum()) for name, tokens in readings.items()},
        CHEAPEST: int(default.sum()),
        "over_best_worst_user": round(float(np.max(default / least)), 4),
        "over_first_reading": round(float(default.sum() / readings["sequence"].sum()), 4),
    }


def layout_lines(tables: dict[str, dict[str, Any]]) -> str:
    names = ["raw", *history.LAYOUTS, CHEAPEST]
    head = (
        f"  {'million tokens of':30} " + " ".join(f"{name:>18}" for name in names) + "  default/best default/sequence"
    )
    rows = [
        f"  {title:30} "
        + " ".join(f"{row[name] / 1e6:18.3f}" for name in names)
        + f" {row['over_best_worst_user']:13.4f} {row['over_first_reading']:16.3f}"
        for title, row in tables.items()
    ]
    return "\n".join(["every reading (raw: one line a reliable event; default/best: the worst user)", head, *rows])


def coverage(work: Workload, counts: Tokenizer, *, threads: int | None) -> dict[str, dict[str, float]]:
    """Give the share of users whose history fits each window: all events, reliable ones, compressed, budgeted."""
    data = ours.prepare(work, counts, categories=True)
    every = ours.compress(data, keep=(*schema.RELIABLE, "click"), threads=threads)["receipt"].combine_chunks()
    full = ours.compress(data, layout=CHEAPEST, threads=threads)
    reliable = full["receipt"].combine_chunks().field("tokens_in").to_numpy()
    shares = {}
    for name, window in WINDOWS.items():
        cut = ours.compress(data, layout=CHEAPEST, budget=window, threads=threads)
        receipts = cut["receipt"].combine_chunks()
        kinds = ("full", "coarsened", "folded", "dropped")
        parts = np.array([receipts.field(kind).to_numpy() for kind in kinds]).sum(axis=1)
        events = int(pc.sum(receipts.field("events")).as_py())
        assert parts.sum() == events, f"receipts say {parts.sum()} events, but there were {events}"
        shares[name] = {
            "raw": _share(every.field("tokens_in").to_numpy() <= window),
            "reliable": _share(reliable <= window),
            "compressed": _share(full["tokens"].to_numpy() <= window),
            "budgeted": _share(cut["tokens"].to_numpy() <= window),
            **{f"events_{kind}": round(part / events, 4) for kind, part in zip(kinds, parts.tolist(), strict=True)},
        }
    return shares


def _share(within: np.ndarray) -> float:
    return round(float(np.mean(within)), 4)


def coverage_lines(tables: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = [
        f"users within a window; the paper at 128k: {PAPER['raw']:.0%} raw, {PAPER['compressed']:.0%} compressed",
        f"  {'log':24} {'window':>6} {'raw':>7} {'reliable':>9} {'compressed':>11} {'budgeted':>9}   budgeted events: "
        "full, coarsened, folded, dropped",
    ]
    for log, windows in tables.items():
        for window, row in windows.items():
            fates = ", ".join(f"{row[f'events_{kind}']:.1%}" for kind in ("full", "coarsened", "folded", "dropped"))
            lines.append(
                f"  {log:24} {window:>6} {row['raw']:7.1%} {row['reliable']:9.1%} {row['compressed']:11.1%} "
                f"{row['budgeted']:9.1%}   {fates}"
            )
    return "\n".join(lines)


def stability(work: Workload, counts: Tokenizer, *, threads: int | None) -> dict[str, float]:
    """Compress with `stable=True` on two neighboring days; give the share of tokens that stand unchanged at the start.

    The share is of the later text, the one that a key-value cache would have to read again: in the middle of a month,
    on its last day, where the month changes, and on New Year's Day. `costs` is what `stable=True` takes in tokens
    against the tightest text of the same day in any layout.
    """
    data = ours.prepare(work, counts, categories=True)
    of = partial(ours.compress, data, layout=CHEAPEST, threads=threads)
    month_end, evening = NOW.replace(day=1) - timedelta(hours=1), timedelta(hours=23)
    days = {"": NOW, "_last_day": month_end, "_new_month": month_end + timedelta(days=1)}
    found = {}
    for name, now in (days | {"_new_year": NOW.replace(month=1, day=1) + evening}).items():
        before, after = of(now=now - timedelta(days=1), stable=True), of(now=now, stable=True)
        old = dict(ours.pairs(before))
        same = [_unchanged(old.get(user, ""), text) for user, text in ours.pairs(after)]
        tokens = after["tokens"].to_numpy().astype(np.int64)
        kept = counts.count(same).astype(np.int64) / np.maximum(tokens, 1)
        found[f"unchanged_median_user{name}"] = round(float(np.median(kept)), 4)
        found[f"unchanged_worst_user{name}"] = round(float(kept.min()), 4)
        if not name:
            found["users_above_90_percent"] = _share(kept >= 0.9)
            tightest = _tokens(data, now=now, layout=CHEAPEST, threads=threads)
            found["costs"] = round(float(tokens.sum() / tightest.sum()), 4)
    return found


def stability_lines(tables: dict[str, dict[str, float]]) -> str:
    lines = ["stable=True, heavy users, a day later: tokens that stand unchanged at the start, median and worst user"]
    lines += [
        f"  {title:38} in a month {row['unchanged_median_user']:.1%} {row['unchanged_worst_user']:.1%}, its last day "
        f"{row['unchanged_median_user_last_day']:.1%} {row['unchanged_worst_user_last_day']:.1%}, where it changes "
        f"{row['unchanged_median_user_new_month']:.1%} {row['unchanged_worst_user_new_month']:.1%}, on New Year's Day "
        f"{row['unchanged_median_user_new_year']:.1%} {row['unchanged_worst_user_new_year']:.1%}; "
        f"{row['costs']:.2f}x the tightest"
        for title, row in tables.items()
    ]
    return "\n".join(lines)


def _unchanged(before: str, after: str) -> str:
    """Give the whole lines at the start of both: a token may straddle what comes after a cut inside a line."""
    both = zip(before.split("\n"), after.split("\n"), strict=False)
    return "\n".join(line for line, _ in takewhile(lambda pair: pair[0] == pair[1], both))
