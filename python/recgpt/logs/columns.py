"""Columns as shops write them -> columns as recgpt wants them; what cannot be is named with row, value and fix."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import text
from recgpt.errors import InputError, InvalidTableError
from recgpt.schema import ArrowStream

Mask = npt.NDArray[np.bool_]
"""`(n,) bool`."""
Rows = npt.NDArray[np.int64]
"""Row numbers."""
_SHOWN = 40
"""Characters of a value that an error or a report shows."""


def show(value: object) -> str:
    """Quote a value for people: cleaned, short."""
    return repr(text.clean(str(value), limit=_SHOWN)) if value is not None else "null"


def plain(column: pa.ChunkedArray) -> pa.Array:
    """One chunk without dictionary; string layouts become LargeUtf8."""
    if pa.types.is_dictionary(column.type):
        # Arrow has no cast from a dictionary of views, which is what polars categoricals are; `take` does the same.
        chunks = [_large(chunk.dictionary).take(chunk.indices) for chunk in column.chunks]
        column = pa.chunked_array(chunks, _large(pa.nulls(0, column.type.value_type)).type)
    merged = _large(column).combine_chunks()
    return merged if isinstance(merged, pa.Array) else pa.concat_arrays(merged.chunks)


def _large(values: Any) -> Any:
    """Strings of any layout -> LargeUtf8; an array gives an array, a chunked array a chunked one."""
    if pa.types.is_string_view(values.type):
        values = values.cast(pa.string())
    return values.cast(pa.large_string()) if pa.types.is_string(values.type) else values


def clean(values: pa.Array) -> pa.Array:
    """Clean the distinct texts only; empty ones become null."""
    encoded = values.dictionary_encode()
    words = [text.clean(word) or None for word in encoded.dictionary.to_pylist()]
    return pa.array(words, pa.large_string()).take(encoded.indices)


def _python(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):  # nanoseconds, and years that Python's datetime does not have
        return scalar.cast(pa.int64()).as_py()


class Source:
    """A table that came in. Readers collect what makes it unusable, so that all of it is named at once."""

    def __init__(self, data: ArrowStream, name: str) -> None:
        if not hasattr(data, "__arrow_c_stream__"):
            raise InvalidTableError(
                f"`{name}` must be a table with __arrow_c_stream__ (pyarrow, polars, pandas, duckdb), "
                f"but it is a {type(data).__name__}; convert it, for example with pyarrow.table(...)"
            )
        self.name = name
        self.table: pa.Table = data if isinstance(data, pa.Table) else pa.table(data)
        self.errors: list[InputError] = []
        self.broken: set[str] = set()
        """Columns with an error of their own: nothing more can be said about their values."""
        try:
            # Text that is not UTF-8 or offsets outside their buffer would otherwise surface in a kernel.
            self.table.validate(full=True)
        except (pa.ArrowInvalid, pa.ArrowIndexError) as error:
            raise InvalidTableError(
                f"`{name}` holds damaged Arrow data: {error}; write it again, with text as UTF-8"
            ) from error
        names = self.table.column_names
        for twice in sorted({column for column in names if names.count(column) > 1}):
            self.refuse(f"column `{twice}` stands there twice; rename one", twice)
        self.rows = self.table.num_rows

    def has(self, column: str) -> bool:
        """Whether the column is there, once."""
        return bool(self.table.column_names.count(column) == 1)

    def refuse(self, defect: str, *columns: str, kind: type[InputError] = InvalidTableError) -> None:
        """Note an error of the table, and of the columns that it concerns."""
        self.errors.append(kind(f"`{self.name}`: {defect}"))
        self.broken.update(columns)

    def miss(self, column: str) -> None:
        """Name a missing column."""
        if column not in self.table.column_names:
            came = ", ".join(self.table.column_names) or "none"
            self.refuse(f"column `{column}` is missing (the columns are: {came}); add or rename it", column)

    def wrong(self, column: str, wanted: str, fix: str, row: int | None = None, value: object = None) -> None:
        """Name a column of a wrong type, with a row and a value where there is one."""
        if row is None:
            filled = np.flatnonzero(~null_mask(self.table.column(column).combine_chunks()))
            row = int(filled[0]) if len(filled) else None
            value = _python(self.table.column(column)[row]) if row is not None else None
        where = f": row {row} holds {show(value)}" if row is not None else ""
        kind = self.table.column(column).type
        self.refuse(f"column `{column}` must be {wanted}, but it is {kind}{where}; {fix}", column)

    def raw(self, column: str) -> pa.Array:
        """The column in one chunk without dictionary; nulls if it is absent."""
        return plain(self.table.column(column)) if self.has(column) else pa.nulls(self.rows)

    def text(self, column: str, *, required: bool = False) -> pa.Array:
        """Ids and texts: `(rows,) large_string`; integers become text, empty texts become null."""
        if required:
            self.miss(column)
        values = self.raw(column)
        kind = values.type
        if pa.types.is_null(kind):
            return values.cast(pa.large_string())
        if pa.types.is_floating(kind):
            # A data frame turns integer ids into floats as soon as one is missing: 17850.0 means 17850.
            values = pc.if_else(pc.is_nan(values), None, values)
            odd = np.flatnonzero(pc.fill_null(pc.not_equal(pc.floor(values), values), False).to_numpy(False))
            if len(odd):
                row = int(odd[0])
                self.wrong(column, "text or whole numbers", "cast it to text", row, values[row].as_py())
                return pa.nulls(self.rows, pa.large_string())
            try:
                values = values.cast(pa.int64())
            except pa.ArrowInvalid:
                self.wrong(column, "text or whole numbers", "cast it to text; floats lose digits from 2^53 on")
                return pa.nulls(self.rows, pa.large_string())
        elif not (pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
            self.wrong(column, "text or whole numbers", "cast it to text")
            return pa.nulls(self.rows, pa.large_string())
        values = values.cast(pa.large_string())
        return pc.if_else(pc.equal(values, ""), None, values)

    def number(self, column: str) -> pa.Array:
        """Numbers: `(rows,) float64`; text that holds numbers is read."""
        values = self.raw(column)
        kind = values.type
        if pa.types.is_large_string(kind):
            encoded = pc.utf8_trim_whitespace(values).dictionary_encode()
            parsed: list[float | None] = []
            bad: set[int] = set()
            for place, word in enumerate(encoded.dictionary.to_pylist()):
                try:
                    parsed.append(float(word) if word else None)
                except ValueError:
                    parsed.append(None)
                    bad.add(place)
            if bad:
                places = encoded.indices.fill_null(-1).to_numpy(False)
                row = int(np.flatnonzero(np.isin(places, list(bad)))[0])
                self.wrong(column, "numbers", "write plain numbers such as 12.5", row, values[row].as_py())
            return pa.array(parsed, pa.float64()).take(encoded.indices)
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return values.cast(pa.float64(), safe=False)
        if not pa.types.is_null(kind):
            self.wrong(column, "numbers", "cast it to a number type")
        return pa.nulls(self.rows, pa.float64())

    def integer(self, column: str) -> pa.Array:
        """Whole numbers: `(rows,) int64`."""
        values = self.raw(column)
        if pa.types.is_large_string(values.type):
            values = self.number(column)
        kind = values.type
        if pa.types.is_floating(kind):
            values = pc.if_else(pc.is_nan(values), None, values)
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind):
            try:
                return values.cast(pa.int64())
            except pa.ArrowInvalid:
                numbers = values.to_pylist()
                row = next(i for i, n in enumerate(numbers) if n is not None and (n % 1 or not -(2**63) <= n < 2**63))
                self.wrong(column, "whole numbers", "round it", row, numbers[row])
                return pa.nulls(self.rows, pa.int64())
        self.wrong(column, "whole numbers", "cast it to int64")
        return pa.nulls(self.rows, pa.int64())


def null_mask(values: pa.Array) -> npt.NDArray[np.bool_]:
    """Where a value is missing: `(n,) bool`."""
    mask: npt.NDArray[np.bool_] = values.is_null().to_numpy(zero_copy_only=False)
    return mask


_SORTABLE = (
    *(pa.types.is_boolean, pa.types.is_integer, pa.types.is_float32, pa.types.is_float64, pa.types.is_decimal),
    *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary),
    *(pa.types.is_date, pa.types.is_time, pa.types.is_timestamp, pa.types.is_duration),
)


def sortable(kind: pa.DataType) -> bool:
    """Whether Arrow can rank the values of a type, which sorting and finding duplicates need."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(fits(kind) for fits in _SORTABLE)


def ranks(values: pa.Array) -> npt.NDArray[np.int64]:
    """Numbers that sort and compare as the values do, nulls last: `(n,) int64`."""
    if pa.types.is_integer(values.type) or pa.types.is_timestamp(values.type):
        last = np.iinfo(np.int64).max
        if not pa.types.is_uint64(values.type):
            numbers: npt.NDArray[np.int64] = values.cast(pa.int64()).fill_null(last).to_numpy(zero_copy_only=False)
            return numbers
    encoded = values.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    if not len(order):
        return np.zeros(len(codes), np.int64)
    out: npt.NDArray[np.int64] = np.where(codes < 0, len(order), place[codes])
    return out
