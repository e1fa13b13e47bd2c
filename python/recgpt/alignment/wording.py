"""What can be said of a world's wares without inventing anything: what each is useful for, and where it is enjoyed."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from recgpt.phrases import words
from recgpt.text import listed

ENDINGS = ("on a", "when the", "for a", "for")
"""How the forced beginning of an explanation ends, as `scenes.tsv` has a column for each."""
_UNCOUNTED = frozenset((
    "bait", "batting", "bleach", "blush", "cereal", "cheese", "cleanser", "concealer", "conditioner", "cotton", "cream",
    "detergent", "extract", "fertilizer", "flakes", "flour", "foil", "food", "gel", "gravel", "litter", "lotion",
    "makeup", "mascara", "milk", "mix", "moisturizer", "music", "paint", "paper", "powder", "rinse", "serum", "shampoo",
    "soap", "softener", "soil", "starter", "tissue", "toner", "toothpaste", "wax", "yeast", "yogurt",
))  # fmt: skip
"""Last words of wares that take no article."""


def drawn(texts: Sequence[str], *of: object) -> str:
    """Draw one text by a hash of what it is for: the same question, the same answer.

    >>> drawn(["a"], "anything")
    'a'
    """
    place = int.from_bytes(hashlib.sha256("/".join(map(str, of)).encode("utf-8", "replace")).digest()[:8])
    return texts[place % len(texts)] if texts else ""


@cache
def _read(name: str) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    text = (resources.files("recgpt.datasets.world") / "words" / f"{name}.tsv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    found = {}
    for row in rows:
        (_, of), *columns = row.items()
        found[of] = {column: tuple(cell.split("; ")) for column, cell in columns}
    return found


def use(ware: str, *of: object, room: int = 12) -> str:
    """Say what a ware is useful for, as the end of "to ..." with at most `room` words; empty where nothing fits.

    >>> use("dome tent", "ann") in ("sleep a night under the stars", "have a roof when rain comes")
    True
    """
    fits = [text for text in _read("uses").get(ware, {}).get("uses", ()) if len(text.split()) <= room]
    return drawn(fits, *of)


def scene(theme: str, season: str, ending: str, *of: object, room: int, given: str) -> str:
    """Say where or when a ware is enjoyed, as the end of a line that goes on after `ending`; empty where none fits.

    Args:
        theme: the interest, need or season that the ware is for.
        season: today's; now and then the season speaks for itself.
        ending: one of `ENDINGS`.
        of: what it is for, so that equal lines get the same words.
        room: most words.
        given: what stands in the line already; none of its words is said again.
    """
    own = frozenset(words(given)) - listed("loose_ends") - listed("common")
    turns = (season, theme) if drawn(["theme", "theme", "season"], "turn", *of) == "season" else (theme, season)
    for turn in turns:
        fits = [
            text
            for text in _read("scenes").get(turn, {}).get(ending, ())
            if len(text.split()) <= room and not own.intersection(words(text))
        ]
        if fits:
            return drawn(fits, *of)
    return ""


def listing(wares: Sequence[str]) -> str:
    """List wares as a sentence does.

    >>> listing(["dome tent", "potting soil", "easel"])
    'a dome tent, potting soil and an easel'
    """
    said = [
        ware if ware.split()[-1] in _UNCOUNTED else f"{'an' if ware[0] in 'aeiou' else 'a'} {ware}" for ware in wares
    ]
    return " and ".join(filter(None, (", ".join(said[:-1]), *said[-1:])))
