"""Labels out of the buffer and in again: Label Studio's JSON both ways, exactly, and a flat Parquet table for pandas.

A file is taken as a whole or not at all. What is already there is not doubled, so the same file may come twice; labels
under another wording of a criterion, of an unknown criterion, or against what the same person said are refused by name.
Answers that a person took back stay where they were given: the audit trail of one buffer is nobody else's.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recgpt.errors import JudgeError
from recgpt.judge import labelstudio
from recgpt.judge.buffer import SKIP, Buffer
from recgpt.judge.criteria import TASKS, Criterion
from recgpt.schema import TIMESTAMP

FLAT = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("sample", "task", "criterion", "annotator", "verdict")),
        pa.field("passed", pa.bool_()),
        pa.field("note", pa.string()),
        pa.field("seconds", pa.float64()),
        pa.field("round", pa.int64()),
        pa.field("source", pa.string()),
        pa.field("time", TIMESTAMP),
        *(pa.field(name, pa.string()) for name in ("user_id", "output", "fields", "judge", "judge_verdict")),
        pa.field("judge_score", pa.float64()),
        pa.field("judge_passed", pa.bool_()),
    ]
)
"""One row a label: plain types only, so that pandas has nothing to unpack. `fields` is JSON."""


def write(
    buffer: Buffer, criteria: Mapping[str, Criterion], file: Path | str, *, tasks: Sequence[str] | None = None
) -> str:
    """Write a file of the kind that its ending says; give one line about it.

    Raises:
        JudgeError: an unknown ending or task.
    """
    file, wanted = named(file, {".json": "Label Studio", ".parquet": "pandas"}), tuple(tasks or TASKS)
    for one in wanted:
        if one not in TASKS:
            raise JudgeError(f"a task is one of {', '.join(TASKS)}, but it is {one!r}")
    if file.suffix == ".parquet":
        table = flat(buffer, criteria, tasks=wanted)
        save(file, lambda path: pq.write_table(table, path, compression="zstd"))
        return f"{table.num_rows} labels in {file}"
    found = labelstudio.tasks(rows(buffer, criteria, wanted), criteria)
    text = json.dumps(found, ensure_ascii=False, indent=1) + "\n"
    asked = {key: one for key, one in criteria.items() if one.task in wanted}
    setup = file.with_suffix(".xml")
    save(file, lambda path: path.write_text(text, encoding="utf-8", newline="\n"))
    save(setup, lambda path: path.write_text(labelstudio.setup(asked), encoding="utf-8"))
    labels = sum(len(one["result"]) for task in found for one in task["annotations"])
    return f"{len(found)} samples with {labels} answers in {file}; {setup} is Label Studio's labeling setup for them"


def flat(buffer: Buffer, criteria: Mapping[str, Criterion], *, tasks: Sequence[str] = TASKS) -> pa.Table:
    """Give the answers that stand as one flat table, each beside the judge's last verdict: `FLAT`."""
    found = rows(buffer, criteria, tasks)
    samples = {row["id"]: row for row in found.samples}
    last = {(row["sample"], row["criterion"]): row for row in found.verdicts}
    records = []
    for row in found.labels:
        if row["verdict"] is None:
            continue
        sample, judged = samples[row["sample"]], last.get((row["sample"], row["criterion"]), {})
        records.append(
            {name: row[name] for name in ("sample", "criterion", "annotator", "verdict", "note", "seconds", "round")}
            | {name: sample[name] for name in ("task", "source", "user_id", "fields")}
            | {
                "passed": row["verdict"] in criteria[row["criterion"]].passes,
                "time": datetime.fromisoformat(row["time"]),
                "output": list(json.loads(sample["fields"]).values())[-1],
                "judge": judged.get("judge"),
                **{f"judge_{name}": judged.get(name) for name in ("verdict", "score", "passed")},
            }
        )
    return pa.Table.from_pylist(records, schema=FLAT)


def named(file: Path | str, endings: Mapping[str, str]) -> Path:
    """Check the name of a file to write.

    Args:
        file: its path.
        endings: those that are known, and what each is for.

    Raises:
        JudgeError: a folder, or another ending.
    """
    file = Path(file)
    known = " or ".join(f"{ending} ({use})" for ending, use in endings.items())
    if file.is_dir():
        raise JudgeError(f"{file} is a folder; name a file in it that ends in {known}")
    if file.suffix not in endings:
        raise JudgeError(f"{file} must end in {known}, but it ends in {file.suffix!r}")
    return file


def save(file: Path, writing: Callable[[Path], object]) -> None:
    """Write aside and rename, so that a full disk leaves what was there.

    Raises:
        JudgeError: nothing can be written there.
    """
    aside = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        writing(aside)
        os.replace(aside, file)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise JudgeError(f"{file} cannot be written: {error.strerror or error}; the buffer stays as it is") from error


def read(buffer: Buffer, criteria: Mapping[str, Criterion], file: Path | str) -> str:
    """Take a file's samples, labels and verdicts in, all or none; give one line about it.

    Raises:
        JudgeError: the file is not Label Studio's JSON of our samples; a criterion is unknown or was worded otherwise;
            an annotator contradicts oneself, in the file or against the buffer.
    """
    found = labelstudio.parse(Path(file), criteria)
    added = dict.fromkeys(("samples", "labels", "verdicts"), 0)
    with buffer.transaction() as database:
        for row in found.samples:
            added["samples"] += _insert(database, "samples", row, known=("id",))
        for row in found.labels:
            (before,) = database.execute(
                "SELECT verdict FROM labels WHERE sample = :sample AND criterion = :criterion AND digest = :digest "
                "AND annotator = :annotator ORDER BY row DESC LIMIT 1",
                row,
            ).fetchone() or (None,)
            if before is not None and row["verdict"] not in (None, before):
                raise JudgeError(
                    f"{file}: {row['annotator']} answered {row['criterion']} of sample {row['sample']} with "
                    f"{row['verdict']!r}, but with {before!r} in {buffer.path}; ask what is meant, and take one "
                    "of them back"
                )
            if before is None:
                # Known by its time, too: what was taken back here is not brought again by an older file.
                added["labels"] += _insert(
                    database, "labels", row, known=("sample", "criterion", "annotator", "digest", "time", "note")
                )
        for row in found.verdicts:
            added["verdicts"] += _insert(database, "verdicts", row, known=("sample", "criterion", "judge", "time"))
    return ", ".join(f"{count} {name}" for name, count in added.items()) + f" taken in from {file}"


def _insert(database: sqlite3.Connection, table: str, row: Mapping[str, Any], *, known: Sequence[str]) -> int:
    """Add a row unless one is there that is equal in the columns of `known`."""
    same = " AND ".join(f"{name} IS :{name}" for name in known)
    return database.execute(
        f"INSERT INTO {table} ({', '.join(row)}) SELECT {', '.join(f':{name}' for name in row)} "
        f"WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE {same})",
        dict(row),
    ).rowcount


def rows(buffer: Buffer, criteria: Mapping[str, Criterion], tasks: Sequence[str] = TASKS) -> labelstudio.Exchanged:
    """Give what stands in a buffer under the criteria as they are worded now."""
    with buffer.transaction() as database:
        samples = [
            dict(row) for row in database.execute("SELECT * FROM samples ORDER BY rowid") if row["task"] in tasks
        ]
        labels, verdicts = (
            [dict(row) for row in database.execute(f"SELECT * FROM {name} ORDER BY row") if _current(row, criteria)]
            for name in ("labels", "verdicts")
        )
    there = {row["id"] for row in samples}
    standing: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in labels:
        key = (row["sample"], row["criterion"], row["annotator"])
        standing.pop(key, None)
        if row["sample"] in there and (row["verdict"] is not None or row["note"].startswith(SKIP)):
            standing[key] = row
    for row in verdicts:
        row["passed"] = None if row["passed"] is None else bool(row["passed"])
    return labelstudio.Exchanged(samples, list(standing.values()), [row for row in verdicts if row["sample"] in there])


def _current(row: sqlite3.Row, criteria: Mapping[str, Criterion]) -> bool:
    return row["criterion"] in criteria and criteria[row["criterion"]].digest == row["digest"]
