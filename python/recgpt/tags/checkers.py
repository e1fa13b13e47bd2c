"""The rules of the tags stage as small pure functions: each takes plain data and returns None or the rule's name.

`prompts/rules/tags.toml` lists every principle, requirement and prohibition with the function that checks it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from recgpt.brands import Brands
from recgpt.tags.normalizer import category_heads, names_good
from recgpt.tags.words import singular, split, stems
from recgpt.text import listed

MAX_TAG_WORDS = 6
MAX_REASON_WORDS = 24
_BARE = frozenset({"make", "use", "it", "them", "have", "get"})
_MODEL = re.compile(r"\b(?=\w*\d)\w+\b")


def specific(tag: str, categories: Collection[str]) -> str | None:
    """A tag has at least two words and is not just a category's name ("modifier + core word").

    >>> specific("crushed ice", {"ICE"}), specific("ice", {"ICE"}), specific("bath tissue", {"BATH TISSUES"})
    (None, 'too_broad', 'too_broad')
    """
    words = stems(tag)
    if not 2 <= len(words) <= MAX_TAG_WORDS:
        return "too_broad" if len(words) < 2 else "too_long"
    return "too_broad" if any(stems(category) == words for category in categories) else None


def a_good(tag: str, category: str | None) -> str | None:
    """A tag names a good: it does not only say how something is or for whom, and what it names is not denied.

    >>> a_good("dry dog", "Dog Foods"), a_good("dry dog food", "Dog Foods"), a_good("beef hot dog", "Hot Dogs")
    ('no_good', None, None)
    """
    return None if names_good(stems(tag), category_heads(category)) else "no_good"


def no_brand(tag: str, brands: Brands) -> str | None:
    """A tag names no brand: none of the catalogue's and none of the list `brands`.

    >>> no_brand("acme dog food", Brands(["Acme"])), no_brand("dry dog food", Brands(["Acme"]))
    ('brand', None)
    """
    return "brand" if brands.spans(tag) else None


def no_model(tag: str) -> str | None:
    """A tag names no model, size or number.

    >>> no_model("wireless mouse mx3"), no_model("wireless mouse")
    ('model', None)
    """
    return "model" if _MODEL.search(tag) else None


def no_vague_word(tag: str) -> str | None:
    """A tag holds no vague or overly broad word such as the three that Appendix B names.

    >>> no_vague_word("smart coaster"), no_vague_word("cork coaster")
    ('vague_word', None)
    """
    return "vague_word" if set(stems(tag)) & listed("vague") else None


def fresh(tag: str, recent: Collection[tuple[str, ...]]) -> str | None:
    """The user did not click, buy or search the tag in the past month. `recent`: tags as sorted singular words."""
    return "past_month" if tuple(sorted(stems(tag))) in recent else None


def in_season(category: str | None, out_of_season: Collection[str]) -> str | None:
    """The tag's category sells in this calendar month at not much less than its yearly mean."""
    return "out_of_season" if category in out_of_season else None


def valid(category: str | None, known: Collection[str]) -> str | None:
    """The tag maps to a category that the catalogue has, so an existing product can answer it.

    A catalogue without any category refuses no tag.

    >>> valid("ICE", {"ICE"}), valid("", {"ICE"}), valid("", set())
    (None, 'no_category', None)
    """
    return None if not known or (category is not None and category in known) else "no_category"


def interest_known(interest: str | None, interests: Collection[str]) -> str | None:
    """The associated interest is one of the user's own; a user without mined interests has none to name."""
    if not interests:
        return None if interest is None else "unknown_interest"
    known = {text.casefold() for text in interests}
    return None if interest is not None and interest.casefold() in known else "unknown_interest"


def relevant(association: float | None, least: float) -> str | None:
    """The tag has to do with its interest: word overlap plus category probability reaches `least`."""
    return "irrelevant" if association is not None and association < least else None


def diverse(categories: Sequence[str | None], floor: int, quantity: int) -> list[int]:
    """Choose places in order of rank so that the floor of distinct categories is met where it can be.

    First at most `quantity / floor` of each category; when that reached the floor, what is left of the quantity is
    filled in order of rank. Where no place has a category there is no floor.

    >>> diverse(["A", "A", "B"], 2, 2), diverse(["", "", ""], 2, 2)
    ([0, 2], [0, 1])
    """
    if not any(categories):
        return list(range(min(quantity, len(categories))))
    cap = max(1, -(-quantity // floor))
    seen: Counter[str | None] = Counter()
    first: list[int] = []
    for place, category in enumerate(categories):
        if len(first) < quantity and seen[category] < cap:
            seen[category] += 1
            first.append(place)
    chosen = set(first)
    if len(seen) >= floor:
        rest = (place for place in range(len(categories)) if place not in chosen)
        for place in rest:
            if len(first) >= quantity:
                break
            first.append(place)
    return sorted(first)


def has_substance(text: str, given: str = "") -> str | None:
    """The model's own words say something: at least two, one of them neither given nor a bare "make it", no loops.

    >>> has_substance("make salsa at home"), has_substance("it"), has_substance("cat cat cat")
    (None, 'no_substance', 'repetition')
    """
    words = split(text)
    if len(words) < 2 or not set(stems(text)) - set(stems(given)) - listed("loose_ends") - _BARE:
        return "no_substance"
    half = len(words) // 2
    loops = max(Counter(words).values()) > 2 or (half > 1 and words[:half] == words[half : 2 * half])
    return "repetition" if loops else None


def complete(text: str) -> str | None:
    """The text does not stop in the middle of a phrase."""
    words = split(text)
    return "incomplete" if not words or words[-1] in listed("loose_ends") else None


def grounded(reason: str, history: Collection[str], attributes: str) -> str | None:
    """A reason mentions something real of the user: a history tag, a query, or a word of the attributes."""
    words = set(stems(reason))
    if any(set(stems(text)) <= words for text in history if stems(text)):
        return None
    return None if {word for word in map(singular, split(attributes)) if len(word) > 3} & words else "ungrounded"


def no_foreign_number(reason: str, known: str) -> str | None:
    """A reason brings no number that the prompt did not hold."""
    own = set(re.findall(r"\d+", known))
    return "invented_number" if set(re.findall(r"\d+", reason)) - own else None


def no_echo(text: str, prompt: str) -> str | None:
    """The model's own words are not copied from the instructions' examples: no three words in a row are the same.

    >>> no_echo("light the garden", "a lantern to light the camp"), no_echo("a b c", "x a b c d")
    (None, 'echo')
    """
    words, given = split(text), f" {' '.join(split(prompt))} "
    runs = (words[place : place + 3] for place in range(len(words) - 2))
    return "echo" if any(f" {' '.join(run)} " in given for run in runs) else None


def brief(reason: str) -> str | None:
    """A reason stays short."""
    return "too_long" if len(split(reason)) > MAX_REASON_WORDS else None
