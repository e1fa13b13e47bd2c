"""The log of self-training: a line of JSON for each step that ended, so that a killed one goes on where it was."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recgpt.errors import AlignmentError

ROUNDS = pa.schema(
    [
        pa.field("round", pa.int32(), nullable=False),
        pa.field("accepted", pa.bool_(), nullable=False),
        pa.field("why", pa.large_string(), nullable=False),
        pa.field("made", pa.int64(), nullable=False),
        pa.field("kept", pa.int64(), nullable=False),
        pa.field("samples", pa.int64(), nullable=False),
        pa.field("gain", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("users", pa.int64()),
        pa.field("parts", pa.large_string(), nullable=False),
        pa.field("variety", pa.large_string(), nullable=False),
        pa.field("adapter", pa.large_string()),
    ]
)
"""One round. `parts` and `variety` are JSON; `adapter`: the file that the round trained."""


class Log:
    """`rounds.jsonl` in a folder, and `rounds.parquet` made of it."""

    def __init__(self, folder: Path, settings: dict[str, Any], *, fresh: bool = False) -> None:
        """Read what ended before.

        Raises:
            AlignmentError: it belongs to other settings, or a line is none of ours.
        """
        self.path = folder / "rounds.jsonl"
        self.table = folder / "rounds.parquet"
        folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            self.path.unlink(missing_ok=True)
        self.lines = self._read()
        if not self.lines:
            self.add({"kind": "begun", "settings": settings})
        elif (before := self.lines[0].get("settings")) != settings:
            changed = sorted(
                key for key in {*settings, *(before or {})} if (before or {}).get(key) != settings.get(key)
            )
            raise AlignmentError(
                f"{self.path} belongs to a self-training with other settings ({', '.join(changed)} changed); start "
                "anew with --fresh, or give them as they were"
            )

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        texts = self.path.read_text(encoding="utf-8").split("\n")
        found = []
        for number, text in enumerate(texts, start=1):
            try:
                if text:
                    found.append(json.loads(text))
            except json.JSONDecodeError as error:
                # What was being written when the process died has no end of line.
                if number == len(texts):
                    self.path.write_text("".join(f"{one}\n" for one in texts[:-1]), encoding="utf-8")
                    break
                raise AlignmentError(
                    f"{self.path}, line {number}, is no JSON: {error}; start anew with --fresh"
                ) from error
        return found

    def add(self, line: dict[str, Any]) -> None:
        """Write a line through to the disk."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines.append(line)

    def find(self, kind: str, number: int) -> dict[str, Any] | None:
        """Give the line of a kind and a round, if that step has ended."""
        return next((one for one in self.lines if one["kind"] == kind and one.get("round") == number), None)

    def rounds(self) -> pa.Table:
        """Give the finished rounds as ROUNDS, and keep them as Parquet."""
        rows = []
        for line in self.lines:
            if line["kind"] == "round":
                row = {name: line.get(name) for name in ROUNDS.names}
                rows.append(row | {name: json.dumps(line[name]) for name in ("parts", "variety")})
        table = pa.Table.from_pylist(rows, ROUNDS)
        part = self.table.with_suffix(".part")
        pq.write_table(table, part)
        part.replace(self.table)
        return table
