"""What shoppers type: plain queries, misspelt ones, vague ones, what-to-buy questions, and searches for a gift."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recgpt.datasets.world.vocabulary import RECIPIENTS, Theme, Vocabulary, Words

PLAIN, MISSPELT, VAGUE, QUESTION, GIFT = range(5)
KINDS = ("plain", "misspelt", "vague", "question", "gift")
SHARES = (0.7, 0.12, 0.12, 0.06)
"""How often a search that is not for a gift is of each kind."""
QUERIES = pa.schema(
    [
        pa.field("query", pa.large_string(), nullable=False),
        pa.field("language", pa.large_string(), nullable=False),
        pa.field("kind", pa.large_string(), nullable=False),
        pa.field("theme", pa.large_string()),
        pa.field("correction", pa.large_string()),
    ]
)
"""`correction`: the ware that a plain or misspelt query names. Vague queries, questions and gifts name none; what each
search was after stands with its event in `causes.meant`."""


class Queries(NamedTuple):
    """Every query of a world, and where those for a ware stand."""

    texts: tuple[str, ...]
    first: npt.NDArray[np.int64]
    """(languages, kinds, wares)"""
    many: npt.NDArray[np.int64]
    """(languages, kinds, wares): how many they are; they stand together."""
    table: pa.Table
    """QUERIES"""


def build(vocabulary: Vocabulary) -> Queries:
    """Write the queries of both languages for every ware."""
    texts: list[str] = []
    records: list[dict[str, Any]] = []
    firsts = np.zeros((2, len(KINDS), len(vocabulary.wares)), np.int64)
    counts = np.zeros_like(firsts)

    def add(kind: int, language: int, written: list[str], theme: str | None, correction: str | None) -> tuple[int, int]:
        first = len(texts)
        texts.extend(written)
        records.extend(
            {
                "query": text,
                "language": ("en", "zh")[language],
                "kind": KINDS[kind],
                "theme": theme,
                "correction": correction,
            }
            for text in written
        )
        return first, len(written)

    for language in (0, 1):
        gift = add(GIFT, language, [_gift(name)[language] for name in RECIPIENTS], None, None)
        for place, theme in enumerate(vocabulary.themes):
            shared = {
                VAGUE: add(VAGUE, language, _vague(theme, language), theme.name, None),
                QUESTION: add(QUESTION, language, _questions(theme, language), theme.name, None),
                GIFT: gift,
            }
            for at, ware in enumerate(vocabulary.wares):
                if ware.theme != place:
                    continue
                name = ware.name[language]
                join = " " if language == 0 else ""
                plain = [name, *(f"{word[language]}{join}{name}" for word in theme.modifiers)]
                own = {
                    PLAIN: add(PLAIN, language, plain, theme.name, name),
                    MISSPELT: add(MISSPELT, language, misspelt(name), theme.name, name),
                }
                for kind, (first, many) in (own | shared).items():
                    firsts[language, kind, at], counts[language, kind, at] = first, many
    return Queries(tuple(texts), firsts, counts, pa.Table.from_pylist(records, QUERIES))


def misspelt(name: str) -> list[str]:
    """Write a name as hasty fingers do: two letters swapped, one left out, one twice.

    >>> misspelt("dome tent")
    ['dome etnt', 'dome tnt', 'dome teent']
    """
    head, _, word = name.rpartition(" ")
    changes: tuple[Callable[[str, int], str], ...] = (
        lambda text, at: text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :],
        lambda text, at: text[:at] + text[at + 1 :],
        lambda text, at: text[:at] + text[at] + text[at:],
    )
    at = next((at for at in range(1, len(word)) if word[at] != word[at - 1]), 0)
    if not at:
        return [name + name[-1:]]
    return list(dict.fromkeys(f"{head} {change(word, at)}".strip() for change in changes))


def _vague(theme: Theme, language: int) -> list[str]:
    if language:
        return [f"类似{theme.wares[0][0].zh}的东西", f"{theme.wares[0][0].zh}之类"]
    return [f"something for {theme.name}", f"{theme.name} things", f"nice {theme.name} stuff"]


def _questions(theme: Theme, language: int) -> list[str]:
    if language:
        return [f"有了{theme.wares[0][0].zh}还要买什么？"]
    return [f"what do I need for {theme.name}?", f"what to buy next for {theme.name}?"]


def _gift(name: Words) -> Words:
    return Words(f"gift for {name.en}", f"送{name.zh}的礼物")
