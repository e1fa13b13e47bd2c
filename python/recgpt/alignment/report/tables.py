"""The figures of a report as tables of texts, for terminal, Markdown and page alike."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recgpt.alignment.report import paper
from recgpt.alignment.report.criteria import CRITERIA as TAG_CRITERIA
from recgpt.alignment.report.estimates import Estimate
from recgpt.alignment.report.examples import KINDS
from recgpt.alignment.report.households import SEGMENTS
from recgpt.explanations import CRITERIA as TEXT_CRITERIA
from recgpt.text import clean

TASKS = {"interests": "User Interest Mining", "tags": "Item Tag Prediction", "explanations": "Explanation Generation"}
_FIGURES = ("accuracy", "precision", "recall", "f1")
_MARKS = re.compile(r"([\\`*_\[<>|&~])")


class Table(NamedTuple):
    """One table."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def told(one: Estimate | None, *, percent: bool = False) -> str:
    """Write an estimate with its interval.

    >>> told({"value": 0.8125, "low": 0.75, "high": 0.875, "n": 40})
    '.812 [.750, .875]'
    >>> told({"value": 0.8125, "low": None, "high": None, "n": 1}, percent=True)
    '81.2 %'
    """
    if one is None or one["value"] is None:
        return "-"

    def number(value: float) -> str:
        if percent:
            return f"{100 * value:.1f}"
        return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"

    ends = "" if one["low"] is None else f" [{number(one['low'])}, {number(one['high'])}]"
    return f"{number(one['value'])}{' %' if percent else ''}{ends}"


def tables(found: Mapping[str, Any]) -> list[Table]:
    """Make every table that the report has figures for."""
    parts = found["parts"]
    makers = (("next", _next), ("interests", _interests), ("tags", _tags), ("explanations", _explanations))
    made = [_goals(found["goals"])] if any(goal["reached"] for goal in found["goals"]) else []
    made += [table for part, make in makers if part in parts for table in make(parts[part])]
    for name, read in (("incremental", _incremental), ("judge", judge_tables)):
        if found.get(name):
            made += read(found[name])
    return made


def _goals(goals: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for goal in goals:
        reached = goal["reached"]
        met = {True: "yes", False: "no", None: "cannot be told"}[goal["met"]]
        unit = f"{goal['relation']} {goal['mark']:g}"
        count = "-" if reached is None else f"{reached['n']:,}"
        rows.append((goal["goal"], unit, told(reached), count, f"{met}, surely" if goal["sure"] else met))
    return Table(
        "Goals of the aligned model",
        "Surely: the whole 95 % interval is beyond the mark. n: households, shoppers or items, by which the interval "
        "is drawn.",
        ("goal", "mark", "reached", "n", "met"),
        rows,
    )


def _next(part: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    some = next(iter(part.values()))
    areas, hits = [], []
    for segment, name in SEGMENTS.items():
        for model, figures in part.items():
            own = figures["auc"][segment]
            areas.append(
                (model, name, told(own["own"]), told(own["other"]), told(own["own_minus_other"]),
                 told(own["own_minus_popularity"]), str(own["own"]["n"]))
            )  # fmt: skip
            hit = figures["hr"][segment]
            hits.append((model, name, told(hit["model"]), told(hit["difference"]), str(hit["model"]["n"])))
        best = some["auc"][segment]["popularity"]
        areas.append(("popularity", name, told(best), "-", "-", "-", str(best["n"])))
        best = some["hr"][segment]["popularity"]
        hits.append(("popularity", name, told(best), "-", str(best["n"])))
    return [
        Table(
            "Held-out households: AUC of what is bought next",
            f"{some['households']} households; the {some['candidates']} kinds of goods that are bought most, ranked by "
            "mean log-probability after the tags prompt, against what is bought in the 14 days after. Another's "
            "history: the same truth under every other household's prompt, averaged. Differences are paired, intervals "
            "over households.",
            ("model", "kinds", "own history", "another's history", "own - another's", "own - popularity", "households"),
            areas,
        ),
        Table(
            "Held-out households: HR@30 of the next basket",
            "The 30 kinds ranked first, counted as evaluation.category_hits does; not bought for 30 days: what was is "
            "passed over on both sides.",
            ("model", "kinds", "HR@30", "minus popularity", "households"),
            hits,
        ),
    ]


def _interests(part: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    stages = (("first", "chosen by the model"), ("kept", "kept by the rules"))
    rates = [
        (model, name, told(one["pass_rate"], percent=True), f"{one['pass_rate']['hits']} of {one['pass_rate']['of']}")
        for model, figures in part.items()
        for stage, name in stages
        for one in (figures[stage],)
    ]
    rates += [(f"paper: {name}", "by people", f"{100 * rate:.2f} %", "-") for name, rate in paper.TABLE_2.items()]
    scores = [
        (model, name, *(told(one[score]) for score in ("precision", "recall", "f1", "hallucination")),
         f"{one['per_user']:.1f}", str(one["f1"]["n"]))
        for model, figures in part.items()
        for stage, name in stages
        for one in (figures[stage],)
    ]  # fmt: skip
    return [
        Table(
            "Table 2: interests that pass",
            "The planted world's shoppers. An interest passes where it is willed and the behavior truly shows it. "
            "teacher=world answers from the truth: what can be reached under the stage's rules.",
            ("model", "of", "pass rate", "interests"),
            rates,
        ),
        Table(
            "Planted interests: precision, recall, F1",
            "Means over shoppers; hallucination: the share of a shopper's interests that nothing in the log shows.",
            ("model", "of", "precision", "recall", "F1", "hallucination", "a shopper", "shoppers"),
            scores,
        ),
    ]


def _tags(part: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    rows = [
        (model, name, *(told(figures[stage][criterion], percent=True) for criterion in ("all", *TAG_CRITERIA)),
         f"{figures[stage]['all']['of']:,}")
        for model, figures in part.items()
        for stage, name in (("first", "first answers"), ("kept", "after filtering"))
    ]  # fmt: skip
    blank = ("-",) * len(TAG_CRITERIA)
    rows += [
        (f"paper: {name}", "by people", f"{100 * rate:.2f} %", *blank, "-") for name, rate in paper.TABLE_4.items()
    ]
    hits = [
        (model, told(figures["hr"]), told(figures["popularity"]), told(figures["difference"]), str(figures["hr"]["n"]))
        for model, figures in part.items()
    ]
    return [
        Table(
            "Table 4: tags that pass",
            "The planted world's shoppers, each model with the interests that it mined. All: relevance, consistency, "
            "specificity and validity (Table 3) together; without an interest a tag is held against all that the "
            "shopper truly has. In mode rank, tags come from the catalogue: specific and valid from the start.",
            ("model", "of", "all", *TAG_CRITERIA, "tags"),
            rows,
        ),
        Table(
            "Planted shoppers: HR@30 of the categories wanted next",
            "Through Tag-to-Cate; popularity names the 30 categories bought most.",
            ("model", "HR@30", "popularity", "difference", "shoppers"),
            hits,
        ),
    ]


def _explanations(part: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    rows = [
        (model, *(told(figures[name], percent=True) for name in ("all", *TEXT_CRITERIA)), f"{figures['all']['of']:,}")
        for model, figures in part.items()
    ]
    blank = ("-",) * len(TEXT_CRITERIA)
    rows += [(f"paper: {name}", f"{100 * rate:.1f} %", *blank, "-") for name, rate in paper.TABLE_7.items()]
    return [
        Table(
            "Table 7: explanations that pass",
            "First tries before any filtering, the same pairs of interest and item for every model; decided by the "
            "stage's own checks of Table 6's criteria, not by people. Intervals over items.",
            ("model", "all", *TEXT_CRITERIA, "texts"),
            rows,
        )
    ]


def _incremental(found: Mapping[str, Any]) -> list[Table]:
    """Read the last line of `benches/incremental.py`."""
    rows = []
    for field, kinds in (("hits", SEGMENTS["all"]), ("hits_new", SEGMENTS["new"])):
        one = found.get("hr30", {}).get(field)
        if one:
            low, high = one["interval"]
            rows.append(
                (kinds, f"{one['without']:.4f}", f"{one['with']:.4f}",
                 f"{one['points']:+.2f} points [{low:+.2f}, {high:+.2f}]",
                 f"{one['households']:,} households, {one['baskets']:,} baskets")
            )  # fmt: skip
    without, with_ = paper.TABLE_5.values()
    rows.append(("paper: TBStars-SFT", f"{without:.4f}", f"{with_:.4f}", f"{100 * (with_ - without):+.2f} points", "-"))
    return [
        Table(
            "Table 5: HR@30 without and with incremental learning",
            "Over windows of 14 days; the difference is paired, its interval over households with all their windows.",
            ("kinds", "without", "with", "difference", "n"),
            rows,
        )
    ]


def judge_tables(found: Mapping[str, Any]) -> list[Table]:
    """Read task -> `base` and `aligned` -> accuracy, precision, recall, f1 (estimates, or bare numbers) and `n`.

    `about` says whose labels these are; `criteria` has the same by criterion, and everywhere `minority` apart.
    """
    by_world = "world" in found.get("about", {}).get("annotators", [])
    whose = "the truth of a planted world (annotator `world`), not people's" if by_world else "people's"
    rows, apart = [], []
    for task, name in TASKS.items():
        for model, theirs in (("base", "Qwen3-Judge-Base"), ("aligned", "Qwen3-Judge-SFT")):
            one = found.get(task, {}).get(model)
            if one and one["n"]:
                rows.append((name, model, *(_told(one[figure]) for figure in _FIGURES), f"{one['n']:,}"))
                apart += _minority(name, model, one)
            rows.append((name, f"paper: {theirs}", *(f"{value:.4f}" for value in paper.TABLE_9[task][model]), "-"))
    kinds = []
    for key, models in found.get("criteria", {}).items():
        for model, one in models.items():
            if one["n"]:
                kinds.append(
                    (key, model, *(_told(one[figure]) for figure in _FIGURES), f"{one['n']:,}", _number(one["auc"]),
                     _told(one.get("backward")), _told(one.get("turned")))
                )  # fmt: skip
                apart += _minority(key, model, one)
    title = "Table 9: the judge against " + ("a planted world's truth" if by_world else "people")
    columns = ("judge", "accuracy", "precision", "recall", "F1", "labels")
    made = [
        Table(
            title,
            f"On labels that the judge has not seen: {whose}. An output passes if it passes every labeled criterion "
            "that the model decides. Intervals over outputs.",
            ("task", *columns),
            rows,
        )
    ]
    if kinds:
        made.append(
            Table(
                f"{title}, by criterion",
                "AUC: how often an output that passes has the higher score. Turned: verdicts that change when the "
                "words of the scale are named the other way round; backward: the accuracy then.",
                ("criterion", *columns, "AUC", "backward", "turned"),
                kinds,
            )
        )
    if apart:
        made.append(
            Table(
                f"{title}, the rarer class alone",
                "Of the class that fewer labels have.",
                ("of", "judge", "class", "precision", "recall", "F1", "labels"),
                apart,
            )
        )
    return made


def _minority(of: str, model: str, one: Mapping[str, Any]) -> list[tuple[str, ...]]:
    own = one.get("minority")
    figures = ("precision", "recall", "f1")
    return [(of, model, own["class"], *(_told(own[name]) for name in figures), f"{own['n']:,}")] if own else []


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _told(value: Estimate | float | None) -> str:
    return told(value if isinstance(value, dict) or value is None else {"value": value, "low": None, "high": None})


def markdown(made: Sequence[Table]) -> str:
    """Write tables as Markdown; every text is taken literally."""
    parts = []
    for table in made:
        head = f"| {' | '.join(map(plain, table.columns))} |\n|{'---|' * len(table.columns)}"
        rows = "\n".join(f"| {' | '.join(map(plain, row))} |" for row in table.rows)
        parts.append(f"## {plain(table.title)}\n\n{plain(table.note)}\n\n{head}\n{rows}\n")
    return "\n".join(parts)


def examples(found: Sequence[Mapping[str, Any]]) -> str:
    """Write the examples as Markdown, the models side by side; every text is taken literally."""
    parts = [
        "# Base and aligned, side by side\n\nShoppers of a planted world, drawn by the seed and not by hand. In "
        "brackets stands the rule that a text breaks: such a text is not served.\n"
    ]
    for place, one in enumerate(found, start=1):
        models = list(one["models"])
        head = f"|  | {' | '.join(map(plain, models))} |\n|---|{'---|' * len(models)}"
        rows = [
            f"| {plain(name)} | {' | '.join(plain(one['models'][model][kind]) for model in models)} |"
            for kind, name in KINDS.items()
        ]
        parts.append(f"### {place}. Shopper {plain(one['user'])}\n\n{head}\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def plain(text: str) -> str:
    """Take a text literally in a cell of a Markdown table: strangers and models wrote some of it.

    >>> plain("a|b <script>")
    'a\\\\|b \\\\<script\\\\>'
    """
    return _MARKS.sub(r"\\\1", clean(text, limit=4000))
