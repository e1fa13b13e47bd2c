"""How well a tag goes with an interest: shared words plus the category probability of the interest's own text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recgpt.tags.words import listed, stems


class Categories(Protocol):
    """Tag-to-Cate (section 2.4.2): what `recgpt.categories.fit` gives."""

    def __call__(self, texts: list[str]) -> Sequence[str]:
        """Map each text to one category; to "" if the catalogue has none."""


def words(text: str) -> frozenset[str]:
    """Take the words of a text that carry meaning, singular."""
    return frozenset(stems(text)) - listed("common")


class Associations:
    """Association of interests with (tag, category) pairs, in [0, 2]."""

    def __init__(self, interests: Sequence[str], categories: Any) -> None:
        self.rows = {interest: row for row, interest in enumerate(dict.fromkeys(interests))}
        self.words = [words(interest) for interest in self.rows]
        self.names: dict[str, int] = {}
        self.probabilities: npt.NDArray[np.float32] | None = None
        if self.rows and hasattr(categories, "probabilities"):
            self.probabilities = categories.probabilities(list(self.rows))
            self.names = {name: column for column, name in enumerate(categories.names)}

    def between(self, interest: str, tag: str, category: str | None) -> float:
        """Associate one interest with one tag: share of its words in tag and category, plus P(category)."""
        row = self.rows[interest]
        wanted = self.words[row]
        shared = len(wanted & (words(tag) | words(category or ""))) / len(wanted) if wanted else 0.0
        column = self.names.get(category or "")
        likely = (
            float(self.probabilities[row, column]) if self.probabilities is not None and column is not None else 0.0
        )
        return shared + likely

    def best(self, interests: Sequence[str], tag: str, category: str | None, least: float) -> str | None:
        """Find the user's interest that a tag goes with best; None when none reaches `least`. Ties by rank."""
        values = [self.between(interest, tag, category) for interest in interests]
        top = max(range(len(values)), key=lambda place: (values[place], -place), default=None)
        return interests[top] if top is not None and values[top] >= least else None
