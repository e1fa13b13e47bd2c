"""Numbers for the towers: the log as arrays, item features as indices, words as ids. numpy only."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.errors import EmptyLogError, InvalidTableError, NaiveTimestampError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

MAX_WORDS = 12
"""Words of a title or tag that count."""
NOT_POSITIVE = ("exposure", "return", "search")
"""Behaviors that say nothing good about an item: never positives."""
NOT_SEQUENCE = ("exposure", "search")
"""Behaviors without a sequence: what a user was shown is no act, and a search has a query, not an item."""
_WORD = re.compile(r"\w+")


def split_words(text: str | None) -> list[str]:
    """Split a title or tag into lower-case words, at most `MAX_WORDS`.

    >>> split_words("Garden-hose, 20 FT")
    ['garden', 'hose', '20', 'ft']
    """
    return _WORD.findall((text or "").lower())[:MAX_WORDS]


def index_of(values: list[str]) -> dict[str, int]:
    """Number distinct values from 1 in sorted order; 0 stays free for "unknown"."""
    return {value: row for row, value in enumerate(sorted(set(values)), start=1)}


def bucket_edges(values: npt.NDArray[np.float64], buckets: int) -> npt.NDArray[np.float64]:
    """Inner quantile edges, distinct and rising, of the finite values."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.empty(0)
    return np.unique(np.quantile(finite, np.linspace(0, 1, buckets + 1)[1:-1]))


def bucket_of(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> Ints:
    """Bucket of each value, from 1; 0 for a value that is not known."""
    rows = np.searchsorted(edges, values, side="right").astype(np.int64) + 1
    return np.where(np.isfinite(values), rows, 0)


@dataclass(frozen=True)
class Log:
    """Events as arrays, sorted by (user, order). Rows of users count in `user_ids`, rows of items in the catalogue."""

    user_ids: list[str]
    behaviors: list[str]
    user: Ints
    item: Ints
    behavior: Ints
    order: Ints
    """Rank of the time among all times (or the position); equal means the same basket."""
    days: npt.NDArray[np.float64]
    """Days before `now`; for a log without times 0 everywhere."""
    timed: bool

    def before(self, cut: npt.NDArray[np.bool_]) -> Log:
        """The events where `cut` is true, with the same ids."""
        return Log(
            self.user_ids,
            self.behaviors,
            self.user[cut],
            self.item[cut],
            self.behavior[cut],
            self.order[cut],
            self.days[cut],
            self.timed,
        )


def read_log(
    events: schema.ArrowStream, item_ids: list[str], *, now: datetime | None, behaviors: list[str] | None = None
) -> Log:
    """Turn events before `now` into arrays, batch by batch; events without an item of the catalogue are left out.

    Of a stream (such as a `pyarrow.RecordBatchReader`) no more than one batch of texts is held at a time.

    Args:
        events: EVENTS.
        item_ids: The catalogue, in row order.
        now: Cut for logs with times; a log without times is ordered by `position` and not cut.
        behaviors: Fixed behaviors; None takes those of the log.

    Raises:
        NaiveTimestampError: `now` has no time zone.
        EmptyLogError: no usable event before `now`.
    """
    users, items, kinds = _Codes(), _Codes(item_ids), _Codes(behaviors, never=NOT_SEQUENCE)
    parts: list[list[Ints]] = []
    timed, placed, rows = False, True, 0
    for piece in _pieces(events):
        if piece["timestamp"].null_count < piece.num_rows:
            if now is None or now.tzinfo is None:
                raise NaiveTimestampError(f"`now` must be a datetime with a time zone, but it is {now!r}")
            if not timed:  # In a log with times, rows without one are left out.
                timed, parts, rows = True, [], 0
            piece = piece.filter(pc.less(piece["timestamp"], pa.scalar(now, schema.TIMESTAMP)))
        elif timed:
            continue
        place = np.arange(rows, rows + piece.num_rows)
        rows += piece.num_rows
        placed &= piece["position"].null_count == 0
        order = _numbers(piece["timestamp"] if timed else piece["position"])
        kind, item = kinds.of(piece["behavior"]), items.of(piece["item_id"])
        usable = (item >= 0) & (kind >= 0)
        user = users.of(piece["user_id"].filter(pa.array(usable)))
        parts.append([user, item[usable], kind[usable], order[usable], place[usable]])
    if not any(len(part[0]) for part in parts):
        raise EmptyLogError(
            f"expected events before {now} on items of the catalogue, but none of {rows} fits; "
            "check `now`, item ids and behaviors"
        )
    user, item, kind, order, place = (np.concatenate(column) for column in zip(*parts, strict=True))
    user_ids, user = users.sorted(user)
    if behaviors is None:
        behaviors, kind = kinds.sorted(kind)
    # Without times and without positions the rows' own order is all there is.
    order = order if timed or placed else place
    days = np.zeros(len(order))
    if timed and now is not None:
        days = np.asarray((now.timestamp() * 1e6 - order) / 86_400e6, np.float64)
    rank = np.unique(order, return_inverse=True)[1].astype(np.int64)
    by = np.lexsort((kind, item, rank, user))
    return Log(user_ids, behaviors, user[by], item[by], kind[by], rank[by], days[by], timed)


def _pieces(events: schema.ArrowStream) -> Iterator[pa.Table]:
    """EVENTS: a table as one piece, a stream by its batches."""
    if isinstance(events, pa.Table) or not hasattr(events, "__arrow_c_stream__"):
        yield schema.table(events, schema.EVENTS, name="events")
        return
    stream = pa.RecordBatchReader.from_stream(events)
    # Judged where there is no batch, too.
    yield schema.table(stream.schema.empty_table(), schema.EVENTS, name="events")
    for batch in stream:
        yield schema.table(pa.Table.from_batches([batch]), schema.EVENTS, name="events")


class _Codes:
    """Numbers of texts: of the given ones their place, else in the order of arrival."""

    def __init__(self, fixed: list[str] | None = None, never: Collection[str] = ()) -> None:
        self.fixed, self.never = fixed is not None, never
        self.known = {text: code for code, text in enumerate(fixed or ())}

    def of(self, column: pa.ChunkedArray) -> Ints:
        """A code each row; -1 for null, for what is not among the fixed ones, and for what never has a code."""
        encoded = column.combine_chunks().dictionary_encode()
        texts = encoded.dictionary.to_pylist()
        if not self.fixed:
            for text in texts:
                if text not in self.never:
                    self.known.setdefault(text, len(self.known))
        codes = np.array([*(self.known.get(text, -1) for text in texts), -1], np.int64)
        found: Ints = codes[_numbers(encoded.indices)]
        return found

    def sorted(self, codes: Ints) -> tuple[list[str], Ints]:
        """The texts that occur, sorted, and the rows' numbers among them."""
        used, rows = np.unique(codes, return_inverse=True)
        texts = list(self.known)
        own = [texts[code] for code in used]
        rank = np.empty(len(own), np.int64)
        by = sorted(range(len(own)), key=own.__getitem__)
        rank[by] = np.arange(len(own))
        return [own[row] for row in by], rank[rows]


def _numbers(column: pa.Array | pa.ChunkedArray) -> Ints:
    """Whole numbers or times as int64, -1 for null."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    found: Ints = pc.fill_null(whole.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    return found


class Sequences:
    """The latest items of each behavior before given moments."""

    def __init__(self, log: Log, length: int) -> None:
        self.length = length
        # One key sorts by user, then by order; ranks are small, so the product stays far below 2**63.
        self.span = int(log.order.max()) + 2
        key = log.user * self.span + log.order
        self.parts = [(key[kind], log.item[kind]) for kind in (log.behavior == b for b in range(len(log.behaviors)))]

    def before(self, users: Ints, orders: Ints | None = None) -> list[tuple[Ints, Ints]]:
        """The last `length` items of each behavior, oldest first, strictly before each order (None: all).

        Returns:
            A behavior: flat item rows, and (n + 1,) offsets where each user's begin and end.
        """
        first = users * self.span
        moment = first + (self.span - 1 if orders is None else orders)
        found = []
        for key, item in self.parts:
            end = np.searchsorted(key, moment)
            begin = np.maximum(np.searchsorted(key, first), end - self.length)
            positions, offsets = ranges(begin, end)
            found.append((item[positions], offsets))
        return found


def ranges(begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Write out the half-open ranges one after the other, with (n + 1,) offsets.

    >>> ranges(np.array([3, 9]), np.array([5, 10]))
    (array([3, 4, 9]), array([0, 2, 3]))
    """
    offsets = np.concatenate([[0], np.cumsum(end - begin)])
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1] - begin, end - begin), offsets


@dataclass(frozen=True)
class ItemFeatures:
    """One row an item: index of each feature, 0 where it is unknown."""

    item: Ints
    category: Ints
    brand: Ints
    price: Ints
    sales: Ints
    """(n_items, f) rows of the table of sales features, see `sales.py`; they change with the moment."""
    words: Ints
    """(n_items, MAX_WORDS), padded with 0."""

    def take(self, rows: Ints) -> ItemFeatures:
        """The features of some rows."""
        return ItemFeatures(
            self.item[rows],
            self.category[rows],
            self.brand[rows],
            self.price[rows],
            self.sales[rows],
            self.words[rows],
        )


@dataclass(frozen=True)
class Vocabulary:
    """What the embedding rows mean. Made from the catalogue and the tags; saved with the towers."""

    categories: dict[str, int]
    brands: dict[str, int]
    words: dict[str, int]
    price_edges: npt.NDArray[np.float64]

    def encode_words(self, texts: list[str | None]) -> Ints:
        """Word ids of each text, (n, MAX_WORDS), unknown words left out."""
        rows = np.zeros((len(texts), MAX_WORDS), np.int64)
        for row, text in enumerate(texts):
            known = [self.words[word] for word in split_words(text) if word in self.words]
            rows[row, : len(known)] = known
        return rows


def read_items(items: schema.ArrowStream) -> pa.Table:
    """The catalogue with distinct ids.

    Raises:
        InvalidTableError: no item, or an id twice.
    """
    table = schema.table(items, schema.ITEMS, name="items")
    distinct = pc.count_distinct(table["item_id"]).as_py()
    if not table.num_rows or distinct < table.num_rows:
        raise InvalidTableError(
            f"`items` must have at least one row and distinct ids, but it has {table.num_rows} rows "
            f"and {distinct} distinct ids"
        )
    return table


def make_vocabulary(items: pa.Table, tags: list[str | None], buckets: int) -> Vocabulary:
    """Number the categories, brands and words of a catalogue and its tags."""
    texts = [*items["title"].to_pylist(), *tags]
    price = items["price"].to_numpy().astype(np.float64)
    return Vocabulary(
        categories=index_of([value for value in items["category"].to_pylist() if value]),
        brands=index_of([value for value in items["brand"].to_pylist() if value]),
        words=index_of([word for text in set(texts) for word in split_words(text)]),
        price_edges=bucket_edges(np.log1p(np.where(price > 0, price, np.nan)), buckets),
    )


def encode_items(items: pa.Table, vocabulary: Vocabulary, own_id: Ints, sales: Ints) -> ItemFeatures:
    """Turn the catalogue into feature indices.

    Args:
        items: ITEMS.
        vocabulary: What the indices mean.
        own_id: (n_items,) row of the id embedding, 0 for items that share one.
        sales: (n_items, f) rows of the table of sales features.
    """
    price = items["price"].to_numpy().astype(np.float64)
    return ItemFeatures(
        item=own_id,
        category=np.array([vocabulary.categories.get(value or "", 0) for value in items["category"].to_pylist()]),
        brand=np.array([vocabulary.brands.get(value or "", 0) for value in items["brand"].to_pylist()]),
        price=bucket_of(np.log1p(np.where(price > 0, price, np.nan)), vocabulary.price_edges),
        sales=sales,
        words=vocabulary.encode_words(items["title"].to_pylist()),
    )


def first_tags(item_tags: schema.ArrowStream, item_ids: list[str]) -> list[str | None]:
    """The tag of each item (the first one listed), None where it has none."""
    table = schema.table(item_tags, schema.ITEM_TAGS, name="item_tags")
    own: dict[str, str] = {}
    for item, tag in zip(table["item_id"].to_pylist(), table["tag"].to_pylist(), strict=True):
        own.setdefault(item, tag)
    return [own.get(item) for item in item_ids]
