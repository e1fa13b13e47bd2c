"""The items and users tables: one row an id, the first one; and everyone whom the events name."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt.logs.columns import Mask, Rows, Source, clean, null_mask, ranks
from recgpt.logs.report import Defect, note
from recgpt.schema import ITEMS, USERS


def complete(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Add the columns that a schema has and a table lacks, as nulls."""
    arrays = [
        table.column(field.name) if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _first_by_id(source: Source, ids: pa.Array, kinds: tuple[str, str], defects: list[Defect]) -> Rows:
    """Rows of the first of each id, sorted by id; null ids and later rows are counted."""
    null = null_mask(ids)
    if source.broken.isdisjoint(("item_id", "user_id")):
        note(defects, source.name, kinds[0], null, ids)
    filled = np.flatnonzero(~null)
    _, first = np.unique(ranks(ids)[filled], return_index=True)
    again = ~null
    again[filled[first]] = False
    note(defects, source.name, kinds[1], again, ids)
    return np.asarray(filled[first], np.int64)


def read_items(source: Source, defects: list[Defect]) -> pa.Table:
    """Give `schema.ITEMS`, sorted by id; errors stay in `source`, what is only counted goes to `defects`."""
    source.miss("title")
    ids = source.text("item_id", required=True)
    columns = {name: clean(source.text(name)) for name in ("title", "category", "brand", "attributes", "description")}
    price = source.number("price")
    rows = pa.array(_first_by_id(source, ids, ("null_item_id", "duplicate_item"), defects))
    if source.has("title") and "title" not in source.broken and columns["title"].null_count == source.rows:
        source.refuse("column `title` is empty in every row; give the items titles, or nothing can be written", "title")
    odd = ~pc.fill_null(pc.and_(pc.is_finite(price), pc.greater_equal(price, 0.0)), True).to_numpy(False)
    numbers = rows.to_numpy()
    note(defects, "items", "unusable_price", odd[numbers], price.take(rows), numbers)
    if "title" not in source.broken:
        note(defects, "items", "no_title", null_mask(columns["title"].take(rows)), ids.take(rows), numbers)
    columns |= {"item_id": ids, "price": pc.if_else(pa.array(odd), None, price)}
    return pa.Table.from_arrays([columns[name].take(rows) for name in ITEMS.names], schema=ITEMS)


def read_users(source: Source, defects: list[Defect]) -> pa.Table:
    """Give `schema.USERS`, sorted by id."""
    ids, attributes = source.text("user_id", required=True), clean(source.text("attributes"))
    rows = pa.array(_first_by_id(source, ids, ("null_user_id", "duplicate_user"), defects))
    return pa.Table.from_arrays([ids.take(rows), attributes.take(rows)], schema=USERS)


def strangers(ids: pa.Array, known: pa.Table, key: str, rows: Rows, defects: list[Defect]) -> Mask:
    """Events whose item or user the table of it does not have: `(n,) bool`; counted by the rows that came in."""
    strange: Mask = ~null_mask(ids) & ~pc.is_in(ids, known.column(key)).to_numpy(False)
    note(defects, "events", "item_not_in_items" if key == "item_id" else "user_not_in_users", strange, ids, rows)
    return strange


def with_everyone(users: pa.Table, missing: pa.Array) -> pa.Table:
    """The users table with everyone of the events; those that it lacked have no attributes."""
    more = complete(pa.table({"user_id": pc.unique(missing)}), USERS)
    return pa.concat_tables([users, more]).sort_by("user_id").combine_chunks()
