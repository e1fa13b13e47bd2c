"""DuckDB in three forms; the tables are its own, filled before the clock starts, and the threads are set."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from .rules import BUCKET_OF_DAY, LABELS, RELIABLE, masks
from .workload import DAY_US, NOW_US, START_US, Workload

KEPT = f"""
SELECT user_id, item, behavior, bucket FROM events JOIN days ON day = (time - {START_US}) // {DAY_US}
WHERE behavior < {RELIABLE} AND time < {NOW_US}
"""

MASK = f"""
WITH kept AS ({KEPT}),
boxes AS (SELECT user_id, item, bucket, bit_or((1 << behavior)::UTINYINT) AS mask FROM kept GROUP BY ALL),
sets AS (SELECT user_id, item, string_agg(label, ', ' ORDER BY bucket) AS contexts
         FROM boxes JOIN labels USING (bucket, mask) GROUP BY user_id, item),
lines AS (SELECT user_id, contexts || ' | ' || string_agg(text, ', ') AS line
          FROM sets JOIN texts USING (item) GROUP BY user_id, contexts)
SELECT user_id, string_agg(line, chr(10)) AS text FROM lines GROUP BY user_id
"""
"""A bit a behavior, or-ed by bucket; the text of the set is the key."""

LISTS = f"""
WITH kept AS ({KEPT}),
boxes AS (SELECT user_id, item, bucket, bit_or((1 << behavior)::UTINYINT) AS mask FROM kept GROUP BY ALL),
sets AS (SELECT user_id, item, list_sort(list((bucket << 6 | mask)::USMALLINT)) AS contexts
         FROM boxes GROUP BY user_id, item),
lines AS (SELECT user_id, contexts, string_agg(text, ', ') AS items
          FROM sets JOIN texts USING (item) GROUP BY user_id, contexts),
named AS (SELECT contexts, string_agg(label, ', ' ORDER BY code) AS label
          FROM (SELECT contexts, unnest(contexts) AS code FROM (SELECT DISTINCT contexts FROM lines))
          JOIN labels USING (code)
          GROUP BY contexts)
SELECT user_id, string_agg(label || ' | ' || items, chr(10)) AS text
FROM lines JOIN named USING (contexts) GROUP BY user_id
"""
"""Lists of contexts as keys; each distinct list is written once for all users."""

SUMS = f"""
WITH kept AS ({KEPT}),
boxes AS (SELECT user_id, item, bucket, bit_or((1 << behavior)::UTINYINT) AS mask FROM kept GROUP BY ALL),
sets AS (SELECT user_id, item, sum(weight) AS weight
         FROM boxes JOIN labels USING (bucket, mask) GROUP BY user_id, item),
lines AS (SELECT user_id, weight, string_agg(text, ', ') AS items, any_value(item) AS item
          FROM sets JOIN texts USING (item) GROUP BY user_id, weight),
named AS (SELECT user_id, item, string_agg(label, ', ' ORDER BY bucket) AS label
          FROM boxes SEMI JOIN lines USING (user_id, item) JOIN labels USING (bucket, mask) GROUP BY user_id, item)
SELECT user_id, string_agg(label || ' | ' || items, chr(10)) AS text
FROM lines JOIN named USING (user_id, item) GROUP BY user_id
"""
"""A sum of random weights as key; the contexts of one item a line are written."""

FORMS = {"mask": MASK, "lists": LISTS, "sums": SUMS}


@dataclass
class Prepared:
    """A connection with the tables in it."""

    database: duckdb.DuckDBPyConnection


def prepare(work: Workload, threads: int) -> Prepared:
    database = duckdb.connect(config={"threads": threads, "preserve_insertion_order": False})
    events = pa.table(
        {
            "user_id": work.events["user_id"],
            "time": work.events["timestamp"].cast(pa.int64()),
            "behavior": pa.array(work.events["behavior"].combine_chunks().indices.to_numpy().astype(np.uint8)),
            "item": work.events["item_id"],
        }
    )
    texts = pa.table({"item": pa.array(np.arange(len(work.texts), dtype=np.int32)), "text": work.texts})
    days = pa.table({"day": pa.array(np.arange(len(BUCKET_OF_DAY), dtype=np.int64)), "bucket": BUCKET_OF_DAY})
    code = np.arange(len(LABELS) << RELIABLE)
    labels = pa.table(
        {
            "bucket": (code >> RELIABLE).astype(np.uint16),
            "mask": (code & 63).astype(np.uint8),
            "code": code.astype(np.uint16),
            "label": masks(),
            "weight": np.random.default_rng(1).integers(0, 2**62, len(code)),
        }
    )
    for name, table in (("events", events), ("texts", texts), ("days", days), ("labels", labels)):
        database.register("given", table)
        database.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
        database.unregister("given")
    return Prepared(database)


def compress(data: Prepared, form: str) -> pa.Table:
    return data.database.sql(FORMS[form]).to_arrow_table()


def pairs(result: pa.Table) -> list[tuple[int, str]]:
    return list(zip(result["user_id"].to_pylist(), result["text"].to_pylist(), strict=True))
