"""What a run of stage 4 lets through, what it does not, and the counts of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

import pyarrow as pa

from recgpt import schema
from recgpt.interests import rules
from recgpt.interests.cases import Choice
from recgpt.interests.config import Config
from recgpt.interests.pool import Pool, Support
from recgpt.llm.engine import Engine, Progress, Result, ScoreResult

_STAGE = "interests"
_COUNTS = (
    "users",
    "abstained",
    "candidates",
    "answers_total",
    "answers_valid",
    "evidence_total",
    "evidence_supported",
    "unscored",
    "requests",
    "prompt_tokens",
    "computed_tokens",
    "answer_tokens",
)


class Mined(NamedTuple):
    """The result of `mine`."""

    table: pa.Table
    """INTERESTS, users in the order of the histories, ranks from 1."""
    rejections: pa.Table
    """REJECTIONS: everything that was not let through, with its reason."""
    counts: dict[str, Any]
    """What happened, in numbers; see `mine`."""


class Run:
    """One call of `mine`: what it knows, and the tallies that every step writes."""

    def __init__(
        self, engine: Engine, now: datetime | None, pool: Pool, config: Config, progress: Progress | None
    ) -> None:
        self.engine, self.now, self.pool, self.config, self.progress = engine, now, pool, config, progress
        # Only labels with a date are read against it, and a log without times has none.
        self.today = now.date() if now is not None else date.max
        self.staples = pool.staple_terms
        self.rows: list[dict[str, Any]] = []
        self.rejections: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.ranks: Counter[str] = Counter()
        self.controls: dict[str, float] = {}

    def reject(
        self, user_id: str, text: str | None, reason: str, *, status: str = "rejected", raw: str | None = None
    ) -> None:
        """Keep what was not let through."""
        if status == "unscored":
            self.counts["unscored"] += 1
        else:
            self.rejected[reason.partition(":")[0]] += 1
        self.rejections.append(
            {"user_id": user_id, "stage": _STAGE, "text": text, "status": status, "reason": reason, "raw": raw}
        )

    def tally(self, results: Sequence[ScoreResult | Result]) -> None:
        """Add up what the engine computed."""
        self.counts["requests"] += len(results)
        for result in results:
            self.counts["prompt_tokens"] += result.usage.prompt_tokens
            self.counts["computed_tokens"] += result.usage.computed_tokens
            self.counts["answer_tokens"] += result.usage.answer_tokens

    def measure(self, pointed: Sequence[int], shown: Sequence[int], supporting: Collection[int]) -> None:
        """Count which rows support an interest, among those pointed at and, as the base rate, among all shown."""
        self.counts["evidence_total"] += len(pointed)
        self.counts["evidence_supported"] += sum(row in supporting for row in pointed)
        self.counts["shown"] += len(shown)
        self.counts["shown_supported"] += sum(row in supporting for row in shown)

    def fault(self, choice: Choice, found: Support) -> str | None:
        """Apply the rules that need no model, the most telling first."""
        audience = choice.entry.audience if choice.entry else rules.audience_of(choice.interest)
        return (
            rules.no_support(found)
            or rules.necessity(choice.interest, found, listed=choice.entry is not None)
            or rules.gift(audience, choice.case.attributes)
            or rules.single_action(found)
            or rules.short_burst(found, now=self.today, days=self.config.burst_days)
        )

    def keep(self, choice: Choice) -> None:
        """Let an interest through."""
        self.ranks[choice.case.user_id] += 1
        self.rows.append(
            {
                "user_id": choice.case.user_id,
                "rank": self.ranks[choice.case.user_id],
                "interest": choice.interest,
                "pool_id": choice.entry.pool_id if choice.entry else None,
                "listed": choice.entry is not None,
                "stage": choice.stage,
                "reason": choice.reason,
                "evidence": list(choice.evidence),
                "score": choice.score,
                "as_of": self.now,
            }
        )

    def finish(self, source: str) -> Mined:
        """Make the tables."""
        table = schema.rows([{**row, "source": source} for row in self.rows], schema.INTERESTS)
        counts: dict[str, Any] = {name: self.counts[name] for name in _COUNTS}
        counts["interests"] = len(self.rows)
        counts["listed"] = sum(row["listed"] for row in self.rows)
        counts["extended"] = counts["interests"] - counts["listed"]
        counts["rejected"] = dict(sorted(self.rejected.items()))
        if source == "generate":
            counts["stage_differs"] = self.counts["stage_differs"]
        shown = self.counts["shown"]
        counts["evidence_base"] = self.counts["shown_supported"] / shown if shown else None
        counts.update(self.controls)
        return Mined(table, schema.rows(self.rejections, schema.REJECTIONS), counts)
