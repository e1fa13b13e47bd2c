"""The shop: items by ware and price level, each with brand, launch day, season and hidden quality."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recgpt.datasets.world import hostile, queries, vocabulary
from recgpt.datasets.world.config import DAY, START, Config
from recgpt.datasets.world.vocabulary import BRANDS, FACTS, Vocabulary
from recgpt.schema import ITEMS, TIMESTAMP

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
LEVELS = 3
"""Price levels of every ware."""
CATALOGUE = pa.schema([*ITEMS, pa.field("title_zh", pa.large_string()), pa.field("launched", TIMESTAMP)])
"""What the shop's items file says."""
ITEM_TRUTH = pa.schema(
    [
        pa.field("item_id", pa.large_string(), nullable=False),
        pa.field("theme", pa.large_string(), nullable=False),
        pa.field("kind", pa.large_string(), nullable=False),
        pa.field("ware", pa.large_string(), nullable=False),
        pa.field("resembles", pa.large_string()),
        pa.field("level", pa.int8(), nullable=False),
        pa.field("months", pa.list_(pa.int8()), nullable=False),
        pa.field("promoted", pa.bool_(), nullable=False),
        pa.field("hostile", pa.bool_(), nullable=False),
    ]
)
"""What is true of each item, whatever its title says."""


class Catalogue(NamedTuple):
    """Items in the order of ware, price level and launch; columns are numpy arrays for the shoppers' draws."""

    words: Vocabulary
    queries: queries.Queries
    ware: Ints
    """(items,)"""
    block: Ints
    """(items,): ware * LEVELS + price level."""
    brand: Ints
    """(items,)"""
    quality: Floats
    """(items, aspects): chance that a reviewer likes it."""
    first: Ints
    """(wares * LEVELS,): row of the first item of a ware and level; where it has none, of the whole ware."""
    launched: npt.NDArray[np.int32]
    """(wares * LEVELS, days + 1): how many of them are there on a day; at least one."""
    attention: Floats
    """(items,): running sum of how much each item is put before people, ends at 1."""
    promoted: Ints
    """Rows of the items that promotions push."""
    ids: pa.Array
    items: pa.Table
    """CATALOGUE"""
    truth: pa.Table
    """ITEM_TRUTH"""


def build(config: Config) -> Catalogue:
    """Make the shop of a configuration; it does not depend on the number of users."""
    words = vocabulary.choose(config.items)
    random = np.random.default_rng([config.seed, 1])
    n, wares = config.items, len(words.wares)
    ware = np.sort(np.arange(n) % wares)
    place = np.arange(n) - np.searchsorted(ware, ware)
    size = np.bincount(ware, minlength=wares)[ware]
    level = place * LEVELS // size
    brand = random.integers(len(BRANDS), size=n)
    # A quarter of the goods comes to the shop while the log is running; the first of each block is always there.
    launch = np.where(random.random(n) < 0.25, random.integers(1, config.days, n), random.integers(-1500, 0, n))
    block = ware * LEVELS + level
    launch[np.searchsorted(block, np.unique(block))] = -1500
    # Within a block by launch, so that what is there on a day is a prefix of it.
    order = np.lexsort((launch, block))
    ware, level, brand, launch, block = (one[order] for one in (ware, level, brand, launch, block))
    first, launched = _blocks(ware, block, launch, wares, config.days)
    attention = random.permutation(n) + 1.0
    attention = np.cumsum(1 / attention)
    wants = np.array([words.themes[one.theme].kind != "necessity" for one in words.wares])[ware]
    promoted = np.sort(random.choice(np.flatnonzero(wants & (launch < 0)), max(3, n // 200), replace=False))
    quality = random.beta(4, 2, (n, len({text.aspect for text in vocabulary.review_texts()})))
    numbers = random.permutation(n)
    columns, attacks = _columns(config, words, random, ware, level, brand, launch, numbers)
    found = {
        "item_id": columns["item_id"],
        "theme": [words.themes[words.wares[one].theme].name for one in ware],
        "kind": [words.themes[words.wares[one].theme].kind for one in ware],
        "ware": [words.wares[one].name.en for one in ware],
        "resembles": [name and name.replace("-", " ") for name in (words.wares[one].resembles for one in ware)],
        "level": level,
        "months": [words.themes[words.wares[one].theme].months for one in ware],
        "promoted": np.isin(np.arange(n), promoted),
        "hostile": attacks,
    }
    by_id = pa.array(np.argsort(numbers))
    return Catalogue(
        words,
        queries.build(words),
        ware,
        block,
        brand,
        quality,
        first,
        launched,
        attention / attention[-1],
        promoted,
        pa.array(columns["item_id"], pa.large_string()),
        pa.table(columns, CATALOGUE).take(by_id),
        pa.table(found, ITEM_TRUTH).take(by_id),
    )


def _blocks(ware: Ints, block: Ints, launch: Ints, wares: int, days: int) -> tuple[Ints, npt.NDArray[np.int32]]:
    """Say where each block begins and how many of its items are there on each day."""
    first = np.zeros(wares * LEVELS, np.int64)
    launched = np.zeros((wares * LEVELS, days + 1), np.int32)
    calendar = np.arange(days + 1)
    for one in range(wares * LEVELS):
        low, high = np.searchsorted(block, one), np.searchsorted(block, one, side="right")
        if low == high:  # fewer items than price levels: whoever wants this level takes the ware's first
            low = np.searchsorted(ware, one // LEVELS)
            high = low + 1
        first[one] = low
        launched[one] = np.searchsorted(launch[low:high], calendar, side="right")
    return first, launched


def _columns(
    config: Config,
    words: Vocabulary,
    random: np.random.Generator,
    ware: Ints,
    level: Ints,
    brand: Ints,
    launch: Ints,
    numbers: Ints,
) -> tuple[dict[str, Any], list[bool]]:
    """Write what the shop says of its items; and which of the titles attack."""
    n = len(ware)
    base = random.lognormal(2.5, 0.7, len(words.wares))
    price = np.round(base[ware] * np.array([0.6, 1.0, 2.2])[level] * random.lognormal(0, 0.1, n), 2)
    modifier, fact = random.integers(3, size=n), random.integers(len(FACTS), size=n)
    titles: list[str | None] = []
    chinese: list[str] = []
    categories: list[str | None] = []
    descriptions = []
    for row in range(n):
        one = words.wares[ware[row]]
        theme = words.themes[one.theme]
        said = theme.modifiers[modifier[row]], one.name, FACTS[fact[row]], BRANDS[brand[row]]
        titles.append(f"{said[3].en} {said[0].en} {said[1].en}, {said[2].en}")
        chinese.append(f"{said[3].zh}{said[0].zh}{said[1].zh} {said[2].zh}")
        categories.append(f"{theme.department} > {one.name.en.capitalize()}")
        descriptions.append(f"{said[1].en.capitalize()}, {said[0].en}. {said[2].en.capitalize()}.")
    if config.language != "en":
        turn = np.ones(n, np.bool_) if config.language == "zh" else random.random(n) < 0.5
        titles = [other if its else title for title, other, its in zip(titles, chinese, turn, strict=True)]
    attacks = [False] * n
    prices: list[float | None] = price.tolist()
    if config.hostile:
        # By item number: the attacks are spread over the shelves, and some items lack what others have.
        for row, number in enumerate(numbers):
            if number % 4 == 3 and number // 4 < len(hostile.TITLES):
                titles[row], attacks[row] = hostile.TITLES[number // 4], True
            elif number % 41 == 40:
                titles[row] = None
            categories[row] = None if number % 17 == 16 else categories[row]
            prices[row] = None if number % 23 == 22 else prices[row]
    return {
        "item_id": [f"i{number:05d}" for number in numbers],
        "title": titles,
        "category": categories,
        "brand": [BRANDS[one].en for one in brand],
        "price": prices,
        "attributes": [FACTS[one].en for one in fact],
        "description": descriptions,
        "title_zh": chinese,
        "launched": pa.array((launch * DAY + int(START.timestamp())) * 1_000_000).cast(TIMESTAMP),
    }, attacks
