"""Where people meet the judge: one verdict out of several labels, calibration on them, and who has the last word."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from recgpt import schema
from recgpt.judge import calibration
from recgpt.judge.buffer import ADJUDICATED, GOLD
from recgpt.judge.calibration import LEAST, Curve
from recgpt.judge.criteria import Criterion
from recgpt.judge.judging import Judged

Said = Mapping[tuple[str, str], str]
"""(sample, key of criterion) -> what people said."""


def said(labels: pa.Table) -> dict[tuple[str, str], str]:
    """Give one verdict a sample and criterion: the one that most people gave, of equally many the newest.

    Where somebody decided (a gold answer, an adjudication), the newest decision is it, whatever the others said.

    Args:
        labels: `schema.LABELS`, those that stand.
    """
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    newest: dict[tuple[str, str, str], int] = {}
    decided: dict[tuple[str, str], str] = {}
    rows = schema.table(labels, schema.LABELS, name="labels").to_pylist()
    for place, row in enumerate(sorted(rows, key=lambda row: row["time"])):
        key, verdict = (row["sample"], row["criterion"]), row["verdict"]
        if row["annotator"] == GOLD or row["annotator"].startswith(ADJUDICATED):
            decided[key] = verdict
        found[key][verdict] += 1
        newest[*key, verdict] = place
    most = {
        key: max(verdicts, key=lambda verdict: (verdicts[verdict], newest[*key, verdict]))
        for key, verdicts in found.items()
    }
    return most | decided


def settled(labels: pa.Table) -> pa.Table:
    """Give the label that counts of each sample and criterion: the newest one that says what `said` says.

    Args:
        labels: `schema.LABELS`, those that stand.
    """
    words = said(labels)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(labels.to_pylist(), key=lambda row: (row["round"], row["time"])):
        if words[row["sample"], row["criterion"]] == row["verdict"]:
            found[row["sample"], row["criterion"]] = row
    return schema.rows(list(found.values()), schema.LABELS)


def learn(
    verdicts: pa.Table, people: Said, criteria: Mapping[str, Criterion]
) -> tuple[dict[str, Curve], dict[str, str]]:
    """Calibrate every criterion that has labels enough.

    Args:
        verdicts: `schema.VERDICTS` of labeled samples with the model's own scores, not calibrated ones.
        people: what they said.
        criteria: by key.

    Returns:
        Curves by key of criterion, and for every other criterion that the model decides, why it has none.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    passed: dict[str, list[bool]] = defaultdict(list)
    for row in verdicts.to_pylist():
        key = f"{row['task']}/{row['criterion']}"
        verdict = people.get((row["sample"], key))
        if verdict is not None and row["decided_by"] == "llm" and row["score"] is not None:
            scores[key].append(row["score"])
            passed[key].append(verdict in criteria[key].passes)
    curves: dict[str, Curve] = {}
    missing: dict[str, str] = {}
    for key, criterion in criteria.items():
        if criterion.rule:
            continue
        good, bad = sum(passed[key]), len(passed[key]) - sum(passed[key])
        if min(good, bad) < LEAST:
            missing[key] = f"{good} labels pass and {bad} do not, {LEAST} of each are needed"
        elif find_spec("sklearn") is None:
            missing[key] = 'scikit-learn is not installed: pip install "recgpt[judge]"'
        else:
            curves[key] = calibration.fit(scores[key], passed[key], digest=criterion.digest)
    return curves, missing


def decide(judged: Judged, people: Said, withheld: Mapping[str, str], criteria: Mapping[str, Criterion]) -> Judged:
    """Let people's labels stand in place of the model's verdicts, and take back those of criteria it may not decide.

    Args:
        judged: what rules and model said.
        people: what people said.
        withheld: by key of a criterion for which this judge does not serve, why; its verdicts become unscored.
        criteria: by key.
    """
    rows = judged.table.to_pylist()
    for row in rows:
        key = f"{row['task']}/{row['criterion']}"
        verdict = people.get((row["sample"], key))
        if row["decided_by"] != "llm" or (verdict is None and key not in withheld):
            continue
        if verdict is None:
            row |= {"verdict": None, "passed": None, "reason": withheld[key]}
            continue
        passed = verdict in criteria[key].passes
        row |= {"decided_by": "people", "verdict": verdict, "passed": passed}
        row["reason"] = None if passed else f"people said {verdict}"
    counts = Counter({name: count for name, count in judged.counts.items() if name not in _COUNTED})
    qualified: dict[str, list[bool | None]] = defaultdict(list)
    for row in rows:
        counts["unscored" if row["passed"] is None else row["decided_by"]] += 1
        qualified[row["sample"]].append(row["passed"])
    counts["qualified"] = sum(map(all, qualified.values()))
    return Judged(schema.rows(rows, schema.VERDICTS), counts, dict(judged.calibrated), dict(judged.uncalibrated))


def without(labels: pa.Table, samples: Collection[str]) -> pa.Table:
    """Leave out the labels of some samples, such as those on which a judge is still to be measured."""
    return labels.filter(pa.array([one not in samples for one in labels["sample"].to_pylist()], pa.bool_()))


_COUNTED = {"unscored", "llm", "rule", "people", "qualified"}
