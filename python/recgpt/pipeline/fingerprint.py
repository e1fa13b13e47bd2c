"""Content hashes of tables: a result is reused only for exactly the input it was made from."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc


class _Sink:
    """A file that keeps nothing but the hash of what is written to it."""

    closed = False

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def fingerprint(*parts: pa.Table | str) -> str:
    """Hash tables and texts by content: 16 hexadecimal digits, independent of how a table is cut into chunks."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            total.update(part.encode())
            continue
        sink = _Sink()
        columns = {name: column for name in part.column_names for name, column in _defined(name, part[name])}
        whole = pa.table(columns).combine_chunks()
        with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), whole.schema) as writer:
            writer.write_table(whole)
        total.update(sink.hash.digest())
    return total.hexdigest()[:16]


def _defined(name: str, column: pa.ChunkedArray) -> list[tuple[str, pa.ChunkedArray]]:
    """Give a column as values without nulls and the places of the nulls: what memory holds under a null is chance."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    zero = pa.scalar("" if text else 0).cast(column.type)
    return [(name, pc.fill_null(column, zero)), (f"{name} is null", pc.is_null(column).cast(pa.uint8()))]
