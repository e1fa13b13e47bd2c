"""Table 3's four criteria of a tag, decided by the truth of a planted world and by the stage's own rules.

    relevance     it names a ware of the interest that it is for; without one, a ware of an interest of the shopper
    consistency   that interest is truly the shopper's, and the reason stands: it rests on what was really done
    specificity   modifier and core word: no department, no vague word, no brand, no model
    validity      it names goods that the shop has: it is the tag of some item, or holds every word of a ware

What interest a tag serves is known by the items whose tag it is, else by the wares that it names. A tag
qualifies only if it meets all four.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from recgpt.brands import Brands
from recgpt.evaluation.planted.behind import Behind
from recgpt.evaluation.planted.stages import themes_of, wares_in
from recgpt.tags import FirstAnswer, checkers

CRITERIA = ("relevance", "consistency", "specificity", "validity")


@dataclass(frozen=True)
class TagJudge:
    """Knows the truth."""

    truth: Mapping[str, pa.Table]
    behind: Mapping[str, Behind]
    """Of the shoppers who are judged."""
    item_tags: pa.Table
    """The items' own tags."""
    categories: frozenset[str]
    brands: Brands
    resolve: Callable[[str], str | None]
    """Brings an interest's text to the name that the truth uses."""

    def passes(self, answers: Iterable[FirstAnswer]) -> list[dict[str, bool]]:
        """Judge tags under every criterion."""
        wares = themes_of(self.truth)
        of_item = {row["item_id"]: row["theme"] for row in self.truth["items"].to_pylist()}
        of_tag: dict[str, set[str]] = defaultdict(set)
        for row in self.item_tags.to_pylist():
            of_tag[row["tag"]].add(of_item[row["item_id"]])
        return [
            self._one(answer, of_tag.get(answer.tag) or {wares[ware] for ware in wares_in(answer.tag, wares)})
            for answer in answers
        ]

    def _one(self, answer: FirstAnswer, themes: set[str]) -> dict[str, bool]:
        planted = set(self.behind[answer.user].planted)
        stated = (self.resolve(answer.interest) or answer.interest) if answer.interest else None
        broken = (
            checkers.specific(answer.tag, self.categories)
            or checkers.a_good(answer.tag, answer.category)
            or checkers.no_model(answer.tag)
            or checkers.no_brand(answer.tag, self.brands)
            or checkers.no_vague_word(answer.tag)
        )
        return {
            "relevance": bool(themes & (planted if stated is None else {stated})),
            "consistency": not answer.fault and bool(planted & (themes if stated is None else {stated})),
            "specificity": broken is None,
            "validity": bool(themes),
        }
