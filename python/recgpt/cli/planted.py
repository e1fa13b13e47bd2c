"""Shows the scores of a planted world on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from recgpt.cli.render import listing

SCORES = {
    "precision": "right, of the mined",
    "recall": "found, of the planted",
    "f1": "F1",
    "stage": "right stage, of the right",
    "evidence": "rows that show it, of the cited",
    "live": "still going on, of the right",
    "hallucination": "hallucinations, of the mined",
}
TAGS = {
    "hr": "HR@30 of the categories wanted next",
    "hr_of_popular_categories": "the same by the 30 categories bought most",
    "valid": "name goods that the shop has",
    "fitting": "name goods of their interest",
    "wanted": "name a ware wanted next, of the first 30",
}


def show(found: Mapping[str, Any]) -> None:
    """Print whatever of `pipeline.evaluate_world` is there."""
    console = Console(width=max(Console().width, 120), highlight=False)
    world = found["world"]
    console.print(
        Text(
            f"a planted world (generated, says nothing about real shoppers): {world['users']:,} users, "
            f"{world['items']:,} items, {world['events']:,} events, noise {world['noise']:g}, seed {world['seed']}; "
            f"{found['llm_users']} users asked of {found['engine']}, mode {found['mode']}; means over users with 95 % "
            "intervals\n"
        ),
        soft_wrap=True,
    )
    if "interests" in found:
        _interests(console, found)
        _tags(console, found)
        _retrieval(console, found)
    if "ablation" in found:
        _ablation(console, found["ablation"])
    if "noise" in found:
        _noise(console, found["noise"])


def _estimate(value: Mapping[str, Any], form: str = ".3f") -> str:
    if value["value"] is None:
        return "-"
    return f"{value['value']:{form}} [{value['low']:{form}}, {value['high']:{form}}]"


def _interests(console: Console, found: Mapping[str, Any]) -> None:
    own, matching = found["interests"], found["matching"]
    listing(
        console,
        f"interests: {own['per_user']:.1f} a user",
        ("score", "model", "matching words alone"),
        [
            {
                "score": text,
                "model": _estimate(own[name]),
                "matching words alone": _estimate(matching[name]),
            }
            for name, text in SCORES.items()
        ]
        + [
            {"score": f"mined: {name}", "model": count, "matching words alone": matching["classes"][name]}
            for name, count in own["classes"].items()
        ],
    )


def _tags(console: Console, found: Mapping[str, Any]) -> None:
    listing(
        console,
        "tags",
        ("score", "value"),
        [{"score": text, "value": _estimate(found["tags"][name])} for name, text in TAGS.items()],
    )
    told = found["explanations"]
    linked = "-" if told["linked"] is None else f"{told['linked']:.3f}"
    listing(
        console,
        f"explanations: {told['pairs']} pairs",
        ("score", "value"),
        [
            {"score": "item truly belongs to the interest, of the pairs", "value": linked},
            {"score": "explained by an interest, of the served", "value": _estimate(told["explained"])},
            {"score": "truly the user's and the item's, of those", "value": _estimate(told["supported"])},
        ],
    )


def _retrieval(console: Console, found: Mapping[str, Any]) -> None:
    for name, who in (("retrieval", "everybody"), ("retrieval_llm_users", "users with a model's tags")):
        listing(
            console,
            f"lists of 20: {who}",
            ("ranker", "HR@20", "recall", "wanted next", "of what could be shown"),
            [
                {
                    "ranker": ranker,
                    "HR@20": _estimate(scores["hits"]),
                    "recall": _estimate(scores["recall"]),
                    "wanted next": _estimate(scores["wants"]),
                    "of what could be shown": _estimate(scores["perfect"]),
                }
                for ranker, scores in found[name].items()
            ],
        )


def _ablation(console: Console, found: Mapping[str, Any]) -> None:
    rows = found["variants"]
    listing(
        console,
        f"histories: {found['users']} users, {found['budget']:,} tokens at most; differences are paired, to `cheapest`",
        ("variant", "told", "tokens", "F1", "difference", "evidence", "its difference"),
        [
            {
                "variant": row["variant"],
                "told": f"{row['kept']:.0%}",
                "tokens": round(row["history_tokens"]),
                "F1": _estimate(row["f1"]),
                "difference": _estimate(row["f1_difference"]),
                "evidence": _estimate(row["evidence"]),
                "its difference": _estimate(row["evidence_difference"]),
            }
            for row in rows
        ],
    )
    listing(
        console,
        "what mining one user takes",
        ("variant", "prompt tokens", "difference", "seconds", "its difference"),
        [
            {
                "variant": row["variant"],
                "prompt tokens": f"{row['prompt_tokens']['value']:,.0f}",
                "difference": _estimate(row["prompt_tokens_difference"], "+,.0f"),
                "seconds": _estimate(row["seconds"], ".2f"),
                "its difference": _estimate(row["seconds_difference"], "+.2f"),
            }
            for row in rows
        ],
    )
    lost, saved = found["f1_cheapest_minus_raw"], found["time_saved"]
    console.print(
        Text(
            f"- compression changes F1 by {_estimate(lost)}: that it costs no more than {found['margin']:g} "
            f"{ {'holds': 'holds', 'broken': 'is broken', 'open': 'is not decided'}[found['verdict']] }\n"
            f"- the engine's time falls by {_percent(saved)} from raw to "
            f"cheapest; the paper says {found['time_saved_paper']:.0%} on its logs and its model"
        ),
        soft_wrap=True,
    )


def _percent(value: Mapping[str, Any]) -> str:
    # One user has no interval.
    low, high = ("?" if value[end] is None else f"{value[end]:.0%}" for end in ("low", "high"))
    return f"{value['value']:.0%} [{low}, {high}]"


def _noise(console: Console, found: list[Mapping[str, Any]]) -> None:
    listing(
        console,
        "accidents",
        ("share of visits", "events", "mined", "hallucinated", "weak", "precision", "F1"),
        [
            {
                "share of visits": f"{row['noise']:g}",
                "events": round(row["reliable_events"]),
                "mined": row["mined"],
                "hallucinated": _estimate(row["hallucination"]),
                "weak": row["weak"],
                "precision": _estimate(row["precision"]),
                "F1": _estimate(row["f1"]),
            }
            for row in found
        ],
    )
