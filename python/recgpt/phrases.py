"""Words and listed phrases as the rules on free text see them, for reasons and explanations alike."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from recgpt.text import listed

HAN = re.compile(r"[㐀-䶿一-鿿豈-﫿]")
WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def chinese(text: str) -> bool:
    """Tell whether at least half of a text's letters are Chinese characters."""
    letters = sum(character.isalpha() for character in text)
    return bool(letters) and 2 * len(HAN.findall(text)) >= letters


def words(text: str) -> list[str]:
    """Split into lower-case words, simple plurals cut; Chinese text into its characters.

    >>> words("Warm Socks for boys")
    ['warm', 'sock', 'for', 'boy']
    """
    if chinese(text):
        return HAN.findall(text)
    return [_singular(word) for word in WORD.findall(text.casefold())]


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


@cache
def _patterns(name: str) -> tuple[tuple[str, re.Pattern[str] | None], ...]:
    """Entries of a list with their patterns; None for Chinese, which is looked for anywhere.

    `*` at the end of a word stands for any ending, ` ... ` for up to three words between, and where an entry has a
    hyphen or a space a text may have either or nothing.
    """
    found: list[tuple[str, re.Pattern[str] | None]] = []
    for entry in sorted(listed(name)):
        parts = [
            r"[\s-]?".join(re.escape(word).replace(r"\*", r"\w*") for word in re.split(r"[\s-]+", part.strip()))
            for part in entry.split(" ... ")
        ]
        whole = r"\s+(?:[\w'-]+\s+){0,3}".join(parts)
        found.append((entry, None if HAN.search(entry) else re.compile(rf"(?<!\w){whole}(?!\w)")))
    return tuple(found)


def named(text: str, name: str) -> set[str]:
    """Entries of a list that a text holds: whole words for Latin entries, any place for the others."""
    plain = text.casefold().replace("’", "'")
    versions = (plain, " ".join(words(text)))
    return {
        entry
        for entry, pattern in _patterns(name)
        if (entry in plain if pattern is None else any(pattern.search(version) for version in versions))
    }


@lru_cache(maxsize=100_000)
def claims(text: str) -> frozenset[str]:
    """Give the entries of the list `claims` that a text makes."""
    return frozenset(named(text, "claims"))


@lru_cache(maxsize=100_000)
def sensitive(text: str) -> bool:
    """Tell whether a text names what speaks of health or of a person's body (the list `sensitive`).

    >>> sensitive("adult analgesic"), sensitive("lubricated spark plugs")
    (True, False)
    """
    return bool(named(text, "sensitive"))


def no_invented_claim(text: str, facts: str) -> str | None:
    """A material, function or property is named only where the given facts name it.

    The name of an item's category is none of them: on a shelf of natural snacks not everything is natural.

    >>> no_invented_claim("Organic bread for slow mornings", "white bread")
    'invented_claim'
    >>> no_invented_claim("Oats that lower your cholesterol", "rolled oats")
    'invented_claim'
    """
    return "invented_claim" if claims(text) - claims(facts) else None


def discreet(text: str, facts: str) -> str | None:
    """Nothing of anybody's health or body is said that the given facts do not name.

    >>> discreet("Tea against your headache", "green tea"), discreet("Cough drops at hand", "cough drops")
    ('sensitive', None)
    """
    return "sensitive" if sensitive(text) and not sensitive(facts) else None
