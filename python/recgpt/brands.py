"""Brand names: learnt from the catalogue's brand column, and listed in `prompts/rules/brands.txt`.

The stated rule for names that are also everyday words. A listed name is never one ("dove" and "tide" are not in the
list, "old spice" is, as a whole). A learnt name of one word counts only if most of the titles that hold it, of items
whose brand is known, are of that brand: where brand Dove sells two soaps and five others sell dove posters, "dove" is
a word.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import pyarrow as pa

from recgpt import schema
from recgpt.text import listed

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_NO_NAMES = frozenset(
    {
        (),
        ("national",),
        ("private",),
        ("none",),
        ("unbranded",),
        ("generic",),
        ("own", "brand"),
        ("no", "brand"),
        ("store", "brand"),
    }
)
"""What brand columns hold when they name no brand."""


def _key(word: str) -> str:
    """Bring a name's forms together: `Levi's`, `Levis` and `Levi` are one."""
    plain = word.casefold().replace("’", "'").removesuffix("'s")
    return plain[:-1] if len(plain) > 3 and plain.endswith("s") and not plain.endswith("ss") else plain


def _keys(text: str) -> tuple[str, ...]:
    return tuple(map(_key, _WORD.findall(text)))


class Brands:
    """Names that are brands, found in any text whatever its case and plural endings."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_first: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for name in sorted({_keys(name) for name in names} - _NO_NAMES):
            self._by_first[name[0]].append(name)

    @classmethod
    def of(cls, items: schema.ArrowStream, *, names: Iterable[str] | None = None) -> Brands:
        """Learn the brands of a catalogue, and add listed ones.

        Args:
            items: `schema.ITEMS`.
            names: the listed ones; by default those of `prompts/rules/brands.txt`.
        """
        table = schema.table(items, schema.ITEMS, name="items")
        pairs = table.select(["brand", "title"]).filter(table["brand"].is_valid())
        learnt = {_keys(brand): brand for brand in pairs["brand"].unique().to_pylist()}
        single = {name[0] for name in learnt if len(name) == 1 and name not in _NO_NAMES}
        everyday = _everyday(pairs, single) if single else frozenset()
        own = [brand for name, brand in learnt.items() if not (len(name) == 1 and name[0] in everyday)]
        return cls([*own, *(listed("brands") if names is None else names)])

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Find where a text names brands: (start, end) in characters, left to right, the longest name at each place.

        >>> Brands(["Old Spice", "Levi's"]).spans("LEVIS jeans, old spice soap")
        [(0, 5), (13, 22)]
        """
        words = list(_WORD.finditer(text))
        keys = [_key(word.group()) for word in words]
        found: list[tuple[int, int]] = []
        place = 0
        while place < len(keys):
            size = max(
                (len(name) for name in self._by_first.get(keys[place], ()) if _starts(keys, place, name)), default=0
            )
            if size:
                found.append((words[place].start(), words[place + size - 1].end()))
            place += size or 1
        return found

    def named(self, text: str) -> set[str]:
        """Give the brands that a text names, as they are compared.

        >>> sorted(Brands(["Old Spice", "Levi's"]).named("LEVIS jeans, old spice soap"))
        ['levi', 'old spice']
        """
        return {" ".join(_keys(text[start:end])) for start, end in self.spans(text)}

    def without(self, text: str) -> str:
        """Take the brands out of a text.

        >>> Brands(["Old Spice"]).without("OLD SPICE Bar Soap")
        'Bar Soap'
        """
        for start, end in reversed(self.spans(text)):
            text = f"{text[:start]} {text[end:]}"
        return " ".join(text.split())


def _starts(keys: Sequence[str], place: int, name: tuple[str, ...]) -> bool:
    return tuple(keys[place : place + len(name)]) == name


def _everyday(pairs: pa.Table, names: set[str]) -> frozenset[str]:
    """Names that stand in more titles of other brands than of their own."""
    own, others = Counter[str](), Counter[str]()
    for brand, title in zip(pairs["brand"].to_pylist(), pairs["title"].to_pylist(), strict=True):
        brand_keys = set(_keys(brand))
        for key in names.intersection(_keys(title or "")):
            (own if key in brand_keys else others)[key] += 1
    return frozenset(name for name in names if others[name] > own[name])
