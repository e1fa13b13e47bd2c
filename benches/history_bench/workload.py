"""A seeded, heavy-tailed shop log: who did what to which item, and when.

Users are lognormal (mean 2,000 records, at most 40,000) over 1,180 days. A user comes in sessions of a few visits, most
visits to an item that is popular (Zipf), 30 % to one that the user has visited before. A visit is a funnel: click, then
perhaps view, review or favorite, cart, purchase (30 % of purchases days later), and now and then a search. So 51.5 % of
the records are plain clicks, which stage 2 drops.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .catalogue import ITEMS, QUERIES, texts

BEHAVIORS = ("favorite", "purchase", "cart", "detail_view", "review_read", "search", "click")
"""The dictionary of the log's behavior column: `schema.RELIABLE` in its order, then the plain click."""
FAVORITE, PURCHASE, CART, VIEW, REVIEW, SEARCH, CLICK = range(7)

NOW = datetime(2017, 12, 18, tzinfo=UTC)
DAYS = 1_180
START = NOW - timedelta(days=DAYS)
DAY_US = 86_400_000_000
NOW_US = int(NOW.timestamp()) * 1_000_000
START_US = NOW_US - DAYS * DAY_US

# Chance of each step in one visit. They add up to 0.942 records beside the click, which makes 51.5 % clicks.
SEARCHED, VIEWED, REVIEWED, FAVORED, CARTED, BOUGHT = 0.16, 0.45, 0.20, 0.155, 0.245, 0.545
RECORDS_A_VISIT = 1 + SEARCHED + VIEWED * (1 + REVIEWED + FAVORED + CARTED * (1 + BOUGHT))
SESSION = 6
"""Visits in a session, on average."""

KINDS = ("ordinary", "heavy", "skewed", "giant")


@dataclass(frozen=True)
class Workload:
    """A log and its catalogue."""

    name: str
    events: pa.Table
    """`user_id` int32, `timestamp` us UTC, `behavior` dictionary<int8, string>, `item_id` int32 (row of `texts`)."""
    texts: list[str]
    """One text a catalogue row; queries stand in double quotes."""

    def by_user(self) -> Workload:
        """Sort the log by user, then time."""
        user = self.events["user_id"].to_numpy()
        order = np.argsort(user, kind="stable")
        if np.any(np.diff(self.events["timestamp"].to_numpy()) < np.timedelta64(0)):
            order = np.lexsort([self.events["timestamp"].to_numpy(), user])
        return Workload(f"{self.name}, by user", self.events.take(pa.array(order)).combine_chunks(), self.texts)


def generate(records: int, kind: str = "ordinary", *, words: int = 6, seed: int = 0) -> Workload:
    """Make a log in global time order.

    Args:
        records: how many records; of `giant` these are the ordinary users' part, beside one user of 10 million.
        kind: `ordinary`; `heavy`: 47 users a million records; `skewed`: one user holds a quarter of the records;
            `giant`: see `records`.
        words: of an item's text, see `catalogue.texts`.
        seed: of everything but the texts, which are always the same.
    """
    rng = np.random.default_rng([seed, records, KINDS.index(kind)])
    size = _sizes(records, kind, rng)
    # Funnels are drawn, so their sum may fall short by a few standard deviations: some more, then the surplus is cut.
    more = 1 + 7 / np.sqrt(records)
    user, visit_time, item = _visits(np.ceil(size / RECORDS_A_VISIT * more).astype(np.int64), rng)
    columns = _funnel(user, visit_time, item, rng)
    user, time, behavior, item = (column[: size.sum()] for column in columns)
    order = np.argsort(time, kind="stable")
    # Users are numbered anew, so that a number says nothing about a size.
    name = rng.permutation(len(size)).astype(np.int32)
    events = pa.table(
        {
            "user_id": name[user[order]],
            "timestamp": pa.array(time[order].view("datetime64[us]"), pa.timestamp("us", "UTC")),
            "behavior": pa.DictionaryArray.from_arrays(behavior[order], pa.array(BEHAVIORS)),
            "item_id": item[order],
        }
    )
    return Workload(f"{kind} {records / 1e6:g}M", events, texts(words))


def _sizes(records: int, kind: str, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw how many records each user has; they add up to `records` (and the giant's)."""
    if kind == "heavy":
        users = max(1, round(records * 47 / 1_000_000))
        size = np.minimum(rng.lognormal(0, 0.35, users), 1.8)
        return np.diff(np.rint(np.cumsum(np.r_[0, size]) / size.sum() * records)).astype(np.int64)
    spread = 1.0
    ordinary = records * 3 // 4 if kind == "skewed" else records
    # A little below 40,000, since funnels are drawn; the cut takes 0.2 % off the mean.
    size = rng.lognormal(np.log(2_000) - spread**2 / 2, spread, ordinary // 1_000 + 10)
    size = np.clip(size, 1, 39_000).astype(np.int64)
    size = size[: int(np.searchsorted(np.cumsum(size), ordinary)) + 1]
    size[-1] -= size.sum() - ordinary
    alone = {"skewed": records - ordinary, "giant": 10_000_000}.get(kind)
    return size if alone is None else np.insert(size, len(size) // 2, alone)


def _visits(
    visits: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Give every visit its user, time and item; a user's visits stand together, oldest first."""
    user = np.repeat(np.arange(len(visits), dtype=np.int32), visits)
    total = len(user)
    first = np.r_[0, np.cumsum(visits)[:-1]]
    begins = rng.random(total, np.float32) < 1 / SESSION
    begins[first] = True
    session = np.cumsum(begins) - 1
    whose = user[begins]
    # Days are even, hours are not: most sessions begin in the afternoon and evening.
    hour = rng.choice(24, len(whose), p=_HOURS).astype(np.int64) * 3_600_000_000
    moment = rng.integers(0, DAYS, len(whose)) * DAY_US + hour + rng.integers(0, 3_600_000_000, len(whose))
    moment = START_US + moment[np.lexsort([moment, whose])]
    starts = np.flatnonzero(begins)
    within = np.arange(total) - starts[session]
    time = moment[session] + within * rng.integers(40_000_000, 160_000_000, total)

    item = _zipf(total, ITEMS, rng)
    # 30 % go back to an earlier visit of the same user, most to a recent one: with the 6th power 13 % of an ordinary
    # user's reliable records repeat one of the same bucket and behavior, 20 % of a heavy one's. Following visits to
    # their origins gives the items.
    place = np.arange(total) - np.repeat(first, visits)
    again = (rng.random(total, np.float32) < 0.3) & (place > 0)
    origin = np.arange(total)
    origin[again] -= 1 + (rng.random(int(again.sum())) ** 6 * place[again]).astype(np.int64)
    while np.any((further := origin[origin]) != origin):
        origin = further
    return user, time, item[origin]


def _funnel(
    user: npt.NDArray[np.int32], time: npt.NDArray[np.int64], item: npt.NDArray[np.int32], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int8], npt.NDArray[np.int32]]:
    """Turn visits into records, a user's together: user, time in us, behavior code, catalogue row."""

    def chance(of: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.int64]:
        return of[rng.random(len(of), np.float32) < share]

    every = np.arange(len(user))
    searched, viewed = chance(every, SEARCHED), chance(every, VIEWED)
    carted = chance(viewed, CARTED)
    bought = chance(carted, BOUGHT)
    steps = [
        (SEARCH, searched, -15),
        (CLICK, every, 0),
        (VIEW, viewed, 6),
        (REVIEW, chance(viewed, REVIEWED), 15),
        (FAVORITE, chance(viewed, FAVORED), 22),
        (CART, carted, 30),
        (PURCHASE, bought, 38),
    ]
    # Room for every visit's records in turn: count them, then each step writes behind the steps before it.
    count = np.zeros(len(user), np.int8)
    for _, rows, _ in steps:
        count[rows] += 1
    at = np.cumsum(count, dtype=np.int64) - count
    out_user = np.repeat(user, count)
    out_time, out_item = np.repeat(time, count), np.repeat(item, count)
    behavior = np.empty(len(out_user), np.int8)
    for code, rows, seconds in steps:
        where = at[rows]
        at[rows] += 1
        behavior[where] = code
        out_time[where] += seconds * 1_000_000 + rng.integers(0, 5_000_000, len(rows))
        if code == SEARCH:
            out_item[where] = ITEMS + _zipf(len(rows), QUERIES, rng)
        if code == PURCHASE:
            late = rng.random(len(rows), np.float32) < 0.3
            out_time[where[late]] += rng.integers(1 * DAY_US, 12 * DAY_US, int(late.sum()))
    return out_user, np.clip(out_time, START_US, NOW_US - 1), behavior, out_item


def _zipf(count: int, values: int, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Draw rows whose popularity falls as 1 / rank; ranks are spread over the rows."""
    share = np.cumsum(1 / np.arange(1, values + 1) ** 0.9)
    rank = np.searchsorted(share / share[-1], rng.random(count))
    # A prime step spreads popular rows over the catalogue, as they are in a real one.
    return (np.minimum(rank, values - 1) * 7_919 % values).astype(np.int32)


_HOURS = np.array([2, 1, 1, 1, 1, 2, 3, 5, 6, 7, 8, 9, 10, 10, 9, 9, 9, 10, 11, 13, 14, 13, 9, 5], float)
_HOURS /= _HOURS.sum()
