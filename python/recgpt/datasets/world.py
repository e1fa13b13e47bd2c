"""A small generated world with every behavior and planted interests: what real public logs do not have.

Each shopper has one to three hobbies. Hobby visits run search -> exposure -> click -> detail view -> review reading ->
favorite -> cart -> purchase (-> return). Staples are bought weekly by everyone. Three things look like interests and
are not: December gifts, accidental clicks (seen for a second), and one burst of views of a strange category within
minutes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from recgpt.datasets.dataset import Dataset
from recgpt.datasets.folder import SETTINGS
from recgpt.datasets.world_words import (
    BRANDS,
    FACTS,
    GIFT_QUERIES,
    HOBBIES,
    HOSTILE,
    REVIEWS,
    STAPLES,
    Theme,
)
from recgpt.errors import InvalidConfigError
from recgpt.schema import EVENTS, ITEMS, TIMESTAMP, USERS
from recgpt.schema import REVIEWS as REVIEWS_SCHEMA

TIME_ZONE = "Europe/Berlin"
START = 1_704_067_200
"""2024-01-01 00:00 UTC, in unix seconds."""
_DAY = 86_400
_THEMES = (*HOBBIES, *STAPLES)
_STEPS = (
    ("click", 1.0),
    ("detail_view", 0.7),
    ("review_read", 0.5),
    ("favorite", 0.4),
    ("cart", 0.6),
    ("purchase", 0.7),
)
"""Share of looked-at items that take each step; a look ends without a click or without a detail view."""
# How `write_csv` says the same things: a shop's own words.
_OWN_BEHAVIORS = {
    "view": "detail_view",
    "buy": "purchase",
    "refund": "return",
    "wish": "favorite",
    "basket": "cart",
    "reviews_opened": "review_read",
    "find": "search",
    "tap": "click",
    "impression": "exposure",
}
_OWN_COLUMNS = {
    "shopper": "user_id",
    "sku": "item_id",
    "event": "behavior",
    "local_time": "timestamp",
    "words": "query",
    "name": "title",
    "department": "category",
    "maker": "brand",
    "cost": "price",
    "facts": "attributes",
    "users.profile": "attributes",
    "body": "text",
    "stars": "rating",
}


def load(*, users: int = 60, items: int = 300, days: int = 400, seed: int = 0) -> Dataset:
    """Generate a world; the same arguments give the same tables.

    Args:
        users: shoppers, at least 1.
        items: items, at least 60, so that every category and hostile title has some.
        days: length of the log from 2024-01-01 on, at least 30.
        seed: of all randomness.

    Returns:
        A data set whose `truth` holds each user's planted interests, and whose `events` have a column `duration_s`.

    Raises:
        InvalidConfigError: if a size is below its least.
    """
    for name, value, least in (("users", users, 1), ("items", items, 60), ("days", days, 30)):
        if value < least:
            raise InvalidConfigError(f"`{name}` must be at least {least}, but it is {value}")
    rng = np.random.default_rng(seed)
    catalogue, shelves = _catalogue(rng, items)
    people: list[dict[str, str | None]] = []
    truth: dict[str, tuple[str, ...]] = {}
    log = _Log(rng, days, shelves, catalogue)
    for number in range(users):
        user = f"u{number:04d}"
        ages = ("18-24", "25-34", "35-44", "45-54", "65+")
        people.append({"user_id": user, "attributes": f"age {rng.choice(ages)}; household of {rng.integers(1, 6)}"})
        chosen = sorted(rng.choice(len(HOBBIES), int(rng.integers(1, 4)), replace=False).tolist())
        truth[user] = tuple(str(HOBBIES[place].interest) for place in chosen)
        log.live(user, chosen)
    people[0]["attributes"] = None  # one shopper of whom nothing is known
    schema = pa.schema([*EVENTS, pa.field("duration_s", pa.float64())])
    return Dataset(
        name="world",
        events=_timed(log.events, schema),
        items=pa.Table.from_pylist(catalogue, ITEMS),
        users=pa.Table.from_pylist(people, USERS),
        reviews=_timed(log.reviews, REVIEWS_SCHEMA),
        time_zone=TIME_ZONE,
        notes=f"generated: {users} users, {items} items, {days} days, seed {seed}; says nothing about real shoppers",
        truth=truth,
    )


def write_csv(data: Dataset, folder: str | Path, *, settings: bool = False) -> dict[str, Any]:
    """Write a world as a shop would keep it: CSV, own column and event names, local times without a zone.

    Args:
        data: what `load` made.
        folder: made if it is not there.
        settings: also write `recgpt-data.toml`, so that the folder explains itself.

    Returns:
        The options that `recgpt.datasets.read` needs to read it back.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    own = {theirs: ours for ours, theirs in _OWN_BEHAVIORS.items()}
    behavior = pa.array([own[name] for name in data.events.column("behavior").to_pylist()])
    tables = {
        "events": data.events.set_column(data.events.column_names.index("behavior"), "behavior", behavior),
        "items": data.items,
        "users": data.users,
        "reviews": data.reviews,
    }
    for name, table in tables.items():
        assert table is not None  # a world has reviews
        table = table.drop_columns([column for column in ("position",) if column in table.column_names])
        if "timestamp" in table.column_names:
            local = pc.local_timestamp(table.column("timestamp").cast(pa.timestamp("us", tz=TIME_ZONE)))
            table = table.set_column(
                table.column_names.index("timestamp"), "timestamp", pc.strftime(local, "%Y-%m-%d %H:%M:%S")
            )
        theirs = {to: column.removeprefix("users.") for column, to in _OWN_COLUMNS.items() if "." not in column}
        if name == "users":
            theirs["attributes"] = "profile"
        csv.write_csv(
            table.rename_columns([theirs.get(column, column) for column in table.column_names]), root / f"{name}.csv"
        )
    options: dict[str, Any] = {"time_zone": TIME_ZONE, "behaviors": _OWN_BEHAVIORS, "columns": _OWN_COLUMNS}
    if settings:
        lines = [f"time_zone = {json.dumps(TIME_ZONE)}"]
        for section in ("behaviors", "columns"):
            lines += ["", f"[{section}]", *(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in options[section].items())]
        (root / SETTINGS).write_text("\n".join(lines) + "\n", "utf-8")
    return options


def _timed(records: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Records with unix seconds -> a table with timestamps, in the order of time."""
    records.sort(key=lambda record: record["timestamp"])
    raw = pa.schema([pa.field(f.name, pa.int64()) if f.name == "timestamp" else f for f in schema])
    table = pa.Table.from_pylist(records, raw)
    place = schema.names.index("timestamp")
    moments = table.column("timestamp").cast(pa.timestamp("s", tz="UTC")).cast(TIMESTAMP)
    return table.set_column(place, schema.field(place), moments)


def _catalogue(rng: np.random.Generator, items: int) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """Items theme by theme in turn; gives the rows, and the row numbers of each theme."""
    catalogue: list[dict[str, Any]] = []
    shelves: list[list[int]] = [[] for _ in _THEMES]
    for number in range(items):
        place = number % len(_THEMES)
        theme = _THEMES[place]
        brand, fact = str(rng.choice(BRANDS)), str(rng.choice(FACTS))
        title: str | None = f"{brand} {rng.choice(theme.modifiers)} {rng.choice(theme.nouns)}, {fact}"
        if number % 4 == 3 and number // 4 < len(HOSTILE):
            title = HOSTILE[number // 4]
        elif number % 41 == 40:
            title = None
        catalogue.append(
            {
                "item_id": f"i{number:05d}",
                "title": title,
                "category": None if number % 17 == 16 else theme.category,
                "brand": brand,
                "price": None if number % 23 == 22 else round(float(rng.lognormal(2.5, 0.8)), 2),
                "attributes": fact,
                "description": f"A {theme.nouns[0]} and more, for {theme.interest or 'every day'}.",
            }
        )
        shelves[place].append(number)
    return catalogue, shelves


class _Log:
    """Shoppers' days, written down as records."""

    def __init__(
        self, rng: np.random.Generator, days: int, shelves: list[list[int]], catalogue: list[dict[str, Any]]
    ) -> None:
        self.rng, self.days, self.shelves, self.catalogue = rng, days, shelves, catalogue
        self.events: list[dict[str, Any]] = []
        self.reviews: list[dict[str, Any]] = []

    def live(self, user: str, hobbies: list[int]) -> None:
        """Write one shopper's log."""
        strange = [place for place in range(len(HOBBIES)) if place not in hobbies]
        for place in hobbies:
            # At least four visits on different days: enough evidence for a fair miner.
            visits = max(4, int(self.days * self.rng.uniform(0.03, 0.08)))
            for day in self._season(HOBBIES[place], visits):
                self._visit(user, place, day)
        for day in range(int(self.rng.integers(7)), self.days, 7):
            shelf = self.shelves[len(HOBBIES) + int(self.rng.integers(len(STAPLES)))]
            self._add(user, "purchase", self._moment(day), int(self.rng.choice(shelf)))
        for day in range(self.days):
            if np.datetime64("2024-01-01") + day in _GIFT_DAYS and self.rng.random() < 0.1:
                at = self._moment(day)
                self._add(user, "search", at, None, query=str(self.rng.choice(GIFT_QUERIES)))
                self._add(user, "purchase", at + 300, int(self.rng.choice(self.shelves[int(self.rng.choice(strange))])))
        for day in self.rng.choice(self.days, self.days // 20, replace=False).tolist():
            item, at = int(self.rng.integers(len(self.catalogue))), self._moment(day)
            self._add(user, "click", at, item)
            self._add(user, "detail_view", at + 1, item, duration=1.0)
        at, shelf = self._moment(int(self.rng.integers(self.days))), self.shelves[int(self.rng.choice(strange))]
        for step in range(8):
            self._add(user, "detail_view", at + 60 * step, int(self.rng.choice(shelf)), duration=20.0)

    def _season(self, theme: Theme, visits: int) -> list[int]:
        months = (np.datetime64("2024-01-01") + np.arange(self.days)).astype("datetime64[M]").astype(int) % 12 + 1
        weight = np.where(np.isin(months, theme.months) | (len(theme.months) == 0), 1.0, 0.1)
        days = self.rng.choice(self.days, min(visits, self.days), replace=False, p=weight / weight.sum())
        return sorted(int(day) for day in days)

    def _moment(self, day: int) -> int:
        # Between 08:00 and 21:00 UTC: no clock change there, so local times lead back to the same moment.
        return START + day * _DAY + int(self.rng.integers(8 * 3600, 21 * 3600))

    def _visit(self, user: str, place: int, day: int) -> None:
        theme, at = HOBBIES[place], self._moment(day)
        words = f"{self.rng.choice(theme.modifiers)} {self.rng.choice(theme.nouns)}"
        if self.rng.random() < 0.6:
            self._add(user, "search", at, None, query=words)
        shown = self.rng.choice(self.shelves[place], min(4, len(self.shelves[place])), replace=False).tolist()
        for item in shown:
            self._add(user, "exposure", at + 5, item)
        for item in shown[:2]:
            at += 60
            for behavior, share in _STEPS:
                if self.rng.random() > share:
                    if behavior in ("click", "detail_view"):
                        break
                    continue
                at += 15
                duration = float(self.rng.integers(6, 240)) if behavior == "detail_view" else None
                self._add(user, behavior, at, item, query=words if behavior == "click" else None, duration=duration)
                if behavior == "purchase":
                    self._after(user, at, item)

    def _after(self, user: str, at: int, item: int) -> None:
        if self.rng.random() < 0.1:
            self._add(user, "return", at + 3 * _DAY, item)
        if self.rng.random() < 0.3:
            text, rating = str(self.rng.choice(REVIEWS)), float(self.rng.integers(1, 6))
            item_id = self.catalogue[item]["item_id"]
            self.reviews.append(
                {"user_id": user, "item_id": item_id, "timestamp": at + 5 * _DAY, "text": text, "rating": rating}
            )

    def _add(
        self,
        user: str,
        behavior: str,
        at: int,
        item: int | None,
        query: str | None = None,
        duration: float | None = None,
    ) -> None:
        self.events.append(
            {
                "user_id": user,
                "item_id": None if item is None else self.catalogue[item]["item_id"],
                "behavior": behavior,
                "timestamp": at,
                "query": query,
                "duration_s": duration,
            }
        )


_GIFT_DAYS = {np.datetime64(f"{year}-12-01") + day for year in range(2024, 2035) for day in range(24)}
