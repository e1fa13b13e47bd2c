"""The world itself: any user alone, all of them in memory, or as many as the disk holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recgpt.datasets.dataset import Dataset
from recgpt.datasets.world import catalogue, hostile, queries, truth
from recgpt.datasets.world.config import DAY, START, TIME_ZONE, Config
from recgpt.datasets.world.events import Life, live
from recgpt.datasets.world.visits import CAUSES, INTEREST
from recgpt.datasets.world.vocabulary import review_texts
from recgpt.errors import InvalidConfigError, NaiveTimestampError
from recgpt.schema import BEHAVIORS, EVENTS, REVIEWS, TIMESTAMP, USERS

LOG = pa.schema([*EVENTS, pa.field("duration_s", pa.float64())])
"""The events of a world: how long a page was looked at stands in `duration_s`."""
_ORIGIN = int(START.timestamp())


class Shard(NamedTuple):
    """Some users' tables. Ids and other repeated texts are dictionaries of one world's values."""

    events: pa.Table
    users: pa.Table
    reviews: pa.Table
    truth: Mapping[str, pa.Table]
    """`interests`, `causes`, `wants`, `shown`, `questions` and `reviews`; see `truth.py`."""


class World:
    """A shop and its shoppers, both made from a configuration alone."""

    def __init__(self, config: Config | None = None) -> None:
        """Build the shop; users are made when they are asked for."""
        self.config = config or Config()
        self.shop = catalogue.build(self.config)

    @property
    def items(self) -> pa.Table:
        """The catalogue, with `title_zh` and `launched`."""
        return self.shop.items

    @cached_property
    def fixed(self) -> dict[str, pa.Table]:
        """The truth that concerns no user: `items` and `queries`."""
        return {"items": self.shop.truth, "queries": self.shop.queries.table}

    @cached_property
    def _values(self) -> dict[str, pa.Array]:
        words = self.shop.words
        texts = [text.words for text in review_texts()]
        attacks = hostile.REVIEWS if self.config.hostile else ()
        return {
            "item": self.shop.ids,
            "behavior": pa.array(BEHAVIORS, pa.large_string()),
            "query": pa.array(self.shop.queries.texts, pa.large_string()),
            "cause": pa.array(CAUSES, pa.large_string()),
            "theme": pa.array([theme.name for theme in words.themes], pa.large_string()),
            "ware": pa.array([ware.name.en for ware in words.wares], pa.large_string()),
            "category": pa.array(
                [f"{words.themes[one.theme].department} > {one.name.en.capitalize()}" for one in words.wares],
                pa.large_string(),
            ),
            "review": pa.array([*(t.en for t in texts), *(t.zh for t in texts), *attacks], pa.large_string()),
            "aspect": pa.array([text.aspect for text in review_texts()], pa.large_string()),
            "sentiment": pa.array(
                ["positive" if text.positive else "negative" for text in review_texts()], pa.large_string()
            ),
        }

    def user(self, number: int) -> Life:
        """Generate one user, the same whoever else is in the world."""
        return live(self.config, self.shop, number)

    def last_day(self, now: datetime | None) -> int:
        """Turn a moment into a day of the log; None is its end.

        Raises:
            NaiveTimestampError: `now` has no time zone.
            InvalidConfigError: it lies outside the log.
        """
        if now is None:
            return self.config.days
        if now.tzinfo is None:
            raise NaiveTimestampError(f"`now` must carry a time zone, but it is {now.isoformat()}; for UTC add +00:00")
        day = -int(-(now - START).total_seconds() // DAY)
        if not 0 <= day <= self.config.days:
            raise InvalidConfigError(
                f"`now` must lie in the {self.config.days} days from {START.date()} on, but it is {now.isoformat()}"
            )
        return day

    def shards(self, now: datetime | None = None, *, size: int = 1000) -> Iterator[Shard]:
        """Give the users' tables, `size` users at a time; what is wanted next as of `now`, by default the log's end.

        Raises:
            NaiveTimestampError: `now` has no time zone.
            InvalidConfigError: it lies outside the log.
        """
        day = self.last_day(now)
        numbers = iter(range(self.config.users))
        while some := list(islice(numbers, size)):
            yield self.shard(some, day)

    def shard(self, numbers: Iterable[int], day: int) -> Shard:
        """Make the tables of some users."""
        lives = [self.user(number) for number in numbers]
        names = pa.array([name(life.shopper.number) for life in lives], pa.large_string())
        sizes = [len(life.log.time) for life in lives]
        who = np.repeat(np.arange(len(lives)), sizes)
        log = [np.concatenate(column) for column in zip(*(life.log for life in lives), strict=True)]
        times, item, behavior, query, duration, cause, _, meant = log
        moments = _moments(times)
        events = pa.Table.from_arrays(
            [
                _coded(who, names),
                _coded(item, self._values["item"]),
                _coded(behavior, self._values["behavior"]),
                moments,
                _coded(query, self._values["query"]),
                pa.nulls(len(who), pa.int64()),
                pa.array(duration, mask=np.isnan(duration)),
            ],
            names=LOG.names,
        )
        themes = np.concatenate(
            [np.array([one.theme for one in life.shopper.interests])[np.maximum(life.log.slot, 0)] for life in lives]
        )
        causes = [
            _coded(who, names),
            moments,
            _coded(cause, self._values["cause"]),
            _coded(np.where(cause == INTEREST, themes, -1), self._values["theme"]),
            _coded(meant, self._values["ware"]),
        ]
        # One of whom nothing is known.
        people = [None if life.shopper.number == 0 else life.shopper.attributes for life in lives]
        reviews, said = self._reviews(lives, names)
        found: dict[str, pa.Table] = {
            "interests": _rows(
                (row for life, who in zip(lives, names.to_pylist(), strict=True)
                 for row in truth.interests(self.shop, life, who)),
                truth.INTERESTS,
            ),
            "causes": pa.Table.from_arrays(causes, names=truth.CAUSES.names),
            **self._next(lives, names, day),
            "questions": self._questions(lives, names),
            "reviews": said,
        }  # fmt: skip
        return Shard(events, pa.table({"user_id": names, "attributes": people}, USERS), reviews, found)

    def _next(self, lives: list[Life], names: pa.Array, day: int) -> dict[str, pa.Table]:
        """Say what users would want next, and which items serve it best."""
        wants: list[tuple[int, int, int, int, float]] = []
        shown: list[tuple[int, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]] = []
        for at, life in enumerate(lives):
            themes = [one.theme for one in life.shopper.interests]
            wanted = truth.wants(self.config, self.shop, life, day)
            for rank, want in enumerate(wanted, start=1):
                wants.append((at, rank, want.ware, themes[want.slot] if want.slot >= 0 else -1, want.weight))
            rows, gains, slots = truth.best(self.config, self.shop, life, wanted, day)
            shown.append((at, rows, gains, np.where(slots >= 0, np.array(themes)[np.maximum(slots, 0)], -1)))
        columns = list(zip(*wants, strict=True)) or [()] * 5
        owner, rank, ware, theme = (np.array(column, np.int64) for column in columns[:4])
        sizes = [len(rows) for _, rows, _, _ in shown]
        first = [np.concatenate([one[place] for one in shown]) for place in (1, 2, 3)]
        ranks = np.concatenate([np.arange(1, size + 1) for size in sizes])
        return {
            "wants": pa.Table.from_arrays(
                [
                    _coded(owner, names),
                    pa.array(rank, pa.int32()),
                    _coded(ware, self._values["ware"]),
                    _coded(ware, self._values["category"]),
                    pa.array(np.where(theme >= 0, "interest", "season")).cast(pa.large_string()),
                    _coded(theme, self._values["theme"]),
                    pa.array(columns[4], pa.float64()),
                ],
                names=truth.WANTS.names,
            ),
            "shown": pa.Table.from_arrays(
                [
                    _coded(np.repeat(np.arange(len(lives)), sizes), names),
                    pa.array(ranks, pa.int32()),
                    _coded(first[0], self._values["item"]),
                    _coded(first[2], self._values["theme"]),
                    pa.array(first[1], pa.float64()),
                ],
                names=truth.SHOWN.names,
            ),
        }

    def _reviews(self, lives: list[Life], names: pa.Array) -> tuple[pa.Table, pa.Table]:
        """Write the reviews, and what is true of each."""
        texts = len(review_texts())
        who = np.repeat(np.arange(len(lives)), [len(life.reviews.item) for life in lives])
        item, time, text, rating = (
            np.concatenate(column) for column in zip(*(life.reviews for life in lives), strict=True)
        )
        chinese = np.array([life.shopper.chinese for life in lives])[who]
        written = text + texts * chinese
        if self.config.hostile:  # every tenth attacks instead
            turn = (item + time // DAY) % 10 == 0
            written = np.where(turn, 2 * texts + item % len(hostile.REVIEWS), written)
        common = [_coded(who, names), _coded(item, self._values["item"]), _moments(time)]
        return pa.Table.from_arrays(
            [*common, _coded(written, self._values["review"]), pa.array(rating, pa.float64())], names=REVIEWS.names
        ), pa.Table.from_arrays(
            [*common, _coded(text, self._values["aspect"]), _coded(text, self._values["sentiment"])],
            names=truth.REVIEWS.names,
        )

    def _questions(self, lives: list[Life], names: pa.Array) -> pa.Table:
        kinds = self.shop.queries.table["kind"].to_numpy() == queries.KINDS[queries.QUESTION]
        found: list[dict[str, Any]] = []
        for life, user in zip(lives, names.to_pylist(), strict=True):
            rows = np.flatnonzero(kinds[np.maximum(life.log.query, 0)] & (life.log.query >= 0))
            rows = rows[life.log.cause[rows] == INTEREST]
            moments = _moments(life.log.time[rows]).to_pylist()
            found.extend(truth.questions(self.shop, life, user, rows, moments, self.shop.queries.texts))
        return _rows(found, truth.QUESTIONS)

    def dataset(self, now: datetime | None = None, *, numbers: Sequence[int] | None = None) -> Dataset:
        """Make it in memory, with plain texts instead of dictionaries: all of it, or only some users.

        Raises:
            NaiveTimestampError: `now` has no time zone.
            InvalidConfigError: it lies outside the log.
        """
        shards = list(self.shards(now)) if numbers is None else [self.shard(numbers, self.last_day(now))]
        found = {key: pa.concat_tables([_plain(one.truth[key]) for one in shards]) for key in shards[0].truth}
        events = pa.concat_tables([_plain(one.events) for one in shards]).combine_chunks()
        # In the order of time, as a shop's log comes; `causes` stays row by row beside it.
        order = pc.sort_indices(events, [("timestamp", "ascending"), ("user_id", "ascending")])
        found["causes"] = found["causes"].combine_chunks().take(order)
        config = self.config
        return Dataset(
            name="world",
            events=events.take(order).cast(LOG),
            items=self.items,
            users=pa.concat_tables([one.users for one in shards]),
            reviews=pa.concat_tables([_plain(one.reviews) for one in shards]).cast(REVIEWS),
            time_zone=TIME_ZONE,
            notes=f"generated ({config}); says nothing about real shoppers",
            truth={**self.fixed, **found},
        )


def load(*, now: datetime | None = None, **options: Any) -> Dataset:
    """Generate a world; the same options give the same tables.

    Args:
        now: what is wanted next as of this moment; None: the log's end.
        **options: of `Config`: `users`, `items`, `days`, `events`, `noise`, `language`, `hostile`, `seed`.

    Returns:
        A data set whose `truth` holds tables: see `truth.py`, and `items` and `queries` of the catalogue. `events` have
        a column `duration_s`, `items` have `title_zh` and `launched`.

    Raises:
        InvalidConfigError: an option is unknown or does not fit, or `now` lies outside the log.
        NaiveTimestampError: `now` has no time zone.
    """
    known = list(Config.__dataclass_fields__)
    if unknown := sorted(set(options) - set(known)):
        raise InvalidConfigError(f"a world has no {', '.join(unknown)}; it has {', '.join(known)}")
    return World(Config(**options)).dataset(now)


def name(number: int) -> str:
    """Give the id of a user."""
    return f"u{number:04d}"


def number(user: str) -> int:
    """Give the number of a user's id.

    >>> number(name(7))
    7
    """
    return int(user[1:])


def planted(found: Mapping[str, pa.Table]) -> dict[str, tuple[str, ...]]:
    """List every user's planted interests, whatever their time."""
    names: dict[str, tuple[str, ...]] = {}
    table = found["interests"]
    for user, interest in zip(table["user_id"].to_pylist(), table["interest"].to_pylist(), strict=True):
        names[user] = (*names.get(user, ()), interest)
    return names


def _coded(codes: npt.NDArray[Any], values: pa.Array) -> pa.DictionaryArray:
    """A column of repeated texts; -1 is null."""
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, values)


def _moments(seconds: npt.NDArray[np.int64]) -> pa.Array:
    return pa.array((seconds + _ORIGIN) * 1_000_000).cast(TIMESTAMP)


def _rows(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema)


def _plain(table: pa.Table) -> pa.Table:
    """Write dictionaries out as texts."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))
