"""The items and users tables: one row an id, the first one; and everyone whom the events name."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt.logs.columns import Rows, Source, clean, null_mask, ranks
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
    note(defects, source.name, kinds[0], null, ids)
    filled = np.flatnonzero(~null)
    _, first = np.unique(ranks(ids)[filled], return_index=True)
    again = ~null
    again[filled[first]] = False
    note(defects, source.name, kinds[1], again, ids)
    return np.asarray(filled[first], np.int64)


def read_items(source: Source, defects: list[Defect]) -> pa.Table:
    """Give `schema.ITEMS`, sorted by id; structural defects stay in `source`, the others go to `defects`."""
    source.miss("title")
    ids = source.text("item_id", required=True)
    columns = {name: clean(source.text(name)) for name in ("title", "category", "brand", "attributes", "description")}
    price = source.number("price")
    rows = pa.array(_first_by_id(source, ids, ("null_item_id", "duplicate_item"), defects))
    if source.has("title") and columns["title"].null_count == source.rows:
        source.defects.append("column `title` is empty in every row; give the items titles, or nothing can be written")
    odd = ~pc.fill_null(pc.and_(pc.is_finite(price), pc.greater_equal(price, 0.0)), True).to_numpy(False)
    numbers = rows.to_numpy()
    note(defects, "items", "unusable_price", odd[numbers], price.take(rows), numbers)
    titles = columns["title"].take(rows)
    note(defects, "items", "no_title", null_mask(titles), ids.take(rows), numbers)
    columns |= {"item_id": ids, "price": pc.if_else(pa.array(odd), None, price)}
    return pa.Table.from_arrays([columns[name].take(rows) for name in ITEMS.names], schema=ITEMS)


def read_users(source: Source, defects: list[Defect]) -> pa.Table:
    """Give `schema.USERS`, sorted by id."""
    ids, attributes = source.text("user_id", required=True), clean(source.text("attributes"))
    rows = pa.array(_first_by_id(source, ids, ("null_user_id", "duplicate_user"), defects))
    return pa.Table.from_arrays([ids.take(rows), attributes.take(rows)], schema=USERS)


def everyone(users: pa.Table | None, events: pa.Table, rows: Rows, defects: list[Defect]) -> tuple[pa.Table, int]:
    """The users table with everyone of the events; those that it lacked have no attributes."""
    ids = events.column("user_id").combine_chunks()
    if users is None:
        made = complete(pa.table({"user_id": pc.unique(ids).sort()}), USERS)
        return made, made.num_rows
    strange = ~pc.is_in(ids, users.column("user_id")).to_numpy(False)
    note(defects, "events", "user_not_in_users", strange, ids, rows)
    if not strange.any():
        return users, 0
    more = complete(pa.table({"user_id": pc.unique(ids.filter(pa.array(strange)))}), USERS)
    return pa.concat_tables([users, more]).sort_by("user_id").combine_chunks(), more.num_rows
