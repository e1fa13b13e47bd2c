"""How good each stage of a run was, from its figures: a row each, beside what would be reached without that stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from recgpt.evaluation.verdicts import number

BASELINES = ("popularity", "buy-again")


class Row(NamedTuple):
    """One figure of a stage."""

    stage: str
    says: str
    value: str
    beside: str


def rows(figures: Mapping[str, Any], intervals: Mapping[str, tuple[float, float]]) -> list[Row]:
    """Give what the run's figures say of each stage; figures that a run does not have are left out.

    >>> for row in rows({"events": 4, "events_kept": 3, "hr@20_new": 0.3}, {"hr@20_new": (0.2, 0.4)}):
    ...     print(*row, sep=" | ")
    behaviors | share of events kept as reliable | 0.750 | 3 of 4
    retrieval | HR@20 on new items | 0.300 | 95 % interval 0.200 to 0.400
    """
    found: list[Row] = []

    def of(name: str) -> float | None:
        return number(figures.get(name))

    def row(stage: str, says: str, value: float | None, *beside: tuple[str, float | None]) -> None:
        if value is not None:
            told = [f"{text} {one:.3f}" for text, one in beside if one is not None]
            found.append(Row(stage, says, f"{value:.3f}", "; ".join(told)))

    def judged(task: str) -> None:
        if figures.get("pass_n"):
            opinion = "" if figures.get("pass_calibrated") else ", a model's opinion that no labels calibrate"
            row(task, f"the judge lets pass{opinion}", of(f"pass_{task}"))

    events, kept = of("events"), of("events_kept")
    if events and kept is not None:
        of_all = f"{kept:,.0f} of {events:,.0f}"
        found.append(Row("behaviors", "share of events kept as reliable", f"{kept / events:.3f}", of_all))
    row("history", "share of histories within the budget", of("within_budget"))
    raw, compressed, cut = of("tokens_raw"), of("tokens_compressed"), of("tokens_budgeted")
    if raw and compressed:
        row("history", "tokens after compression, of one line an event", compressed / raw)
    if compressed and cut is not None:
        row("history", "tokens within the budget, of the compressed ones", cut / compressed)
    row("interests", "answers that were valid before any filter, all LLM stages", of("answers_valid_raw"))
    row(
        "interests",
        "cited rows that support the claim, before any filter",
        of("evidence_supported_raw"),
        ("of rows taken blindly", of("evidence_supported_base")),
    )
    row(
        "interests",
        "interests that another shopper's history changes",
        of("interests_changed_by_shuffle"),
        ("with the own candidates", of("interests_changed_by_model")),
    )
    judged("interests")
    row("tags", "Tag-to-Cate: right categories of held-out product types", of("category_accuracy"))
    popular = ("30 most popular categories", of("llm_hr@30_category_popularity"))
    row("tags", "HR@30, categories of the next basket", of("llm_hr@30_category"), popular)
    swapped = ("with another shopper's tags", of("llm_hr@20_new_swapped"))
    row("tags", "HR@20 on new items, LLM shoppers", of("llm_hr@20_new"), swapped)
    judged("tags")
    for measure, text in (("hr@20_new", "HR@20 on new items"), ("hr@20", "HR@20 on any purchase")):
        row("retrieval", text, of(measure), *((who, of(f"{measure}_{who.replace('-', '_')}")) for who in BASELINES))
        if (ends := intervals.get(measure)) is not None and found and found[-1].says == text:
            beside = [f"95 % interval {ends[0]:.3f} to {ends[1]:.3f}", found[-1].beside]
            found[-1] = found[-1]._replace(beside="; ".join(filter(None, beside)))
    row(
        "explanations",
        "served items explained by an interest",
        of("explained_by_interest"),
        ("by the item alone", of("explained_by_item")),
        ("by a rule", of("explained_by_rule")),
    )
    judged("explanations")
    return found
