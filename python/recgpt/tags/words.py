"""Words as the tag rules see them: lower case, shop shorthand written out, singular."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources
from typing import NamedTuple

from recgpt.text import listed

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_IRREGULAR = {
    "brownies": "brownie", "calories": "calorie", "cookies": "cookie", "cosies": "cosy", "knives": "knife",
    "leaves": "leaf", "loaves": "loaf", "lures": "lure", "movies": "movie", "pies": "pie", "shelves": "shelf",
    "shoes": "shoe", "smoothies": "smoothie", "ties": "tie", "veggies": "veggie", "axes": "axe", "halves": "half",
    "toes": "toe", "canoes": "canoe", "caches": "cache", "headaches": "headache", "toothaches": "toothache",
}  # fmt: skip


class Shorthand(NamedTuple):
    """The abbreviation table (`prompts/rules/abbreviations.toml`)."""

    words: dict[str, str]
    headings: tuple[str, ...]
    cuts: frozenset[str]


@cache
def shorthand() -> Shorthand:
    """Read the abbreviation table."""
    text = (resources.files("recgpt") / "prompts" / "rules" / "abbreviations.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    headings = tuple(sorted(table["headings"], key=lambda heading: (-len(heading), heading)))
    return Shorthand(dict(table["words"]), headings, frozenset(table["cuts"]))


@cache
def singular(word: str) -> str:
    """Make one lower-case English word singular, by rule.

    >>> [singular(word) for word in ("berries", "cookies", "dishes", "tomatoes", "swiss", "chips")]
    ['berry', 'cookie', 'dish', 'tomato', 'swiss', 'chip']
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or word in listed("singular") or word.endswith(("ss", "us", "is")) or not word.endswith("s"):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes", "zzes", "oes")):
        return word[:-2]
    return word[:-1].rstrip("'’")


def split(text: str) -> list[str]:
    """Split a text into lower-case words.

    >>> split("MEN'S ski-gloves, 2 PK")
    ["men's", 'ski', 'gloves', '2', 'pk']
    """
    return _WORD.findall(text.casefold())


def stems(text: str) -> list[str]:
    """Split a text into singular lower-case words, the form in which tags, queries and interests are compared."""
    return [singular(word) for word in split(text)]
