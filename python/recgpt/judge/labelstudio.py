"""Label Studio's JSON: our samples, labels and verdicts as its tasks, annotations and predictions, and back, exactly.

What Label Studio has no field for stands where it leaves things alone: in a task's `data` and in a result's `meta`. So
a file that people labeled in Label Studio comes back with the wording of the criteria that they saw. There an
annotation has one time for all its answers, which they share.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from recgpt.errors import JudgeError
from recgpt.judge.buffer import SKIP, SOURCES
from recgpt.judge.criteria import TASKS, Criterion
from recgpt.judge.sample import Sample

FORMAT = 1
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Exchanged:
    """Rows of the buffer, as they stand in its tables."""

    samples: Sequence[Row]
    labels: Sequence[Row]
    """Only what stands: answers, and skips (without a verdict)."""
    verdicts: Sequence[Row]


def tasks(rows: Exchanged, criteria: Mapping[str, Criterion]) -> list[dict[str, Any]]:
    """Give a task a sample, with an annotation a person and a prediction a verdict."""
    labels, verdicts = _by_sample(rows.labels), _by_sample(rows.verdicts)
    found = []
    for number, row in enumerate(rows.samples, start=1):
        fields = list(json.loads(row["fields"]).items())
        data = {
            "text": "\n".join(f"{label}: {text}" for label, text in fields),
            "format": FORMAT,
            "sample": row["id"],
            "fields": fields,
            **{name: row[name] for name in _SAMPLE},
            "criteria": {key: one.digest for key, one in criteria.items() if one.task == row["task"]},
        }
        found.append(
            {
                "id": number,
                "data": data,
                "annotations": list(_annotations(labels.get(row["id"], ()))),
                "predictions": [_prediction(one) for one in verdicts.get(row["id"], ())],
            }
        )
    return found


def setup(criteria: Mapping[str, Criterion]) -> str:
    """Give Label Studio's labeling setup: the sample's text, and a choice for each criterion that people are asked."""
    lines = ["<View>", '  <Text name="sample" value="$text"/>']
    for one in criteria.values():
        if not one.rule:
            lines += [
                f"  <Header value={quoteattr(f'{one.key}: {one.question}')}/>",
                f'  <Choices name={quoteattr(one.key)} toName="sample" choice="single">',
                *(f"    <Choice value={quoteattr(word)}/>" for word in one.scale),
                "  </Choices>",
            ]
    return "\n".join([*lines, "</View>", ""])


def parse(file: Path, criteria: Mapping[str, Criterion]) -> Exchanged:
    """Read a file of tasks and check all of it.

    Raises:
        JudgeError: it is not ours, or does not fit; the message names the task and what to do.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise JudgeError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise JudgeError(f"{file} was expected to hold Label Studio's JSON, but it is no JSON: {error}") from error
    if not isinstance(found, list):
        raise JudgeError(f"{file} was expected to hold a list of Label Studio's tasks, but it is a {_kind(found)}")
    samples, labels, verdicts = [], dict[tuple[str, str, str], Row](), []
    for number, task in enumerate(found, start=1):
        where = f"{file}: task {number}"
        try:
            sample = _sample(task["data"], where)
            digests = task["data"]["criteria"]
            for annotation in task.get("annotations", ()):
                for label in _labels(annotation, sample):
                    _take(labels, label | {"digest": _digest(label, digests, criteria, where)}, criteria, where)
            for prediction in task.get("predictions", ()):
                for verdict in _verdicts(prediction, sample["id"]):
                    verdicts.append(verdict | {"digest": _digest(verdict, digests, criteria, where)})
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            lacks = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise JudgeError(f"{where} is not one that recgpt exported: {lacks}") from error
        samples.append(sample)
    return Exchanged(samples, list(labels.values()), verdicts)


_SAMPLE = ("task", "user_id", "source", "round", "time")
_VERDICT = ("decided_by", "score", "passed", "reason", "round", "time")


def _by_sample(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["sample"], []).append(row)
    return found


def _annotations(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """One annotation of each person and kind: answers together, and skips, which Label Studio calls cancelled."""
    people: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        people.setdefault((row["annotator"], row["verdict"] is None), []).append(row)
    for (who, skipped), own in people.items():
        times = [row["seconds"] for row in own if row["seconds"] is not None]
        yield {
            "completed_by": {"email": who},
            "created_at": own[-1]["time"],
            "lead_time": round(sum(times), 3) if times else None,
            "was_cancelled": skipped,
            "result": [
                _result(row, {"text": [row["note"]]} | {name: row[name] for name in ("seconds", "round", "time")})
                for row in own
            ],
        }


def _prediction(row: Row) -> dict[str, Any]:
    result = _result(row, {name: row[name] for name in _VERDICT})
    return {"model_version": row["judge"], "score": row["score"], "result": [result]}


def _result(row: Row, meta: dict[str, Any]) -> dict[str, Any]:
    choices = [] if row["verdict"] is None else [row["verdict"]]
    named = {"from_name": row["criterion"], "to_name": "sample", "type": "choices"}
    return {**named, "value": {"choices": choices}, "meta": meta}


def _sample(data: Row, where: str) -> dict[str, Any]:
    if data["format"] > FORMAT:
        raise JudgeError(f"{where} has format {data['format']}, but this recgpt reads up to {FORMAT}; use a later one")
    fields = {str(label): str(text) for label, text in data["fields"]}
    if data["task"] not in TASKS or data["source"] not in SOURCES:
        raise ValueError(f"task {data['task']!r} and source {data['source']!r} are none of ours")
    if Sample(data["task"], fields).id != data["sample"]:
        raise JudgeError(f"{where}: the text of sample {data['sample']} is not what it was; export it again")
    row = {name: data[name] for name in _SAMPLE} | {"round": _round(data["round"]), "time": _time(data["time"])}
    return row | {"id": data["sample"], "fields": json.dumps(fields, ensure_ascii=False)}


def _labels(annotation: Row, sample: Row) -> Iterator[dict[str, Any]]:
    by = annotation["completed_by"]
    who = str(by.get("email") or by.get("username") or by["id"]) if isinstance(by, dict) else str(by)
    for result in annotation["result"]:
        # Comments and the like stand beside the answers in files from Label Studio.
        if result.get("type") != "choices":
            continue
        meta, choices = result.get("meta") or {}, result["value"]["choices"]
        if len(choices) > 1 or (not choices and not annotation.get("was_cancelled")):
            raise ValueError(f"one verdict for {result['from_name']} was expected, but there are {choices}")
        note = " ".join(meta.get("text", [""]))
        seconds = meta["seconds"] if "seconds" in meta else annotation.get("lead_time")
        yield {
            "sample": sample["id"],
            "criterion": result["from_name"],
            "annotator": who,
            "verdict": choices[0] if choices else None,
            "note": note if choices or note.startswith(SKIP) else f"{SKIP}{note or 'in Label Studio'}",
            "seconds": None if seconds is None else float(seconds),
            "round": _round(sample["round"] if meta.get("round") is None else meta["round"]),
            "time": _time(meta.get("time") or annotation["created_at"]),
        }


def _verdicts(prediction: Row, sample: str) -> Iterator[dict[str, Any]]:
    for result in prediction["result"]:
        choices = result["value"]["choices"]
        yield {
            **{name: result["meta"][name] for name in _VERDICT},
            "time": _time(result["meta"]["time"]),
            "sample": sample,
            "criterion": result["from_name"],
            "judge": str(prediction["model_version"]),
            "verdict": choices[0] if choices else None,
        }


def _take(found: dict[tuple[str, str, str], Row], label: Row, criteria: Mapping[str, Criterion], where: str) -> None:
    """Put a label to the others, unless its annotator contradicts oneself; an answer counts more than a skip."""
    key, who, verdict = label["criterion"], label["annotator"], label["verdict"]
    if not who.strip():
        raise ValueError("an annotation has nobody's name")
    if verdict is not None and verdict not in criteria[key].scale:
        raise JudgeError(
            f"{where}: {key} is answered with {', '.join(criteria[key].scale)}, but {who} said {verdict!r}"
        )
    before = found.get((label["sample"], key, who))
    said = None if before is None else before["verdict"]
    if said is not None and verdict is not None and said != verdict:
        raise JudgeError(
            f"{where}: {who} answered {key} of sample {label['sample']} with {said!r} and with {verdict!r}; ask what "
            "is meant and keep one of them"
        )
    if before is None or said is None:
        found[label["sample"], key, who] = label


def _digest(row: Row, digests: Row, criteria: Mapping[str, Criterion], where: str) -> str:
    """Check that a criterion is known, and was worded as it is now."""
    key = row["criterion"]
    if key not in criteria:
        raise JudgeError(
            f"{where}: there is no criterion {key!r}; there are {', '.join(criteria)}: name the folder that has it "
            "(judge.criteria), or take its answers out"
        )
    digest = digests.get(key)
    if digest != criteria[key].digest:
        raise JudgeError(
            f"{where}: {key} was answered under another wording (file {str(digest)[:12]}) than the one that is here "
            f"(version {criteria[key].version}, file {criteria[key].digest[:12]}); bring the old file back, or ask "
            "people again"
        )
    return str(digest)


def _time(text: str) -> str:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"the time {text} has no zone")
    return found.isoformat()


def _round(value: Any) -> int:
    found = int(value)
    if not 0 <= found < 1 << 31:
        raise ValueError(f"the round {found} is not from 0 to 2^31 - 1")
    return found


def _kind(value: object) -> str:
    return {dict: "object", str: "text", type(None): "null"}.get(type(value), type(value).__name__)
