"""The log as tags: who engaged with which tag how long ago, and which categories are in season.

Reads `events` (plain clicks included), never the compressed history; only events before `now` count.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.errors import NaiveTimestampError
from recgpt.tags.config import Config
from recgpt.tags.words import split, stems

NOT_ENGAGED = ("exposure", "return")
"""Behaviors that are no engagement: being shown an item, and giving one back."""
DONE = ("purchase", "cart", "favorite", "search", "detail_view", "review_read", "click")
"""What a user may have done with a tag, the most telling first; a shop's own behaviors come after them."""
_DAY = 86_400_000_000


@dataclass(frozen=True)
class Engagement:
    """Distinct (user, tag) pairs of a log with recency, sorted by user then tag; and the tags' own facts."""

    users: list[str]
    """User ids, sorted; row number = code."""
    tags: list[str]
    """Catalogue tags, sorted; row number = code."""
    categories: list[str]
    """Catalogue categories, sorted; row number = code."""
    tag_category: npt.NDArray[np.int32]
    """(n_tags,): the category of most of a tag's items; -1 when none of them has one."""
    user: npt.NDArray[np.int32]
    """(n_pairs,) user codes."""
    tag: npt.NDArray[np.int32]
    """(n_pairs,) tag codes."""
    weight: npt.NDArray[np.float32]
    """(n_pairs,): the sum over a pair's events of 0.5 ** (age / half-life)."""
    age: npt.NDArray[np.float64]
    """(n_pairs,): days since the latest event. A log without times counts one day an event."""
    done: npt.NDArray[np.int8]
    """(n_pairs,): place in `DONE` of the most telling thing that the user did; len(DONE) for a shop's own behavior."""
    in_season: npt.NDArray[np.bool_]
    """(n_tags,): whether the tag's category is in season at `now`."""

    def popularity(self) -> npt.NDArray[np.float64]:
        """Users of each tag: (n_tags,)."""
        return np.bincount(self.tag, minlength=len(self.tags)).astype(np.float64)


def moment(now: datetime | None) -> int:
    """Make `now` UTC microseconds; without one, a moment after every time.

    Raises:
        NaiveTimestampError: `now` has no time zone.
    """
    if now is None:
        return int(np.iinfo(np.int64).max)
    if now.tzinfo is None:
        raise NaiveTimestampError(f"`now` must carry a time zone, but it is {now!r}; give tzinfo, for example UTC")
    return int(pa.scalar(now, type=schema.TIMESTAMP).value)


def before(events: schema.ArrowStream, now: datetime | None) -> pa.Table:
    """Keep the events strictly before `now`; events without a time stay."""
    table = schema.table(events, schema.EVENTS, name="events")
    limit = pa.scalar(moment(now), pa.int64()).cast(schema.TIMESTAMP)
    return table.filter(pc.fill_null(pc.less(table["timestamp"], limit), True))


def read(
    events: schema.ArrowStream,
    item_tags: schema.ArrowStream,
    items: schema.ArrowStream,
    *,
    now: datetime | None,
    config: Config,
) -> Engagement:
    """Read a log as tags.

    Args:
        events: `schema.EVENTS`.
        item_tags: `schema.ITEM_TAGS`.
        items: `schema.ITEMS`, for the categories.
        now: timezone-aware; None for a log without times.
        config: half-life and season settings.
    """
    table = before(events, now)
    table = table.filter(pc.invert(pc.is_in(table["behavior"], value_set=pa.array(NOT_ENGAGED, pa.large_string()))))
    own = schema.table(item_tags, schema.ITEM_TAGS, name="item_tags")
    tags = sorted(set(own["tag"].to_pylist()))
    tag_codes = {tag: code for code, tag in enumerate(tags)}
    item_codes = np.array([tag_codes[tag] for tag in own["tag"].to_pylist()], np.int64)
    catalogue = schema.table(items, schema.ITEMS, name="items")
    categories = sorted(set(filter(None, catalogue["category"].to_pylist())))
    tag_category = _tag_category(own, catalogue, tags, categories)

    users = sorted(set(pc.unique(table["user_id"]).to_pylist()))
    user = _codes(table["user_id"], users)
    place = _numpy(pc.fill_null(pc.index_in(table["item_id"], value_set=own["item_id"].combine_chunks()), -1))
    tag = np.where(place >= 0, item_codes[place] if len(item_codes) else -1, -1)
    age = _ages(table, user, now)
    found_user, found_tag, found_age = _searched(table, user, age, tags)
    place_of = pc.index_in(table["behavior"], value_set=pa.array(DONE, pa.large_string()))
    done = _numpy(pc.fill_null(place_of, len(DONE)))
    known = tag >= 0
    all_user = np.concatenate([user[known], found_user])
    all_tag = np.concatenate([tag[known], found_tag])
    all_age = np.concatenate([age[known], found_age])
    # A query that names a tag is a search, whatever the event was: a cart does not hold all that its query named.
    all_done = np.concatenate([done[known], np.full(len(found_tag), DONE.index("search"))])

    pair = all_user * max(len(tags), 1) + all_tag
    order = np.lexsort((all_age, pair))
    pair, all_age, all_done = pair[order], all_age[order], all_done[order]
    distinct, starts = np.unique(pair, return_index=True)
    decay = 0.5 ** (all_age / config.half_life_days)
    weight = np.add.reduceat(decay, starts) if len(starts) else np.zeros(0)
    season = _in_season(table, catalogue, categories, now=now, config=config)
    return Engagement(
        users=users,
        tags=tags,
        categories=categories,
        tag_category=tag_category,
        user=(distinct // max(len(tags), 1)).astype(np.int32),
        tag=(distinct % max(len(tags), 1)).astype(np.int32),
        weight=weight.astype(np.float32),
        age=all_age[starts],
        done=(np.minimum.reduceat(all_done, starts) if len(starts) else np.zeros(0)).astype(np.int8),
        in_season=np.append(season, True)[tag_category],
    )


def _numpy(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.int64]:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(array.cast(pa.int64()).to_numpy(zero_copy_only=False), np.int64)


def _codes(column: pa.ChunkedArray, values: list[str]) -> npt.NDArray[np.int64]:
    return _numpy(pc.index_in(column, value_set=pa.array(values, pa.large_string())))


def _tag_category(own: pa.Table, catalogue: pa.Table, tags: list[str], categories: list[str]) -> npt.NDArray[np.int32]:
    category_of = dict(zip(catalogue["item_id"].to_pylist(), catalogue["category"].to_pylist(), strict=True))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for item, tag in zip(own["item_id"].to_pylist(), own["tag"].to_pylist(), strict=True):
        if category := category_of.get(item):
            counts[tag][category] += 1
    code = {category: number for number, category in enumerate(categories)}
    best = [min(counts[tag].items(), key=lambda pair: (-pair[1], pair[0]))[0] if counts[tag] else None for tag in tags]
    return np.array([code[category] if category else -1 for category in best], np.int32)


def _ages(table: pa.Table, user: npt.NDArray[np.int64], now: datetime | None) -> npt.NDArray[np.float64]:
    """Days before now; events without a time count back from their user's last, one a day."""
    times = table["timestamp"].cast(pa.int64())
    age = (moment(now) - _numpy(pc.fill_null(times, 0))) / _DAY
    timeless = np.asarray(pc.is_null(times).combine_chunks().to_numpy(zero_copy_only=False), bool)
    if timeless.any():
        rows = np.flatnonzero(timeless)
        position = _numpy(pc.fill_null(table["position"], 0))[rows]
        order = rows[np.lexsort((position, user[rows]))]
        ends = np.searchsorted(user[order], user[order], side="right")
        age[order] = ends - 1 - np.arange(len(order))
    return np.asarray(age, np.float64)


def _searched(
    table: pa.Table, user: npt.NDArray[np.int64], age: npt.NDArray[np.float64], tags: list[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """A search engages with every tag all of whose words stand in the query."""
    by_word: dict[str, list[int]] = defaultdict(list)
    size = [len(set(split(tag))) for tag in tags]
    for code, tag in enumerate(tags):
        for word in set(split(tag)):
            by_word[word].append(code)
    users: list[int] = []
    codes: list[int] = []
    ages: list[float] = []
    known: dict[str, list[int]] = {}
    rows = np.flatnonzero(np.asarray(pc.is_valid(table["query"]).combine_chunks().to_numpy(zero_copy_only=False), bool))
    for row, query in zip(rows.tolist(), table["query"].take(pa.array(rows)).to_pylist(), strict=True):
        if query not in known:
            hits = Counter(code for word in set(stems(query)) for code in by_word.get(word, ()))
            known[query] = sorted(code for code, count in hits.items() if count == size[code])
        for code in known[query]:
            users.append(int(user[row]))
            codes.append(code)
            ages.append(float(age[row]))
    return np.array(users, np.int64), np.array(codes, np.int64), np.array(ages, np.float64)


def _in_season(
    table: pa.Table, catalogue: pa.Table, categories: list[str], *, now: datetime | None, config: Config
) -> npt.NDArray[np.bool_]:
    """Judge each category: its share of sales in this calendar month against its mean monthly share, (n_categories,).

    Too few months, too few sales to expect any, or a log without times leave a category in season.
    """
    seasonal = np.ones(len(categories), bool)
    if now is None:
        return seasonal
    sales = table.filter(pc.and_(pc.equal(table["behavior"], "purchase"), pc.is_valid(table["timestamp"])))
    place = _numpy(pc.fill_null(pc.index_in(sales["item_id"], value_set=catalogue["item_id"].combine_chunks()), -1))
    column = pc.fill_null(pc.index_in(catalogue["category"], value_set=pa.array(categories, pa.large_string())), -1)
    of_item = np.append(_numpy(column), -1)
    category, month = of_item[place], _numpy(pc.month(sales["timestamp"])) - 1
    keep = category >= 0
    counts = np.zeros((12, len(categories)))
    np.add.at(counts, (month[keep], category[keep]), 1.0)
    total = counts.sum(axis=1)
    this = now.month - 1
    if (total > 0).sum() < config.min_season_months or not total[this]:
        return seasonal
    share = counts[total > 0] / total[total > 0, None]
    mean = share.mean(axis=0)
    judged = mean * total[this] >= config.min_season_sales
    seasonal[judged] = counts[this, judged] / total[this] >= config.min_season_ratio * mean[judged]
    return seasonal
