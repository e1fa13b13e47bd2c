"""What sold when: the dense features of items as they were known at any moment. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recgpt.retrieval.features import Floats, Ints, Log

HALF_LIVES = (7.0, 28.0)
"""A week and a month: how fast older sales fade in the second and third feature, in days."""
FEATURES = ("sales", "sales_week", "sales_month", "buyers_month")
"""All sales; those of late, twice; and those to users who had never had the item, which say what is new to try."""
_PER = 1e6
"""Sales are counted per million of all, so that a log that grows does not look like items that sell better."""


@dataclass(frozen=True)
class Sales:
    """Positive events, and which of them were a user's first on the item.

    Args:
        item: (n,) item row of each positive event.
        days: (n,) days before `now`; 0 everywhere in a log without times.
        first: (n,) true where the user had the item for the first time.
        timed: whether `days` say anything.
        n_items: length of the catalogue.
    """

    item: Ints
    days: npt.NDArray[np.float64]
    first: npt.NDArray[np.bool_]
    timed: bool
    n_items: int

    def as_of(self, days: float) -> Floats:
        """Log of one plus the sales per million, as known `days` before `now`: (n_items, len(FEATURES)) float32.

        Zero in a log without times: its only figure would count the example itself.
        """
        found = np.zeros((self.n_items, len(FEATURES)), np.float32)
        if not self.timed:
            return found
        known = self.days > days
        item, first, age = self.item[known], self.first[known], self.days[known] - days
        found[:, 0] = self._rate(item, np.ones(len(item)))
        for column, half_life in enumerate(HALF_LIVES, start=1):
            found[:, column] = self._rate(item, 0.5 ** (age / half_life))
        found[:, 3] = self._rate(item[first], 0.5 ** (age[first] / HALF_LIVES[1]))
        return found

    def _rate(self, item: Ints, weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        total = weight.sum()
        summed = np.bincount(item, weights=weight, minlength=self.n_items).astype(np.float64)
        return np.log1p(_PER * summed / total) if total else summed


def first_acts(log: Log, positive: npt.NDArray[np.bool_], n_items: int) -> npt.NDArray[np.bool_]:
    """(n_events,) true where a positive event is the user's first on the item, whatever the behavior."""
    rows = np.flatnonzero(positive)
    # The log is sorted by time within a user, so the first index of a key is its first event.
    _, first = np.unique(log.user[rows] * n_items + log.item[rows], return_index=True)
    found = np.zeros(len(log.user), bool)
    found[rows[first]] = True
    return found


def read_sales(log: Log, positive: npt.NDArray[np.bool_], n_items: int) -> Sales:
    """The sales of a log: its positive events."""
    first = first_acts(log, positive, n_items)[positive]
    return Sales(log.item[positive], log.days[positive], first, log.timed, n_items)


def even_edges(values: Floats, buckets: int) -> list[npt.NDArray[np.float64]]:
    """Inner edges of each column, evenly spaced up to its largest value.

    Values are logs, so a bucket is a ratio. Quantiles would put the thousand best sellers of a big catalogue into one
    bucket, and a list of twenty is made of those.

    >>> [edges.tolist() for edges in even_edges(np.array([[0.0], [4.0]], np.float32), 4)]
    [[1.0, 2.0, 3.0]]
    """
    tops = values.max(axis=0).astype(np.float64)
    return [np.linspace(0, top, buckets + 1)[1:-1] if top > 0 else np.empty(0) for top in tops]


def sales_buckets(values: Floats, edges: list[npt.NDArray[np.float64]], buckets: int) -> Ints:
    """Rows of the one table of all sales features: (n, f) int64; row 0 of each feature's part means none.

    Args:
        values: (n, f), as `Sales.as_of` gives them.
        edges: Of each feature.
        buckets: How many; each feature has one row more.
    """
    found = np.zeros(values.shape, np.int64)
    for column, own in enumerate(edges):
        value = values[:, column]
        bucket = np.where(value > 0, np.searchsorted(own, value, side="right") + 1, 0)
        found[:, column] = bucket + column * (buckets + 1)
    return found


class Moments:
    """Rows of the table of sales features at any moment; those asked for are kept.

    Args:
        sales: All events that may be seen.
        edges: Of each feature.
        buckets: How many.
    """

    def __init__(self, sales: Sales, edges: list[npt.NDArray[np.float64]], buckets: int) -> None:
        self._sales, self._edges, self._buckets = sales, edges, buckets
        self._kept: dict[float, npt.NDArray[np.int16]] = {}

    def at(self, days: float) -> Ints:
        """(n_items, f) int64, as known `days` before `now`."""
        if days not in self._kept:
            rows = sales_buckets(self._sales.as_of(days), self._edges, self._buckets)
            self._kept[days] = rows.astype(np.int16)
        return self._kept[days].astype(np.int64)


def periods(days: npt.NDArray[np.float64], length: float) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Cut the time of some events into periods, at whose start an example's sales are counted.

    As long as what is held out, so that sales are as old in training as when the vectors are used; an eighth of the
    whole where that is shorter. Events before which nothing is known fall into no period (-1), unless that is all.

    Args:
        days: (n,) days before `now` of each event.
        length: Of a period, in days.

    Returns:
        (n,) period of each event, 0 the latest, and (p,) days before `now` of each period's start.
    """
    end, begin = float(days.min()), float(days.max())
    length = min(length, (begin - end) / 8)
    if length <= 0:
        return np.zeros(len(days), np.int64), np.array([end - 1.0])
    period = np.ceil((days - end) / length).astype(np.int64).clip(1) - 1
    starts = end + length * np.arange(1, period.max() + 2)
    return np.where(starts[period] < begin, period, -1), starts
