"""A closed loop, SIMULATION throughout: shoppers of a planted world click on what two arms show them, day after day.

Each arm learns from its own shoppers' clicks alone, so that what it shows today narrows what it can know tomorrow. What
shoppers like is planted, so that filter bubbles can be told from taste. Nothing here is evidence about people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recgpt import schema
from recgpt.errors import InvalidConfigError
from recgpt.evaluation import desk, svg
from recgpt.evaluation.desk import Desk
from recgpt.evaluation.figures import plain
from recgpt.evaluation.metrics import Floats, Ints, Ragged, gini_of, matthew

VISITS = 0.6
"""Chance that a shopper comes on a day."""
EXAMINED = 0.93
"""Chance that somebody who looked at a place looks at the next one too."""
LIKED, NEEDED, OTHER = 0.3, 0.06, 0.01
"""Chance of a click on what was looked at: of an interest that lives that day, of a necessity, of anything else."""
TIRED = 0.25
"""One click on an interest lowers the next by 1 / (1 + TIRED); it wears off by a fifth a day."""
AGAIN = 0.2
"""What is left of the chance for an item that the shopper clicked before."""


class World(Protocol):
    """What the loop must know of shoppers and shop; the arms are told nothing of it."""

    @property
    def user_ids(self) -> Sequence[str]:
        """(u,)"""

    @property
    def item_ids(self) -> Sequence[str]:
        """(m,)"""

    @property
    def theme(self) -> Ints:
        """(m,) what each item is for: a code from 0 on."""

    def wants(self, day: datetime) -> Floats:
        """(u, themes) chance of a click on an item of a theme that is looked at on a day."""


class Arm(Protocol):
    """What fills the pages."""

    def pages(self, user_ids: Sequence[str], events: pa.Table, now: datetime, k: int) -> Ragged:
        """Give rows of `World.item_ids` for users, best first, from EVENTS before `now` of the arm's own users."""


class Planted:
    """`datasets.load("world")` as a `World`: the catalogue's themes, and chances by the interests of the day."""

    def __init__(self, users: pa.Table, truth: Mapping[str, pa.Table]) -> None:
        """Take the users' table and the truth of a data set."""
        items, interests = truth["items"], truth["interests"]
        self.user_ids: Sequence[str] = users["user_id"].to_pylist()
        self.item_ids: Sequence[str] = items["item_id"].to_pylist()
        names = items["theme"].to_pylist()
        place = {name: code for code, name in enumerate(dict.fromkeys(names))}
        self.theme: Ints = np.array([place[name] for name in names], dtype=np.int64)
        row = {user: number for number, user in enumerate(self.user_ids)}
        self._base = np.full(len(place), OTHER)
        self._months: list[set[int]] = [set() for _ in place]
        for name, kind, months in zip(names, items["kind"].to_pylist(), items["months"].to_pylist(), strict=True):
            self._months[place[name]] = set(months)
            if kind == "necessity":
                self._base[place[name]] = NEEDED
        columns = (interests[name].to_pylist() for name in ("user_id", "interest", "start", "end"))
        self._interests = [
            (row[user], place[interest], start, end)
            for user, interest, start, end in zip(*columns, strict=True)
            if user in row and interest in place
        ]

    def wants(self, day: datetime) -> Floats:
        """(u, themes) chances on a day; an interest out of its season is like any other theme."""
        found = np.tile(self._base, (len(self.user_ids), 1))
        for user, theme, start, end in self._interests:
            season = self._months[theme]
            if start <= day and (end is None or day < end) and (not season or day.month in season):
                found[user, theme] = LIKED
        return found


class Day(NamedTuple):
    """One day of one arm, under known truth."""

    arm: str
    day: int
    ctr: float
    shown: float
    """Distinct themes on a page, mean over pages."""
    met: float
    """Share of a shopper's living interests with an item on the page: 1 is no bubble."""
    uneven: float
    """Gini of the items' exposures since the first day."""
    slope: float
    """Matthew slope of page views since the first day, over what had been bought before it."""


@dataclass(frozen=True)
class Simulation:
    """Thirty days of two arms, and what the desk says of their logs. SIMULATION."""

    desk: Desk
    days: list[Day]
    exposures: tuple[pa.Table, pa.Table]

    def figures(self) -> dict[str, Any]:
        """Give everything as plain JSON values."""
        found: dict[str, Any] = {"simulation": True, "days": plain([one._asdict() for one in self.days], digits=5)}
        return found | self.desk.figures()

    def plots(self) -> list[tuple[str, Any]]:
        """Draw the days, as `desk.write` takes them."""
        said = {"met": "Share of living interests on the page", "shown": "Themes on a page", "ctr": "CTR"}
        said |= {"uneven": "Gini of exposure", "slope": "Matthew slope of page views"}
        return [
            (
                f"{title} (simulation)",
                svg.scatter(
                    [
                        svg.Point(
                            one.arm if one.day == self.days[-1].day else "", one.day, getattr(one, name), color, one.arm
                        )
                        for color, arm in enumerate(self.desk.names)
                        for one in self.days
                        if one.arm == arm
                    ],
                    x="day",
                    y="",
                    title=f"{title}, simulation",
                ),
            )
            for name, title in said.items()
        ]


def simulate(
    world: World,
    arms: Mapping[str, Arm],
    events: pa.Table,
    items: pa.Table,
    *,
    start: datetime,
    days: int = 30,
    k: int = 20,
    seed: int = 0,
    step: Callable[[int], None] = lambda _: None,
) -> Simulation:
    """Run both arms over the same days, each on its own half of the shoppers.

    Args:
        world: the truth.
        arms: two by name; the first is the base.
        events: EVENTS before `start`, of all shoppers; each arm is given those of its own.
        items: ITEMS.
        start: aware; the first day's begin.
        days: how many.
        k: places of a page.
        seed: of the split, the visits and the clicks.
        step: called after each day.

    Raises:
        InvalidConfigError: there are not two arms, or no days.
    """
    if len(arms) != 2 or days < 1 or k < 1:
        raise InvalidConfigError(f"a simulation needs two arms, days and places, but has {len(arms)}, {days} and {k}")
    split = np.random.default_rng([seed, 0]).permutation(len(world.user_ids))
    halves = split[::2], split[1::2]
    past = events.filter(pc.less(events["timestamp"], pa.scalar(start, schema.TIMESTAMP))).select(schema.EVENTS.names)
    bought = past.filter(pc.equal(past["behavior"], "purchase"))
    rows = pc.index_in(bought["item_id"], value_set=pa.array(world.item_ids, pa.large_string())).drop_null().to_numpy()
    popular = np.bincount(rows, minlength=len(world.item_ids)).astype(np.int64)
    found: list[Day] = []
    loops = [
        _Loop(world, name, arm, np.sort(half), past, popular, np.random.default_rng([seed, 1 + number]))
        for number, ((name, arm), half) in enumerate(zip(arms.items(), halves, strict=True))
    ]
    for day in range(days):
        for loop in loops:
            found.append(loop.live(start + timedelta(days=day), day + 1, k))
        step(day + 1)
    logs = pa.concat_tables(loops[0].exposures), pa.concat_tables(loops[1].exposures)
    names = tuple(arms)
    counts = pa.table({"item_id": pa.array(world.item_ids, pa.large_string()), "count": popular})
    compared = desk.compare(
        logs[0],
        logs[1],
        items,
        names=(names[0], names[1]),
        popularity=counts,
        now=start + timedelta(days=days),
        simulation=True,
    )
    return Simulation(compared, found, logs)


class _Loop:
    """One arm and its shoppers."""

    def __init__(
        self, world: World, name: str, arm: Arm, users: Ints, past: pa.Table, popular: Ints, random: np.random.Generator
    ) -> None:
        self.world, self.name, self.arm, self.users, self.random = world, name, arm, users, random
        self.popular = popular
        ids = [world.user_ids[user] for user in users]
        self.events = past.filter(pc.is_in(past["user_id"], pa.array(ids, pa.large_string())))
        self.tired = np.zeros((len(world.user_ids), int(world.theme.max()) + 1))
        self.clicked: set[tuple[int, int]] = set()
        self.shown, self.hit = (np.zeros(len(world.item_ids), dtype=np.int64) for _ in range(2))
        self.exposures: list[pa.Table] = []

    def live(self, now: datetime, day: int, k: int) -> Day:
        """Fill the pages of those who come, let them click, and give the arm what they did."""
        world, random = self.world, self.random
        visitors = self.users[random.random(len(self.users)) < VISITS]
        if not len(visitors):
            visitors = self.users[:1]
        wants = world.wants(now)
        pages = self.arm.pages([world.user_ids[user] for user in visitors], self.events, now, k)
        user, item, place = visitors[pages.owners], pages.values, _places(pages)
        theme = world.theme[item]
        chance = wants[user, theme] / (1 + TIRED * self.tired[user, theme])
        again = np.array([pair in self.clicked for pair in zip(user.tolist(), item.tolist(), strict=True)], dtype=bool)
        chance = np.where(again, AGAIN * chance, chance) * EXAMINED**place
        click = random.random(len(item)) < chance
        cart = click & (random.random(len(item)) < 0.3 * (chance > OTHER))
        dwell = np.where(click, random.gamma(2.0, np.where(chance > OTHER, 20.0, 4.0)), 0.0)
        self.tired *= 0.8
        np.add.at(self.tired, (user[click], theme[click]), 1.0)
        self.clicked.update(zip(user[click].tolist(), item[click].tolist(), strict=True))
        moment = now + timedelta(hours=12)
        stamps = pa.array([moment] * len(item), schema.TIMESTAMP)
        columns = {"user_id": _ids(world.user_ids, user), "item_id": _ids(world.item_ids, item), "timestamp": stamps}
        self.exposures.append(pa.table({**columns, "position": place, "click": click, "cart": cart, "dwell": dwell}))
        self._tell(columns, click, cart)
        np.add.at(self.shown, item, 1)
        np.add.at(self.hit, item[click], 1)
        groups = min(10, len(self.shown))
        slope = matthew(self.popular, self.shown, self.hit, self.hit, groups=groups).page_view_slope
        themes = [np.unique(world.theme[pages.of(row)]) for row in range(pages.users)]
        living = [np.flatnonzero(wants[visitor] >= LIKED) for visitor in visitors]
        met = [float(np.isin(own, seen).mean()) for own, seen in zip(living, themes, strict=True) if len(own)]
        mean = float(np.mean([len(one) for one in themes]))
        return Day(self.name, day, float(click.mean()), mean, float(np.mean(met or [0.0])), gini_of(self.shown), slope)

    def _tell(self, columns: dict[str, Any], click: NDArray[np.bool_], cart: NDArray[np.bool_]) -> None:
        """Add what the shoppers did to what the arm may learn from: clicks, views of the page, carts."""
        told = [self.events]
        for behavior, done in (("click", click), ("detail_view", click), ("cart", cart)):
            rows = pa.array(np.flatnonzero(done))
            table = pa.table({name: column.take(rows) for name, column in columns.items()})
            table = table.append_column("behavior", pa.array([behavior] * len(rows), pa.large_string()))
            told.append(schema.table(table, schema.EVENTS, name="events"))
        self.events = pa.concat_tables(told)


def _ids(names: Sequence[str], rows: Ints) -> pa.Array:
    return pa.array(names, pa.large_string()).take(pa.array(rows))


def _places(pages: Ragged) -> Ints:
    return np.arange(len(pages.values), dtype=np.int64) - np.repeat(pages.offsets[:-1], pages.sizes)
