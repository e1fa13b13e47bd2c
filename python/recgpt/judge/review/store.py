"""What the review page adds to the buffer's file (contexts, pairs of lists, answers), and who said what so far.

These tables only grow, as the buffer's own do. So a reader keeps what it has seen and asks for later rows alone: ten
thousand labels cost a page nothing.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from recgpt.errors import JudgeError
from recgpt.judge.buffer import SKIP, TABLES, Buffer, Label
from recgpt.judge.criteria import Criterion
from recgpt.judge.sample import Sample

_TABLES = {
    "contexts": "row INTEGER PRIMARY KEY AUTOINCREMENT, sample TEXT NOT NULL REFERENCES samples (id), "
    "context TEXT NOT NULL, time TEXT NOT NULL",
    "pairs": "row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, pair TEXT NOT NULL, time TEXT NOT NULL",
    "answers": "row INTEGER PRIMARY KEY AUTOINCREMENT, pair TEXT NOT NULL REFERENCES pairs (id), "
    "annotator TEXT NOT NULL, answer TEXT, seconds REAL, time TEXT NOT NULL",
}


@dataclass(frozen=True, slots=True)
class Said:
    """What an annotator's last word on a sample and criterion is."""

    verdict: str | None
    """None where the person skipped."""
    note: str
    seconds: float | None
    row: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A sample as the buffer keeps it."""

    sample: Sample
    round: int
    context: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms' lists for one user, as they are shown: which arm stands left is drawn by a hash of the pair."""

    id: str
    user_id: str
    attributes: str
    history: Sequence[Mapping[str, Any]]
    arms: tuple[str, str]
    """Names of the left and of the right arm; the page never gets them."""
    lists: tuple[Sequence[Mapping[str, str]], Sequence[Mapping[str, str]]]
    """Left and right: items with `title` and `detail`."""
    comparison: str
    """Which two arms at which length: pairs of one comparison are counted together, and no others."""


@dataclass
class Seen:
    """All that was said, up to the last row that was read."""

    samples: dict[str, Kept] = field(default_factory=dict)
    said: dict[tuple[str, str, str], Said] = field(default_factory=dict)
    """By sample, criterion and annotator."""
    verdicts: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    """The judge's last, by sample and criterion."""
    pairs: dict[str, Pair] = field(default_factory=dict)
    answers: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    """By pair and annotator."""
    due: frozenset[str] = frozenset()
    """Samples that an open milestone asks people about."""
    order: list[tuple[str, str, str]] = field(default_factory=list)
    """Keys of `said` in the order in which they were said; some are no longer there."""
    skips: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """Reasons of the skips in `said`, by its keys."""


class Store:
    """Reads and writes a buffer for the review page. Threads and other processes may write at the same time."""

    def __init__(self, buffer: Buffer, criteria: Mapping[str, Criterion]) -> None:
        self.buffer, self.criteria = buffer, criteria
        self._seen, self._lock, self._saying = Seen(), threading.Lock(), threading.Lock()
        self._last = dict.fromkeys((*TABLES, *_TABLES), 0)
        with buffer.transaction() as database:
            for name, columns in _TABLES.items():
                database.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
                for verb in ("UPDATE", "DELETE"):
                    database.execute(
                        f"CREATE TRIGGER IF NOT EXISTS {name}_{verb} BEFORE {verb} ON {name} BEGIN "
                        "SELECT RAISE(ABORT, 'the buffer only grows: rows are neither changed nor removed'); END"
                    )

    def add_contexts(self, contexts: Mapping[str, Mapping[str, Any]]) -> None:
        """Add what a page shows beside a sample, by sample: `history`, `cited`, and `fields` that only people see.

        A row of a history has `id`, `when`, `items`, and as `hits` the places of items that show what it is cited for.
        """
        known = self.read().samples
        rows = [
            (sample, json.dumps(context, ensure_ascii=False), _now())
            for sample, context in contexts.items()
            if sample in known and known[sample].context != context
        ]
        with self.buffer.transaction() as database:
            database.executemany("INSERT INTO contexts (sample, context, time) VALUES (?, ?, ?)", rows)

    def add_pairs(self, pairs: Iterable[Pair]) -> int:
        """Add pairs of lists that are not there yet; return how many were new."""
        rows = [
            (one.id, json.dumps({name: getattr(one, name) for name in _PAIR}, ensure_ascii=False), _now())
            for one in pairs
        ]
        with self.buffer.transaction() as database:
            before = database.total_changes
            database.executemany("INSERT INTO pairs (id, pair, time) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)
            return int(database.total_changes) - before

    def say(self, label: Label) -> None:
        """Set an annotator's word on a sample and criterion; what was said before is taken back by a row of its own.

        Saying the same again adds nothing, so a page that did not hear an answer can send its words once more.

        Raises:
            JudgeError: an unknown sample, criterion or verdict, or the buffer cannot be written.
        """
        with self._saying:
            self._say(label)

    def _say(self, label: Label) -> None:
        before = self.read().said.get((label.sample, label.criterion, label.annotator))
        skipped = label.verdict is None and label.note.startswith(SKIP)
        if label.verdict is None and not skipped and before is None:
            return
        if before is not None and (before.verdict, before.note) == (label.verdict, label.note):
            return
        rows = [label]
        if before is not None and before.verdict is not None and label.verdict is not None:
            rows = [Label(label.sample, label.criterion, label.annotator, None, "changed", round=label.round), label]
        self.buffer.add_labels(rows, self.criteria)

    def answer(self, pair: str, annotator: str, answer: Mapping[str, Any] | None, seconds: float | None) -> None:
        """Keep what an annotator says of two lists; None takes it back.

        Raises:
            JudgeError: an unknown pair, or the buffer cannot be written.
        """
        seen = self.read()
        if pair not in seen.pairs:
            raise JudgeError(f"the pair of lists {pair} is not in the buffer {self.buffer.path}; add it first")
        if seen.answers.get((pair, annotator)) == answer:
            return
        said = None if answer is None else json.dumps(answer, ensure_ascii=False)
        with self.buffer.transaction() as database:
            database.execute(
                "INSERT INTO answers (pair, annotator, answer, seconds, time) VALUES (?, ?, ?, ?, ?)",
                (pair, annotator, said, seconds, _now()),
            )

    def read(self) -> Seen:
        """Give all that was said until now, by whatever process."""
        with self._lock:
            with self.buffer.transaction() as database:
                later = {name: self._later(database, name) for name in self._last}
            # A copy is handed out where something changed, so that a request sees one state from first to last.
            if any(later.values()):
                old = self._seen
                new = Seen(*(type(part)(part) for part in vars(old).values()))
                for name, rows in later.items():
                    for row in rows:
                        getattr(self, f"_take_{name}")(new, row)
                self._seen = new
                self._last |= {name: rows[-1]["number"] for name, rows in later.items() if rows}
            return self._seen

    def _later(self, database: sqlite3.Connection, name: str) -> list[sqlite3.Row]:
        number = "rowid" if name == "samples" else "row"
        return database.execute(
            f"SELECT {number} AS number, * FROM {name} WHERE {number} > ? ORDER BY {number}", (self._last[name],)
        ).fetchall()

    def _take_samples(self, seen: Seen, row: sqlite3.Row) -> None:
        sample = Sample(row["task"], json.loads(row["fields"]), user_id=row["user_id"])
        seen.samples[row["id"]] = Kept(sample, row["round"], {})

    def _take_contexts(self, seen: Seen, row: sqlite3.Row) -> None:
        kept = seen.samples[row["sample"]]
        seen.samples[row["sample"]] = Kept(kept.sample, kept.round, json.loads(row["context"]))

    def _take_labels(self, seen: Seen, row: sqlite3.Row) -> None:
        criterion = self.criteria.get(row["criterion"])
        if criterion is None or criterion.digest != row["digest"]:
            return
        key = (row["sample"], row["criterion"], row["annotator"])
        seen.said.pop(key, None)
        seen.skips.pop(key, None)
        if row["verdict"] is None and row["note"].startswith(SKIP):
            seen.skips[key] = row["note"].removeprefix(SKIP)
        if row["verdict"] is not None or row["note"].startswith(SKIP):
            seen.said[key] = Said(row["verdict"], row["note"], row["seconds"], row["row"])
            seen.order.append(key)

    def _take_verdicts(self, seen: Seen, row: sqlite3.Row) -> None:
        criterion = self.criteria.get(row["criterion"])
        if criterion is not None and criterion.digest == row["digest"]:
            seen.verdicts[row["sample"], row["criterion"]] = {
                name: row[name] for name in ("verdict", "score", "reason", "judge", "decided_by")
            }

    def _take_events(self, seen: Seen, row: sqlite3.Row) -> None:
        if row["kind"] == "milestone opened":
            seen.due = frozenset(case["sample"] for case in json.loads(row["data"])["cases"])
        elif row["kind"] == "milestone closed":
            seen.due = frozenset()

    def _take_pairs(self, seen: Seen, row: sqlite3.Row) -> None:
        pair = json.loads(row["pair"])
        # Pairs of before had no comparison of their own: their arms tell them apart.
        pair.setdefault("comparison", against(pair["arms"]))
        seen.pairs[row["id"]] = Pair(row["id"], **{name: pair[name] for name in _PAIR})

    def _take_answers(self, seen: Seen, row: sqlite3.Row) -> None:
        seen.answers.pop((row["pair"], row["annotator"]), None)
        if row["answer"] is not None:
            seen.answers[row["pair"], row["annotator"]] = json.loads(row["answer"])


_PAIR = ("user_id", "attributes", "history", "arms", "lists", "comparison")


def against(arms: Iterable[str]) -> str:
    """Name a comparison by its arms, whichever stands left."""
    return " against ".join(sorted(arms))


def _now() -> str:
    return datetime.now(UTC).isoformat()
