"""Evidence: history rows as data, and the check that cited rows support a claim, whoever cited them.

A model may point at any row. What counts is decided here, from the history alone: the row exists, it falls inside the
period, and its items share words with the claim. The measure is lexical on purpose: it can be read, repeated and argued
with, and it never asks a model whether a model is right.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Literal

Term = tuple[str, ...]
"""A phrase as stems: `cat litter` is `("cat", "litter")`."""
Period = tuple[date, date]
"""First and last day, both included."""

# One character of a script without spaces is a word of its own, so that phrases of it match as phrases.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_HEAD = re.compile(r"(?:r(?P<id>\d{1,9}) )?(?P<contexts>[^|]*?) ?\| ?(?P<items>.*)", re.S)
_CONTEXT = re.compile(r"(?P<label>[^\s,()]+) \((?P<behaviors>[^()]*)\)")
_ITEM = re.compile(r'\s*(?P<item>"[^"]*"[^,]*|[^,]+)(?:,|$)')
_TIMES = re.compile(r" x(\d{1,6})$")
_LABEL = re.compile(r"(\d{4}|\d{2})(?:-(\d{2})(?:-(\d{2}))?)?")


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One line of a compressed history."""

    id: int
    """1-based line number, as the line's `r1` says."""
    contexts: tuple[tuple[str, str], ...]
    """(label, behavior) pairs, for example `("17-12-03", "purchase")`."""
    items: tuple[str, ...]
    """Briefs, and queries in their quotes."""
    text: str
    """The line itself."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The distinct time labels, in the order of the line."""
        return tuple(dict.fromkeys(label for label, _ in self.contexts))


@dataclass(frozen=True, slots=True)
class Check:
    """What `check` found: the rows that support the claim, and why each other row does not."""

    supported: tuple[int, ...]
    failures: tuple[tuple[int, Literal["no such row", "outside the period", "no support"]], ...]

    @property
    def ok(self) -> bool:
        """Tell whether there is a row and every cited row supports the claim."""
        return bool(self.supported) and not self.failures


@lru_cache(maxsize=200_000)
def words(text: str) -> tuple[str, ...]:
    """Split a text into stems: lower case, without plural endings. Crude, but the same for claims and for items.

    >>> words("CAT LITTER & Cookies")
    ('cat', 'litter', 'cooky')
    """
    return tuple(_stem(word) for word in _WORD.findall(text.lower()))


def _stem(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith("ie"):
        return word[:-2] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def longest_hit(text: str, terms: Iterable[Term]) -> int:
    """Give the number of words of the longest term that occurs in a text as a phrase, or 0.

    >>> longest_hit("CAN CAT FOOD 5.5 OZ", [("cat", "food"), ("dog",)])
    2
    """
    stems = words(text)
    best = 0
    for term in terms:
        size = len(term)
        if best < size <= len(stems) and any(
            stems[start : start + size] == term for start in range(len(stems) - size + 1)
        ):
            best = size
    return best


def parse_rows(text: str) -> list[HistoryRow]:
    """Read the lines of a history, with or without row ids. A line that is not one becomes a row without contexts.

    >>> parse_rows('r1 17-12-03 (purchase, cart), 17-11 (purchase) | Tent, "sleeping bag, warm"')[0].contexts
    (('17-12-03', 'purchase'), ('17-12-03', 'cart'), ('17-11', 'purchase'))
    """
    rows = []
    for number, line in enumerate(text.split("\n") if text else (), start=1):
        match = _HEAD.fullmatch(line)
        if match is None:
            rows.append(HistoryRow(number, (), (), line))
            continue
        contexts = tuple(
            (found["label"], behavior)
            for found in _CONTEXT.finditer(match["contexts"])
            for behavior in found["behaviors"].split(", ")
        )
        items = tuple(found["item"].strip() for found in _ITEM.finditer(match["items"]) if found["item"].strip())
        rows.append(HistoryRow(int(match["id"] or number), contexts, items, line))
    return rows


def mentions(row: HistoryRow, item: str) -> int:
    """Count how often a row says that an item was acted on: once a context, times its `x3` where the line has one."""
    times = _TIMES.search(item)
    return max(1, len(row.contexts)) * (int(times[1]) if times else 1)


def span(label: str, *, now: date) -> Period | None:
    """Give the days that a label covers; None for `undated` and what is no label.

    A two-digit year is the latest such year that is not after `now`.

    >>> span("17-11", now=date(2017, 12, 18))
    (datetime.date(2017, 11, 1), datetime.date(2017, 11, 30))
    """
    match = _LABEL.fullmatch(label)
    if match is None:
        return None
    year = int(match[1])
    if len(match[1]) == 2:
        year += now.year // 100 * 100
        year -= 100 if year > now.year else 0
    try:
        first_month, last_month = (int(match[2]), int(match[2])) if match[2] else (1, 12)
        first_day, last_day = (int(match[3]), int(match[3])) if match[3] else (1, monthrange(year, last_month)[1])
        return date(year, first_month, first_day), date(year, last_month, last_day)
    except ValueError:
        return None


def check(
    row_ids: Sequence[int], claim_terms: Iterable[Term], rows: Sequence[HistoryRow], *, period: Period | None = None
) -> Check:
    """Judge cited rows against the history that was shown.

    Args:
        row_ids: what the model, or a rule, points at. Doubles are judged once.
        claim_terms: phrases of stems (`words`); a row supports the claim if one occurs in one of its items.
        rows: the parsed history.
        period: days that count; a row is outside if no label of it overlaps them. Undated rows are never outside.
    """
    known = {row.id: row for row in rows}
    terms = list(claim_terms)
    supported: list[int] = []
    failures: list[tuple[int, Literal["no such row", "outside the period", "no support"]]] = []
    for row_id in dict.fromkeys(row_ids):
        row = known.get(row_id)
        if row is None:
            failures.append((row_id, "no such row"))
        elif period is not None and not _inside(row, period):
            failures.append((row_id, "outside the period"))
        elif not any(longest_hit(item, terms) for item in row.items):
            failures.append((row_id, "no support"))
        else:
            supported.append(row_id)
    return Check(tuple(supported), tuple(failures))


def _inside(row: HistoryRow, period: Period) -> bool:
    spans = [span(label, now=period[1]) for label in row.labels]
    return not spans or any(days is None or (days[0] <= period[1] and period[0] <= days[1]) for days in spans)
