"""How well a tag or an item goes with an interest: a relation that can be stated in words, never a guess.

The stated rule. An interest of the pool comes with terms, the words by which shops name its goods.

1. **Named.** The tag (or the item's title) holds a term as a phrase: association 1. The longest phrase wins: a term
   inside a longer one of another interest counts for nothing ("cake" in "rice cake").
2. **Shelf.** Most engagement with the tags of its category goes to tags that name the interest: association is that
   share. A category whose own name holds a term belongs to the interest already from a tenth on.
3. **Staples** go with no interest: a tag or a category that a staple's term names with more words than the interest's
   ("frozen vegetable" against "vegetable") is none of its goods.

An interest without terms (one that a model wrote) goes by the share of its words in tag and category plus the category
probability of its own text under Tag-to-Cate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from recgpt import evidence
from recgpt.tags.words import stems
from recgpt.text import listed

MOST = 0.5
"""Share of a category's engagement from which the whole category belongs to an interest."""
SOME = 0.1
"""The same where the category's own name holds a term of the interest."""
STAPLES = ""
"""The key of `terms` under which the words of staples stand."""


class Categories(Protocol):
    """Tag-to-Cate (section 2.4.2): what `recgpt.categories.fit` gives."""

    def __call__(self, texts: list[str]) -> Sequence[str]:
        """Map each text to one category; to "" if the catalogue has none."""


def words(text: str) -> frozenset[str]:
    """Take the words of a text that carry meaning, singular."""
    return frozenset(stems(text)) - listed("common")


class Lexicon:
    """Which interests a text names, by their terms."""

    def __init__(self, terms: Mapping[str, Sequence[str]]) -> None:
        self.names = frozenset(terms)
        self._index: dict[str, list[tuple[evidence.Term, str]]] = defaultdict(list)
        for name, texts in terms.items():
            for text in texts:
                if term := evidence.words(text):
                    self._index[term[0]].append((term, name))
        self._known: dict[str, dict[str, int]] = {}

    def named(self, text: str | None) -> Mapping[str, int]:
        """Give the interests that a text names, and the words of the longest phrase of each.

        >>> Lexicon({"cakes": ["cake"], "light eating": ["rice cake"]}).named("RICE CAKES, 5 OZ")
        {'light eating': 2}
        """
        if not text:
            return {}
        if text not in self._known:
            own = evidence.words(text)
            spans = [
                (start, start + len(term), name)
                for start, word in enumerate(own)
                for term, name in self._index.get(word, ())
                if own[start : start + len(term)] == term
            ]
            found: dict[str, int] = {}
            for first, last, name in spans:
                if not any(a <= first and last <= b and b - a > last - first for a, b, _ in spans):
                    found[name] = max(found.get(name, 0), last - first)
            self._known[text] = found
        return self._known[text]


class Associations:
    """Association of interests with tags and items of one catalogue."""

    def __init__(
        self,
        interests: Iterable[str],
        categories: Any,
        *,
        terms: Mapping[str, Sequence[str]] | None = None,
        shelves: Iterable[tuple[str, str, float]] = (),
    ) -> None:
        """Learn what the categories hold.

        Args:
            interests: every interest that will be asked about.
            categories: Tag-to-Cate, for interests without terms.
            terms: words of each interest's goods, also of interests that nobody here has: they keep their own phrases
                from being read as somebody else's. Under `STAPLES` stand the words of household staples.
            shelves: (tag, category, engagement) of the catalogue's tags.
        """
        self.lexicon = Lexicon(terms or {})
        self.shelves = self._shares(shelves)
        texts = sorted(set(interests))
        self.rows = {interest: row for row, interest in enumerate(texts)}
        self.words = [words(interest) for interest in texts]
        self.columns: dict[str, int] = {}
        self.probabilities: npt.NDArray[np.float32] | None = None
        if texts and hasattr(categories, "probabilities"):
            self.probabilities = categories.probabilities(texts)
            self.columns = {name: column for column, name in enumerate(categories.names)}

    def _shares(self, shelves: Iterable[tuple[str, str, float]]) -> dict[str, dict[str, float]]:
        total: dict[str, float] = defaultdict(float)
        part: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for tag, category, engagement in shelves:
            total[category] += engagement
            for name in self.lexicon.named(tag):
                part[category][name] += engagement
        shares: dict[str, dict[str, float]] = {}
        for category, found in part.items():
            own = self.lexicon.named(category)
            share = {name: value / total[category] for name, value in found.items() if value > 0}
            shares[category] = {
                name: max(value, MOST) for name, value in share.items() if value >= (SOME if name in own else MOST)
            }
        return shares

    def between(self, interest: str, tag: str | None, category: str | None, *texts: str | None) -> float:
        """Associate one interest with one tag: 0 for no relation that could be stated; see the module.

        Args:
            interest: one of those given.
            tag: a tag.
            category: its category, if it has one.
            texts: more texts that say what it is, such as an item's title.
        """
        if interest not in self.lexicon.names:
            return self.by_words(interest, tag or "", category)
        staple = self.lexicon.named(category).get(STAPLES, 0)
        for text in (tag, *texts):
            named = self.lexicon.named(text)
            if named.get(interest, 0) and named[interest] >= max(staple, named.get(STAPLES, 0)):
                return 1.0
            staple = max(staple, named.get(STAPLES, 0))
        return 0.0 if staple else self.shelves.get(category or "", {}).get(interest, 0.0)

    def by_words(self, interest: str, tag: str, category: str | None) -> float:
        """Associate without terms: share of the interest's words in tag and category, plus P(category), at most 1."""
        row = self.rows[interest]
        wanted = self.words[row]
        shared = len(wanted & (words(tag) | words(category or ""))) / len(wanted) if wanted else 0.0
        column = self.columns.get(category or "")
        likely = (
            float(self.probabilities[row, column]) if self.probabilities is not None and column is not None else 0.0
        )
        return min(1.0, shared + likely)

    def best(
        self, interests: Sequence[str], tag: str | None, category: str | None, least: float
    ) -> tuple[str | None, float]:
        """Find the user's interest that a tag goes with best, and how well; (None, 0) when none reaches `least`.

        Equal ones go to the first of the interests, which stand in the order of their rank.
        """
        values = [self.between(interest, tag, category) for interest in interests]
        top = max(range(len(values)), key=lambda place: (values[place], -place), default=None)
        return (interests[top], values[top]) if top is not None and values[top] >= least else (None, 0.0)

    def explaining(
        self, interests: Sequence[str], tag: str | None, category: str | None, title: str | None, least: float
    ) -> list[str]:
        """Find the user's interests that may explain an item: those that go with it best, in the order of their rank.

        The tag says first what the item is; its title is asked only where neither tag nor shelf says anything.
        """
        for texts in ((), (title,)):
            values = [self.between(interest, tag, category, *texts) for interest in interests]
            if (top := max(values, default=0.0)) >= least:
                return [interest for interest, value in zip(interests, values, strict=True) if value == top]
        return []


def shelves(log_tags: Sequence[str], categories: Sequence[str], tag_category: Any, popularity: Any) -> list[Any]:
    """List (tag, category, engagement) of a log's tags; one more than the users, so that an unsold tag counts too."""
    return [
        (tag, categories[place], float(users) + 1.0)
        for tag, place, users in zip(log_tags, tag_category, popularity, strict=True)
        if place >= 0
    ]
