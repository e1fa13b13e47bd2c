"""What the curriculum is built from: a shop's catalogue and log, and the truth behind it where it is known.

Every answer of a sample comes from here, so that nothing is taught that no record says.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import logs
from recgpt.alignment.held_out import HeldOut
from recgpt.datasets import Dataset
from recgpt.errors import AlignmentError
from recgpt.interests import Pool
from recgpt.schema import TIMESTAMP
from recgpt.tags import item_tags
from recgpt.text import clean

SOON = timedelta(minutes=30)
"""What is looked at so long after a search was found by it."""
_TIMED = ("causes", "questions", "reviews")
"""Tables of the truth that tell of a user at a time."""
_ENGAGED = ("click", "detail_view", "cart", "favorite", "purchase")


@dataclass(frozen=True, slots=True)
class Item:
    """One good of the shop, in clean texts; what is not known is empty."""

    item_id: str
    title: str
    path: tuple[str, ...]
    """Its category from wide to narrow; empty where it has none."""
    brand: str
    price: float | None
    details: tuple[str, ...]
    """Attributes."""
    description: str
    tag: str
    """Brand-free modifier and core word."""
    interests: tuple[str, ...]
    """Of the pool, by the title's words."""

    @property
    def category(self) -> str:
        """The narrowest category."""
        return self.path[-1] if self.path else ""


class Event(NamedTuple):
    """One action of one user."""

    at: datetime
    behavior: str
    item: int
    """Row of `Facts.items`; -1 for none."""
    query: str


class Life(NamedTuple):
    """All that a user did, oldest first."""

    user: str
    attributes: str
    events: list[Event]

    @property
    def bought(self) -> list[Event]:
        """Purchases of known items."""
        return [event for event in self.events if event.behavior == "purchase" and event.item >= 0]


class Search(NamedTuple):
    """A search, and what was looked at soon after."""

    user: str
    at: datetime
    """Of the look."""
    query: str
    item: Item


class Review(NamedTuple):
    """What somebody wrote of an item."""

    user: str
    at: datetime
    item: Item
    text: str
    positive: bool
    aspect: str
    """Empty where it is not known."""


class Question(NamedTuple):
    """A what-to-buy question and its answer."""

    user: str
    at: datetime
    question: str
    attributes: str
    answer: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """A data set without what is held out."""

    origin: str
    items: list[Item]
    users: dict[str, str]
    """Attributes by id, in the order of the events."""
    events: pa.Table
    """Normalized, with times, sorted by user and time."""
    reviews: pa.Table | None = None
    truth: Mapping[str, pa.Table] = field(default_factory=dict)
    pool: Pool = field(default_factory=Pool.load)

    @classmethod
    def of(cls, data: Dataset, *, held_out: HeldOut | None = None, origin: str = "", pool: Pool | None = None) -> Facts:
        """Read a data set; users, times and origins that are held out are gone from then on.

        Args:
            data: with times; reviews and truth are used where there are any.
            held_out: what may not be learned from.
            origin: the name that every sample carries; by default the data set's.
            pool: None is ours.

        Raises:
            AlignmentError: the origin is held out, or nothing with a time is left.
            InputError: the tables are not usable.
        """
        held_out, origin, pool = held_out or HeldOut(), origin or data.name, pool or Pool.load()
        if origin in held_out.origins:
            raise AlignmentError(f"the log {origin!r} is held out for judging; build from another")
        tables = logs.from_dataset(data)
        events = tables.events.filter(_allowed(tables.events, held_out))
        if not events.num_rows:
            raise AlignmentError(
                f"nothing of {origin} is left to learn from: all of its {tables.events.num_rows:,} events are held out "
                "or have no time"
            )
        attributes = dict(zip(*(tables.users[name].to_pylist() for name in ("user_id", "attributes")), strict=True))
        people = pc.unique(events["user_id"]).to_pylist()
        return cls(
            origin,
            _items(tables.items, pool),
            {user: clean(attributes.get(user)) for user in people},
            events,
            None if data.reviews is None else data.reviews.filter(_allowed(data.reviews, held_out)),
            _true(data.truth, held_out),
            pool,
        )

    def lives(self, draw: random.Random) -> Iterator[Life]:
        """Give all users in a random order."""
        places = list(range(len(self._starts) - 1))
        draw.shuffle(places)
        names = list(self.users)
        for place in places:
            rows = self.events.slice(self._starts[place], self._starts[place + 1] - self._starts[place])
            events = [
                Event(at, behavior, self._row.get(item, -1), clean(query))
                for at, behavior, item, query in zip(
                    *(rows[name].to_pylist() for name in ("timestamp", "behavior", "item_id", "query")), strict=True
                )
            ]
            yield Life(names[place], self.users[names[place]], events)

    def bought_for(self, life: Life) -> dict[str, dict[str, datetime]]:
        """Give by interest what somebody bought for it, as tags in the order of their first purchase, and when."""
        found: dict[str, dict[str, datetime]] = {}
        for event in life.bought:
            item = self.items[event.item]
            for interest in item.interests if item.tag else ():
                found.setdefault(interest, {}).setdefault(item.tag, event.at)
        return found

    def searches(self, draw: random.Random) -> Iterator[Search]:
        """Give searches that led to a look at an item, user by user in a random order."""
        for life in self.lives(draw):
            search: Event | None = None
            for event in life.events:
                if event.query:
                    search = event
                elif search and event.behavior in _ENGAGED and event.item >= 0:
                    # The first look only: later ones may be for something else.
                    if event.at - search.at <= SOON and self.items[event.item].title:
                        yield Search(life.user, event.at, search.query, self.items[event.item])
                    search = None

    def said(self, draw: random.Random) -> Iterator[Review]:
        """Give reviews whose sentiment is known: by truth, else four or five stars against one or two."""
        if self.reviews is None:
            return
        rows = self.reviews.to_pylist()
        known = {(row["user_id"], row["item_id"], row["timestamp"]): row for row in self._told("reviews")}
        draw.shuffle(rows)
        for row in rows:
            text, place = clean(row["text"]), self._row.get(row["item_id"], -1)
            true = known.get((row["user_id"], row["item_id"], row["timestamp"]))
            rating = row.get("rating")
            told = true["sentiment"] == "positive" if true else None if rating in (None, 3) else rating > 3
            if text and place >= 0 and told is not None:
                aspect = true["aspect"] if true else ""
                yield Review(row["user_id"], row["timestamp"], self.items[place], text, told, aspect)

    def questions(self, draw: random.Random) -> Iterator[Question]:
        """Give what-to-buy questions whose answers are known; only generated worlds have them."""
        rows = self._told("questions")
        draw.shuffle(rows)
        for row in rows:
            if row["answer"]:
                user = row["user_id"]
                yield Question(user, row["timestamp"], row["question"], self.users.get(user, ""), tuple(row["answer"]))

    def meant(self, kind: str, draw: random.Random) -> Iterator[tuple[str, datetime, str, str]]:
        """Give user, time, query and what it was after, of searches of one kind; only generated worlds say so."""
        kinds = {row["query"]: row["kind"] for row in self._told("queries")}
        after = {(row["user_id"], row["timestamp"]): row["meant"] for row in self._told("causes") if row["meant"]}
        for life in self.lives(draw) if after else ():
            for event in life.events:
                if kinds.get(event.query) == kind and (ware := after.get((life.user, event.at))):
                    yield life.user, event.at, event.query, ware

    def _told(self, name: str) -> list[dict[str, Any]]:
        return self.truth[name].to_pylist() if name in self.truth else []

    @cached_property
    def by_category(self) -> dict[str, list[Item]]:
        """Items by their narrowest category."""
        return _grouped((item.category, item) for item in self.items if item.category)

    @cached_property
    def by_interest(self) -> dict[str, list[Item]]:
        """Items by each interest of the pool that they hit."""
        return _grouped((name, item) for item in self.items for name in item.interests)

    @cached_property
    def _row(self) -> dict[str, int]:
        return {item.item_id: row for row, item in enumerate(self.items)}

    @cached_property
    def _starts(self) -> list[int]:
        codes = self.events["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        return [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]


def _allowed(table: pa.Table, held_out: HeldOut) -> pa.ChunkedArray:
    """Mark the rows that may be learned from."""
    users = pa.array(sorted(held_out.users), table.schema.field("user_id").type)
    mask = pc.and_(pc.invert(pc.is_in(table["user_id"], users)), pc.is_valid(table["timestamp"]))
    if held_out.since is not None:
        mask = pc.and_(mask, pc.fill_null(pc.less(table["timestamp"], pa.scalar(held_out.since, TIMESTAMP)), False))
    return mask


def _true(truth: Mapping[str, pa.Table], held_out: HeldOut) -> dict[str, pa.Table]:
    """Keep what is used of the truth: of times and users only those that may be learned from."""
    timed = {name: truth[name].filter(_allowed(truth[name], held_out)) for name in _TIMED if name in truth}
    return timed | {name: truth[name] for name in ("queries",) if name in truth}


def _items(table: pa.Table, pool: Pool) -> list[Item]:
    tags = dict(zip(*(column.to_pylist() for column in item_tags(table).columns), strict=True))
    names = [entry.name for entry in pool.interests]
    found = []
    for row in table.to_pylist():
        title = clean(row["title"])
        found.append(
            Item(
                row["item_id"],
                title,
                tuple(part for part in (clean(part) for part in (row["category"] or "").split(">")) if part),
                clean(row["brand"]),
                row["price"],
                tuple(part for part in (clean(part) for part in (row["attributes"] or "").split(";")) if part),
                clean(row["description"]),
                tags.get(row["item_id"], ""),
                tuple(names[place] for place in pool.hits(title)),
            )
        )
    return found


def _grouped(pairs: Iterator[tuple[str, Item]]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for name, item in pairs:
        found.setdefault(name, []).append(item)
    return found
