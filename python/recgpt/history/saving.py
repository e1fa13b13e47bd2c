"""A history state in a folder: Arrow files named by their contents, and one small file that says which ones count.

    state.json              what the state was made with, its numbers, and the checksum of every file
    <name>-<sha256>.arrow   rows, texts and codes

`state.json` is replaced by one rename after all other files are written, so a crash leaves the state of before.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recgpt.errors import BundleError, InvalidConfigError
from recgpt.history.meetings import Meetings, Past
from recgpt.history.memory import Cut, Memory, Part
from recgpt.history.seams import Now
from recgpt.history.vocabulary import Rows, Vocabulary

FORMAT = 2
"""To be raised whenever the files change, or the kernel writes other texts than before."""
INDEX = "state.json"

_FILE = re.compile(r"[a-z]+-[0-9a-f]{64}\.arrow")
_ROWS = ("past", "late", "open", "future")
_NAMES = (*_ROWS, "meetings", "users", "closed", "opened", "cut", "things", "missing")
_MEND = "make the state anew, with all events in one `add`"


def write(folder: Path, memory: Memory, made_with: Mapping[str, Any]) -> None:
    """Write everything, then replace `state.json`, then remove the files of before."""
    folder.mkdir(parents=True, exist_ok=True)
    now = memory.now
    files = {name: _put(folder, name, table) for name, table in _tables(memory).items()}
    index = {
        "format": FORMAT,
        "made_with": dict(made_with),
        "now": None if now is None else [now.us, now.today, now.first, now.end],
        "numbers": memory.numbers,
        "oldest": memory.oldest,
        "ranks": memory.ranks,
        "behaviors": memory.vocabulary.behaviors,
        "files": files,
    }
    _replace(folder / INDEX, json.dumps(index, indent=1).encode())
    for path in folder.glob("*.arrow"):
        if _FILE.fullmatch(path.name) and path.name not in files.values():
            path.unlink(missing_ok=True)


def read(folder: Path, vocabulary: Vocabulary, made_with: Mapping[str, Any], nobody: Now) -> Memory:
    """Read what `write` wrote; `vocabulary` is a new one, and `nobody` any moment in the zone.

    Raises:
        BundleError: a file is missing, damaged or of another version.
        InvalidConfigError: the state was made with another catalogue, tokenizer or option.
    """
    try:
        index = json.loads((folder / INDEX).read_bytes())
        if index["format"] != FORMAT:
            raise BundleError(f"{folder} has format {index['format']}, but this version reads {FORMAT}; {_MEND}")
        _compare(folder, index["made_with"], made_with)
        tables = {name: _get(folder, name, index["files"][name]) for name in _NAMES}
        return _memory(index, tables, vocabulary, nobody)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, pa.ArrowException) as error:
        raise BundleError(f"{folder} holds no history state that can be read ({error!r}); {_MEND}") from error


def _compare(folder: Path, was: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    other = [name for name in asked if was.get(name) != asked[name]]
    if other:
        says = "; ".join(f"`{name}` was {was.get(name)!r} and is {asked[name]!r}" for name in other)
        raise InvalidConfigError(f"the state in {folder} was made otherwise: {says}; load it alike, or {_MEND}")


def _tables(memory: Memory) -> dict[str, pa.Table]:
    past, vocabulary = memory.past, memory.vocabulary
    cut = list(memory.cut.items())
    columns: dict[str, dict[str, Any]] = {
        "meetings": {"keys": past.meetings.keys, "rows": past.meetings.rows.astype(np.int64)},
        "users": {"name": pa.array(vocabulary.names, pa.large_string())},
        "closed": _of_part(memory.closed_part),
        "opened": _of_part(memory.open_part),
        "cut": {
            "user": np.array([user for user, _ in cut], np.int32),
            "text": pa.array([text for _, (text, *_) in cut], pa.large_binary()).cast(pa.large_string()),
            "receipt": _wide(np.array([receipt for _, (_, receipt, _) in cut], np.int64).reshape(-1, 7)),
            "layout": np.array([layout for _, (*_, layout) in cut], np.int8),
        },
        "things": {
            "kind": np.array([kind for kind, _ in vocabulary.keys], np.int8),
            "name": pa.array([name for _, name in vocabulary.keys], pa.large_string()),
        },
        "missing": {"item_id": pa.array(sorted(vocabulary.missing), pa.large_string())},
    }
    rows = (past.rows, past.all_late(), memory.open, memory.future)
    columns |= {name: part._asdict() for name, part in zip(_ROWS, rows, strict=True)}
    return {name: pa.table(table) for name, table in columns.items()}


def _of_part(part: Part) -> dict[str, Any]:
    texts = pa.array(part.texts, pa.large_binary()).cast(pa.large_string())
    return {
        "text": texts,
        "receipt": _wide(part.receipts),
        "followed": _wide(part.followed),
        "layout": part.layouts,
    }


def _wide(matrix: npt.NDArray[np.int64]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])


def _narrow(column: pa.ChunkedArray, width: int) -> npt.NDArray[np.int64]:
    return np.array(pc.list_flatten(column).to_numpy(), np.int64).reshape(-1, width)


def _memory(index: Mapping[str, Any], tables: Mapping[str, pa.Table], vocabulary: Vocabulary, nobody: Now) -> Memory:
    vocabulary.restore(
        tables["users"]["name"].to_pylist(),
        index["behaviors"],
        list(zip(tables["things"]["kind"].to_pylist(), tables["things"]["name"].to_pylist(), strict=True)),
        tables["missing"]["item_id"].to_pylist(),
    )
    rows = {name: Rows(*(tables[name][column].to_numpy() for column in Rows._fields)) for name in _ROWS}
    most = {"user": len(vocabulary.names), "behavior": len(vocabulary.behaviors)}
    most["thing"] = vocabulary.first + len(vocabulary.keys)
    for part in rows.values():
        for name, end in most.items():
            codes = getattr(part, name)
            if len(codes) and not 0 <= codes.min() <= codes.max() < end:
                raise ValueError(f"codes of {name} must lie below {end}")
    meetings = Meetings(tables["meetings"]["keys"].to_numpy(), tables["meetings"]["rows"].to_numpy())
    if len(meetings.rows) and not 0 <= meetings.rows.min() <= meetings.rows.max() < len(rows["past"].user):
        raise ValueError("first events must be among the past ones")
    parts = [_part(tables[name]) for name in ("closed", "opened")]
    if any(len(part.texts) not in (0, len(vocabulary.names)) for part in parts):
        raise ValueError("each part must have one row a user")
    now = index["now"]
    cut = tables["cut"]
    receipts = _narrow(cut["receipt"], 7).tolist()
    texts = cut["text"].cast(pa.large_binary()).to_pylist()
    cuts = map(Cut, texts, receipts, cut["layout"].to_pylist())
    return Memory(
        vocabulary,
        Past(rows["past"], vocabulary, nobody, meetings=meetings, late=rows["late"]),
        numbers=bool(index["numbers"]),
        now=None if now is None else Now(now[0], nobody.zone, *now[1:]),
        open=rows["open"],
        future=rows["future"],
        closed_part=parts[0],
        open_part=parts[1],
        cut=dict(zip(cut["user"].to_pylist(), cuts, strict=True)),
        oldest=int(index["oldest"]),
        ranks=bool(index["ranks"]),
    )


def _part(table: pa.Table) -> Part:
    part = Part(0)
    part.texts = table["text"].cast(pa.large_binary()).to_pylist()
    part.receipts, part.followed = _narrow(table["receipt"], 7), _narrow(table["followed"], 2)
    part.layouts = np.array(table["layout"].to_numpy(), np.int8)
    return part


def _put(folder: Path, name: str, table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue()
    file = f"{name}-{hashlib.sha256(data).hexdigest()}.arrow"
    if not (folder / file).exists():
        _replace(folder / file, data)
    return file


def _get(folder: Path, name: str, file: str) -> pa.Table:
    if not _FILE.fullmatch(file) or not file.startswith(f"{name}-"):
        raise ValueError(f"{file!r} is no name for the file of {name}")
    data = (folder / file).read_bytes()
    if hashlib.sha256(data).hexdigest() not in file:
        raise ValueError(f"{file} is damaged: its contents do not hash to its name")
    table = pa.ipc.open_file(pa.py_buffer(data)).read_all()
    # Checksums vouch for the bytes, this for their meaning: no offset of a hostile file may leave its buffer.
    table.validate(full=True)
    return table.combine_chunks()


def _replace(path: Path, data: Any) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
