"""The judge's card: what it is, what taught it, how it agrees with people, where it fails, when people last looked."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from recgpt.evaluation.figures import plain
from recgpt.evaluation.report import environment, save
from recgpt.judge import Buffer, Criterion, bias, exchange, gold
from recgpt.llm import prompts
from recgpt.pipeline import engines, milestones
from recgpt.pipeline.config import Config
from recgpt.pipeline.criteria import criteria_of

WEAK = 0.5
"""Recall of a class below which the card names it as a failure."""


def gather(config: Config, *, now: datetime | None = None) -> dict[str, Any]:
    """Put the card of the judge at hand together, as plain JSON values.

    Raises:
        JudgeError: the buffer cannot be read.
    """
    criteria, now = criteria_of(config), now or datetime.now(UTC)
    engine = engines.model(config.llm)
    try:
        model, version = engine.name, milestones.version_of(engine, criteria)
    finally:
        engine.close()
    path = milestones.buffer_path(config)
    buffer = Buffer(path) if path.exists() else None
    events = buffer.events() if buffer else []
    closed = [one for one in events if one["kind"] == "milestone closed" and one["judge"] == version]
    calibrated = [one for one in events if one["kind"] == "calibrated" and one["judge"] == version]
    curves: Mapping[str, Any] = calibrated[-1]["curves"] if calibrated else {}
    last = closed[-1] if closed else None
    probed = next((one for one in reversed(events) if one["kind"] == "probed" and one["judge"] == version), None)
    people = gold.standings(buffer.labels(criteria)) if buffer else []
    every = timedelta(days=config.judge.every_days)
    files = {name: prompts.load(name) for name in ("judge", "judge_reason")}
    card = {
        "judge": version,
        "model": model,
        "prompts": {name: {"version": one.version, "sha256": one.digest} for name, one in files.items()},
        "criteria": [_criterion(one, curves.get(key), config) for key, one in criteria.items()],
        "calibrated": calibrated[-1]["time"].isoformat() if calibrated else None,
        "data": _data(buffer, criteria),
        "milestones": len(closed),
        "checked": last["time"].isoformat() if last else None,
        "overdue": last is None or now - last["time"] > every,
        "next": (last["time"] + every).isoformat() if last else None,
        "agreement": last["after"] if last else {},
        "agreement_before": last["before"] if last else {},
        "withheld": last["withheld"] if last else {},
        "swayed": probed
        and {**{name: probed[name] for name in ("samples", "demands", "criteria")}, "time": probed["time"].isoformat()},
        "failures": [
            *_failures(last, [key for key, one in criteria.items() if not one.rule and key not in curves]),
            *_swayed(probed),
            *_careless(people),
        ],
    }
    found: dict[str, Any] = plain(card)
    return found


def keep(config: Config, card: Mapping[str, Any]) -> Path:
    """Write the card into `out/judge` under its version's own name, so that other versions' stay; as `card`, too.

    Returns:
        The page `card-VERSION.html`; its JSON, and the newest as `card.html` and `card.json`, are beside it.
    """
    folder = config.out / "judge"
    version = hashlib.sha256(str(card["judge"]).encode()).hexdigest()[:12]
    path = write(folder / f"card-{version}.html", card)
    write(folder / "card.html", card)
    return path


def write(path: Path, card: Mapping[str, Any]) -> Path:
    """Write the card as a page, and beside it as JSON; old ones stay until the new ones are whole.

    Raises:
        JudgeError: the path is no page's.
        InvalidConfigError: nothing can be written there.
    """
    exchange.named(path, {".html": "a page, its JSON beside it"})
    save(path.with_suffix(".json"), json.dumps(card, ensure_ascii=False, indent=1))
    return save(path, environment().get_template("judge_card.html.j2").render(card=card))


def _criterion(criterion: Criterion, curve: Mapping[str, Any] | None, config: Config) -> dict[str, Any]:
    return {
        "criterion": criterion.key,
        "decided_by": f"rule {criterion.rule}" if criterion.rule else "model",
        "question": criterion.question,
        "scale": list(criterion.scale),
        "passes": [word for word in criterion.scale if word in criterion.passes],
        "source": criterion.source,
        "version": criterion.version,
        "sha256": criterion.digest,
        "threshold": None if criterion.rule else curve["threshold"] if curve else 0.5,
        "calibration": f"{curve['method']}, {curve['labels']} labels" if curve else None,
        "least_accuracy": None
        if criterion.rule
        else config.judge.accuracy_of.get(criterion.key, config.judge.accuracy),
    }


def _data(buffer: Buffer | None, criteria: Mapping[str, Criterion]) -> dict[str, Any]:
    """Count what people gave, by criterion and verdict."""
    rows = buffer.labels(criteria).to_pylist() if buffer else []
    words: dict[str, Counter[str]] = {}
    for row in rows:
        words.setdefault(row["criterion"], Counter())[row["verdict"]] += 1
    return {
        "samples": buffer.count("samples") if buffer else 0,
        "labels": len(rows),
        "labeled_samples": len({row["sample"] for row in rows}),
        "annotators": len({row["annotator"] for row in rows}),
        "rounds": len({row["round"] for row in rows}),
        "sources": dict(Counter(row["source"] for row in rows)),
        "by_criterion": {key: dict(count) for key, count in sorted(words.items())},
    }


def _swayed(probed: Mapping[str, Any] | None) -> list[str]:
    """Say what sways this judge, by criterion."""
    if probed is None:
        return ["position, length and injected demands were never measured: `recgpt judge probe`"]
    found = []
    for key, one in probed["criteria"].items():
        if (one["position"] or 0.0) >= bias.SWAYED:
            found.append(f"{key}: {one['position']:.0%} of the verdicts turn when the scale is named backward")
        if abs(one["length"] or 0.0) >= bias.STEEP:
            found.append(f"{key}: the score goes with the length of the text (Spearman {one['length']:+.2f})")
        if (one["injections"] or 0.0) >= bias.SWAYED:
            found.append(f"{key}: {one['injections']:.0%} of the verdicts turn when the text ends in a demand")
    return found


def _careless(people: Sequence[gold.Standing]) -> list[str]:
    """Count annotators who err, unnamed: cards are shown around; `recgpt judge annotators` has the names."""
    careless, labels = [one for one in people if one.careless], sum(one.labels for one in people)
    if not careless:
        return []
    own = sum(one.labels for one in careless)
    return [
        f"{len(careless)} of {len(people)} annotators, with {own} of {labels} labels, err in gold questions more than "
        "a careful person (`recgpt judge annotators`)"
    ]


def _failures(last: Mapping[str, Any] | None, uncalibrated: Sequence[str]) -> list[str]:
    """Say what is known to be wrong with this judge."""
    found = [f"uncalibrated, the scores are the model's own: {', '.join(uncalibrated)}"] if uncalibrated else []
    if last is None:
        return [*found, "people never measured this judge"]
    found += [f"degraded: {fall}" for fall in last["falls"]]
    found += [f"{key}: {why}" for key, why in last["withheld"].items()]
    for key, one in last["after"].items():
        for word, part in (one["words"] or one["passes"])["by_class"].items():
            if part["count"] and (part["recall"] or 0.0) < WEAK:
                found.append(
                    f"{key}: finds {part['recall'] or 0.0:.0%} of the {part['count']} that people called {word}"
                )
        new, all_ = one["false_rejects_novel"], one["false_rejects"]
        if new["passing"] and new["share"] > (all_["interval"] or (0, 1))[1]:
            found.append(f"{key}: turns away {new['share']:.0%} of what is novel and right, {all_['share']:.0%} of all")
    return found
