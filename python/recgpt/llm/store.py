"""What the ledger keeps on disk: answers in Parquet shards, and one SQLite index that says which of them count.

A shard is written whole (temporary file, fsync, rename, fsync of the folder), then one transaction names its calls and
its checksum. A stop in between leaves a file without rows, which is garbage; a row whose file is missing or altered
is asked again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from recgpt.errors import LedgerError
from recgpt.llm.engine import Result, ScoreResult
from recgpt.llm.wire import result_from

FORMAT = 2
INDEX = "ledger.sqlite"

SHARD = pa.schema(
    [(name, pa.string()) for name in ("digest", "kind", "key", "engine", "prompt_digest")]
    + [("seed", pa.int64()), ("result", pa.string())]
)
_TABLES = """
CREATE TABLE IF NOT EXISTS shards (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, rows INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS calls (digest TEXT PRIMARY KEY, shard TEXT NOT NULL, row INTEGER NOT NULL,
  stage TEXT NOT NULL DEFAULT '', status TEXT NOT NULL DEFAULT 'ok') WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS calls_shard ON calls (shard);
CREATE TABLE IF NOT EXISTS tries (digest TEXT PRIMARY KEY, count INTEGER NOT NULL, reason TEXT NOT NULL,
  stage TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (digest TEXT PRIMARY KEY, stage TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spent (engine TEXT NOT NULL, stage TEXT NOT NULL, kind TEXT NOT NULL,
  rows INTEGER NOT NULL, computed INTEGER NOT NULL, answered INTEGER NOT NULL, room INTEGER NOT NULL,
  seconds REAL NOT NULL, PRIMARY KEY (engine, stage, kind)) WITHOUT ROWID;
"""
# Format 1 knew neither stages nor the outcome of a call.
_FROM_1 = """
ALTER TABLE calls ADD COLUMN stage TEXT NOT NULL DEFAULT '';
ALTER TABLE calls ADD COLUMN status TEXT NOT NULL DEFAULT 'ok';
ALTER TABLE tries ADD COLUMN stage TEXT NOT NULL DEFAULT '';
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """What answering took, all runs together; the rate of a stage follows from it."""

    engine: str
    stage: str
    kind: str
    """`score` or `generate`."""
    rows: int
    computed: int
    """Prompt tokens that were not shared."""
    answered: int
    """Tokens of answers, or of candidates."""
    room: int
    """Tokens that the answers were allowed."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Row:
    """One finished call, as it is kept."""

    data: dict[str, Any]
    """A record of `SHARD`."""
    stage: str
    status: str


class Store:
    """Opens, locks, reads and writes the ledger's folder. One writer at a time."""

    def __init__(self, folder: Path, *, tries: int) -> None:
        """Open or make the ledger, and lock it; `tries` failures put a request in quarantine.

        Raises:
            LedgerError: another run holds the lock, or the ledger is damaged, of a newer format or not writable.
        """
        self.folder = folder
        self._tries = tries
        self._shards = folder / "shards"
        try:
            self._shards.mkdir(parents=True, exist_ok=True)
            self._lock = _take_lock(folder)
        except OSError as error:
            raise LedgerError(f"the ledger {folder} cannot be written: {error.strerror or error}") from error
        try:
            self._database = self._open()
            self._sweep()
        except BaseException:
            self._lock.close()
            raise
        self._loaded: dict[str, list[str] | None] = {}

    def close(self) -> None:
        """Release the ledger. Closing twice is allowed."""
        self._database.close()
        self._lock.close()

    def clear(self) -> None:
        """Forget every answer; what answering took stays, for estimates."""
        with self._writing():
            for table in ("calls", "shards", "tries", "waiting"):
                self._database.execute(f"DELETE FROM {table}")
        self._loaded.clear()
        self._sweep()

    def find(self, key: str) -> Result | ScoreResult | None:
        """Return a stored result whose file is what the ledger says it is."""
        with self._guarded():
            at = self._database.execute("SELECT shard, row FROM calls WHERE digest = ?", (key,)).fetchone()
            if at is None:
                return None
            rows = self._load(at[0])
        try:
            return result_from(json.loads(rows[at[1]])) if rows is not None else None
        except (IndexError, KeyError, TypeError, ValueError):
            return None

    def tried(self, key: str) -> int:
        """Count the failures of a request."""
        with self._guarded():
            known = self._database.execute("SELECT count FROM tries WHERE digest = ?", (key,)).fetchone()
        return known[0] if known else 0

    def expect(self, rows: Iterable[tuple[str, str]], *, stages: Iterable[str]) -> None:
        """Note (digest, stage) of what is about to be asked, instead of what an earlier run left of these stages."""
        with self._writing():
            self._database.executemany("DELETE FROM waiting WHERE stage = ?", [(stage,) for stage in stages])
            self._database.executemany("INSERT OR REPLACE INTO waiting VALUES (?, ?)", rows)

    def keep(self, rows: Sequence[Row], tries: Sequence[tuple[str, int, str, str]], spent: Sequence[Spent]) -> None:
        """Keep finished answers in one shard, count failures (digest, count, reason, stage), add up what it took.

        Raises:
            LedgerError: nothing was kept; what was kept before is untouched.
        """
        shard = f"{uuid.uuid4().hex}.parquet"
        data = _parquet([row.data for row in rows]) if rows else b""
        with self._writing():
            if rows:
                _write(self._shards / shard, data)
                checksum = hashlib.sha256(data).hexdigest()
                self._database.execute("INSERT INTO shards VALUES (?, ?, ?)", (shard, checksum, len(rows)))
                self._database.executemany(
                    "INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?)",
                    [(row.data["digest"], shard, at, row.stage, row.status) for at, row in enumerate(rows)],
                )
            self._database.executemany("INSERT OR REPLACE INTO tries VALUES (?, ?, ?, ?)", tries)
            gone = [(row.data["digest"],) for row in rows] + [(key,) for key, _, _, _ in tries]
            self._database.executemany("DELETE FROM waiting WHERE digest = ?", gone)
            self._database.executemany(
                "INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET rows = rows + excluded.rows, computed = computed + excluded.computed, "
                "answered = answered + excluded.answered, room = room + excluded.room, "
                "seconds = seconds + excluded.seconds",
                [(s.engine, s.stage, s.kind, s.rows, s.computed, s.answered, s.room, s.seconds) for s in spent],
            )
        self._loaded[shard] = [row.data["result"] for row in rows]

    def seconds(self, engine: str) -> float:
        """Add up what an engine of this name took for what was kept."""
        with self._guarded():
            (found,) = self._database.execute(
                "SELECT COALESCE(SUM(seconds), 0.0) FROM spent WHERE engine = ?", (engine,)
            ).fetchone()
        return float(found)

    def quarantined(self) -> dict[str, str]:
        """Return digest and last reason of the requests that failed as often as is allowed."""
        with self._guarded():
            rows = self._database.execute("SELECT digest, reason FROM tries WHERE count >= ?", (self._tries,))
            return dict(rows.fetchall())

    def _load(self, shard: str) -> list[str] | None:
        """Read and check a shard once; forget it when it is not what was written."""
        if shard not in self._loaded:
            path = self._shards / shard
            (expected,) = self._database.execute("SELECT sha256 FROM shards WHERE name = ?", (shard,)).fetchone()
            try:
                data = path.read_bytes()
            except OSError:
                data = b""
            if hashlib.sha256(data).hexdigest() == expected:
                self._loaded[shard] = pq.read_table(pa.BufferReader(data), columns=["result"])["result"].to_pylist()
            else:
                with self._writing():
                    self._database.execute("DELETE FROM calls WHERE shard = ?", (shard,))
                    self._database.execute("DELETE FROM shards WHERE name = ?", (shard,))
                path.unlink(missing_ok=True)
                self._loaded[shard] = None
        return self._loaded[shard]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, whole or not at all."""
        with self._guarded(), self._database:
            self._database.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turn what the disk or SQLite refuses into one kind of error."""
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(
                f"the ledger {self.folder} cannot be used: {getattr(error, 'strerror', None) or error}; finished "
                "answers are kept, and the same command continues when that is mended"
            ) from error

    def _open(self) -> sqlite3.Connection:
        """Open the index, and bring it to the present format."""
        path = self.folder / INDEX
        database = None
        try:
            database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in (0, 1, FORMAT):
                raise LedgerError(
                    f"the ledger {self.folder} has format {version}, this recgpt reads {FORMAT}: update recgpt"
                )
            # One transaction: a kill between two of these would leave a format that nobody knows.
            changes = (_FROM_1 if version == 1 else "") + _TABLES
            database.executescript(f"BEGIN IMMEDIATE; {changes} PRAGMA user_version = {FORMAT}; COMMIT;")
        except BaseException as error:
            if database is not None:
                database.close()
            if isinstance(error, sqlite3.OperationalError):
                raise LedgerError(f"the ledger index {path} cannot be opened: {error}") from error
            if isinstance(error, sqlite3.DatabaseError):
                raise LedgerError(
                    f"the ledger index {path} is damaged ({error}); move {self.folder} away to start anew"
                ) from error
            raise
        return database

    def _sweep(self) -> None:
        """Remove shards that no row names: what a kill left."""
        with self._guarded():
            known = {name for (name,) in self._database.execute("SELECT name FROM shards")}
            for file in self._shards.iterdir():
                if file.name not in known and file.suffix in (".parquet", ".tmp"):
                    file.unlink()


def _take_lock(folder: Path) -> IO[bytes]:
    file = (folder / "lock").open("ab+", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().decode("utf-8", "replace").strip() or "an unknown process"
        file.close()
        raise LedgerError(
            f"the ledger {folder} is in use by {holder}; wait for that run or end it, or use another folder"
        ) from error
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()}".encode())
    except BaseException:
        file.close()
        raise
    return file


def _parquet(records: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(records, schema=SHARD), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _write(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, even after a power cut."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
