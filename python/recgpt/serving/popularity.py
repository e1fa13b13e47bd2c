"""What a user gets of whom nothing is known: the items that most people of the same segment took lately."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.errors import InvalidConfigError
from recgpt.schema import ArrowStream

POPULARITY = pa.schema(
    [
        pa.field("segment", pa.large_string()),
        pa.field("item_id", pa.large_string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)
"""`segment` is null for everybody. `score`: the share of the segment's active users that took the item, 0 to 1."""


def segment(attributes: str | None) -> str | None:
    """Name the segment of a user: the first field of the attributes.

    >>> segment("age 35-44; household of 3")
    'age 35-44'
    """
    return (attributes or "").split(";")[0].strip() or None


def popularity(
    events: ArrowStream,
    users: ArrowStream,
    *,
    now: datetime | None,
    segment: Callable[[str | None], str | None] = segment,
    days: int = 90,
    top: int = 200,
) -> pa.Table:
    """Count, overall and per segment, how many different users took each item in the days before `now`.

    Exposures and returns are no taking. In a log without times every event counts.

    Args:
        events: a table of `schema.EVENTS`.
        users: a table of `schema.USERS`.
        now: timezone-aware; only events strictly before it count. None for a log without times.
        segment: names a user's segment from the attributes; None leaves the user in the overall list alone.
        days: how far back.
        top: how many items a segment keeps.

    Returns:
        A table of `POPULARITY`: overall first, then segments by name; best items first, ties by item id.
    """
    if now is not None and now.tzinfo is None:
        raise InvalidConfigError(f"`now` must carry a time zone, but it is {now!r}; use datetime(..., tzinfo=UTC)")
    log = schema.table(events, schema.EVENTS, name="events")
    people = schema.table(users, schema.USERS, name="users")
    if now is not None:
        end, start = (pa.scalar(moment, schema.TIMESTAMP) for moment in (now, now - timedelta(days=days)))
        in_time = pc.and_(pc.less(log["timestamp"], end), pc.greater_equal(log["timestamp"], start))
        log = log.filter(pc.fill_null(in_time, True))
    taken = pc.invert(pc.is_in(log["behavior"], pa.array(["exposure", "return"], pa.large_string())))
    wanted = pc.and_(taken, pc.is_valid(log["item_id"]))
    pairs = log.filter(wanted).select(["user_id", "item_id"])
    pairs = pairs.group_by(["user_id", "item_id"]).aggregate([])
    names = pa.array([segment(text) for text in people["attributes"].to_pylist()], pa.large_string())
    rows = pc.index_in(pairs["user_id"], people["user_id"].combine_chunks())
    pairs = pairs.append_column("segment", pa.chunked_array([names]).take(rows))
    parts = [_top(pairs.set_column(2, "segment", pa.nulls(len(pairs), pa.large_string())), top)]
    pairs = pairs.filter(pc.is_valid(pairs["segment"]))
    parts += [
        _top(pairs.filter(pc.equal(pairs["segment"], name)), top) for name in sorted(set(names.to_pylist()) - {None})
    ]
    return pa.concat_tables(parts)


def _top(pairs: pa.Table, top: int) -> pa.Table:
    counted = pairs.group_by(["segment", "item_id"]).aggregate([("user_id", "count")])
    counted = counted.sort_by([("user_id_count", "descending"), ("item_id", "ascending")]).slice(0, top)
    people = max(pc.count_distinct(pairs["user_id"]).as_py(), 1)
    score = pc.divide(counted["user_id_count"].cast(pa.float32()), pa.scalar(people, pa.float32()))
    return pa.Table.from_arrays([counted["segment"], counted["item_id"], score], schema=POPULARITY)
