"""Reads a ledger while a run may be writing it: answers, progress, what answering took, how often checkers said no."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recgpt.errors import LedgerError
from recgpt.llm.engine import Result, ScoreResult
from recgpt.llm.store import FORMAT, INDEX, Spent
from recgpt.llm.wire import result_from

ENOUGH = 20
"""Fewer texts tell little of how many will pass."""
_TRIED = re.compile(r"(?P<stage>tags(?=/reason/)|explanations)(/reason)?/(?P<attempt>\d+)/")
"""Keys of requests that are made again, with another number, where a checker refused the answer."""


@dataclass(frozen=True, slots=True)
class Status:
    """How far one stage is, in distinct requests. `stage` is empty for what an older recgpt wrote."""

    stage: str
    done: int
    """Answered and usable."""
    failed: int
    """Without a usable answer: the text and the reason are kept, the stage may have asked again in other words; or the
    engine broke, and the next run asks again."""
    quarantined: int
    """Failed as often as is allowed: never asked again."""
    waiting: int
    """Asked for by the last run, which ended before the answer."""
    reasons: Mapping[str, int]
    """Why requests failed or were quarantined, and how many for each; `length`: the answer did not end within its
    tokens."""


class Reader:
    """Reads a ledger that another process may be writing; changes nothing. A folder without a ledger is an empty one.

    Raises:
        LedgerError: the ledger is damaged or of another format.
    """

    def __init__(self, folder: Path, *, tries: int) -> None:
        self.folder = folder
        self._tries = tries
        self._loaded: dict[str, list[str] | None] = {}
        path = folder / INDEX
        self._database: sqlite3.Connection | None = None
        if not path.is_file():
            return
        try:
            database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
            (version,) = database.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"the ledger index {path} cannot be read: {error}") from error
        if version in (0, 1):
            database.close()  # Not begun, or from before stages were noted: nothing that could be told.
        elif version != FORMAT:
            database.close()
            raise LedgerError(f"the ledger {folder} has format {version}, this recgpt reads {FORMAT}: update recgpt")
        else:
            self._database = database

    def find(self, key: str) -> Result | ScoreResult | None:
        """Return a stored result; None when there is none, or its file is not what was written."""
        if self._database is None:
            return None
        at = self._database.execute(
            "SELECT shard, row, sha256 FROM calls JOIN shards ON shard = name WHERE digest = ?", (key,)
        ).fetchone()
        if at is None:
            return None
        shard, row, expected = at
        try:
            if shard not in self._loaded:
                data = (self.folder / "shards" / shard).read_bytes()
                whole = hashlib.sha256(data).hexdigest() == expected
                rows = pq.read_table(pa.BufferReader(data), columns=["result"]) if whole else None
                self._loaded[shard] = rows["result"].to_pylist() if rows is not None else None
            found = self._loaded[shard]
            return result_from(json.loads(found[row])) if found is not None else None
        except (OSError, IndexError, KeyError, TypeError, ValueError):
            return None

    def status(self) -> list[Status]:
        """Count requests by stage, in the order of the stages' names."""
        if self._database is None:
            return []
        counts: dict[str, dict[str, int]] = {}
        reasons: dict[str, Counter[str]] = {}

        def add(stage: str, what: str, count: int, reason: str | None = None) -> None:
            own = counts.setdefault(stage, dict.fromkeys(("done", "failed", "quarantined", "waiting"), 0))
            own[what] += count
            if reason is not None:
                reasons.setdefault(stage, Counter())[reason] += count

        for stage, reason in self._database.execute("SELECT stage, reason FROM tries WHERE count >= ?", (self._tries,)):
            add(stage, "quarantined", 1, reason)
        for stage, count in self._database.execute(
            "SELECT stage, COUNT(*) FROM calls WHERE status = 'ok' AND digest NOT IN "
            "(SELECT digest FROM tries WHERE count >= ?) GROUP BY stage",
            (self._tries,),
        ):
            add(stage, "done", count)
        for stage, digest in self._database.execute(
            "SELECT stage, digest FROM calls WHERE status <> 'ok' AND digest NOT IN "
            "(SELECT digest FROM tries WHERE count >= ?)",
            (self._tries,),
        ):
            found = self.find(digest)
            add(stage, "failed", 1, "its file is damaged" if found is None else found.reason or "no reason given")
        for stage, reason in self._database.execute(
            "SELECT stage, reason FROM tries WHERE count < ? AND digest NOT IN (SELECT digest FROM calls)",
            (self._tries,),
        ):
            add(stage, "failed", 1, reason)
        for stage, count in self._database.execute("SELECT stage, COUNT(*) FROM waiting GROUP BY stage"):
            add(stage, "waiting", count)
        return [Status(stage, **counts[stage], reasons=dict(reasons.get(stage, {}))) for stage in sorted(counts)]

    def spent(self) -> list[Spent]:
        """Return what answering took so far."""
        if self._database is None:
            return []
        return [Spent(*row) for row in self._database.execute("SELECT * FROM spent")]

    def passing(self, engine: str) -> dict[str, float]:
        """Return by stage the share of first texts that a checker let through, where there were `ENOUGH` of them.

        A stage asks again for what a checker refused, and numbers its tries in the requests' keys.
        """
        counts: Counter[tuple[str, str]] = Counter()
        for (shard,) in self._database.execute("SELECT name FROM shards") if self._database is not None else ():
            try:
                rows = pq.read_table(self.folder / "shards" / shard, columns=["key", "engine"])
            except (OSError, pa.ArrowException):
                continue  # Removed or damaged meanwhile: an estimate can do without.
            for key in rows.filter(pc.equal(rows["engine"], engine))["key"].to_pylist():
                found = _TRIED.match(key or "")
                if found:
                    counts[found["stage"], found["attempt"]] += 1
        firsts = {stage: count for (stage, attempt), count in counts.items() if attempt == "0" and count >= ENOUGH}
        return {stage: max(0.0, 1 - counts[stage, "1"] / count) for stage, count in firsts.items()}

    def close(self) -> None:
        """Close the index."""
        if self._database is not None:
            self._database.close()
