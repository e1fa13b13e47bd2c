"""What is true of each user: planted interests, what they would want next, and the items that would serve it best."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recgpt.datasets.world.catalogue import LEVELS, Catalogue, Floats, Ints
from recgpt.datasets.world.config import START, Config
from recgpt.datasets.world.events import Life, likely, odds
from recgpt.datasets.world.shoppers import FOREVER
from recgpt.datasets.world.visits import SEASON, months
from recgpt.schema import TIMESTAMP

BEST = 20
"""Items that a perfect recommender would show."""
_NEXT = (0.6, 0.25, 0.15)
"""How much the next ware of an interest is wanted, the one after it, and the third."""
_OUT_OF_SEASON = 0.05
_SOON = 30
"""Days in which a need of the season counts as the next."""
_OWN_LEVEL = 0.85
"""Share of looks at the user's own price level; the rest goes to any."""
_text, _whole = pa.large_string(), pa.int32()


def _schema(*fields: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in fields])


INTERESTS = _schema(
    ("user_id", _text), ("interest", _text), ("pool_id", _text), ("stage", _text), ("start", TIMESTAMP),
    ("end", TIMESTAMP), ("strength", pa.float64()),
)  # fmt: skip
"""Planted interests. `start` may lie before the log; `end` is the first moment without it, null where it stays."""
CAUSES = _schema(
    ("user_id", _text), ("timestamp", TIMESTAMP), ("cause", _text), ("interest", _text), ("meant", _text)
)  # fmt: skip
"""Why each event happened: one row an event, in the order of `events`; a user has no two at one time. `interest` only
where the cause is `interest`; `meant`: the ware that a search was after, whatever was typed."""
WANTS = _schema(
    ("user_id", _text), ("rank", _whole), ("ware", _text), ("category", _text), ("cause", _text), ("interest", _text),
    ("weight", pa.float64()),
)  # fmt: skip
"""What a user would want next at `now`; weights of a user add to 1."""
SHOWN = _schema(("user_id", _text), ("rank", _whole), ("item_id", _text), ("interest", _text), ("gain", pa.float64()))
"""What a perfect recommender would show at `now`: the items with the highest chance to be looked at next."""
REVIEWS = _schema(
    ("user_id", _text), ("item_id", _text), ("timestamp", TIMESTAMP), ("aspect", _text), ("sentiment", _text)
)
QUESTIONS = _schema(
    ("user_id", _text), ("timestamp", TIMESTAMP), ("question", _text), ("interest", _text), ("answer", pa.list_(_text))
)
"""What-to-buy questions; `answer`: the wares of that interest that the user had not bought by then, the one they were
after first."""


class Want(NamedTuple):
    """One ware that a user would want next."""

    ware: int
    slot: int
    """Which interest; -1 for a need of the season."""
    weight: float


def interests(shop: Catalogue, life: Life, user: str) -> list[dict[str, Any]]:
    """List a user's planted interests as INTERESTS."""
    return [
        {
            "user_id": user,
            "interest": shop.words.themes[one.theme].name,
            "pool_id": shop.words.themes[one.theme].id,
            "stage": "long-term" if one.long else "short-term",
            "start": START + timedelta(days=one.start),
            "end": None if one.end == FOREVER else START + timedelta(days=one.end),
            "strength": one.strength,
        }
        for one in life.shopper.interests
    ]


def wants(config: Config, shop: Catalogue, life: Life, day: int) -> list[Want]:
    """Say what a user would want next at the begin of a day, most wanted first."""
    planned = life.visits
    month = int(months(config.days)[day])
    found: dict[int, Want] = {}

    def add(ware: int, slot: int, weight: float) -> None:
        if ware not in found or weight > found[ware].weight:
            found[ware] = Want(ware, slot, weight)

    for slot, one in enumerate(life.shopper.interests):
        if not one.start <= day < one.end:
            continue
        own = planned.day[planned.slot == slot]
        alive = min(one.end, config.days) - max(one.start, 0)
        rate = len(own) / max(alive, 1)
        season = shop.words.themes[one.theme].months
        rate *= _OUT_OF_SEASON if season and month not in season else 1.0
        done = int((own < day).sum())
        place = done // one.pause % len(one.path)
        for share, ware in zip(_NEXT, np.roll(one.path, -place)[: len(_NEXT)].tolist(), strict=False):
            add(ware, slot, rate * share)
    soon = (planned.cause == SEASON) & (planned.day >= day) & (planned.day < day + _SOON)
    for ware in planned.ware[soon].tolist():
        add(ware, -1, 1 / _SOON)
    whole = sum(want.weight for want in found.values())
    ordered = sorted(found.values(), key=lambda want: (-want.weight, want.ware))
    return [want._replace(weight=want.weight / whole) for want in ordered if whole]


def best(
    config: Config, shop: Catalogue, life: Life, wanted: list[Want], day: int, most: int = BEST
) -> tuple[Ints, Floats, Ints]:
    """Give the items that most likely are looked at next: rows, chances, and the interest of each."""
    own = int(life.shopper.levels(np.array([day]), config.days)[0])
    likes = life.shopper.likes[int(day >= life.shopper.change)]
    rows: list[Ints] = []
    gains: list[Floats] = []
    slots: list[Ints] = []
    for want in wanted:
        for level in range(LEVELS):
            share = (1 - _OWN_LEVEL) / LEVELS + _OWN_LEVEL * (level == own)
            both = likely(shop, want.ware, level, min(day, config.days), likes)
            for part, chance in zip(both, odds(*map(len, both)), strict=True):
                rows.append(part)
                gains.append(np.full(len(part), want.weight * share * chance))
                slots.append(np.full(len(part), want.slot))
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64)
    row, gain, slot = np.concatenate(rows), np.concatenate(gains), np.concatenate(slots)
    # Where a ware has fewer items than price levels, one item stands for several of them.
    unique, at = np.unique(row, return_index=True)
    summed = np.bincount(np.searchsorted(unique, row), gain, minlength=len(unique)).astype(np.float64)
    order = np.lexsort((unique, -summed))[:most]
    return unique[order], summed[order], slot[at][order]


def questions(
    shop: Catalogue, life: Life, user: str, rows: Ints, moments: list[Any], texts: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """Answer a user's what-to-buy questions as QUESTIONS; `rows` are their places in the log."""
    log, words = life.log, shop.words
    bought = log.behavior == 1
    for row, moment in zip(rows.tolist(), moments, strict=True):
        meant = int(log.meant[row])
        theme = words.wares[meant].theme
        had = set(shop.ware[log.item[:row][bought[:row]]].tolist()) - {meant}
        others = [at for at, ware in enumerate(words.wares) if ware.theme == theme and at not in had and at != meant]
        yield {
            "user_id": user,
            "timestamp": moment,
            "question": texts[log.query[row]],
            "interest": words.themes[theme].name,
            "answer": [words.wares[at].name.en for at in (meant, *others)],
        }
