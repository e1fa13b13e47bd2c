"""The rules of the explanations stage as small pure functions: None, or the name of the rule that a text breaks.

`prompts/rules/explanations.toml` lists every rule of section 2.4.1, Table 6 and Appendix B with its function. A
metaphor is allowed: only words that claim a material, function, number or brand must be covered by the item's data.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from functools import cache
from importlib import resources

from recgpt.brands import Brands
from recgpt.phrases import HAN, WORD, chinese, named, words
from recgpt.text import listed

MIN_WORDS, MAX_WORDS = 4, 12
MIN_CHARACTERS, MAX_CHARACTERS = 6, 10
"""Length in Chinese, without punctuation and spaces."""
_COPY = 0.6
"""Token Jaccard with the title from which a text counts as its copy."""

_SEASONS = frozenset(("spring", "summer", "autumn", "fall", "winter"))
_MONTHS = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_EVERYDAY = frozenset(("march", "may", "fall"))
"""Names that are everyday words too: nobody is told off for them."""
_REACH_BEFORE, _REACH_AFTER = 4, 2
"""Words before and after a season's name among which it is looked for that it is over or to come."""
_PERSONAL = re.compile(
    r"[\w.+-]+@[\w-]+\.\w|(?:\+?\d[\s()-]?){7,}|\b(?:mr|mrs|ms|miss|dr)\b\.?\s*\w|\byears? old\b|\byour (?:age|income|"
    r"address|salary|marriage|divorce|pregnancy|illness|disease|religion)\b|\b(?:husband|wife|girlfriend|boyfriend)\b",
    re.I,
)


def right_length(text: str) -> str | None:
    """4 to 12 words; in Chinese 6 to 10 characters.

    >>> right_length("Crushed ice for hot days"), right_length("Ice"), right_length("山野清晨一杯热茶")
    (None, 'length', None)
    """
    if chinese(text):
        return None if MIN_CHARACTERS <= len(HAN.findall(text)) <= MAX_CHARACTERS else "length"
    return None if MIN_WORDS <= len(WORD.findall(text)) <= MAX_WORDS else "length"


def no_invented_number(text: str, facts: str) -> str | None:
    """No number that the item's data does not hold."""
    return "invented_number" if set(re.findall(r"\d+", text)) - set(re.findall(r"\d+", facts)) else None


def no_foreign_brand(text: str, facts: str, brands: Brands) -> str | None:
    """No brand, of the catalogue or of the list `brands`, unless the item's data names it."""
    return "brand" if brands.named(text) - brands.named(facts) else None


def no_empty_praise(text: str, facts: str) -> str | None:
    """No praise or filler that fits any item; a word of the item's own data is not praise."""
    return "empty_praise" if named(text, "praise") - named(facts, "praise") else None


def no_hard_sell(text: str) -> str | None:
    """No exaggerated claim, no pressure to buy."""
    return "hard_sell" if named(text, "hardsell") else None


def no_copy(text: str, title: str) -> str | None:
    """No near-copy of the title: under 60 % common words, and at least two words of its own.

    >>> no_copy("Crushed and cubed ice", "ICE - CRUSHED/CUBED"), no_copy("Ice for hot days", "ICE - CRUSHED/CUBED")
    ('copy', None)
    """
    own, given = set(words(text)) - {"and", "the", "a", "of"}, set(words(title)) - {"and", "the", "a", "of"}
    if not given:
        return None
    return "copy" if len(own & given) / len(own | given) >= _COPY or len(own - given) < 2 else None


def no_personal_data(text: str) -> str | None:
    """No name, address, number or circumstance of a person."""
    return "personal_data" if _PERSONAL.search(text) else None


def clear(text: str) -> str | None:
    """No repetition: no word three times, no phrase twice in a row.

    >>> clear("Bag bag good bag buy bag good"), clear("A bag for mountain mornings")
    ('repetition', None)
    """
    own = words(text)
    counts = Counter(word for word in own if word not in listed("loose_ends"))
    twice = any(
        own[place : place + size] == own[place + size : place + 2 * size]
        for size in (1, 2, 3)
        for place in range(len(own) - 2 * size + 1)
    )
    return "repetition" if twice or max(counts.values(), default=0) > 2 else None


def complete(text: str) -> str | None:
    """The text ends as a phrase, not in the middle of one."""
    own = WORD.findall(text.casefold())
    return "incomplete" if not own or own[-1] in listed("loose_ends") or text.rstrip()[-1] in ',:;-("' else None


def relevant(text: str, item: str, interest: str | None) -> str | None:
    """The text speaks of the item's core word (its last) or of the interest; in Chinese it shares two characters.

    >>> relevant("Office papers carried with ease", "travel backpack", "outdoor travel")
    'irrelevant'
    """
    own = set(words(text))
    if chinese(text):
        return None if len(own & (set(words(item)) | set(words(interest or "")))) >= 2 else "irrelevant"
    core = words(item)[-1:]
    wanted = set(core) | (set(words(interest or "")) - listed("common"))
    return None if own & wanted else "irrelevant"


def says_something(own: str, item: str) -> str | None:
    """The model's own part adds at least two words to what it was given, and says nothing of that again.

    >>> says_something("the self-rising loaf", "self rising flour"), says_something("a cup of cocoa", "corn muffin")
    ('repetition', None)
    """
    if chinese(own):
        return None
    # "self-rising" says "rising" again.
    parts = {part for word in words(own) for part in word.split("-")}
    given = set(words(item))
    if len(words(own)) < 2 or not parts - given - listed("loose_ends"):
        return "no_substance"
    return "repetition" if parts & given - listed("loose_ends") - listed("common") else None


def in_voice(own: str) -> str | None:
    """The text speaks of the item, not of the prompt or of a speaker.

    >>> in_voice("long evenings, interest home baking"), in_voice("long evenings by the fire")
    ('off_voice', None)
    """
    return (
        "off_voice"
        if set(words(own)) & {"item", "interest", "shopper", "data", "input", "i", "i'd", "i'm", "me"}
        else None
    )


@cache
def _calendar() -> tuple[dict[str, frozenset[int]], frozenset[str], tuple[str, ...]]:
    """Read `prompts/rules/calendar.toml`: months of each feast, and the words of edges before and after a name."""
    text = (resources.files("recgpt") / "prompts" / "rules" / "calendar.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    feasts = {" ".join(_bare(name)): frozenset(months) for name, months in table["feasts"].items()}
    before, after = ({" ".join(_bare(word)) for word in table["edges"][side]} for side in ("before", "after"))
    return feasts, frozenset(before), tuple(sorted(after))


def of_the_season(text: str, facts: str, season: str, month: str) -> str | None:
    """No other season, month or feast than today's is named, unless the item's data names it; and none as over or near.

    Args:
        text: the whole text.
        facts: the item's data.
        season: today's, in English; empty if nobody knows, and then none may be named.
        month: today's, likewise.

    >>> of_the_season("Ice for a hot summer night", "ice", "winter", "December")
    'wrong_season'
    >>> of_the_season("Bread for the last day of winter", "bread", "winter", "December")
    'wrong_season'
    """
    feasts, _, _ = _calendar()
    today = _MONTHS.index(month.casefold()) + 1 if month else 0
    whole, known = f" {' '.join(_bare(text))} ", f" {' '.join(_bare(facts))} "
    allowed = {season, month.casefold()} | {feast for feast, months in feasts.items() if today in months}
    named = {name for name in (*_SEASONS, *_MONTHS, *feasts) if f" {name} " in whole and name not in _EVERYDAY}
    if any(name not in allowed and f" {name} " not in known for name in named):
        return "wrong_season"
    return "wrong_season" if any(_on_edge(text, name) for name in (*named, "fall", "season", "year")) else None


def _on_edge(text: str, name: str) -> bool:
    """Tell whether a text speaks of a season, month or feast as over or to come."""
    _, before, after = _calendar()
    own, size = _bare(text), len(name.split())
    for place in range(len(own) - size + 1):
        if " ".join(own[place : place + size]) == name:
            rest = f" {' '.join(own[place + size : place + size + _REACH_AFTER])} "
            if before.intersection(own[max(0, place - _REACH_BEFORE) : place]) or any(f" {e} " in rest for e in after):
                return True
    return False


def _bare(text: str) -> list[str]:
    """Split into words without a possessive `'s`, so that "winter's end" names winter."""
    return words(re.sub(r"['’]s\b", "", text))


def no_echo(own: str, instructions: str) -> str | None:
    """No three words in a row are copied from the instructions' examples."""
    mine, given = words(own), f" {' '.join(words(instructions))} "
    runs = (" ".join(mine[place : place + 3]) for place in range(len(mine) - 2))
    return "echo" if any(f" {run} " in given for run in runs) else None
