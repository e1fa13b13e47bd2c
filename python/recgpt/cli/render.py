"""Shows answers on a terminal, so that a person can follow the chain from log to explanation."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recgpt.evaluation.figures import MEASURES
from recgpt.serving import Inspection
from recgpt.text import plural

if TYPE_CHECKING:
    from recgpt.pipeline import Plan, Status

HISTORY_LINES = 12
"""Lines of a history that are shown; the report has them all."""
REASONS = 8
"""Reasons of failed requests that are shown."""
RANKERS = {"": "recgpt", "_popularity": "popularity", "_buy_again": "buy-again"}
"""Suffixes of a measure's name, and who ranked."""
TAG_ROWS = 15
ITEM_ROWS = 10


def chain(one: Inspection, *, events: int | None = None) -> None:
    """Print all that a bundle knows of one user.

    Args:
        one: from `Recommender.inspect`.
        events: events of the user in the log, before the reliable ones were kept; left out if not known.
    """
    console = Console(width=max(Console().width, 120), highlight=False)
    console.rule(Text(f"user {one.user_id}", style="bold"))
    console.print(Text("attributes  ", style="bold") + Text(one.attributes or "none stated"))
    told = _receipt(one.receipt, events) if one.receipt else "none: no reliable behavior"
    console.print(Text("history     ", style="bold") + Text(told))
    _history(console, one.history)
    table(
        console,
        "interests",
        ("interest", "stage", "reason", "evidence", "source"),
        [{**row, "evidence": " ".join(f"r{number}" for number in row["evidence"])} for row in one.interests],
    )
    table(console, "tags", ("tag", "interest", "reason", "category", "source"), one.tags[:TAG_ROWS], of=len(one.tags))
    table(
        console,
        "items" + (" (cold: what is popular)" if one.cold else ""),
        ("title", "category", "score", "y_col", "y_sem", "tag", "interest", "explanation"),
        one.recommendations[:ITEM_ROWS],
        of=len(one.recommendations),
    )
    rejected = sum(row["status"] == "rejected" for row in one.rejections)
    console.print(
        f"{rejected} answers rejected by a rule, {len(one.rejections) - rejected} unscored; bundle {one.bundle}\n"
    )


def recommendations(answers: pa.Table) -> None:
    """Print `Recommender.recommend`'s table."""
    columns = ("item_id", "score", "y_col", "y_sem", "tag", "interest", "explanation", "cold")
    table(Console(width=max(Console().width, 120), highlight=False), "recommended", columns, answers.to_pylist())


def status(stages: Sequence[Status]) -> None:
    """Print how far each stage's requests are."""
    rows = [dataclasses.asdict(row) | {"stage": row.stage or "(older recgpt)"} for row in stages]
    console = Console(highlight=False)
    table(console, "requests", ("stage", "done", "failed", "quarantined", "waiting"), rows)
    reasons: Counter[str] = Counter()
    for row in stages:
        reasons.update(row.reasons)
    if not reasons:
        return
    console.print(
        "failed: no usable answer, so the stage did without it or asked in other words; quarantined: as often as is "
        "allowed, and not asked again. Their reasons (length: the answer did not end within its tokens):"
    )
    for reason, count in reasons.most_common(REASONS):
        console.print(Text(f"  {count:>6,}  {reason}"), soft_wrap=True)
    if len(reasons) > REASONS:
        console.print(
            f"  and {len(reasons) - REASONS:,} more; --json has all, the stages' rejections.parquet the users"
        )


def figures(found: Mapping[str, Any], verdicts: Sequence[str]) -> None:
    """Print the figures of a run: the rankers side by side, every beta, the rest one a line, and what they say."""
    console = Console(highlight=False)
    rows = [
        {"measure": measure, **{name: found[measure + suffix] for suffix, name in RANKERS.items()}}
        for measure in MEASURES
    ]
    table(console, f"held out: {plural(found['users_evaluated'], 'user')}", ("measure", *RANKERS.values()), rows)
    sweep = found["beta_sweep"]
    table(console, "beta", tuple(sweep[0]), sweep)
    shown = {"users_evaluated", "beta_sweep", *(measure + suffix for measure in MEASURES for suffix in RANKERS)}
    for name, value in found.items():
        if name not in shown:
            console.print(Text(f"{name:<30} {_cell(value)}"), soft_wrap=True)
    console.print()
    for verdict in verdicts:
        console.print(Text(f"- {verdict}"), soft_wrap=True)


def plan(planned: Plan) -> None:
    """Print what a run would cost."""
    rows = []
    for stage, seconds in planned.seconds.items():
        tally = planned.llm.get(stage)
        counts: dict[str, Any] = dict.fromkeys(("rows", "known", "tokens in", "computed", "tokens out"))
        if tally is not None:
            counts = {
                "rows": tally.rows,
                "known": tally.reused,
                "tokens in": tally.prompt_tokens,
                "computed": tally.computed_tokens,
                "tokens out": tally.answer_tokens,
            }
        rows.append({"stage": stage, **counts, "seconds": round(seconds)})
    columns = ("stage", "rows", "known", "tokens in", "computed", "tokens out", "seconds")
    console = Console(highlight=False)
    table(console, "dry run", columns, rows)
    total, disk = sum(planned.seconds.values()), planned.disk / 1e6
    asked = (
        f"the model was timed on {planned.sampled} of these requests for {planned.sampling:.0f} s"
        if planned.sampled
        else "nothing was asked"
    )
    console.print(f"about {total:,.0f} s in all and {disk:,.0f} MB on disk; {asked} and nothing was written")


def _receipt(receipt: Mapping[str, Any], events: int | None) -> str:
    seen = "" if events is None else f"{events:,} events -> "
    parts = ", ".join(
        f"{receipt[part]:,} {part}" for part in ("full", "coarsened", "folded", "dropped") if receipt[part]
    )
    return (
        f"{seen}{receipt['events']:,} kept -> {receipt['tokens_in']:,} tokens raw -> {receipt['tokens_out']:,} in the "
        f"prompt ({parts or 'nothing'}; layout {receipt['layout']})"
    )


def _history(console: Console, text: str | None) -> None:
    lines = (text or "").splitlines()
    # The newest lines say most about what comes next.
    if len(lines) > HISTORY_LINES:
        console.print(Text(f"  ... {len(lines) - HISTORY_LINES} older lines", style="dim"))
    for line in lines[-HISTORY_LINES:]:
        console.print(Text("  " + line), no_wrap=True, overflow="ellipsis")


def table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, of: int | None = None
) -> None:
    """Print rows of cells; `of` says how many there are in all."""
    more = f" (first {len(rows)} of {of})" if of is not None and of > len(rows) else ""
    shown = Table(title=f"{title}{more}", title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for column in columns:
        shown.add_column(column)
    for row in rows:
        # Text, not markup: titles are written by strangers.
        shown.add_row(*(Text(_cell(row[column])) for column in columns))
    console.print(shown if rows else Text(f"{title}: none", style="dim"))
    console.print()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
