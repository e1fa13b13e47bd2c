"""The words of recgpt: column names, id types, table schemas, and the one door through which tables come in."""

from __future__ import annotations

from typing import Any, NewType, Protocol, runtime_checkable

import pyarrow as pa

from recgpt.errors import InvalidTableError, NaiveTimestampError

UserId = NewType("UserId", str)
"""A raw user id as the shop writes it. Never a row number."""
ItemId = NewType("ItemId", str)
"""A raw item id as the shop writes it. Never a row number."""
UserRow = NewType("UserRow", int)
"""A row number in a users table."""
ItemRow = NewType("ItemRow", int)
"""A row number in an items table."""

RELIABLE = ("favorite", "purchase", "cart", "detail_view", "review_read", "search")
"""The paper's reliable behaviors (section 2.1.1); the order is the order inside a history line."""
BEHAVIORS = (*RELIABLE, "click", "exposure", "return")
"""Every behavior that recgpt knows; users map their own event names to these or add reliable ones of their own."""

TIMESTAMP = pa.timestamp("us", tz="UTC")


class _Field:
    """Shorthands that keep the schemas below readable."""

    text = pa.large_string()
    count = pa.int64()


EVENTS = pa.schema(
    [
        pa.field("user_id", _Field.text, nullable=False),
        pa.field("item_id", _Field.text),
        pa.field("behavior", _Field.text, nullable=False),
        pa.field("timestamp", TIMESTAMP),
        pa.field("query", _Field.text),
        pa.field("position", pa.int64()),
    ]
)
"""One action. `timestamp` is UTC; a log without times has nulls there and gives `position`, the order."""

ITEMS = pa.schema(
    [
        pa.field("item_id", _Field.text, nullable=False),
        pa.field("title", _Field.text),
        pa.field("category", _Field.text),
        pa.field("brand", _Field.text),
        pa.field("price", pa.float64()),
        pa.field("attributes", _Field.text),
        pa.field("description", _Field.text),
    ]
)
"""The catalogue. `attributes` is free text such as `20 OZ; organic`; `price` is in the shop's currency."""

USERS = pa.schema([pa.field("user_id", _Field.text, nullable=False), pa.field("attributes", _Field.text)])
"""Who acts. `attributes` is free text such as `age 35-44; household of 3`."""

REVIEWS = pa.schema(
    [
        pa.field("user_id", _Field.text, nullable=False),
        pa.field("item_id", _Field.text, nullable=False),
        pa.field("timestamp", TIMESTAMP),
        pa.field("text", _Field.text),
        pa.field("rating", pa.float64()),
    ]
)

BRIEFS = pa.schema(
    [
        pa.field("item_id", _Field.text, nullable=False),
        pa.field("brief", _Field.text, nullable=False),
        pa.field("tokens", pa.uint32(), nullable=False),
        pa.field("category", _Field.text),
        pa.field("source", _Field.text),
    ]
)
"""Item-level compression (section 2.1.1): one short text an item, without line breaks or separators.

`category` is what a tight budget folds the item into; `source` is `rule` (extractive) or `generate` (LLM).
"""

ITEM_TAGS = pa.schema([pa.field("item_id", _Field.text, nullable=False), pa.field("tag", _Field.text, nullable=False)])
"""An item's own "modifier + core word" tag, brand-free: positives of L_tag and the vocabulary of `rank`."""

RECEIPT = pa.struct(
    [
        pa.field("tokens_in", _Field.count),
        pa.field("tokens_out", _Field.count),
        pa.field("events", _Field.count),
        pa.field("full", _Field.count),
        pa.field("coarsened", _Field.count),
        pa.field("folded", _Field.count),
        pa.field("dropped", _Field.count),
        pa.field("layout", _Field.text),
    ]
)
"""What became of a user's reliable events: full + coarsened + folded + dropped = events."""

HISTORY = pa.schema(
    [
        pa.field("user_id", _Field.text, nullable=False),
        pa.field("text", _Field.text, nullable=False),
        pa.field("tokens", pa.uint32(), nullable=False),
        pa.field("receipt", RECEIPT, nullable=False),
    ]
)

HISTORY_ROWS = pa.schema(
    [
        pa.field("user_id", _Field.text, nullable=False),
        pa.field(
            "rows",
            pa.large_list(
                pa.struct(
                    [
                        pa.field("bucket", pa.dictionary(pa.uint16(), _Field.text), nullable=False),
                        pa.field("behaviors", pa.uint32(), nullable=False),
                        pa.field("item", pa.int32(), nullable=False),
                    ]
                )
            ),
            nullable=False,
        ),
    ]
)
"""A history without text. `bucket`: the long label, codes ascend with time; `behaviors`: a bit each, named in the
metadata under `recgpt.behaviors`; `item`: a row of the catalogue's `ids`."""

INTERESTS = pa.schema(
    [
        pa.field("user_id", _Field.text, nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("interest", _Field.text, nullable=False),
        pa.field("pool_id", _Field.text),
        pa.field("listed", pa.bool_(), nullable=False),
        pa.field("stage", _Field.text, nullable=False),
        pa.field("reason", _Field.text),
        pa.field("evidence", pa.list_(pa.int32()), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("source", _Field.text, nullable=False),
        pa.field("as_of", TIMESTAMP),
    ]
)
"""`listed`: from the preset pool, else extended. `stage`: `long-term` or `short-term`. `evidence`: history row ids."""

TAGS = pa.schema(
    [
        pa.field("user_id", _Field.text, nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("tag", _Field.text, nullable=False),
        pa.field("interest", _Field.text),
        pa.field("reason", _Field.text),
        pa.field("category", _Field.text),
        pa.field("score", pa.float64()),
        pa.field("source", _Field.text, nullable=False),
        pa.field("as_of", TIMESTAMP),
    ]
)

EXPLANATIONS = pa.schema(
    [
        pa.field("interest", _Field.text),
        pa.field("item_id", _Field.text, nullable=False),
        pa.field("text", _Field.text, nullable=False),
        pa.field("source", _Field.text, nullable=False),
        pa.field("valid_until", TIMESTAMP),
    ]
)
"""The interest-item-explanation lookup table (section 2.4.2); `interest` is null for an item's interest-free text."""

REJECTIONS = pa.schema(
    [
        pa.field("user_id", _Field.text),
        pa.field("stage", _Field.text, nullable=False),
        pa.field("text", _Field.text),
        pa.field("status", _Field.text, nullable=False),
        pa.field("reason", _Field.text, nullable=False),
        pa.field("raw", _Field.text),
    ]
)
"""What an LLM stage did not let through. `status`: `rejected` (a rule said no) or `unscored` (no usable answer)."""

VERDICTS = pa.schema(
    [
        pa.field("sample", _Field.text, nullable=False),
        pa.field("task", _Field.text, nullable=False),
        pa.field("user_id", _Field.text),
        pa.field("criterion", _Field.text, nullable=False),
        pa.field("decided_by", _Field.text, nullable=False),
        pa.field("verdict", _Field.text),
        pa.field("score", pa.float64()),
        pa.field("passed", pa.bool_()),
        pa.field("reason", _Field.text),
        pa.field("as_of", TIMESTAMP),
    ]
)
"""What the judge said. `sample`: content hash. `decided_by`: `rule`, `llm` or `people`. `verdict`: null where it is
unscored. `reason`: why it fails or is unscored, or the model's own sentence where that was asked for."""

LABELS = pa.schema(
    [
        pa.field("sample", _Field.text, nullable=False),
        pa.field("task", _Field.text, nullable=False),
        pa.field("criterion", _Field.text, nullable=False),
        pa.field("annotator", _Field.text, nullable=False),
        pa.field("verdict", _Field.text, nullable=False),
        pa.field("note", _Field.text, nullable=False),
        pa.field("seconds", pa.float64()),
        pa.field("round", pa.int32(), nullable=False),
        pa.field("source", _Field.text, nullable=False),
        pa.field("time", TIMESTAMP, nullable=False),
    ]
)
"""What people said. `criterion`: its key, such as `tags/relevance`. `source`: where the sample came from."""

SOURCES = ("generate", "rank", "rule", "teacher")
"""Who made a row. Nothing that a rule made is ever presented as the model's words."""


@runtime_checkable
class ArrowStream(Protocol):
    """Any table that speaks the Arrow PyCapsule protocol: pyarrow, polars, pandas, duckdb."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the table as an Arrow C stream."""


def table(data: ArrowStream, schema: pa.Schema, *, name: str) -> pa.Table:
    """Bring any Arrow-capable table to one of recgpt's schemas.

    Missing nullable columns become nulls, extra columns are left out, string layouts (Utf8, LargeUtf8, Utf8View and
    dictionaries of each) become LargeUtf8. Values are not judged here: `recgpt.logs` does that with a report.

    Raises:
        InvalidTableError: naming every missing column and every column whose type cannot become the wanted one.
        NaiveTimestampError: times without a zone.
    """
    if not hasattr(data, "__arrow_c_stream__"):
        raise InvalidTableError(
            f"`{name}` must be a table with __arrow_c_stream__ (pyarrow, polars, pandas, duckdb), "
            f"but it is a {type(data).__name__}; convert it, for example with pyarrow.table(...)"
        )
    came: pa.Table = data if isinstance(data, pa.Table) else pa.table(data)
    columns: list[pa.ChunkedArray] = []
    defects: list[str] = []
    naive = ""
    for field in schema:
        if field.name not in came.column_names:
            if field.nullable:
                columns.append(pa.chunked_array([pa.nulls(came.num_rows, field.type)]))
            else:
                defects.append(f"column `{field.name}` is missing (it has {', '.join(came.column_names) or 'none'})")
            continue
        if (times := came.column_names.count(field.name)) > 1:
            defects.append(f"column `{field.name}` comes {times} times; keep or rename all but one")
            continue
        column = came.column(field.name)
        if pa.types.is_timestamp(column.type) and column.type.tz is None and column.null_count < len(column):
            # A cast would read local times as UTC without a word.
            naive = f"`{name}.{field.name}` must carry a time zone, but it is {column.type}"
        try:
            columns.append(cast(column, field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            defects.append(f"column `{field.name}` must be {field.type}, but it is {column.type}: {error}")
            continue
        if (wrong := _not_text(columns[-1])) is not None:
            defects.append(
                f"column `{field.name}` must be UTF-8, but holds {wrong[:40]!r}; decode it before, for example "
                "with bytes.decode(..., errors='replace')"
            )
        if not field.nullable and columns[-1].null_count:
            defects.append(f"column `{field.name}` has {columns[-1].null_count} nulls; fill or remove those rows")
    if defects:
        raise InvalidTableError(f"`{name}` is not usable: " + "; ".join(defects))
    if naive:
        raise NaiveTimestampError(f"{naive}; state one with recgpt.logs.normalize(..., time_zone=...)")
    return pa.Table.from_arrays(columns, schema=schema)


def _not_text(column: pa.ChunkedArray) -> bytes | None:
    """Give the first value of a column of texts, or of its dictionaries, that is no text."""
    of_dictionary = pa.types.is_dictionary(column.type)
    if (column.type.value_type if of_dictionary else column.type) not in (pa.string(), pa.large_string()):
        return None
    for chunk in column.chunks:
        values = chunk.dictionary if of_dictionary else chunk
        try:
            values.validate(full=True)
        except pa.ArrowInvalid:
            for value in values.cast(pa.large_binary()).to_pylist():
                if value is not None and value.decode(errors="ignore").encode() != value:
                    return bytes(value)
            raise
    return None


def cast(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """Bring a column to a type, whatever the layout of its strings."""
    if column.type == wanted:
        return column
    if pa.types.is_dictionary(column.type):
        # pyarrow cannot cast dictionaries of views (polars categoricals), so each chunk looks its values up.
        # Nor can it take from views by all widths of index.
        views = pa.types.is_string_view(column.type.value_type)
        chunks = [
            (chunk.dictionary.cast(pa.large_string()) if views else chunk.dictionary).take(chunk.indices)
            for chunk in column.chunks
        ]
        column = pa.chunked_array(chunks, type=pa.large_string() if views else column.type.value_type)
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column.cast(wanted)


def rows(records: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Make a table of one of recgpt's schemas from Python records; small results only."""
    return pa.Table.from_pylist(records, schema=schema)


def whole_numbers(ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray | None:
    """Read ids as whole numbers if there are any and all of them are, written in the plainest way: `007` is not 7."""
    try:
        numbers = ids.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    return numbers if len(ids) and numbers.cast(pa.large_string()).equals(ids) else None
