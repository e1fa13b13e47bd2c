"""Texts of the catalogue: items, then search queries in double quotes, one row each; all distinct."""

from __future__ import annotations

from functools import cache

import numpy as np

ITEMS, QUERIES = 200_000, 100_000

SLOTS = [
    # Five lists of about 40 words; one of each and a sixth word make an item, 34 bytes on average.
    "organic classic fresh golden family rustic smoked mini premium crispy natural frozen roasted creamy spicy "
    "sweet light extra double royal alpine coastal garden harvest village summer winter pure silver happy little "
    "grand daily honest simple modern vintage wild young bold",
    "cotton vanilla cherry lemon maple almond steel bamboo ginger cocoa walnut peach mango linen oak pine berry "
    "apple honey garlic onion tomato pepper basil mint coconut orange banana hazel salmon chicken turkey wool "
    "leather copper glass paper stone velvet denim",
    "travel kitchen baby school office camping party breakfast dinner picnic bath garden desk pet running yoga "
    "beach winter bedroom dessert lunch sport bike hiking laundry coffee tea snack salad soup pasta bread cheese "
    "milk cake sauce juice rice bean cereal",
    "set box pack bag bottle jar mug bowl tray cup mix bar kit roll can tin pouch bundle basket case towel "
    "blanket shirt jacket lamp chair shelf brush cream soap candle knife board mat cover holder stand rack glove "
    "hat",
    "small large medium red blue green black white single twin triple jumbo slim wide soft firm warm cold dry "
    "fine thick thin long short round square plain mixed dark bright pink gray brown purple yellow ivory teal "
    "amber coral navy",
]
QUERY_SLOTS = [2, 1, 3, 4, 2]
"""Which lists a query draws its words from."""


@cache
def texts(words: int = 6, items: int = ITEMS, queries: int = QUERIES) -> list[str]:
    """Make the catalogue; 6 `words` give items of 35 bytes and 6.3 tokens, 19 give 19 tokens (SmolLM2)."""
    slots = [slot.split() for slot in SLOTS]
    # Words beyond the fifth say more of the same item, so they cannot make two items equal.
    order = [column % len(slots) for column in range(words)]
    made = _mixed([slots[slot] for slot in order], items, distinct=5)
    asked = _mixed([slots[slot] for slot in QUERY_SLOTS], queries, distinct=4)
    return made + [f'"{query}"' for query in asked]


def _mixed(columns: list[list[str]], rows: int, distinct: int) -> list[str]:
    """Join one word of each column; the first `distinct` columns are the digits of a number of its own per row."""
    space = int(np.prod([len(column) for column in columns[:distinct]]))
    # 1,000,003 is prime and divides no product of these list lengths, so no number comes twice.
    number = (np.arange(rows, dtype=np.int64) * 1_000_003 + 12_345) % space
    parts = []
    for place, column in enumerate(columns):
        digit = number % len(column) if place < distinct else (number * (2 * place + 1) + place) % len(column)
        parts.append(np.array(column, dtype=object)[digit])
        if place < distinct:
            number = number // len(column)
        if place == distinct - 1:
            number = np.arange(rows, dtype=np.int64) * 7_919 // 3
    return [" ".join(words) for words in zip(*parts, strict=True)]
