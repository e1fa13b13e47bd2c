"""From visits to events: what is searched, shown, looked at, kept, bought, sent back and reviewed."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recgpt.datasets.world import queries, visits
from recgpt.datasets.world.catalogue import LEVELS, Catalogue, Ints
from recgpt.datasets.world.config import DAY, Config
from recgpt.datasets.world.shoppers import ACCIDENTS, VISITS, Shopper, draw, stream
from recgpt.datasets.world.visits import ACCIDENT, GIFT, PROMOTION, Visits
from recgpt.datasets.world.vocabulary import review_texts
from recgpt.schema import BEHAVIORS

SEARCH, CLICK, EXPOSURE, RETURN = (BEHAVIORS.index(name) for name in ("search", "click", "exposure", "return"))
STEPS = ("click", "detail_view", "review_read", "favorite", "cart", "purchase")
_STEP = np.array([BEHAVIORS.index(name) for name in STEPS])
_DETAIL, _CART, _BUY = 1, 4, 5
# Chance of each step where the one before it was taken; by cause.
_CHANCES = np.array(
    [
        [0.95, 0.70, 0.50, 0.35, 0.50, 0.60],  # interest
        [0.60, 0.15, 0.10, 0.10, 0.90, 0.95],  # necessity
        [0.90, 0.60, 0.30, 0.10, 0.60, 0.80],  # season
        [0.95, 0.80, 0.40, 0.10, 0.60, 0.85],  # gift
        [0.90, 0.30, 0.10, 0.15, 0.70, 0.80],  # promotion
        [1.00, 0.90, 0.02, 0.01, 0.01, 0.00],  # accident
    ]
)
_SEARCHES = np.array([0.6, 0.2, 0.5, 0.8, 0.0, 0.0])
_DIRECT = np.array([False, True, True, False, True, False])
"""Whether things go into the cart without a look at their page."""
_SECOND = np.array([0.6, 0.5, 0.3, 0.3, 0.3, 0.0])
"""Chance of a second item in a visit."""
_RETURNS, _REVIEWS = 0.06, 0.25
_TRIES = 3
"""Items that a shopper glances at before taking the first of a brand they like."""


class Log(NamedTuple):
    """One user's events, in the order of time; numpy columns of equal length."""

    time: Ints
    """Seconds from the log's begin; all different."""
    item: Ints
    """Row in `Catalogue.items` order of draws, -1 for a search."""
    behavior: Ints
    """Place in `schema.BEHAVIORS`."""
    query: Ints
    """Place in `Queries.texts`, -1 where nothing was typed."""
    duration: npt.NDArray[np.float64]
    """Seconds of a detail view, NaN elsewhere."""
    cause: Ints
    """Place in `visits.CAUSES`."""
    slot: Ints
    """Which of the user's interests, -1 for other causes."""
    meant: Ints
    """The ware that a search was after, -1 elsewhere."""


class Reviews(NamedTuple):
    """One user's reviews."""

    item: Ints
    time: Ints
    text: Ints
    """Place in `vocabulary.review_texts()`."""
    rating: npt.NDArray[np.float64]


class Life(NamedTuple):
    """One user's whole log and what is behind it."""

    shopper: Shopper
    visits: Visits
    """Without accidents."""
    log: Log
    reviews: Reviews


def live(config: Config, shop: Catalogue, number: int) -> Life:
    """Generate one user. Depends on the configuration and the user's number alone, not on how many others there are."""
    shopper = draw(config, shop.words, number)
    random, chance = stream(config, number, VISITS), stream(config, number, ACCIDENTS)
    planned = visits.plan(config, shop, shopper, random)
    slips = visits.accidents(config, shop, shopper, len(planned.day), chance)
    regular, reviews = _happen(config, shop, shopper, planned, random, odd=0)
    accidental, _ = _happen(config, shop, shopper, slips, chance, odd=1)
    both = [np.concatenate(pair) for pair in zip(regular, accidental, strict=True)]
    order = np.argsort(both[0], kind="stable")
    kept = order[both[0][order] < config.days * DAY]
    return Life(shopper, planned, Log(*(column[kept] for column in both)), reviews)


def likely(
    shop: Catalogue, interest_ware: int, level: int, day: int, likes: npt.NDArray[np.bool_]
) -> tuple[Ints, Ints]:
    """Give the items of a ware and level that are there on a day: those of liked brands, and the others."""
    block = interest_ware * LEVELS + level
    rows = np.arange(shop.first[block], shop.first[block] + shop.launched[block, day])
    liked = likes[shop.brand[rows]]
    return rows[liked], rows[~liked]


def there(shop: Catalogue, rows: Ints, day: Ints) -> Ints:
    """Put one that is there on the day, of the same ware and level, in place of each item that is not launched yet.

    It is counted on through those that are there: no new draw, so that all other draws of a user stay as they are.
    """
    block = shop.block[rows]
    first = shop.first[block]
    found: Ints = first + (rows - first) % shop.launched[block, day]
    return found


def odds(liked: int, others: int) -> tuple[float, float]:
    """Chance that a look goes to one certain item of a liked brand, and to one certain other item.

    Of `_TRIES` draws with replacement the first liked one is taken, else the first.

    >>> odds(1, 1)
    (0.875, 0.125)
    """
    none = (others / (liked + others)) ** _TRIES
    return ((1 - none) / liked if liked else 0.0), (none / others if others else 0.0)


def _happen(
    config: Config, shop: Catalogue, shopper: Shopper, planned: Visits, random: np.random.Generator, *, odd: int
) -> tuple[Log, Reviews]:
    cause, slot, ware, day = planned
    count = len(day)
    # Between 08:00 and 21:00 UTC: no clock change there, so local times lead back to the same moment.
    begin = day * DAY + (8 * 3600 + random.random(count) * 11 * 3600).astype(np.int64)
    item = _items(config, shop, shopper, planned, random)
    taken = _steps(cause, random)
    searched = random.random(count) < _SEARCHES[cause]
    query = _queries(shop, shopper, cause, ware, random)
    rows: list[tuple[npt.NDArray[np.bool_], Ints, Ints | int, int]] = [(searched, begin, -1, SEARCH)]
    # Shown: the two items, and two that the shop pushes.
    pushed = there(shop, np.searchsorted(shop.attention, random.random((count, 2))), day[:, None])
    always = np.ones(count, np.bool_)
    rows += [(always, begin + 4 + 2 * at, item[:, at], EXPOSURE) for at in (0, 1)]
    rows += [(always, begin + 8 + 2 * at, pushed[:, at], EXPOSURE) for at in (0, 1)]
    length = np.where(cause == ACCIDENT, 1.0, np.rint(6 + random.exponential(60.0, count)))
    for look in (0, 1):
        at = begin + 30 + 200 * look
        rows += [(taken[:, look, step], at + 24 * step, item[:, look], int(_STEP[step])) for step in range(len(STEPS))]
    bought = taken[:, :, _BUY]
    back = bought[:, 0] & (random.random(count) < _RETURNS)
    rows.append((back, begin + 3 * DAY, item[:, 0], RETURN))
    which = np.concatenate([np.flatnonzero(mask) for mask, *_ in rows])
    sizes = [int(mask.sum()) for mask, *_ in rows]
    time = np.concatenate([when[mask] for mask, when, _, _ in rows])
    behavior = np.repeat([code for *_, code in rows], sizes)
    items = np.concatenate([np.full(int(m.sum()), i) if isinstance(i, int) else i[m] for m, _, i, _ in rows])
    order = np.argsort(time, kind="stable")
    which, behavior, items = which[order], behavior[order], items[order]
    search = behavior == SEARCH
    log = Log(
        _spread(time[order]) + odd,
        items,
        behavior,
        np.where(search, query[which], -1),
        np.where(behavior == _STEP[_DETAIL], length[which], np.nan),
        cause[which],
        slot[which],
        np.where(search, ware[which], -1),
    )
    return log, _reviews(config, shop, begin, item, bought, random)


def _spread(time: Ints) -> Ints:
    """Move ties apart, onto even seconds: sorted times that all differ. Accidents take the odd seconds."""
    half, place = time // 2, np.arange(len(time))
    spread: Ints = 2 * (np.maximum.accumulate(half - place) + place)
    return spread


def _items(config: Config, shop: Catalogue, shopper: Shopper, planned: Visits, random: np.random.Generator) -> Ints:
    """Choose the two items of every visit; (visits, 2)."""
    cause, _, ware, day = planned
    count = len(day)
    level = shopper.levels(day, config.days)[:, None]
    other = random.integers(0, LEVELS, (count, 2))
    level = np.where(random.random((count, 2)) < 0.15, other, level)
    block = np.maximum(ware, 0)[:, None] * LEVELS + level
    room = shop.launched[block, day[:, None]]
    tries = shop.first[block][..., None] + (random.random((count, 2, _TRIES)) * room[..., None]).astype(np.int64)
    loose = ware < 0
    if loose.any():
        # What catches the eye by accident belongs to none of the user's interests; what is promoted may.
        free = there(shop, np.searchsorted(shop.attention, random.random((count, 2, _TRIES))), day[:, None, None])
        pushed = shop.promoted[random.integers(0, len(shop.promoted), (count, 2, _TRIES))]
        tries = np.where(loose[:, None, None], np.where((cause == PROMOTION)[:, None, None], pushed, free), tries)
    wanted = shopper.likes[(day >= shopper.change).astype(np.int64)[:, None, None], shop.brand[tries]]
    if len(cause) and cause[0] == ACCIDENT:  # accidents come alone
        own = np.zeros(len(shop.words.themes), np.bool_)
        own[[one.theme for one in shopper.interests]] = True
        foreign = ~own[shop.words.theme_of]
        wanted = foreign[shop.ware[tries]]
        # Where each glance fell on something of one's own, the eye is caught by something else after all.
        tries[..., -1] = np.where(wanted.any(axis=2), tries[..., -1], shop.first[np.argmax(foreign) * LEVELS])
        wanted[..., -1] = True
    chosen: Ints = np.take_along_axis(tries, np.argmax(wanted, axis=2)[..., None], axis=2)[..., 0]
    return chosen


def _steps(cause: Ints, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Say which step each look takes; (visits, 2, steps)."""
    count = len(cause)
    taken = random.random((count, 2, len(STEPS))) < _CHANCES[cause][:, None, :]
    taken[:, 1, 0] &= random.random(count) < _SECOND[cause]
    direct = _DIRECT[cause][:, None]
    seen = taken[:, :, 0] & taken[:, :, _DETAIL]
    taken[:, :, 1:_CART] &= taken[:, :, :1]
    taken[:, :, 2:_CART] &= seen[..., None]
    taken[:, :, _CART] &= seen | (direct & taken[:, :, 0])
    taken[:, :, _BUY] &= taken[:, :, _CART]
    return taken


def _queries(shop: Catalogue, shopper: Shopper, cause: Ints, ware: Ints, random: np.random.Generator) -> Ints:
    """Choose what every visit would type; (visits,)."""
    count = len(cause)
    kind = np.searchsorted(np.cumsum(queries.SHARES), random.random(count) * (1 - 1e-9))
    gift = (cause == GIFT) & (random.random(count) < 0.7)
    kind = np.where(gift, queries.GIFT, kind)
    language, at = int(shopper.chinese), np.maximum(ware, 0)
    first, many = shop.queries.first[language, kind, at], shop.queries.many[language, kind, at]
    found: Ints = first + (random.random(count) * many).astype(np.int64)
    return found


def _reviews(
    config: Config, shop: Catalogue, begin: Ints, item: Ints, bought: npt.NDArray[np.bool_], random: np.random.Generator
) -> Reviews:
    """Write reviews of what was bought: what they praise is what the item is good at."""
    visit, look = np.nonzero(bought & (random.random(bought.shape) < _REVIEWS))
    rows, time = item[visit, look], begin[visit] + 5 * DAY
    rows, time = rows[time < config.days * DAY], time[time < config.days * DAY]
    first, many = _texts()
    aspect = random.integers(0, len(first) // 2, len(rows))
    good = random.random(len(rows)) < shop.quality[rows, aspect]
    pick = aspect * 2 + good
    text = first[pick] + (random.random(len(rows)) * many[pick]).astype(np.int64)
    return Reviews(rows, time, text, np.where(good, 4.0, 1.0) + (random.random(len(rows)) < 0.5))


@lru_cache(maxsize=1)
def _texts() -> tuple[Ints, Ints]:
    """Where the sentences on each aspect begin, and how many there are: blame, then praise."""
    texts = review_texts()
    choices = [
        [at for at, text in enumerate(texts) if text.aspect == name and text.positive == liked]
        for name in dict.fromkeys(text.aspect for text in texts)
        for liked in (False, True)
    ]
    # The sentences of one aspect and sentiment stand together in the file.
    return np.array([found[0] for found in choices]), np.array([len(found) for found in choices])
