"""Finished LLM calls, kept exactly once: the same command continues after a kill.

A call is keyed by the SHA-256 of engine name and whole request, so a changed prompt, schema, model or seed is a
new call. Results are written as a Parquet shard (temporary file, fsync, rename, fsync of the folder), then one SQLite
transaction names the shard's calls and its checksum. A kill in between leaves a file without rows, which is garbage;
a row whose file is missing or altered is redone. The model may be asked twice, a result is stored once.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from recgpt.errors import LedgerError
from recgpt.llm.engine import Engine, Progress, Request, Result, ScoreRequest, ScoreResult
from recgpt.llm.wire import digest, request_to, result_from, result_to

FORMAT = 1
TRIES = 3
"""How often a request that broke the engine is tried, over all runs, before its failure is final."""
SECONDS = 5.0
"""About how much work an interruption may lose."""

_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("digest", "kind", "key", "engine", "prompt_digest")]
    + [("seed", pa.int64()), ("result", pa.string())]
)
_TABLES = """
CREATE TABLE IF NOT EXISTS shards (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, rows INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS calls (digest TEXT PRIMARY KEY, shard TEXT NOT NULL, row INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS calls_shard ON calls (shard);
CREATE TABLE IF NOT EXISTS tries (digest TEXT PRIMARY KEY, count INTEGER NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID;
"""

_Request = TypeVar("_Request", Request, ScoreRequest)
_Answer = TypeVar("_Answer", Result, ScoreResult)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What requests would cost. Prompt tokens are exact; answer tokens of texts are the most that could come.

    `reused` and `new` count distinct requests, `rows` counts all.
    """

    rows: int
    reused: int
    new: int
    prompt_tokens: int
    answer_tokens: int


class Recorded:
    """An engine that asks `engine` only what the ledger in `folder` does not know yet."""

    def __init__(self, engine: Engine, folder: str | Path) -> None:
        """Open or make the ledger, and lock it.

        Raises:
            LedgerError: another run holds the lock, or the ledger is damaged or of a newer format.
        """
        self.engine = engine
        self.name, self.context_tokens = engine.name, engine.context_tokens
        self.calls = 0
        """Distinct requests that were passed to the engine. A double inside one call is asked once and copied."""
        self.reused = 0
        """Distinct requests of each call that the ledger had already; doubles inside a call count neither here."""
        self.folder = Path(folder)
        self._shards = self.folder / "shards"
        self._shards.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        try:
            self._database = self._open()
        except BaseException:
            self._lock.close()
            raise
        self._loaded: dict[str, list[str] | None] = {}

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        """Answer every request; results in the order of the requests."""
        return self._answer(requests, self.engine.generate, Result, progress, least=32)

    def score(self, requests: Sequence[ScoreRequest], progress: Progress | None = None) -> list[ScoreResult]:
        """Score every request's candidates; results in the order of the requests."""
        return self._answer(requests, self.engine.score, ScoreResult, progress, least=8)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of plain texts."""
        return self.engine.count_tokens(texts)

    def close(self) -> None:
        """Close engine and ledger. Closing twice is allowed."""
        self.engine.close()
        self._database.close()
        self._lock.close()

    def __enter__(self) -> Recorded:
        """Return the engine."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def quarantined(self) -> dict[str, str]:
        """Return digest and reason of the requests that broke the engine `TRIES` times."""
        rows = self._database.execute("SELECT digest, reason FROM tries WHERE count >= ?", (TRIES,))
        return dict(rows.fetchall())

    def estimate(self, requests: Sequence[Request | ScoreRequest]) -> Estimate:
        """Count what is known and what the rest would cost, without asking the model anything."""
        new: dict[str, Request | ScoreRequest] = {}
        reused: set[str] = set()
        for request in requests:
            key = digest(self.name, request)
            if key in new or key in reused:
                continue
            if self._find(key) is not None:
                reused.add(key)
            else:
                new[key] = request
        prompts = [request.prompt for request in new.values()]
        whole = getattr(self.engine, "prompt_tokens", None)
        if whole is not None:
            prompt_tokens = sum(whole(prompts))
        else:
            prompt_tokens = sum(
                self.engine.count_tokens([part for p in prompts for part in (p.system, p.user, p.answer)])
            )
        texts = [text for request in new.values() if isinstance(request, ScoreRequest) for text in request.candidates]
        answer_tokens = sum(self.engine.count_tokens(texts)) + sum(
            request.max_tokens for request in new.values() if isinstance(request, Request)
        )
        return Estimate(len(requests), len(reused), len(new), prompt_tokens, answer_tokens)

    def _answer(
        self,
        requests: Sequence[_Request],
        ask: Callable[[Sequence[_Request], Progress | None], list[_Answer]],
        kind: type[_Answer],
        progress: Progress | None,
        *,
        least: int,
    ) -> list[_Answer]:
        keys = [digest(self.name, request) for request in requests]
        found: dict[str, _Answer] = {}
        waiting: dict[str, _Request] = {}
        for key, request in zip(keys, requests, strict=True):
            if key in found or key in waiting:
                continue
            known = self._find(key)
            if isinstance(known, kind):
                found[key] = known
            else:
                waiting[key] = request
        self.reused += len(found)
        done: int = sum(key in found for key in keys)
        if progress is not None and done:
            progress(done, len(requests))

        todo, size = list(waiting.items()), least
        while todo:
            part, todo = todo[:size], todo[size:]

            def inner(count: int, _: int, before: int = done) -> None:
                if progress is not None:
                    progress(before + count, len(requests))

            begin = time.monotonic()
            answers = ask([request for _, request in part], inner)
            self.calls += len(part)
            self._store(part, answers)
            found.update(zip((key for key, _ in part), answers, strict=True))
            done += len(part)
            # Larger shards while they are quick: a batch that is always full is the faster one.
            size = max(least, min(1024, int(size * SECONDS / max(time.monotonic() - begin, 0.01))))
        if progress is not None and done < len(requests):
            progress(len(requests), len(requests))
        return [found[key] for key in keys]

    def _find(self, key: str) -> Result | ScoreResult | None:
        """Return a stored result whose file is what the ledger says it is."""
        at = self._database.execute("SELECT shard, row FROM calls WHERE digest = ?", (key,)).fetchone()
        if at is None:
            return None
        rows = self._load(at[0])
        try:
            return result_from(json.loads(rows[at[1]])) if rows is not None else None
        except (IndexError, KeyError, TypeError, ValueError):
            return None

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
                self._forget(shard)
                path.unlink(missing_ok=True)
                self._loaded[shard] = None
        return self._loaded[shard]

    def _forget(self, shard: str) -> None:
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("DELETE FROM calls WHERE shard = ?", (shard,))
            self._database.execute("DELETE FROM shards WHERE name = ?", (shard,))

    def _store(self, part: list[tuple[str, _Request]], answers: Sequence[Result | ScoreResult]) -> None:
        """Keep finished answers in one shard and count the tries of the others, in one transaction."""
        rows: list[dict[str, Any]] = []
        tries: list[tuple[str, int, str]] = []
        for (key, request), answer in zip(part, answers, strict=True):
            if answer.status == "unscored" and answer.reason.startswith("engine"):
                known = self._database.execute("SELECT count FROM tries WHERE digest = ?", (key,)).fetchone()
                tries.append((key, (known[0] if known else 0) + 1, answer.reason))
                if tries[-1][1] < TRIES:
                    continue
            wire = request_to(request)
            prompt = hashlib.sha256(json.dumps(wire["prompt"]).encode()).hexdigest()
            rows.append(
                {"digest": key, "kind": wire["kind"], "key": request.key, "engine": self.name, "prompt_digest": prompt}
                | {"seed": wire.get("seed", 0), "result": json.dumps(result_to(answer))}
            )
        shard = f"{uuid.uuid4().hex}.parquet"
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        if rows:
            _write(self._shards / shard, data)
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            if rows:
                checksum = hashlib.sha256(data).hexdigest()
                self._database.execute("INSERT INTO shards VALUES (?, ?, ?)", (shard, checksum, len(rows)))
                self._database.executemany(
                    "INSERT OR REPLACE INTO calls VALUES (?, ?, ?)",
                    [(row["digest"], shard, at) for at, row in enumerate(rows)],
                )
            self._database.executemany("INSERT OR REPLACE INTO tries VALUES (?, ?, ?)", tries)
        self._loaded[shard] = [row["result"] for row in rows]

    def _take_lock(self) -> Any:
        file = (self.folder / "lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "an unknown process"
            file.close()
            raise LedgerError(
                f"the ledger {self.folder} is in use by {holder}; wait for that run or end it, or use another folder"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        return file

    def _open(self) -> sqlite3.Connection:
        """Open the index, then sweep shards that no row names."""
        path = self.folder / "ledger.sqlite"
        try:
            database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version not in (0, FORMAT):
                database.close()
                raise LedgerError(
                    f"the ledger {self.folder} has format {version}, this recgpt reads {FORMAT}: update recgpt"
                )
            database.executescript(_TABLES)
            database.execute(f"PRAGMA user_version = {FORMAT}")
            known = {name for (name,) in database.execute("SELECT name FROM shards")}
        except sqlite3.DatabaseError as error:
            raise LedgerError(
                f"the ledger index {path} is damaged ({error}); move {self.folder} away to start anew"
            ) from error
        for file in self._shards.iterdir():
            if file.name not in known and file.suffix in (".parquet", ".tmp"):
                file.unlink()
        return database


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
