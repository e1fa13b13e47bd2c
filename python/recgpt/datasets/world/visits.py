"""When a shopper comes, why, and for which ware: one row a visit."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from recgpt.datasets.world.catalogue import Catalogue, Ints
from recgpt.datasets.world.config import START, Config
from recgpt.datasets.world.shoppers import Interest, Shopper

CAUSES = ("interest", "necessity", "season", "gift", "promotion", "accident")
INTEREST, NECESSITY, SEASON, GIFT, PROMOTION, ACCIDENT = range(6)
PER_VISIT = 9.0
"""Events of a middle visit, measured."""
NECESSITIES, GIFTS, PROMOTIONS, SEASONS = 0.25, 0.03, 0.04, 0.04
"""Shares of all visits that are no accidents."""
_PROMOTION_DAYS = ((6, 18), (11, 11), (11, 29))
_LEAST = 4
"""Visits for an interest of a user who comes often enough: what was seen less often is nothing one could find."""


class Visits(NamedTuple):
    """Columns of equal length."""

    cause: Ints
    slot: Ints
    """Which of the user's interests; -1 for other causes."""
    ware: Ints
    """-1: any item that is pushed (promotions) or that catches the eye (accidents)."""
    day: Ints


@lru_cache(maxsize=8)
def months(days: int) -> Ints:
    """Give the calendar month of each day of the log, and of a year after it."""
    first = np.datetime64(START.date().isoformat())
    calendar: Ints = (first + np.arange(days + 366)).astype("datetime64[M]").astype(np.int64) % 12 + 1
    return calendar


@lru_cache(maxsize=8)
def _special_days(days: int) -> tuple[Ints, Ints]:
    """Days of promotions, and the days before Christmas."""
    calendar = [START + timedelta(days=day) for day in range(days)]
    pushed = [at for at, day in enumerate(calendar) if (day.month, day.day) in _PROMOTION_DAYS]
    advent = [at for at, day in enumerate(calendar) if day.month == 12 and day.day < 24]
    return np.array(pushed, np.int64), np.array(advent, np.int64)


def plan(config: Config, shop: Catalogue, shopper: Shopper, random: np.random.Generator) -> Visits:
    """Plan every visit of a shopper."""
    words = shop.words
    regular = max(1, round(shopper.events / PER_VISIT))
    pushed, advent = _special_days(config.days)
    rows: list[tuple[int, int, Ints, Ints]] = []
    rest = regular

    def add(cause: int, slot: int, ware: Ints, day: Ints) -> None:
        nonlocal rest
        rows.append((cause, slot, ware, day))
        rest -= len(day)

    necessities = np.concatenate([words.wares_of[theme] for theme in words.of["necessity"]])
    count = _about(regular * NECESSITIES, random)
    add(NECESSITY, -1, random.choice(necessities, count), random.integers(0, config.days, count))
    for theme in words.of["season"]:
        # Seven in ten need it, every year in its season.
        need, when = random.random(2)
        fit = np.flatnonzero(np.isin(months(config.days)[: config.days], words.themes[theme].months))
        if need < 0.7 and len(fit):
            count = min(_about(regular * SEASONS / len(words.of["season"]), random), 12)
            wares = random.choice(words.wares_of[theme], count)
            add(SEASON, -1, wares, fit[(when * len(fit) + np.arange(count)).astype(int) % len(fit)])
    own = {one.theme for one in shopper.interests}
    strange = [at for at in words.of["interest"] if at not in own]
    if strange:
        count = _about(regular * GIFTS, random)
        birthdays = random.integers(0, config.days, 2)
        # Advent has 23 days a year, the two birthdays are taken as often as all of them.
        days = np.concatenate([advent, np.repeat(birthdays, max(1, len(advent) // 2))])
        themes = random.choice(strange, 3)
        wares = np.concatenate([words.wares_of[theme] for theme in themes])
        add(GIFT, -1, random.choice(wares, count), random.choice(days, count))
    if len(pushed):
        count = _about(regular * PROMOTIONS, random)
        add(PROMOTION, -1, np.full(count, -1), random.choice(pushed, count))
    for slot, (interest, count) in enumerate(
        zip(shopper.interests, shares(shopper, max(rest, 0), config.days), strict=True)
    ):
        day = _days(config, words.themes[interest.theme].months, interest, count, random)
        add(INTEREST, slot, interest.path[(np.arange(len(day)) // interest.pause) % len(interest.path)], day)
    columns = [
        np.concatenate([np.full(len(day), cause) for cause, _, _, day in rows]),
        np.concatenate([np.full(len(day), slot) for _, slot, _, day in rows]),
        np.concatenate([ware for _, _, ware, _ in rows]),
        np.concatenate([day for _, _, _, day in rows]),
    ]
    if not len(columns[0]):  # the sparsest of shoppers still came once
        first = shopper.interests[0]
        columns = [np.array([INTEREST]), np.array([0]), first.path[:1], _days(config, (), first, 1, random)]
    return Visits(*(column.astype(np.int64) for column in columns))


def shares(shopper: Shopper, visits: int, length: int) -> list[int]:
    """Divide visits among a user's interests: by strength and by how long each lives in the log."""
    alive = [max(0, min(one.end, length) - max(one.start, 0)) / length for one in shopper.interests]
    weight = [
        one.strength * max(days, 0.0 if one.long else 0.15) for one, days in zip(shopper.interests, alive, strict=True)
    ]
    whole = sum(weight)
    counts = [int(visits * one / whole) for one in weight]
    least = _LEAST if visits >= 2 * _LEAST * len(counts) else 0
    return [max(count, least) for count in counts]


def _about(expected: float, random: np.random.Generator) -> int:
    """Round up or down by chance, so that small shares happen to some users."""
    return int(expected + random.random())


def _days(config: Config, season: tuple[int, ...], interest: Interest, count: int, random: np.random.Generator) -> Ints:
    """Draw the days of an interest's visits, in order: while it lives, and mostly in its season."""
    first, end = max(interest.start, 0), min(interest.end, config.days)
    tries = random.integers(first, max(end, first + 1), (count, 4))
    if season:
        fits = np.isin(months(config.days)[tries], season)
        day = tries[np.arange(count), np.argmax(fits, axis=1)]
    else:
        day = tries[:, 0]
    if count > 2 and not interest.long:
        day[:2] = first, end - 1  # a short-term interest shows from its first day to its last
    return np.sort(day)


def accidents(config: Config, shop: Catalogue, shopper: Shopper, regular: int, random: np.random.Generator) -> Visits:
    """Plan slips on any day, and a third of them in one evening on one shelf: idle curiosity.

    They come on top of the `regular` visits, so that a noisier world is the same world with more noise.
    """
    count = _about(regular * config.noise / (1 - config.noise), random)
    own = {one.theme for one in shopper.interests}
    strange = np.concatenate([wares for theme, wares in enumerate(shop.words.wares_of) if theme not in own])
    day = random.integers(0, config.days, count)
    burst = np.arange(count) < count // 3
    shelf, evening = random.choice(strange), int(random.integers(0, config.days))
    return Visits(
        np.full(count, ACCIDENT), np.full(count, -1), np.where(burst, shelf, -1), np.where(burst, evening, day)
    )
