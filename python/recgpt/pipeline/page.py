"""Gathers a run's figures and writes its report."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import evaluation
from recgpt.evaluation import report
from recgpt.pipeline import figures, judging
from recgpt.pipeline.tables import only
from recgpt.serving import Inspection

if TYPE_CHECKING:
    from recgpt.pipeline.run import Stages


def write(run: Stages) -> dict[str, Any]:
    """Write `report.html` beside the bundles and give the run's figures, those of DESIGN's last line, in its order."""
    path = run.config.serving.bundles / "report.html"
    seconds = {**run.clock.seconds, "total": round(sum(run.clock.seconds.values()), 2)}
    summary = evaluation.summary(
        {**figures.gather(run), "seconds": seconds, "report": str(path), "bundle": str(run.bundle)}
    )
    report.write(
        path,
        figures=summary,
        households=[_household(run, one) for one in run.inspections],
        now=run.now,
        title=f"recgpt on {run.data.name}",
        intervals=run.judged.intervals,
        tokens={
            "raw": _receipts(run.whole, "tokens_in"),
            "compressed": run.whole["tokens"].to_pylist(),
            "budgeted": run.budgeted["tokens"].to_pylist(),
        },
        validation_curve=_curve(run.towers.log),
        category_hits=run.hits,
        places=run.judged.places,
        rejections=_by_reason(run.rejections),
        judged=[row | {"decided_by": judging.deciders(row["decided_by"])} for row in judging.rates(run.verdicts)],
        notes=[run.data.notes] if run.data.notes else [],
        ran=_ran(run),
    )
    return summary


def _ran(run: Stages) -> dict[str, str]:
    """Say what ran on what, so that a reader can run it again."""
    config = run.config
    return {
        "data": run.data.name,
        "held out": f"{config.data.test_days} days, {config.data.truth}"
        if run.now
        else f"the last {config.data.truth}",
        "history budget": f"{config.history.budget:,} tokens",
        "engine": f"{config.llm.engine}, {config.llm.mode}",
        "model": run.engine.name if "engine" in run.__dict__ else "none was asked",
        "seed": str(config.seed),
        **report.versions(),
    }


def _household(run: Stages, one: Inspection) -> report.Household:
    whole = only(run.whole, [one.user_id]).to_pylist()[0]
    bought = set(
        only(run.future, [one.user_id])
        .filter(pc.equal(only(run.future, [one.user_id])["behavior"], run.config.data.truth))["item_id"]
        .to_pylist()
    )
    return report.Household(
        user_id=one.user_id,
        attributes=one.attributes,
        events=run.events_of(one.user_id),
        kept=whole["receipt"]["events"],
        tokens_raw=whole["receipt"]["tokens_in"],
        tokens_compressed=whole["tokens"],
        tokens_budgeted=(one.receipt or {}).get("tokens_out"),
        history=one.history or "",
        receipt=one.receipt or {},
        interests=one.interests,
        tags=one.tags,
        items=[
            {**row, "source": row["explained_by"], "bought": row["item_id"] in bought} for row in one.recommendations
        ],
        rejections=one.rejections,
    )


def _receipts(history: pa.Table, part: str) -> list[float]:
    found: list[float] = pc.struct_field(history["receipt"], part).to_pylist()
    return found


def _curve(log: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The validation recall of the epochs in which it was measured."""
    values = [row["recall"] for row in log if row.get("recall") is not None]
    return {"validation recall": values} if values else {}


def _by_reason(rejections: pa.Table) -> list[dict[str, Any]]:
    """Count rejections; what follows the colon of a reason is its detail."""
    rows = rejections.select(["stage", "status", "reason"]).to_pylist()
    counts = Counter((row["stage"], row["status"], row["reason"].split(":")[0]) for row in rows)
    return [
        {"stage": stage, "status": status, "reason": reason, "count": count}
        for (stage, status, reason), count in counts.most_common()
    ]
