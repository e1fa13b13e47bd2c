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

from recgpt import evidence
from recgpt.evaluation.figures import MEASURES
from recgpt.serving import Inspection
from recgpt.text import plural

if TYPE_CHECKING:
    from pathlib import Path

    from recgpt.pipeline import Plan, Status

HISTORY_LINES = 12
"""Lines of a history that are shown; the report has them all."""
CITED = 3
"""Things of a cited row that are shown."""
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
    listing(
        console,
        "interests",
        ("interest", "stage", "reason", "evidence", "source"),
        [{**row, "evidence": _cited(row, one.history or "")} for row in one.interests],
    )
    listing(console, "tags", ("tag", "interest", "reason", "category", "source"), one.tags[:TAG_ROWS], of=len(one.tags))
    listing(
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
    listing(Console(width=max(Console().width, 120), highlight=False), "recommended", columns, answers.to_pylist())


def status(stages: Sequence[Status]) -> None:
    """Print how far each stage's requests are."""
    rows = [dataclasses.asdict(row) | {"stage": row.stage or "(older recgpt)"} for row in stages]
    console = Console(highlight=False)
    listing(console, "requests", ("stage", "done", "failed", "quarantined", "waiting"), rows)
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
    listing(console, f"held out: {plural(found['users_evaluated'], 'user')}", ("measure", *RANKERS.values()), rows)
    sweep = found["beta_sweep"]
    listing(console, "beta", tuple(sweep[0]), sweep)
    if own := found["llm_beta_sweep"]:
        listing(console, "beta, users whose tags the model wrote", tuple(own[0]), own)
    shown = {measure + suffix for measure in MEASURES for suffix in RANKERS}
    shown |= {"users_evaluated", "beta_sweep", "llm_beta_sweep"}
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
    listing(console, "dry run", columns, rows)
    total, disk = sum(planned.seconds.values()), planned.disk / 1e6
    asked = (
        f"the model was timed on {planned.sampled} of these requests for {planned.sampling:.0f} s"
        if planned.sampled
        else "nothing was asked"
    )
    console.print(f"about {total:,.0f} s in all and {disk:,.0f} MB on disk; {asked} and nothing was written")


def judged(
    rates: Sequence[Mapping[str, Any]],
    passed: Mapping[str, float | None],
    last: str,
    *,
    notes: Sequence[str],
) -> None:
    """Print what the judge said, on what its scores rest, and as the last line who decided."""
    console = Console(highlight=False)
    columns = ("task", "criterion", "decided_by", "samples", "passed", "failed", "unscored")
    listing(console, f"judge, {notes[0]}", columns, rates, whole=("task", "criterion", "decided_by"))
    for note in notes[1:]:
        console.print(Text(f"- {note}"), soft_wrap=True)
    for task, rate in passed.items():
        share = "nobody could tell" if rate is None else f"{rate:.0%} pass every criterion"
        console.print(Text(f"{task:<13} {share}"))
    console.print(Text(last), soft_wrap=True)


def criteria(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the criteria."""
    listing(Console(highlight=False), "criteria", tuple(rows[0]), rows, whole=("criterion",))


def curriculum(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Print how many samples there are of each subtask, beside the report's."""
    console = Console(highlight=False)
    whole = {name: sum(row[name] for row in rows) for name in ("made", "asked", "paper")}
    listing(console, "curriculum", tuple(rows[0]), [*rows, {"subtask": "together", "level": "", **whole}])
    console.print(Text(str(path)), soft_wrap=True)


def incremental(counts: Mapping[str, int], paths: Sequence[Path]) -> None:
    """Print what each step of a window left."""
    console = Console(highlight=False)
    steps = {
        "records": "clicks and purchases of the window",
        "relevant": "go with an interest or the history",
        "timely": "suit this season or the next",
        "with_interest": "of them with an interest of the user",
        "tags_a_user": "after the draw of tags a user",
        "balanced": "after the draw by category",
        "samples": "samples",
        "users": "users",
    }
    rows = [{"step": said, "left": counts[name]} for name, said in steps.items()]
    listing(console, "incremental learning", ("step", "left"), rows)
    for path in paths:
        console.print(Text(str(path)), soft_wrap=True)


def taught(found: Any, *, paper: tuple[int, int]) -> None:
    """Print what became of a teacher's outputs, beside the report's share."""
    console = Console(highlight=False)
    listing(console, f"teacher={found.teacher}", ("task", "became", "outputs"), found.table())
    share, theirs = found.left / found.made, paper[1] / paper[0]
    console.print(
        Text(
            f"{found.made:,} outputs -> {found.left:,} kept ({share:.0%}); the report: {paper[0] / 1000:.1f}k -> "
            f"{paper[1] / 1000:.1f}k ({theirs:.0%})\n{found.samples.num_rows:,} samples in {found.path}"
        ),
        soft_wrap=True,
    )


def self_trained(found: Any, *, paper: int) -> None:
    """Print what became of each round, beside the report's samples."""
    console = Console(highlight=False)
    rows = found.rounds.to_pylist()
    listing(console, "self-training", ("round", "accepted", "made", "kept", "samples", "why"), rows)
    before, after = (
        " ".join(f"{key} {value:.2f}" for key, value in one.parts.items()) for one in (found.before, found.after)
    )
    console.print(
        Text(
            f"before: {before}\nnow:    {after}\n"
            f"{sum(row['samples'] for row in rows):,} samples (the report: {paper / 1000:.1f}k); the adapter: "
            f"{found.adapter or 'none, the model stays as it was'}"
        ),
        soft_wrap=True,
    )


def _receipt(receipt: Mapping[str, Any], events: int | None) -> str:
    seen = "" if events is None else f"{events:,} events -> "
    parts = ", ".join(
        f"{receipt[part]:,} {part}" for part in ("full", "coarsened", "folded", "dropped") if receipt[part]
    )
    return (
        f"{seen}{receipt['events']:,} kept -> {receipt['tokens_in']:,} tokens raw -> {receipt['tokens_out']:,} in the "
        f"prompt ({parts or 'nothing'}; layout {receipt['layout']})"
    )


def _cited(interest: Mapping[str, Any], history: str) -> str:
    """Show the cited rows by the things in them that the interest or its reason names; a whole row would be a year."""
    wanted = [(stem,) for stem in evidence.words(f"{interest['interest']} {interest['reason'] or ''}") if len(stem) > 3]
    shown = []
    for row in evidence.parse_rows(history):
        if row.id in interest["evidence"]:
            named = [item for item in row.items if evidence.longest_hit(item, wanted)] or list(row.items)
            more = f" and {len(named) - CITED} more" if len(named) > CITED else ""
            shown.append(f"r{row.id} {', '.join(row.labels)}: {', '.join(named[:CITED])}{more}")
    return "; ".join(shown)


def _history(console: Console, text: str | None) -> None:
    lines = (text or "").splitlines()
    # The newest lines say most about what comes next.
    if len(lines) > HISTORY_LINES:
        console.print(Text(f"  ... {len(lines) - HISTORY_LINES} older lines", style="dim"))
    for line in lines[-HISTORY_LINES:]:
        console.print(Text("  " + line), no_wrap=True, overflow="ellipsis")


def listing(
    console: Console,
    title: str,
    columns: Sequence[str],
    shown: Sequence[Mapping[str, Any]],
    *,
    of: int | None = None,
    whole: Sequence[str] = (),
) -> None:
    """Print a table, or that there is none; columns in `whole` stay on one line, and no cell of any is cut."""
    more = f" (first {len(shown)} of {of})" if of is not None and of > len(shown) else ""
    table = Table(title=f"{title}{more}", title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in whole)
    for row in shown:
        # Text, not markup: titles are written by strangers.
        table.add_row(*(Text(_cell(row[column])) for column in columns))
    console.print(table if shown else Text(f"{title}: none", style="dim"))
    console.print()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
