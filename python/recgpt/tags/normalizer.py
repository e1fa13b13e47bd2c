"""The stated normalizer: one brand-free "modifier + core word" tag an item (sections 2.2.1 and 2.3.1).

The rule, in order: clean the title; take out brands (`recgpt.brands`), parentheses, sizes, numbers and model codes; cut
what follows "not", "except" and the like; write shop shorthand out; of alternatives (`A/B`) keep the first; read a
shelf heading (`BREAD:ITALIAN`) as modifier and core (`italian bread`); drop words of the lists `filler` and `vague`;
make words singular; drop what dangles at the end ("up", "for"); keep two to five words in the order of the title. A
category path (`Makeup > Lips > Lipstick`) gives the core word by its leaf, and the title's words that many brands share
give the modifiers. A lone word is completed from the category, else from the attributes.

A tag names a good: one of its words is not in the list `modifiers`, nor said not to be there (`non chocolate`, `sugar
free`), or it ends the name of its category in the plural (`Hot Dogs`). Where a title has no such word (`Marinated`,
`Dry Dog`), its words stand before the name of its category (`dry dog food`), or of that alternative which shares a word
with it. What then still names nothing, or has one word, gets no tag.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache

import pyarrow as pa

from recgpt import schema
from recgpt.brands import Brands
from recgpt.tags.words import shorthand, singular, split
from recgpt.text import clean, listed

MAX_WORDS = 5
"""Longest tag, in words; the core word stands last, so longer ones lose their first words."""
MIN_SHARED_BRANDS = 5
"""On a category path no brand is known: a title word is a modifier only behind this many different opening words."""
MISFILED = 3
"""A category with at most a third of the items that another holds of the same title is a slip of the catalogue."""

_UNREADABLE = re.compile(r"[bcdfghjklmnpqrstvwxz]{9}")
"""So many consonants in a row are in no word of English or German: "ctlrytblclthstthpksst" is cutlery and more."""
_PARENTHESES = re.compile(r"[(\[][^)\]]*(?:[)\]]|$)")
_DIGITS = re.compile(r"\S*\d\S*")
_HEADING_SEPARATOR = re.compile(r"\s+-\s+|:|;")
_ALTERNATIVE = re.compile(r"\s*/\s*")
_PIECES = re.compile(r"\s+-\s+|\s+and\s+|[:&,/]", re.I)
_TAIL = (" in ", " for ", " with ", " w/ ")
_CLASS_NAMES = frozenset({"produce", "meat", "seafood", "floral", "deli", "pastry", "nutrition", "garden", "spirits"})
_DEPARTMENTS = frozenset({"grocery"})
_NOT = frozenset({"non", "no"})
_DANGLING = frozenset({"up", "out", "off", "non", "no", "plus"})


def item_tags(items: schema.ArrowStream, *, brands: Brands | None = None) -> pa.Table:
    """Give every item its own tag; items without usable words get no row.

    Args:
        items: a table that `schema.ITEMS` describes.
        brands: names that no tag may hold; by default those of `items` and of `prompts/rules/brands.txt`.

    Returns:
        `schema.ITEM_TAGS`, in the order of the items.

    Raises:
        InvalidTableError: `items` misses a column or has one of a wrong type.
    """
    table = schema.table(items, schema.ITEMS, name="items")
    brands = brands or Brands.of(table)
    columns = [table.column(name).to_pylist() for name in ("title", "category", "brand", "attributes")]
    shared = _shared_words(zip(columns[0], columns[1], strict=True))
    # Sizes differ between items that share everything else, so they leave before the cache is asked.
    titles = [_without_sizes(clean(title)) for title in columns[0]]
    usual = _usual_shelves(zip(titles, columns[1], strict=True))
    known: dict[tuple[str, str, str, str], str] = {}
    tags: list[str] = []
    for title, category, brand, attributes in zip(titles, *columns[1:], strict=True):
        shelf = usual.get((title, category or ""), category)
        key = (title, shelf or "", brand or "", attributes or "")
        if key not in known:
            known[key] = _tag(*key, shared=shared, brands=brands)
        tags.append(known[key])
    mask = pa.array([bool(tag) for tag in tags], pa.bool_())
    return pa.table([table.column("item_id"), pa.array(tags, pa.large_string())], schema=schema.ITEM_TAGS).filter(mask)


def normalize(title: str | None, category: str | None = None, brand: str | None = None) -> str:
    """Normalize one title on its own; an empty text when it holds no usable words.

    >>> normalize("ICE - CRUSHED/CUBED, 22 LB, Private", "FRZN ICE", "Private")
    'crushed ice'
    >>> normalize("SET OF 12 T-LIGHTS VINTAGE DOILY")
    'light vintage doily'
    """
    brands = Brands([*listed("brands"), brand or ""])
    return _tag(_without_sizes(clean(title)), category or "", brand or "", "", shared=None, brands=brands)


def _usual_shelves(rows: Iterable[tuple[str, str | None]]) -> dict[tuple[str, str], str]:
    """Find misfiled items: a title's rare category gives way to the one that holds `MISFILED` times as many of them.

    A kite among frozen pizzas would become a "frozen pizza kite".
    """
    shelves: dict[str, Counter[str]] = defaultdict(Counter)
    for title, category in rows:
        if title and category:
            shelves[title][category] += 1
    usual: dict[tuple[str, str], str] = {}
    for title, counts in shelves.items():
        best, most = min(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        usual |= {(title, other): best for other, count in counts.items() if count * MISFILED <= most}
    return usual


def _without_sizes(title: str) -> str:
    return re.sub(r"\s+", " ", _DIGITS.sub(" ", _PARENTHESES.sub(" ", title) if title[:1] not in "([" else title))


def _tag(
    title: str, category: str, brand: str, attributes: str, *, shared: frozenset[str] | None, brands: Brands
) -> str:
    brand_words = frozenset(split(brand))
    title, given = brands.without(title), title
    if " > " in category:
        words = _path_words(title, category, brand_words, shared)
        return " ".join(words[-MAX_WORDS:]) if len(words) > 1 else ""
    heads = category_heads(category)
    # A title that begins with a brand alone would go on with its size or its color.
    words = _title_words(title.casefold(), brand_words) if split(brands.without(given.split(",")[0])) else []
    if given and not words:
        # A title of fillers or a brand alone ("PREMIUM") says what the item is by its category.
        words = _title_words(category.casefold(), brand_words)
    if words and not names_good(words, heads):
        words = _named_by_category(words, category, attributes, brand_words, heads)
    elif len(words) == 1:
        words = _completed(words[0], category, attributes, brand_words)
    return " ".join(words[-MAX_WORDS:]) if len(words) > 1 and names_good(words, heads) else ""


def names_good(words: Sequence[str], heads: frozenset[str] = frozenset()) -> bool:
    """Tell whether a word of a tag names a good: one that does not only describe, and is not said to be absent.

    Args:
        words: the tag's words, singular.
        heads: words that name goods in its category whatever the list says (`category_heads`).

    >>> names_good(["dry", "dog", "food"]), names_good(["frozen", "breaded"]), names_good(["non", "chocolate"])
    (True, False, False)
    """
    return any(
        (word in heads or word not in listed("modifiers"))
        and (place == 0 or words[place - 1] not in _NOT)
        and (place + 1 == len(words) or words[place + 1] != "free")
        for place, word in enumerate(words)
    )


@cache
def category_heads(category: str | None) -> frozenset[str]:
    """Take the words by which a category's name ends, where they are plural: goods, whatever they are elsewhere.

    >>> sorted(category_heads("Hot Dogs")), sorted(category_heads("Frozen"))
    (['dog'], [])
    """
    last = [split(piece)[-1] for piece in _PIECES.split(category or "") if split(piece)]
    return frozenset(singular(word) for word in last if singular(word) != word)


def _named_by_category(
    words: list[str], category: str, attributes: str, brand: frozenset[str], heads: frozenset[str]
) -> list[str]:
    """Put describing words before a piece of the category's name: the one that shares a word, else the first that does.

    A class name of the attributes (`meat`) serves where the category names no good.
    """
    pieces = [piece for part in _PIECES.split(category.casefold()) if (piece := _usable(part, brand))]
    pieces.sort(key=lambda piece: not set(piece) & set(words))
    classes = [[word] for word in _usable(attributes.casefold(), brand) if word in _CLASS_NAMES]
    for piece in (*pieces, *classes):
        if names_good(piece, heads):
            return [*(word for word in words if word not in piece), *piece]
    return []


def _title_words(title: str, brand: frozenset[str]) -> list[str]:
    """Words of one casefolded title, modifiers first and the core word last."""
    table = shorthand()
    for heading in table.headings:
        if title.startswith(heading) and (rest := title[len(heading) :].lstrip())[:1] in {":", "-"} and rest[:1]:
            # Only a heading with the name of a good behind it is a heading.
            if names_good(_usable(rest, brand)):
                title = rest.lstrip(":- ")
            break
    # Behind the first comma stand sizes, colors, counts and brands; the part before it must still say something.
    parts = [part for part in title.split(",") if part.strip()]
    title = next((part for part in parts if _usable(part, brand)), "")
    pieces = [piece for piece in _HEADING_SEPARATOR.split(title) if _usable(piece, brand)]
    pieces = pieces[1::-1] if len(pieces) > 1 and len(split(pieces[0])) <= 2 else pieces[:1]
    words: list[str] = []
    for piece in pieces:
        for word in _usable(piece, brand):
            if word not in words:
                words.append(word)
    return words


def _usable(piece: str, brand: frozenset[str]) -> list[str]:
    """Usable words of one piece of a title: written out, singular, no brand, number, filler or vague word."""
    table, skipped = shorthand(), _skipped()
    piece = f" {piece.strip(' :-;')} "
    for tail in _TAIL:
        before, found, _ = piece.partition(tail)
        if found and len(split(before)) > 1:
            piece = before
    words: list[str] = []
    for chunk in _ALTERNATIVE.sub("/", piece).split():
        if chunk in table.cuts:
            break
        parts = [part for part in chunk.split("/") if split(part)]
        first = parts[0] if parts else ""
        # "make-up" stands in the table as one word, "push-ups" falls into two.
        for raw in [first] if first in table.words else split(first):
            for word in table.words.get(raw, raw).split():
                single = singular(word)
                if (
                    len(single) > 1
                    and not any(character.isdigit() for character in single)
                    and not _UNREADABLE.search(single)
                    and not {word, single, raw} & (skipped | brand)
                ):
                    if single not in words:
                        words.append(single)
                elif words and words[-1] in _NOT:
                    # What was denied has left, and the word after it is not denied.
                    words.pop()
        if len(parts) > 1 and words and singular(first) != first and names_good(words[-1:]):
            # A plural stands for itself: in "Cups/Push Ups/Other" what follows belongs to the other alternatives.
            break
    while words and words[-1] in _DANGLING | listed("loose_ends"):
        words.pop()
    return words


@cache
def _skipped() -> frozenset[str]:
    return listed("filler") | listed("vague")


def _completed(word: str, category: str, attributes: str, brand: frozenset[str]) -> list[str]:
    """Complete a lone word: class names (plural) follow it, other category words and attributes stand before it."""
    pieces = [piece for piece in re.split(r"\s+-\s+|:|&|,", category.casefold()) if _usable(piece, brand)]
    for piece in pieces[:1]:
        words = _usable(piece, brand)
        if word in words:
            if len(words) > 1:
                return [*(other for other in words if other != word), word]
        elif split(piece)[-1].endswith("s"):
            return [word, *words[-2:]]
        else:
            return [*words[-2:], word]
    for other in _usable(attributes.casefold(), brand):
        if other in _CLASS_NAMES and other != word:
            return [word, other]
        if other in _DEPARTMENTS:
            return [other, word]
    return [word]


def _path_words(title: str, path: str, brand: frozenset[str], shared: frozenset[str] | None) -> list[str]:
    """The leaf of a category path is the core; up to two title words that many brands share are the modifiers."""
    title = re.split(r"\s+-\s+|,", title.casefold())[0] if "," in title else title.casefold()
    present = frozenset(map(singular, split(title)))
    leaves: list[list[str]] = []
    for level in path.split(" > "):
        # Of "Eyelashes & Adhesives" the alternative that the title speaks of, else the first.
        parts = [words for part in level.casefold().split("&") if (words := _usable(part, brand))]
        leaves.append(next((words for words in parts if words[-1] in present), parts[0] if parts else []))
    core = next((leaf for leaf in reversed(leaves[1:] or leaves) if leaf), [])
    words = [
        word
        for word in _usable(title, brand)
        if word not in core
        and (shared is None or word in shared)
        and not any(part in core for part in (word, word + "s"))
    ]
    last = next((place for place, word in enumerate(_usable(title, brand)) if core and word == core[-1]), None)
    if last is not None:
        before = _usable(title, brand)[:last]
        words = [word for word in words if word in before] or words
    return [*words[-2:], *core]


def _shared_words(rows: Iterable[tuple[str | None, str | None]]) -> frozenset[str]:
    """Words of path-category titles that follow at least `MIN_SHARED_BRANDS` opening words and rarely open a title."""
    openers: dict[str, set[str]] = defaultdict(set)
    opened, seen = Counter[str](), Counter[str]()
    for title, category in rows:
        if not title or not category or " > " not in category:
            continue
        words = [singular(word) for word in split(_without_sizes(clean(title)))]
        for place, word in enumerate(words):
            seen[word] += 1
            opened[word] += place == 0
            if place:
                openers[word].add(words[0])
    return frozenset(word for word in seen if len(openers[word]) >= MIN_SHARED_BRANDS and opened[word] * 4 < seen[word])
