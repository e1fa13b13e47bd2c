"""What is true of the shoppers of a planted world at a moment, as a teacher needs it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from recgpt.alignment.harvest import MIDDLE, RIGHT, WRONG
from recgpt.evaluation.planted.behind import Behind
from recgpt.evidence import Term, words

_FENCE = re.compile(r"<<<(\w+)\n(.*?)\n\1>>>", re.S)


@dataclass(frozen=True)
class Truth:
    """What lies behind a world's log, and what is wanted next."""

    behind: Mapping[str, Behind]
    """By user."""
    wants: Mapping[str, Mapping[str, float]]
    """By user: ware wanted next -> weight."""
    themes: Mapping[str, str]
    """Ware -> the interest, need or season that it is for."""
    months: Mapping[str, tuple[int, ...]]
    """Theme -> calendar months in season; empty: all year."""
    wares: Mapping[str, str]
    """Tag of the catalogue -> ware; a tag has left out what a title says too vaguely."""

    @classmethod
    def of(cls, tables: Mapping[str, pa.Table], behind: Mapping[str, Behind], item_tags: pa.Table) -> Truth:
        """Read the truth of a world.

        Args:
            tables: `truth` of its data set.
            behind: what lies behind each user's log.
            item_tags: `schema.ITEM_TAGS`.
        """
        wants: dict[str, dict[str, float]] = {}
        for row in tables["wants"].to_pylist():
            wants.setdefault(row["user_id"], {})[row["ware"]] = row["weight"]
        facts = {row["item_id"]: row for row in tables["items"].to_pylist()}
        named: dict[str, Counter[str]] = defaultdict(Counter)
        for row in item_tags.to_pylist():
            named[row["tag"]][facts[row["item_id"]]["ware"]] += 1
        return cls(
            behind,
            wants,
            {row["ware"]: row["theme"] for row in facts.values()},
            {row["theme"]: tuple(row["months"]) for row in facts.values()},
            {tag: found.most_common(1)[0][0] for tag, found in named.items()},
        )

    def planted(self, user: str) -> Collection[str]:
        """Name the interests of a user that the log shows."""
        return self.behind[user].planted if user in self.behind else ()

    def ware(self, text: str) -> str:
        """Name the ware of a tag, else the longest one of which every word stands in a text; empty for none."""
        if text in self.wares:
            return self.wares[text]
        inside = set(words(text))
        found = [ware for ware, term in self._terms.items() if inside.issuperset(term)]
        return max(found, key=lambda ware: len(self._terms[ware]), default="")

    def standing(self, user: str, tag: str) -> int:
        """Grade a tag: right if it is wanted next, in the middle if it is for an interest that goes on, else wrong."""
        ware = self.ware(tag)
        if ware in self.wants.get(user, {}):
            return RIGHT
        one = self.behind.get(user)
        goes_on = one is not None and self.themes.get(ware, "") in one.live.intersection(one.planted)
        return MIDDLE if goes_on else WRONG

    @cached_property
    def tags(self) -> dict[str, list[str]]:
        """Ware -> its tags."""
        found: dict[str, list[str]] = defaultdict(list)
        for tag, ware in sorted(self.wares.items()):
            found[ware].append(tag)
        return dict(found)

    @cached_property
    def _terms(self) -> dict[str, Term]:
        return {ware: words(ware) for ware in self.themes}


def fenced(text: str, label: str = "") -> str:
    """Give what stands in a prompt's fence of that label, or in its first one; empty if there is none.

    >>> fenced("Look: <<<items\\ntea\\nitems>>>")
    'tea'
    """
    return next((found[2] for found in _FENCE.finditer(text) if label in ("", found[1])), "")
