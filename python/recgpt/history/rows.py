"""Histories as numbers instead of text: what happened to which item in which bucket, for training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import _core, schema
from recgpt.errors import EmptyLogError, InvalidConfigError
from recgpt.history.catalogue import Catalogue
from recgpt.history.compression import check_now, check_options, read_events
from recgpt.history.crossing import cross
from recgpt.history.days import EPOCH


def rows(
    kept: schema.ArrowStream,
    catalogue: Catalogue,
    *,
    now: datetime,
    keep: Sequence[str] | None = None,
    time_zone: str = "UTC",
    stable: bool = False,
    threads: int | None = None,
) -> pa.Table:
    """Group each user's reliable events as `compress` does, without writing a text or counting a token.

    One row an item and bucket: which behaviors it met there, as bits. A user's rows stand by bucket, oldest first, and
    in a bucket in the order of their first events. Queries and items without a brief have no row in the catalogue and
    are left out. The columns are the kernel's own memory.

    Args:
        kept: reliable events, as in `compress`.
        catalogue: of the briefs; `item` is a row of its `ids`.
        now: time-zone-aware; an event at or after it is not seen.
        keep: behaviors to read, for example `schema.RELIABLE`. None for all.
        time_zone: IANA name of the zone in which days begin.
        stable: choose buckets as `compress` does with `stable`.
        threads: None for one a core.

    Returns:
        `schema.HISTORY_ROWS`, by user_id as in `compress`. Metadata: `recgpt.behaviors`, a JSON list in the order of
        the bits.

    Raises:
        EmptyLogError: no event about an item of the catalogue lies before `now`.
        InvalidConfigError: `catalogue`, `time_zone` or `threads` does not fit.
        InvalidTableError: a table does not fit, or a behavior has a separator in its name.
        NaiveTimestampError: `now` or the timestamps carry no time zone.
        TimestampRangeError: a timestamp lies outside the years 1970 to 9999, or more than 136 years before `now`.
    """
    if not isinstance(catalogue, Catalogue):
        raise InvalidConfigError(
            "`catalogue` must be what history.catalogue(briefs, tokenizer=...) gave, but it is of type "
            f"{type(catalogue).__name__}"
        )
    zone = check_options(None, "cheapest", time_zone, threads, keep)
    check_now(now, zone)
    log = cross(read_events(kept, "kept"), catalogue, now=now, zone=zone, keep=keep)
    labels, chunks = _core.history_rows(
        log.batches,
        log.meanings,
        log.nothing,
        items=len(catalogue.ids),
        entries=log.nothing + 1,
        behaviors=len(log.behaviors),
        clock=log.clock,
        days=log.days,
        today=(now.astimezone(zone).date() - EPOCH.date()).days,
        stable=stable,
        threads=threads or 0,
    )
    if not chunks:
        raise EmptyLogError(
            f"`kept` must hold reliable events about items of the catalogue before now ({now}), but it has none; check "
            "the ids and the behavior names"
        )
    names = pa.array(labels, pa.large_string())
    fields = schema.HISTORY_ROWS.field("rows").type.value_field.type
    lists = []
    for _, offsets, buckets, behaviors, items in chunks:
        bucket = pa.DictionaryArray.from_arrays(pa.array(buckets), names)
        cells = pa.StructArray.from_arrays([bucket, pa.array(behaviors), pa.array(items)], fields=list(fields))
        lists.append(pa.LargeListArray.from_arrays(pa.array(offsets), cells))
    code = pa.array(np.concatenate([users for users, *_ in chunks]))
    ids = log.users.take(code) if isinstance(log.users, pa.Array) else pc.add(code, log.users).cast(pa.large_string())
    table = pa.Table.from_arrays([ids, pa.chunked_array(lists)], schema=schema.HISTORY_ROWS)
    return table.replace_schema_metadata({"recgpt.behaviors": json.dumps(log.behaviors)})
