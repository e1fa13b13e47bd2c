"""A judge against labels that it has not seen: Table 9's figures by task and criterion, the rarer class apart."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recgpt import judge
from recgpt.alignment.report.auc import auc
from recgpt.alignment.report.estimates import Estimate, plain, stated
from recgpt.judge import Criterion, Sample
from recgpt.llm.engine import Engine, Progress

PASSES, FAILS = "passes", "fails"
"""Words of an output as a whole, which qualifies only if it passes every criterion."""


class Said(NamedTuple):
    """What a judge said of one output under one criterion."""

    verdict: str
    score: float
    """Its probability that the output passes."""


Verdicts = Mapping[tuple[str, str], Said]
"""(sample, key of criterion) -> what was said; unscored ones are missing."""


def ask(
    held_out: pa.Table,
    samples: Mapping[str, Sample],
    criteria: Mapping[str, Criterion],
    engine: Engine,
    *,
    backward: bool = False,
    progress: Progress | None = None,
) -> dict[tuple[str, str], Said]:
    """Let a judge decide what labels are held out of, by its most probable word: nothing is calibrated.

    Args:
        held_out: `judge.training.COLUMNS`.
        samples: by id.
        criteria: by key.
        engine: of the judge.
        backward: name the words of the scales, and their examples, worst first.
        progress: called with (done, total) requests.
    """
    labeled = set(zip(held_out["sample"].to_pylist(), held_out["criterion"].to_pylist(), strict=True))
    asked = {key: one for key, one in criteria.items() if key in {criterion for _, criterion in labeled}}
    chosen = [samples[one] for one in dict.fromkeys(held_out["sample"].to_pylist())]
    judged = judge.judge(chosen, asked, engine=engine, backward=backward, progress=progress)
    return {
        pair: Said(row["verdict"], row["score"])
        for row in judged.table.to_pylist()
        if (pair := (row["sample"], f"{row['task']}/{row['criterion']}")) in labeled and row["verdict"] is not None
    }


def figures(
    held_out: pa.Table,
    criteria: Mapping[str, Criterion],
    forward: Mapping[str, Verdicts],
    backward: Mapping[str, Verdicts],
) -> dict[str, Any]:
    """Compare judges with held-out labels.

    Args:
        held_out: `judge.training.COLUMNS`.
        criteria: by key.
        forward: by judge, such as `base` and `aligned`.
        backward: the same, asked with the words of the scales named worst first.

    Returns:
        By task and judge: `n` outputs, `accuracy`, `precision`, `recall` and `f1` of outputs that pass every labeled
        criterion that the model decides; below `criteria` the same by criterion, with `auc`, `backward` and `turned`.
        Everywhere `minority`, the rarer class among the labels, apart. Intervals are over outputs.
    """
    labels: dict[str, dict[str, str]] = defaultdict(dict)
    for row in held_out.to_pylist():
        labels[row["criterion"]][row["sample"]] = row["verdict"]
    found: dict[str, Any] = {"criteria": {}}
    for key, own in sorted(labels.items()):
        found["criteria"][key] = {
            name: _criterion(key, own, criteria[key], verdicts, backward.get(name, {}))
            for name, verdicts in forward.items()
        }
    for task in judge.TASKS:
        keys = [key for key in labels if criteria[key].task == task]
        if keys:
            found[task] = {name: _task(keys, labels, criteria, verdicts) for name, verdicts in forward.items()}
    return found


def _criterion(
    key: str, labels: Mapping[str, str], criterion: Criterion, forward: Verdicts, backward: Verdicts
) -> dict[str, Any]:
    known = [sample for sample in labels if (sample, key) in forward]
    if not known:
        return {"n": 0, "unscored": len(labels)}
    theirs, ours = [labels[one] for one in known], [forward[one, key].verdict for one in known]
    passed = [one in criterion.passes for one in theirs]
    found = _compared(passed, [one in criterion.passes for one in ours])
    found |= {"minority": _minority(theirs, ours, criterion.scale), "said": dict(sorted(Counter(ours).items()))}
    scores = np.array([forward[one, key].score for one in known])
    found |= {"unscored": len(labels) - len(known), "auc": plain(auc(scores, np.array(passed)))}
    both = [one for one in known if (one, key) in backward]
    if both:
        turned = [backward[one, key].verdict != forward[one, key].verdict for one in both]
        right = [(backward[one, key].verdict in criterion.passes) == (labels[one] in criterion.passes) for one in both]
        found |= {"turned": _share(turned), "backward": _share(right)}
    return found


def _task(
    keys: Sequence[str],
    labels: Mapping[str, Mapping[str, str]],
    criteria: Mapping[str, Criterion],
    verdicts: Verdicts,
) -> dict[str, Any]:
    """An output counts where labels and judge speak under every criterion of its task that has labels."""
    known = [
        sample for sample in labels[keys[0]] if all(sample in labels[key] and (sample, key) in verdicts for key in keys)
    ]
    if not known:
        return {"n": 0, "labels": list(keys)}
    theirs = [all(labels[key][one] in criteria[key].passes for key in keys) for one in known]
    ours = [all(verdicts[one, key].verdict in criteria[key].passes for key in keys) for one in known]
    words = {True: PASSES, False: FAILS}
    minority = _minority([words[one] for one in theirs], [words[one] for one in ours], (PASSES, FAILS))
    return _compared(theirs, ours) | {"minority": minority, "labels": list(keys)}


def _compared(theirs: Sequence[bool], ours: Sequence[bool]) -> dict[str, Any]:
    """Accuracy of all, and precision, recall and F1 of what passes."""
    words = {True: PASSES, False: FAILS}
    found = judge.agreement([words[one] for one in theirs], [words[one] for one in ours])
    right = _share([one == other for one, other in zip(theirs, ours, strict=True)])
    return {"n": found.count, "accuracy": right, **_of_class(found, PASSES, [words[one] for one in ours])}


def _minority(theirs: Sequence[str], ours: Sequence[str], scale: Sequence[str]) -> dict[str, Any] | None:
    """Take the rarer class of the labels, of equally rare ones the worse; None where there is but one."""
    sizes = Counter(theirs)
    if len(sizes) < 2:
        return None
    word = min(sizes, key=lambda one: (sizes[one], -scale.index(one)))
    return {"class": word, "n": sizes[word], **_of_class(judge.agreement(theirs, ours), word, ours)}


def _of_class(found: judge.Agreement, word: str, ours: Sequence[str]) -> dict[str, Estimate]:
    own = found.by_class.get(word)
    if own is None:
        return {
            name: stated(float("nan"), float("nan"), float("nan"), 0, False) for name in ("precision", "recall", "f1")
        }
    of = {"precision": Counter(ours)[word], "recall": own.count, "f1": own.count}
    made = {}
    for name, count in of.items():
        value, (low, high) = getattr(own, name), own.intervals[name] or (float("nan"), float("nan"))
        made[name] = stated(float("nan") if value is None else value, low, high, count, value is not None)
    return made


def _share(hits: Sequence[bool]) -> Estimate:
    """A share with the bootstrap's interval over outputs."""
    found = judge.agreement(["right"] * len(hits), ["right" if one else "wrong" for one in hits])
    return stated(found.accuracy, *found.accuracy_interval, len(hits), True)
