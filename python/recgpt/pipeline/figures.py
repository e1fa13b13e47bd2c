"""The figures of a run, all computed from its own tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import evaluation, judge
from recgpt.evaluation.sweep import category_codes
from recgpt.pipeline import judging
from recgpt.text import plural

if TYPE_CHECKING:
    from recgpt.pipeline.run import Stages


def total(table: pa.Table, column: str) -> int:
    """Sum one column."""
    return int(pc.sum(table[column]).as_py() or 0)


def tokens_raw(history: pa.Table) -> int:
    """Tokens of one line per reliable event, from the receipts."""
    return int(pc.sum(pc.struct_field(history["receipt"], "tokens_in")).as_py() or 0)


def gather(run: Stages) -> dict[str, Any]:
    """Put the demo's last line together, but for `seconds`, `report` and `bundle`, which are known later."""
    counts = [run.mined.counts, run.predicted.counts, run.written.counts]
    llm = evaluation.own_and_swapped(
        run.index,
        run.towers,
        run.predicted.table,
        run.judged.held_out.subset(run.drawn),
        beta=run.beta,
        seed=run.config.seed,
    )
    hits = run.hits[0]
    users = max(len(run.drawn), 1)
    budget = run.config.history.budget
    return {
        "users": run.users.num_rows,
        "llm_users": len(run.drawn),
        "events": run.events.num_rows,
        "events_kept": run.kept.num_rows,
        "tokens_raw": tokens_raw(run.whole),
        "tokens_compressed": total(run.whole, "tokens"),
        "tokens_budgeted": total(run.budgeted, "tokens"),
        "within_budget": pc.mean(pc.less_equal(run.budgeted["tokens"], budget)).as_py(),
        "interests_per_user": run.mined.table.num_rows / users,
        "tags_per_user": run.predicted.table.num_rows / users,
        "answers_valid_raw": _share(counts, "answers_valid", "answers_total"),
        "evidence_supported_raw": _share(counts[:1], "evidence_supported", "evidence_total"),
        "evidence_supported_base": run.mined.counts.get("evidence_base"),
        "rejected": _status(run.rejections, "rejected"),
        "unscored": _status(run.rejections, "unscored"),
        "interests_changed_by_shuffle": run.mined.counts.get("changed_by_matching_and_shuffle"),
        "interests_changed_by_model": run.mined.counts.get("changed_by_shuffle"),
        "category_accuracy": run.accuracy.held_out,
        "llm_hr@20_new": llm.own.mean,
        "llm_hr@20_new_swapped": llm.swapped.mean,
        "llm_n": llm.users,
        "llm_beta_sweep": _llm_sweep(run),
        "llm_hr@30_category": hits.tags.mean,
        "llm_hr@30_category_popularity": hits.popularity.mean,
        "explained_by_interest": _explained(run, "interest"),
        "explained_by_item": _explained(run, "item"),
        "explained_by_rule": _explained(run, "rule"),
        "below_category_floor": run.predicted.counts["below_floor"],
        **{f"pass_{task}": run.verdicts.pass_rates().get(task) for task in judge.TASKS},
        "pass_n": sum(map(len, run.verdicts.qualified().values())),
        "pass_calibrated": not run.verdicts.uncalibrated,
        "pass_decided_by": judging.decided(run.verdicts.counts),
        "llm_calls": run.engine.calls,
        "llm_reused": run.engine.reused,
        **run.judged.figures,
    }


def _llm_sweep(run: Stages) -> list[dict[str, float]]:
    """Every beta on the shoppers whose tags the model wrote; the sweep of everybody is nearly all tags by rule."""
    group = run.judged.held_out.subset(run.drawn)
    if not group.user_ids:
        return []
    asked = evaluation.queries(run.towers, run.predicted.table, group.user_ids)
    codes = category_codes(run.items, group.item_ids)
    return [row.figures() for row in evaluation.beta_sweep(run.index, asked, group, categories=codes)]


def tokens(whole: pa.Table, budgeted: pa.Table, budget: int) -> list[str]:
    """Say what compression and the budget made of all histories."""
    users = plural(whole.num_rows, "user")
    return [
        f"{users}: {tokens_raw(whole):,} tokens as one line an event -> {total(whole, 'tokens'):,} compressed",
        f"{total(budgeted, 'tokens'):,} in the prompts, with row numbers and at most {budget:,} a user",
    ]


def controls(counts: dict[str, Any]) -> list[str]:
    """Say what the figures of interests must be read against: another history, and rows that support one anyway."""
    said = []
    if (strict := counts.get("changed_by_shuffle")) is not None:
        whole = counts["changed_by_matching_and_shuffle"]
        said.append(
            f"another's history changes {whole:.0%} of the choice, {strict:.0%} where the candidates stay the own"
        )
    if counts.get("evidence_total"):
        found = counts["evidence_supported"] / counts["evidence_total"]
        said.append(
            f"{found:.0%} of the cited rows support their interest, {counts['evidence_base']:.0%} of those shown do"
        )
    return said


def _share(counts: Sequence[dict[str, Any]], part: str, whole: str) -> float:
    asked = sum(count[whole] for count in counts)
    return sum(count[part] for count in counts) / asked if asked else float("nan")


def _status(rejections: pa.Table, status: str) -> int:
    return int(pc.sum(pc.equal(rejections["status"], status)).as_py() or 0)


def _explained(run: Stages, by: str) -> float:
    served = [row["explained_by"] for one in run.inspections for row in one.recommendations]
    return served.count(by) / len(served) if served else float("nan")
