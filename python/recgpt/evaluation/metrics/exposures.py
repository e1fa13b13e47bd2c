"""What a log of exposures says of a recommender: CTR, IPV, DCAU, DT, ATC, EICD and CICD (paper section 4.2).

The paper names its metrics in a line each; the formulas below are our reading. Notation: U the users who were shown
anything, E the exposures, one row each: item i shown to user u at a moment, `click` page views of the item that came of
it, `cart` additions to the cart, `dwell` seconds on its page. D is the number of local days from the first exposure to
the last one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recgpt import schema
from recgpt._core import Exposures as Counter
from recgpt.errors import EmptyLogError, InvalidTableError
from recgpt.evaluation.metrics.intervals import Estimate, ratio
from recgpt.evaluation.metrics.lists import Floats, Ints
from recgpt.schema import ArrowStream

NEEDED = ("user_id", "item_id", "timestamp", "click")
OPTIONAL = ("cart", "dwell", "is_ad")


class ItemCounts(NamedTuple):
    """What each catalogue row adds up to; `unknown` stands for the items that the catalogue does not have."""

    exposures: Ints
    """(m,) int64 times shown."""
    clicked: Ints
    """(m,) int64 exposures with a click."""
    page_views: Ints
    """(m,) int64 clicks."""
    unknown: int
    """Exposures of items that the catalogue does not have; they count for users and have no category."""


@dataclass(frozen=True)
class Engagement:
    """The sums of a log, by user; every metric with its 95 % interval over users."""

    user_id: pa.Array
    """(n,) the ids as the log has them, ascending."""
    exposures: Ints
    """(n,) int64 times something was shown to the user."""
    clicked: Ints
    """(n,) int64 exposures with at least one click."""
    page_views: Ints
    """(n,) int64 clicks."""
    carts: Ints
    """(n,) int64 additions to the cart."""
    exposed_categories: Ints
    """(n,) int64 distinct categories shown."""
    clicked_categories: Ints
    """(n,) int64 distinct categories clicked."""
    click_days: Ints
    """(n,) int64 distinct local days with a click."""
    dwell: Floats
    """(n,) float64 seconds."""
    days: int
    """D."""
    first_day: int
    """The local day of the first exposure, counted from 1970-01-01."""
    items: ItemCounts

    @property
    def ctr(self) -> Estimate:
        """CTR = exposures with a click / exposures."""
        return ratio(self.clicked, self.exposures)

    @property
    def ipv(self) -> Estimate:
        """IPV = page views / |U|: the paper counts them; a mean can be compared between arms of different size."""
        return self._per_user(self.page_views)

    @property
    def dcau(self) -> Estimate:
        """DCAU = sum over days of |users with a click that day| / D, which is sum over u of the days u clicked / D."""
        mean = self._per_user(self.click_days)
        return Estimate(*(value * len(self.exposures) / self.days for value in mean))

    @property
    def dwell_time(self) -> Estimate:
        """DT = seconds of dwell / |U|."""
        return self._per_user(self.dwell)

    @property
    def atc(self) -> Estimate:
        """ATC = additions to the cart / |U|; see `ipv`."""
        return self._per_user(self.carts)

    @property
    def eicd(self) -> Estimate:
        """EICD = mean over u of the number of distinct categories shown to u."""
        return self._per_user(self.exposed_categories)

    @property
    def cicd(self) -> Estimate:
        """CICD = mean over u of the number of distinct categories u clicked; 0 for users without a click."""
        return self._per_user(self.clicked_categories)

    def _per_user(self, values: Ints | Floats) -> Estimate:
        return ratio(values, np.ones(len(values)))


class Exposures:
    """Reads a log of exposures batch by batch and keeps only sums.

    Memory: at most 200 bytes a user; 32 bytes for every 64 categories of the shop, or, of more than 512, 43 bytes for
    each block of 64 of which a user was shown any, and as much for one with a click; 43 for 64 days with a click; 32 an
    item and thread; 17 a row of the longest batch, at most 36 MB; names beside. Tables that double are briefly there
    twice. `nbytes` says what it is now. Read Parquet with `pre_buffer=False`, or pyarrow keeps what it reads ahead.

    Args:
        items: an ITEMS table; only `item_id` and `category` are read.
        zone: where days begin, an IANA name.
        ads: False leaves out rows with `is_ad`.
        threads: None = one a processor. Results do not depend on it.

    >>> items = pa.table({"item_id": ["a", "b"], "category": ["tea", "jam"]})
    >>> noon = pa.array([0, 0, 86_400_000_000], pa.timestamp("us", "UTC"))
    >>> shown = pa.table({"user_id": [1, 1, 2], "item_id": ["a", "b", "a"], "timestamp": noon, "click": [1, 0, 2]})
    >>> log = Exposures(items).add(shown).engagement()
    >>> log.ctr.value, log.ipv.value, log.dcau.value, log.eicd.value, log.cicd.value
    (0.6666666666666666, 1.5, 1.0, 1.5, 1.0)
    """

    def __init__(self, items: ArrowStream, *, zone: str = "UTC", ads: bool = True, threads: int | None = None) -> None:
        catalogue = schema.table(items, schema.ITEMS, name="items")
        self._ids: pa.Array = catalogue["item_id"].combine_chunks()
        self._by_number = _by_number(self._ids)
        # Codes in order of appearance; an item without a category has none.
        codes = catalogue["category"].combine_chunks().dictionary_encode().indices
        categories = codes.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
        self._counter = Counter(categories, threads or os.cpu_count() or 1)
        self._zone, self._ads = zone, ads
        self._text: bool | None = None
        self._span: tuple[int, int] | None = None

    def add(self, exposures: ArrowStream) -> Exposures:
        """Count a table of exposures, of any size, in any order.

        Args:
            exposures: `user_id` and `item_id` (text or whole numbers), `timestamp` (with a zone), `click` (truth values
                or counts), and, where the shop has them, `cart` (the same), `dwell` (seconds) and `is_ad`. Missing
                clicks, carts and seconds are none. Other columns are not read.

        Returns:
            Itself, so that calls can be chained.

        Raises:
            InvalidTableError: a column is missing or cannot be read, an id or a time is missing, or user ids turn from
                numbers to text between two tables.
            InvalidArrayError: a dwell time is negative or not finite; nothing of the batch it stands in is counted.
        """
        data = exposures if isinstance(exposures, pa.Table) else pa.table(exposures)
        missing = [name for name in NEEDED if name not in data.column_names]
        if missing:
            raise InvalidTableError(
                f"`exposures` needs the columns {', '.join(NEEDED)}, but {', '.join(missing)} is missing; rename yours"
            )
        data = data.select([*NEEDED, *(name for name in OPTIONAL if name in data.column_names)])
        for batch in data.to_batches():
            if not self._ads and "is_ad" in batch.schema.names:
                batch = batch.filter(pc.invert(batch["is_ad"].fill_null(False)))
            if batch.num_rows:
                self._add(batch)
        return self

    @property
    def nbytes(self) -> int:
        """The memory of the sums, in bytes."""
        return self._counter.nbytes()

    def engagement(self) -> Engagement:
        """Give the sums so far.

        Raises:
            EmptyLogError: nothing was added.
        """
        if self._span is None:
            raise EmptyLogError("no exposures were added, so there is nothing to measure; add a table with rows")
        ids, counts, dwell = self._counter.users()
        columns = [count.astype(np.int64) for count in counts]
        users = pa.array(ids)
        if self._text:
            names = pa.array(self._counter.names(), pa.large_string()).take(users)
            order = pc.array_sort_indices(names)
            users, rows = names.take(order), order.to_numpy()
            columns, dwell = [column[rows] for column in columns], dwell[rows]
        shown, clicked, views = (column.astype(np.int64) for column in self._counter.items())
        first, last = pc.cast(self._days(pa.array(self._span, schema.TIMESTAMP)), pa.int32()).to_pylist()
        exposures, hit, page_views, carts, exposed_categories, clicked_categories, click_days = columns
        return Engagement(
            user_id=users,
            exposures=exposures,
            clicked=hit,
            page_views=page_views,
            carts=carts,
            exposed_categories=exposed_categories,
            clicked_categories=clicked_categories,
            click_days=click_days,
            dwell=dwell,
            days=last - first + 1,
            first_day=first,
            items=ItemCounts(shown[:-1], clicked[:-1], views[:-1], int(shown[-1])),
        )

    def _add(self, batch: pa.RecordBatch) -> None:
        stamp = schema.cast(pa.chunked_array([batch["timestamp"]]), schema.TIMESTAMP).combine_chunks()
        for name, column in (("user_id", batch["user_id"]), ("item_id", batch["item_id"]), ("timestamp", stamp)):
            if column.null_count:
                row = int(np.flatnonzero(~column.is_valid().to_numpy(zero_copy_only=False))[0])
                raise InvalidTableError(f"`exposures.{name}` must not be null, but row {row} of a batch is; drop it")
        click = _counts(batch, "click")
        day = np.zeros(len(click), np.int32)
        clicked = np.flatnonzero(click)
        day[clicked] = pc.cast(self._days(stamp.take(clicked)), pa.int32()).to_numpy()
        user, item = self._users(batch["user_id"]), self._items(batch["item_id"])
        self._counter.add(user, item, day, click, _counts(batch, "cart"), _seconds(batch))
        ends = pc.min_max(stamp.cast(pa.int64()))
        first, last = ends["min"].as_py(), ends["max"].as_py()
        if self._span is not None:
            first, last = min(first, self._span[0]), max(last, self._span[1])
        self._span = first, last

    def _days(self, stamp: pa.Array) -> pa.Array:
        return pc.cast(pc.local_timestamp(stamp.cast(pa.timestamp("us", self._zone))), pa.date32(), safe=False)

    def _users(self, column: pa.Array) -> NDArray[np.int64]:
        text = not pa.types.is_integer(column.type)
        if self._text not in (None, text):
            raise InvalidTableError("`exposures.user_id` was text before and is numbers now, or the other way round")
        self._text = text
        if not text:
            numbers: NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
            return numbers
        values, indices = _dictionary(column)
        offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset : values.offset + len(values) + 1]
        letters = np.frombuffer(values.buffers()[2] or b"", np.uint8)
        codes: NDArray[np.int64] = self._counter.numbers(offsets, letters)[indices]
        return codes

    def _items(self, column: pa.Array) -> NDArray[np.int32]:
        if self._by_number is not None and pa.types.is_integer(column.type):
            first, by_number = self._by_number
            numbers = column.cast(pa.int64()).to_numpy()
            # What lies outside meets an end of the table: nothing. Clipped first, because a difference may wrap.
            inside = np.clip(numbers, first, first + len(by_number) - 1)
            at: NDArray[np.int32] = by_number.take(np.subtract(inside, first, out=inside))
            return at
        values, indices = _dictionary(column)
        rows = pc.index_in(values, value_set=self._ids).fill_null(-1)
        found: NDArray[np.int32] = rows.to_numpy(zero_copy_only=False).astype(np.int32)[indices]
        return found


def _by_number(ids: pa.Array) -> tuple[int, NDArray[np.int32]] | None:
    """Give the row of each number from the first on, if ids are whole numbers without wide gaps: no text is hashed.

    The table begins one number before the least id and ends one after the greatest: both are no item.
    """
    numbers = schema.whole_numbers(ids)
    if numbers is None:
        return None
    values = numbers.to_numpy()
    first, last = int(values.min()) - 1, int(values.max()) + 1
    ends = np.iinfo(np.int64)
    if last - first > 16 * len(values) + 65_536 or first < ends.min or last > ends.max:
        return None
    rows = np.full(last - first + 1, -1, np.int32)
    # The first of equal ids, as the other way takes it.
    rows[values[::-1] - first] = np.arange(len(values), dtype=np.int32)[::-1]
    return first, rows


def _dictionary(column: pa.Array) -> tuple[pa.Array, NDArray[Any]]:
    """Give the distinct values of a column as texts, and where each row finds its own."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    values = schema.cast(pa.chunked_array([encoded.dictionary]), pa.large_string()).combine_chunks()
    return values, encoded.indices.to_numpy()


def _counts(batch: pa.RecordBatch, name: str) -> NDArray[np.uint32]:
    """Read truth values or counts; nothing where the column or the value is missing."""
    if name not in batch.schema.names:
        return np.zeros(batch.num_rows, np.uint32)
    column = batch[name]
    try:
        values = column.cast(pa.uint32()).fill_null(0)
    except pa.ArrowInvalid as error:
        raise InvalidTableError(
            f"`exposures.{name}` must hold truth values or counts from 0, but: {error}; mend the column"
        ) from None
    counts: NDArray[np.uint32] = values.to_numpy()
    return counts


def _seconds(batch: pa.RecordBatch) -> Floats:
    if "dwell" not in batch.schema.names:
        return np.zeros(batch.num_rows)
    seconds: Floats = batch["dwell"].cast(pa.float64()).fill_null(0.0).to_numpy()
    return seconds
