"""The judge data buffer (section 3.1): samples, verdicts and human labels in one SQLite file that only grows.

Nothing is ever changed or removed, the database itself refuses it: a person's label is taken back by a later row. Every
row is one transaction, synced to disk before the call returns, so that a killed process loses nothing that was said.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from recgpt import schema
from recgpt.errors import JudgeError
from recgpt.judge.criteria import Criterion
from recgpt.judge.sample import Sample

FORMAT = 1
SOURCES = ("pre-alignment", "self-training", "served")
"""Where a sample came from: the two of section 3.1, and outputs that a run serves."""
TABLES = ("samples", "verdicts", "labels", "events")
SKIP = "skip: "
"""Before the reason in the note of a label without verdict: the person skipped. Any other takes the last one back."""
GOLD = "gold"
"""Labels of this annotator are the right answers of gold questions; their notes are the feedback."""
ADJUDICATED = "adjudication/"
"""Before a name: this person decided where two others differed."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (format INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS samples (
  id TEXT PRIMARY KEY, task TEXT NOT NULL, fields TEXT NOT NULL, user_id TEXT, source TEXT NOT NULL,
  round INTEGER NOT NULL, time TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS verdicts (
  row INTEGER PRIMARY KEY AUTOINCREMENT, sample TEXT NOT NULL REFERENCES samples (id), criterion TEXT NOT NULL,
  digest TEXT NOT NULL, judge TEXT NOT NULL, decided_by TEXT NOT NULL, verdict TEXT, score REAL, passed INTEGER,
  reason TEXT, round INTEGER NOT NULL, time TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS labels (
  row INTEGER PRIMARY KEY AUTOINCREMENT, sample TEXT NOT NULL REFERENCES samples (id), criterion TEXT NOT NULL,
  digest TEXT NOT NULL, annotator TEXT NOT NULL, verdict TEXT, note TEXT NOT NULL, seconds REAL,
  round INTEGER NOT NULL, time TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
  row INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, data TEXT NOT NULL, time TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS labels_sample ON labels (sample, criterion, annotator);
CREATE INDEX IF NOT EXISTS verdicts_sample ON verdicts (sample, criterion);
"""
_GUARD = """
CREATE TRIGGER IF NOT EXISTS {table}_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'the buffer only grows: rows are neither changed nor removed'); END;
"""


@dataclass(frozen=True, slots=True)
class Label:
    """What one person said of one sample under one criterion."""

    sample: str
    criterion: str
    """Key of a criterion, such as `tags/relevance`."""
    annotator: str
    verdict: str | None
    """A word of the scale; None takes the annotator's last label back, or skips where there is none."""
    note: str = ""
    """A remark, or the reason of a skip."""
    seconds: float | None = None
    """How long the person looked."""
    round: int = 0


class Buffer:
    """One file. Threads and processes may write at once; SQLite puts them in order."""

    def __init__(self, path: Path | str) -> None:
        """Open a buffer, or begin one.

        Raises:
            JudgeError: the file is no buffer, or one of a later format; or nothing can be written there.
        """
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JudgeError(
                f"a buffer cannot be made at {self.path}: {error.strerror or error}; name a place that you may write to"
            ) from error
        with self._open() as database:
            there = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if there and "meta" not in there:
                raise JudgeError(f"{self.path} is another program's database, not a buffer; name one, or a new file")
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            for table in TABLES:
                for verb in ("UPDATE", "DELETE"):
                    database.execute(_GUARD.format(table=table, verb=verb))
            known = database.execute("SELECT format FROM meta").fetchone()
            if known is None:
                database.execute("INSERT INTO meta VALUES (?)", (FORMAT,))
            elif known[0] > FORMAT:
                raise JudgeError(
                    f"the buffer {self.path} has format {known[0]}, but this recgpt reads up to {FORMAT}; "
                    "use the recgpt that wrote it, or a later one"
                )

    def add_samples(self, samples: Iterable[Sample], *, source: str, round: int) -> int:
        """Add samples that are not there yet; return how many were new.

        Raises:
            JudgeError: an unknown source.
        """
        if source not in SOURCES:
            raise JudgeError(f"a sample's source is one of {', '.join(SOURCES)}, but it is {source!r}")
        rows = [
            (one.id, one.task, json.dumps(dict(one.fields), ensure_ascii=False), one.user_id, source, round, _now())
            for one in samples
        ]
        with self._open() as database:
            before = database.total_changes
            database.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)
            return int(database.total_changes) - before

    def add_verdicts(self, verdicts: pa.Table, criteria: Mapping[str, Criterion], *, judge: str, round: int) -> None:
        """Add what a judge said of samples that are in the buffer.

        Args:
            verdicts: `schema.VERDICTS`.
            criteria: by which it judged.
            judge: its version.
            round: of annotation.
        """
        rows = []
        for row in schema.table(verdicts, schema.VERDICTS, name="verdicts").to_pylist():
            key = f"{row['task']}/{row['criterion']}"
            digest = self._criterion(key, criteria).digest
            found = [row[name] for name in ("decided_by", "verdict", "score", "passed", "reason")]
            rows.append((row["sample"], key, digest, judge, *found, round, _now()))
        with self._open() as database:
            database.executemany(
                "INSERT INTO verdicts (sample, criterion, digest, judge, decided_by, verdict, score, passed, reason, "
                "round, time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def add_label(self, label: Label, criteria: Mapping[str, Criterion]) -> None:
        """Add one label.

        Raises:
            JudgeError: an unknown sample, criterion or verdict; or the annotator said otherwise before and did not
                take it back.
        """
        self.add_labels([label], criteria)

    def add_labels(self, labels: Sequence[Label], criteria: Mapping[str, Criterion]) -> None:
        """Add labels, all or none; errors as `add_label`."""
        with self._open() as database:
            for label in labels:
                criterion = self._criterion(label.criterion, criteria)
                if not label.annotator.strip():
                    raise JudgeError("a label needs the name of its annotator, but it is empty")
                if label.verdict is not None and label.verdict not in criterion.scale:
                    raise JudgeError(
                        f"{label.criterion} is answered with {', '.join(criterion.scale)}, but {label.annotator} said "
                        f"{label.verdict!r}"
                    )
                sample = database.execute("SELECT task FROM samples WHERE id = ?", (label.sample,)).fetchone()
                if sample is None:
                    raise JudgeError(f"the sample {label.sample} is not in the buffer {self.path}; add it first")
                if sample[0] != criterion.task:
                    raise JudgeError(
                        f"{label.criterion} asks about {criterion.task}, but {label.sample} is of {sample[0]}"
                    )
                before = database.execute(
                    "SELECT verdict FROM labels WHERE sample = ? AND criterion = ? AND annotator = ? AND digest = ? "
                    "ORDER BY row DESC LIMIT 1",
                    (label.sample, label.criterion, label.annotator, criterion.digest),
                ).fetchone()
                said = before[0] if before else None
                if said is not None and label.verdict is not None and label.verdict != said:
                    raise JudgeError(
                        f"{label.annotator} called {label.criterion} of sample {label.sample} {said!r} and now "
                        f"{label.verdict!r}: take the first back (a label without verdict) before saying otherwise"
                    )
                database.execute(
                    "INSERT INTO labels (sample, criterion, digest, annotator, verdict, note, seconds, round, time) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (label.sample, label.criterion, criterion.digest, label.annotator, label.verdict, label.note,
                     label.seconds, label.round, _now()),
                )  # fmt: skip

    def labels(self, criteria: Mapping[str, Criterion] | None = None) -> pa.Table:
        """Give the labels that stand: the last of each annotator, sample and criterion, unless it took one back.

        Args:
            criteria: only labels of these wordings; None gives all.

        Returns:
            `schema.LABELS` in the order in which they were given.
        """
        standing = self._standing(criteria).values()
        return schema.rows(
            [{name: row[name] for name in schema.LABELS.names} for row in standing if row["verdict"] is not None],
            schema.LABELS,
        )

    def skips(self, criteria: Mapping[str, Criterion] | None = None) -> dict[tuple[str, str], list[str]]:
        """Give the reasons for which people skipped, by sample and criterion; arguments as `labels`."""
        found: dict[tuple[str, str], list[str]] = {}
        for row in self._standing(criteria).values():
            if row["verdict"] is None and row["note"].startswith(SKIP):
                found.setdefault((row["sample"], row["criterion"]), []).append(row["note"].removeprefix(SKIP))
        return found

    def unread(self, criteria: Mapping[str, Criterion]) -> list[dict[str, Any]]:
        """Count the answers that stand, but under criteria that are not among these, or not in this wording.

        Returns:
            A row a criterion: `criterion`, `task` of its samples, `answers`, and `why`: `unknown` or `reworded`.
        """
        found: dict[str, dict[str, Any]] = {}
        for row in self._standing(None).values():
            key = row["criterion"]
            if row["verdict"] is not None and self._digest(key, criteria) != row["digest"]:
                why = "reworded" if key in criteria else "unknown"
                one = found.setdefault(key, {"criterion": key, "task": row["task"], "answers": 0, "why": why})
                one["answers"] += 1
        return [found[key] for key in sorted(found)]

    def _standing(self, criteria: Mapping[str, Criterion] | None) -> dict[tuple[str, str, str], dict[str, Any]]:
        """Give the last row of each annotator, sample and criterion, in the order in which they were written."""
        with self._open() as database:
            found = database.execute(
                "SELECT l.*, s.task, s.source FROM labels l JOIN samples s ON s.id = l.sample ORDER BY l.row"
            ).fetchall()
        standing: dict[tuple[str, str, str], dict[str, Any]] = {}
        for row in map(dict, found):
            if criteria is not None and self._digest(row["criterion"], criteria) != row["digest"]:
                continue
            key = (row["sample"], row["criterion"], row["annotator"])
            standing.pop(key, None)
            standing[key] = row | {"time": datetime.fromisoformat(row["time"])}
        return standing

    def verdicts(self, *, judge: str | None = None) -> pa.Table:
        """Give the last verdict of each sample and criterion, of one judge version or of any: `schema.VERDICTS`."""
        with self._open() as database:
            found = database.execute(
                "SELECT v.*, s.task, s.user_id FROM verdicts v JOIN samples s ON s.id = v.sample "
                "WHERE ? IS NULL OR v.judge = ? ORDER BY v.row",
                (judge, judge),
            ).fetchall()
        last: dict[tuple[str, str], dict[str, Any]] = {}
        for row in map(dict, found):
            passed = None if row["passed"] is None else bool(row["passed"])
            name = row["criterion"].partition("/")[2]
            last[row["sample"], row["criterion"]] = row | {"criterion": name, "passed": passed, "as_of": None}
        return schema.rows(
            [{name: row[name] for name in schema.VERDICTS.names} for row in last.values()], schema.VERDICTS
        )

    def samples(self, ids: Iterable[str] | None = None) -> dict[str, Sample]:
        """Give samples by id, all by default."""
        wanted = None if ids is None else set(ids)
        with self._open() as database:
            found = database.execute("SELECT * FROM samples ORDER BY rowid").fetchall()
        return {
            row["id"]: Sample(row["task"], json.loads(row["fields"]), user_id=row["user_id"])
            for row in found
            if wanted is None or row["id"] in wanted
        }

    def of_source(self, source: str) -> set[str]:
        """Give the ids of the samples that came from one of `SOURCES`."""
        with self._open() as database:
            return {row["id"] for row in database.execute("SELECT id FROM samples WHERE source = ?", (source,))}

    def add_event(self, kind: str, data: Mapping[str, Any]) -> None:
        """Add what befell the judge: it was calibrated, a milestone was opened or closed. `data` is plain JSON."""
        with self._open() as database:
            database.execute(
                "INSERT INTO events (kind, data, time) VALUES (?, ?, ?)",
                (kind, json.dumps(data, ensure_ascii=False, allow_nan=False), _now()),
            )

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Give the events of one kind, or of all, oldest first: what they carry, with `kind` and `time` beside it."""
        with self._open() as database:
            found = database.execute(
                "SELECT * FROM events WHERE ? IS NULL OR kind = ? ORDER BY row", (kind, kind)
            ).fetchall()
        return [
            json.loads(row["data"]) | {"kind": row["kind"], "time": datetime.fromisoformat(row["time"])}
            for row in found
        ]

    def times(self) -> dict[str, datetime]:
        """Tell when each sample came."""
        with self._open() as database:
            found = database.execute("SELECT id, time FROM samples").fetchall()
        return {row["id"]: datetime.fromisoformat(row["time"]) for row in found}

    def round(self) -> int:
        """Give the round of annotation at hand: one after the last round in which people labeled."""
        with self._open() as database:
            return int(database.execute("SELECT coalesce(max(round), 0) + 1 FROM labels").fetchone()[0])

    def count(self, table: Literal["samples", "verdicts", "labels", "events"]) -> int:
        """Count rows, those that were taken back included."""
        with self._open() as database:
            return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Give a connection for one transaction of your own: all of it is kept, or on an error nothing."""
        return self._open()

    def _criterion(self, key: str, criteria: Mapping[str, Criterion]) -> Criterion:
        if key not in criteria:
            raise JudgeError(f"there is no criterion {key!r}; there are {', '.join(criteria)}")
        return criteria[key]

    def _digest(self, key: str, criteria: Mapping[str, Criterion]) -> str | None:
        return criteria[key].digest if key in criteria else None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Give a connection of its own for one transaction, so that any thread may call."""
        database = None
        try:
            database = sqlite3.connect(self.path, timeout=30.0, isolation_level=None)
            database.row_factory = sqlite3.Row
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("PRAGMA foreign_keys=ON")
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
        except sqlite3.Error as error:
            raise JudgeError(
                f"the buffer {self.path} could not be read or written: {error}; what was in it stays; is the disk "
                "full, or the file another's?"
            ) from error
        finally:
            if database is not None:
                database.close()


def _now() -> str:
    return datetime.now(UTC).isoformat()
