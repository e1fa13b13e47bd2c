"""Shows a report of base against aligned on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from recgpt.cli.render import listing
from recgpt.llm.planning import Tally


def report(found: Mapping[str, Any]) -> None:
    """Print every table, what was left out, and where the files are."""
    from recgpt.alignment.report.tables import tables

    console = Console(width=max(Console().width, 140), highlight=False)
    for table in tables(found):
        listing(console, table.title, table.columns, [dict(zip(table.columns, row, strict=True)) for row in table.rows])
    for name, why in found["left_out"].items():
        console.print(Text(f"- left out: {name}: {why}"), soft_wrap=True)
    for name, path in found["files"].items():
        console.print(Text(f"- {name}: {path}"), soft_wrap=True)


def plan(stages: Mapping[str, Tally]) -> None:
    """Print what a report would ask, by stage, and about how long it would take."""
    console = Console(width=max(Console().width, 100), highlight=False)
    rows = [
        {
            "stage": stage,
            "requests": f"{tally.rows:,}",
            "known": f"{tally.reused:,}",
            "tokens read": f"{tally.computed_tokens:,}",
            "tokens scored or written": f"{tally.answer_tokens:,}",
            "minutes": f"{tally.seconds / 60:.1f}" if tally.seconds else "-",
        }
        for stage, tally in stages.items()
    ]
    listing(console, "what it would ask", list(rows[0]) if rows else (), rows)
    console.print(f"about {sum(tally.seconds for tally in stages.values()) / 60:.0f} minutes in all")
