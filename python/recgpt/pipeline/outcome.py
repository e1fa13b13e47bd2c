"""What a run leaves in memory: its figures, what they say in words, and where to find the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recgpt.evaluation import report
from recgpt.evaluation.verdicts import verdicts
from recgpt.serving import Inspection


@dataclass
class Outcome:
    """What a run leaves: figures, and where to find the rest."""

    folder: Path
    summaries: dict[str, str] = field(default_factory=dict)
    """One line of figures for each stage that ran."""
    figures: dict[str, Any] = field(default_factory=dict)
    """The JSON object of the demo's last line; empty when the run stopped at an earlier stage."""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Per held-out measure its 95 % interval over users."""
    shown: list[tuple[Inspection, int]] = field(default_factory=list)
    """Two LLM users' whole chain, read back from the published bundle, and how many events each has in the log."""

    @property
    def verdicts(self) -> list[str]:
        """What the figures say in words, also where a baseline wins."""
        return [one.text for one in verdicts(self.figures, self.intervals)] if self.figures else []

    def _repr_html_(self) -> str:
        """Show words, held-out figures and the quality of each stage in a notebook; every text is escaped."""
        return report.fragment(self.figures, self.intervals)
