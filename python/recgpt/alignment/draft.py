"""One sample before its prompt is written, and the little that builders share."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from recgpt.alignment.facts import Facts, Item
from recgpt.evidence import words

_Thing = TypeVar("_Thing")


class Draft(NamedTuple):
    """What is shown, and the right answer."""

    given: str
    answer: str
    user: str | None = None
    """Whose behavior it shows; None for the catalogue's own."""
    at: datetime | None = None
    """When the last of it happened."""


Builder = Callable[[Facts, random.Random], Iterator[Draft]]
"""Yields drafts in a random order, as many as there are; every answer is a record of the facts."""


def shuffled(things: Sequence[_Thing], draw: random.Random) -> list[_Thing]:
    """Copy in a random order."""
    return draw.sample(things, len(things))


def options(right: str, wrong: Sequence[str], draw: random.Random, *, most: int = 3) -> list[str]:
    """Put the right answer among at most `most` wrong ones, in a random order."""
    others = sorted(set(wrong) - {right})
    return shuffled([right, *draw.sample(others, min(most, len(others)))], draw)


def named(lines: Sequence[tuple[str, str]]) -> str:
    """Write `name: value` lines, without the empty ones."""
    return "\n".join(f"{name}: {value}" for name, value in lines if value)


def apart(item: Item, others: Sequence[Item], draw: random.Random, *, tries: int = 20) -> Item | None:
    """Draw an item of another category that shares no word with this one; None if none was found."""
    own = set(words(f"{item.title} {item.category}"))
    for _ in range(tries):
        other = draw.choice(others)
        if other.title and other.category != item.category and not own & set(words(f"{other.title} {other.category}")):
            return other
    return None
