"""Milestones (section 3.2): how a judge stands beside people, whether it degraded, and whether it may decide.

A judge has *degraded* under a criterion if it agrees with people less often than at its last milestone, or turns away
more of what is novel than it turned away of everything then: one-sided tests of two shares, `ALPHA` over all of them
together (Bonferroni). It *serves* under a criterion if the lower end of the interval on its accuracy reaches the stated
one; else people's labels decide, and what none of them saw stays unscored.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from recgpt.errors import JudgeError
from recgpt.judge.agreement import FIGURES, Agreement, agreement
from recgpt.judge.criteria import Criterion
from recgpt.judge.draw import Case
from recgpt.judge.people import Said

_Row = tuple[Case, str, str, bool, bool]
"""A case, the words of people and judge, and whether they pass."""
ALPHA = 0.02
"""Chance of a false alarm of one comparison over all criteria."""
LEAST_NOVEL = 8
"""Labels that let something novel pass, below which its false rejects are shown but not tested."""
WEIGHTED = ("explanations",)
"""Tasks whose row of Table 9 is averaged over both classes by their size; the others' is of the class that passes."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What a later comparison needs to know of one criterion at one time."""

    labels: int
    accuracy: float
    error: float
    """Standard error of the accuracy."""
    rejected: int
    """Of those that people let pass, how many the judge turned away."""
    passing: int
    novel_rejected: int
    novel_passing: int


@dataclass(frozen=True, slots=True)
class Fall:
    """A criterion under which a judge degraded."""

    criterion: str
    what: str
    before: float
    after: float
    p: float

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.criterion}: {self.what} {self.before:.2f} -> {self.after:.2f} (p = {self.p:.2g})"


def compare(
    cases: Sequence[Case], people: Said, criteria: Mapping[str, Criterion], *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Compare judge and people, by criterion and, under the name of a task, on whether an output qualifies.

    Args:
        cases: with the judge's verdicts.
        people: what people said; cases without a label are left out.
        criteria: by key.
        seed: of the intervals.

    Returns:
        By key or task: `labels`, `passes` (agreement on passing), `words` (agreement on the scale's words, for more
        than two), `averaging`, `precision`, `recall` and `f1` by it with their `intervals`, `false_rejects` and
        `false_rejects_novel`.

    Raises:
        JudgeError: a label is none of its criterion's words.
    """
    rows = _rows(cases, people, criteria)
    for key in list(rows):
        rows[key.partition("/")[0]] += rows[key]
    found: dict[str, dict[str, Any]] = {}
    for key, own in sorted(rows.items(), key=lambda pair: ("/" in pair[0], pair[0])):
        task = key.partition("/")[0]
        if key == task:
            own = _qualified(own)
        drawn = partial(
            agreement, weights=[one[0].weight for one in own], strata=[one[0].stratum for one in own], seed=seed
        )
        passes = drawn([_word(one[3]) for one in own], [_word(one[4]) for one in own])
        levels = key in criteria and criteria[key].levels
        words = drawn([one[1] for one in own], [one[2] for one in own]) if levels else None
        found[key] = {
            "labels": len(own),
            "averaging": "weighted over both classes" if task in WEIGHTED else "of the class that passes",
            "passes": asdict(passes),
            "words": asdict(words) if words else None,
            **_table9(passes, weighted=task in WEIGHTED),
            "false_rejects": _rejects(own, novel=False),
            "false_rejects_novel": _rejects(own, novel=True),
            "measure": asdict(_measure(own)),
        }
    return found


def measure(cases: Sequence[Case], people: Said, criteria: Mapping[str, Criterion]) -> dict[str, Measure]:
    """Give what `degraded` needs, by criterion, without the intervals of `compare`; same arguments, same errors."""
    return {key: _measure(own) for key, own in _rows(cases, people, criteria).items()}


def degraded(before: Mapping[str, Measure], after: Mapping[str, Measure], *, alpha: float = ALPHA) -> list[Fall]:
    """Apply the rule of the module: under which criteria is a judge worse than it was?"""
    tests: list[Fall] = []
    for key in before.keys() & after.keys():
        one, other = before[key], after[key]
        error = math.hypot(one.error, other.error)
        tests.append(Fall(key, "accuracy", one.accuracy, other.accuracy, _tail(one.accuracy - other.accuracy, error)))
        if other.novel_passing >= LEAST_NOVEL and one.passing:
            was, is_ = one.rejected / one.passing, other.novel_rejected / other.novel_passing
            spread = math.hypot(_error(one.rejected, one.passing), _error(other.novel_rejected, other.novel_passing))
            tests.append(Fall(key, "false rejects of what is novel", was, is_, _tail(is_ - was, spread)))
    falls = [one for one in tests if one.p < alpha / len(tests)]
    return sorted(falls, key=lambda fall: fall.p)


def measures(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Measure]:
    """Read the measures of the criteria back from what `compare` gave."""
    return {key: Measure(**one["measure"]) for key, one in figures.items() if "/" in key}


def serves(
    figures: Mapping[str, Mapping[str, Any]], criteria: Mapping[str, Criterion], least: float, own: Mapping[str, float]
) -> dict[str, str]:
    """Say under which criteria the model does not serve, and why.

    Args:
        figures: of `compare`.
        criteria: by key.
        least: accuracy that a judge must reach.
        own: the same by key, where a criterion asks for another.
    """
    found = {}
    for key, one in figures.items():
        if key not in criteria or criteria[key].rule:
            continue
        low, wanted = one["passes"]["accuracy_interval"][0], own.get(key, least)
        if low < wanted:
            found[key] = (
                f"the judge agrees with people in {one['passes']['accuracy']:.2f} of the cases, at least {low:.2f}; "
                f"{wanted:.2f} is asked for, so people decide"
            )
    return found


def due(
    events: Sequence[Mapping[str, Any]], judge: str, *, now: datetime, every: timedelta, falls: Sequence[Fall] = ()
) -> list[str]:
    """Say why a milestone is to be opened; nothing where none is.

    Args:
        events: of the buffer, oldest first.
        judge: the version at hand.
        now: time.
        every: time between two milestones.
        falls: under which criteria newer labels show that it degraded.
    """
    closed = [one for one in events if one["kind"] == "milestone closed"]
    if not closed:
        return ["first: this judge was never measured"]
    why = []
    if closed[-1]["judge"] != judge:
        why.append("version: model, prompt or criteria are others than at the last milestone")
    if now - closed[-1]["time"] > every:
        why.append(
            f"overdue: the last milestone closed on {closed[-1]['time']:%Y-%m-%d}, one is due every {every.days} days"
        )
    return why + [f"degraded: {fall}" for fall in falls]


def not_due(closed: Mapping[str, Any], newer: int, *, every: timedelta) -> list[str]:
    """Say why none is to be opened.

    Args:
        closed: the last one.
        newer: samples that people labeled since.
        every: time between two milestones.
    """
    labels = f"labels of {newer} samples came since and show no fall" if newer else "no labels came since"
    return [
        f"not due because the last one closed on {closed['time']:%Y-%m-%d}, and one is due every {every.days} days",
        f"not due because model, prompt and criteria are those that it measured, and {labels}",
    ]


def opened(events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Give the milestone that waits for people's labels, if one does."""
    last = next((one for one in reversed(events) if one["kind"].startswith("milestone")), None)
    return last if last is not None and last["kind"] == "milestone opened" else None


def _rows(cases: Sequence[Case], people: Said, criteria: Mapping[str, Criterion]) -> dict[str, list[_Row]]:
    """Put together what both said, by criterion."""
    rows: dict[str, list[_Row]] = defaultdict(list)
    for case in cases:
        for key, one in case.verdicts.items():
            word = people.get((case.sample, key))
            if word is None or one["passed"] is None or key not in criteria:
                continue
            if word not in criteria[key].scale:
                raise JudgeError(f"{key} is answered with {', '.join(criteria[key].scale)}, but a label says {word!r}")
            rows[key].append((case, word, one["verdict"], word in criteria[key].passes, one["passed"]))
    return rows


def _word(passed: bool) -> str:
    return "passes" if passed else "fails"


def _qualified(rows: list[_Row]) -> list[_Row]:
    """Join the rows of each output: it qualifies if it passes every criterion that both spoke of."""
    cases: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        cases[row[0].sample].append(row)
    return [(own[0][0], "", "", all(row[3] for row in own), all(row[4] for row in own)) for own in cases.values()]


def _table9(found: Agreement, *, weighted: bool) -> dict[str, Any]:
    scores = found.weighted if weighted else found.by_class.get("passes")
    figures: dict[str, Any] = {name: getattr(scores, name) if scores else None for name in FIGURES}
    return figures | {"intervals": scores.intervals if scores else dict.fromkeys(FIGURES)}


def _rejects(rows: list[_Row], *, novel: bool) -> dict[str, Any]:
    """Count what people let pass and the judge turned away; the share is of labels, with Wilson's interval."""
    passing = [row for row in rows if row[3] and (row[0].novel or not novel)]
    count, rejected = len(passing), sum(not row[4] for row in passing)
    if not count:
        return {"passing": 0, "rejected": 0, "share": None, "interval": None}
    share, z = rejected / count, 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    interval = (max(0.0, middle - half), min(1.0, middle + half))
    return {"passing": count, "rejected": rejected, "share": share, "interval": interval}


def _measure(rows: list[_Row]) -> Measure:
    strata: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        strata[row[0].stratum].append(row)
    total = sum(row[0].weight for row in rows)
    accuracy = variance = 0.0
    for own in strata.values():
        share = sum(row[0].weight for row in own) / total
        right = sum(row[3] == row[4] for row in own)
        accuracy += share * right / len(own)
        variance += (share * _error(right, len(own))) ** 2
    new = [row for row in rows if row[0].novel and row[3]]
    passing = [row for row in rows if row[3]]
    return Measure(
        labels=len(rows),
        accuracy=accuracy,
        error=math.sqrt(variance),
        rejected=sum(not row[4] for row in passing),
        passing=len(passing),
        novel_rejected=sum(not row[4] for row in new),
        novel_passing=len(new),
    )


def _error(hits: int, count: int) -> float:
    """Standard error of a share, with half a case of each kind added, so that none is held to be certain."""
    share = (hits + 0.5) / (count + 1)
    return math.sqrt(share * (1 - share) / count)


def _tail(difference: float, error: float) -> float:
    return 0.5 * math.erfc(difference / error / math.sqrt(2)) if error > 0 else 1.0
