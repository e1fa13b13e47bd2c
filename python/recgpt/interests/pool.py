"""The preset interests, and the rule that matches them to histories without a model (section 2.1.2).

A pool is a table of shop-neutral interests with terms as they appear in item titles. Its rows of kind `necessity` name
household staples: they are never offered as interests, they tell which items say nothing about taste.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from recgpt.errors import InvalidConfigError
from recgpt.evidence import HistoryRow, Term, longest_hit, mentions, words

_COLUMNS = ["pool_id", "name", "kind", "audience", "terms"]
_KINDS = ("interest", "necessity")
AUDIENCES = ("", "infant", "child", "women", "men")
"""For whom things of an interest usually are; empty for anybody. The gift rule compares it with attributes."""


@dataclass(frozen=True, slots=True)
class PoolInterest:
    """One row of the pool."""

    pool_id: str
    name: str
    necessity: bool
    audience: str
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """How one interest meets one history."""

    index: int
    """Position in `Pool.interests`."""
    score: float
    rows: tuple[tuple[int, int], ...]
    """(row id, number of hitting items in it), strongest first, later rows first among equals."""


@dataclass(frozen=True)
class Pool:
    """The preset interests of a shop. `Pool.load()` is ours; `Pool.load(path)` is your own.

    **Matching.** An item hits an interest if one of its terms occurs in the item's text as a phrase, both stemmed
    (`recgpt.evidence.words`), and not inside a longer phrase of another interest: olive oil is not olives. An item that
    hits a necessity with a longer phrase is a staple and counts for nothing.
    The score of an interest for a user is

        weight x (log(1 + rows that hit) + log(1 + distinct items that hit))

    where the weight log(1 + users / (1 + users that it hits)) makes what everybody buys count less. The best 40 are
    offered to the model, ties in the order of the pool.
    """

    interests: tuple[PoolInterest, ...]
    """What may be offered, in the order of the file."""
    necessities: tuple[PoolInterest, ...]
    weights: tuple[float, ...] | None = None
    """One weight an interest; None takes them from the histories of each call."""
    _index: Mapping[str, tuple[tuple[Term, int], ...]] = field(init=False, repr=False, compare=False)
    _seen: dict[str, tuple[int, ...]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        index: dict[str, list[tuple[Term, int]]] = {}
        for position, entry in enumerate((*self.interests, *self.necessities)):
            for term in entry.terms:
                index.setdefault(term[0], []).append((term, position))
        object.__setattr__(self, "_index", {first: tuple(found) for first, found in index.items()})

    @classmethod
    def load(cls, path: str | Path | None = None) -> Pool:
        """Read a pool from a TSV file with the columns pool_id, name, kind, audience, terms.

        >>> len(Pool.load().interests) >= 200
        True

        Raises:
            InvalidConfigError: the file is missing or has defects; every one is named with its line.
        """
        source = Path(path) if path is not None else resources.files("recgpt") / "prompts" / "interest_pool.tsv"
        if not source.is_file():
            raise InvalidConfigError(f"an interest pool was expected at {source}, but there is no such file")
        lines = list(
            csv.reader(source.read_text(encoding="utf-8").splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
        )
        if not lines or lines[0] != _COLUMNS:
            raise InvalidConfigError(
                f"the interest pool {source} must begin with the tab-separated columns {', '.join(_COLUMNS)}, "
                f"but it begins with {', '.join(lines[0]) if lines else 'nothing'}"
            )
        entries: list[PoolInterest] = []
        defects: list[str] = []
        ids: set[str] = set()
        for number, line in enumerate(lines[1:], start=2):
            if not line:
                continue
            if len(line) != len(_COLUMNS):
                defects.append(f"line {number} has {len(line)} columns, not {len(_COLUMNS)}")
                continue
            pool_id, name, kind, audience, terms = (cell.strip() for cell in line)
            stems = tuple(dict.fromkeys(term for raw in terms.split(",") if (term := words(raw))))
            if not pool_id or not name or not stems:
                defects.append(f"line {number} needs a pool_id, a name and at least one term")
            if kind not in _KINDS:
                defects.append(f"line {number}: kind must be {' or '.join(_KINDS)}, but it is {kind!r}")
            if audience not in AUDIENCES:
                defects.append(f"line {number}: audience must be empty or one of {', '.join(AUDIENCES[1:])}")
            if pool_id in ids:
                defects.append(f"line {number}: pool_id {pool_id!r} stands twice")
            ids.add(pool_id)
            entries.append(PoolInterest(pool_id, name, kind == "necessity", audience, stems))
        if not any(not entry.necessity for entry in entries):
            defects.append("there is no interest in it")
        if defects:
            raise InvalidConfigError(f"the interest pool {source} is not usable: " + "; ".join(defects))
        return cls(
            tuple(entry for entry in entries if not entry.necessity),
            tuple(entry for entry in entries if entry.necessity),
        )

    @property
    def staple_terms(self) -> tuple[Term, ...]:
        """Every term of the necessities."""
        return tuple(term for entry in self.necessities for term in entry.terms)

    def rivals(self, terms: Sequence[Term]) -> tuple[Term, ...]:
        """Every longer phrase of another interest in which one of these terms stands."""
        own = frozenset(terms)
        return tuple(
            longer
            for entry in self.interests
            for longer in entry.terms
            if len(longer) > 1 and longer not in own and any(_places(longer, term) for term in own - {longer})
        )

    def find(self, text: str) -> PoolInterest | None:
        """Find the interest that a text names: by id or name, else by its longest term in the text, first wins.

        >>> Pool.load().find("coffee brewing").name
        'coffee culture'
        """
        stems = words(text)
        for entry in self.interests:
            if text == entry.pool_id or stems == words(entry.name):
                return entry
        best = max(self.interests, key=lambda entry: longest_hit(text, entry.terms))
        return best if longest_hit(text, best.terms) else None

    def hits(self, item: str) -> tuple[int, ...]:
        """List the interests that an item hits, by position; none for a staple. Answers are kept."""
        if item in self._seen:
            return self._seen[item]
        stems = words(item)
        spans = [
            (start, start + len(term), position)
            for start, stem in enumerate(stems)
            for term, position in self._index.get(stem, ())
            if stems[start : start + len(term)] == term
        ]
        longest: dict[int, int] = {}
        for first, last, position in spans:
            if not any(a <= first and last <= b and b - a > last - first for a, b, other in spans if other != position):
                longest[position] = max(longest.get(position, 0), last - first)
        first_staple = len(self.interests)
        staple = max((size for position, size in longest.items() if position >= first_staple), default=0)
        found = tuple(sorted(p for p, size in longest.items() if p < first_staple and size >= staple))
        self._seen[item] = found
        return found

    def weighted(self, histories: Sequence[Sequence[HistoryRow]]) -> Pool:
        """Fix the weights from these histories, so that batches of one population are matched alike."""
        return Pool(self.interests, self.necessities, self._weigh([self._by_interest(rows) for rows in histories]))

    def match(self, histories: Sequence[Sequence[HistoryRow]], *, most: int = 40) -> list[list[Match]]:
        """Give each history its best interests, best first, at most `most`."""
        found = [self._by_interest(rows) for rows in histories]
        weights = self.weights or self._weigh(found)
        answers = []
        for hits in found:
            matches = [
                Match(
                    index,
                    weights[index] * (math.log1p(len(by_row)) + math.log1p(len(set().union(*by_row.values())))),
                    tuple(
                        (row_id, len(items))
                        for row_id, items in sorted(by_row.items(), key=lambda pair: (-len(pair[1]), -pair[0]))
                    ),
                )
                for index, by_row in hits.items()
            ]
            matches.sort(key=lambda match: (-match.score, match.index))
            answers.append(matches[:most])
        return answers

    def _by_interest(self, rows: Sequence[HistoryRow]) -> dict[int, dict[int, set[str]]]:
        found: dict[int, dict[int, set[str]]] = {}
        for row in rows:
            for item in row.items:
                for index in self.hits(item):
                    found.setdefault(index, {}).setdefault(row.id, set()).add(item)
        return found

    def _weigh(self, found: Sequence[Mapping[int, object]]) -> tuple[float, ...]:
        users = [0] * len(self.interests)
        for hits in found:
            for index in hits:
                users[index] += 1
        return tuple(math.log1p(len(found) / (1 + count)) for count in users)


@dataclass(frozen=True, slots=True)
class Support:
    """All that a history says for an interest, whoever chose its evidence."""

    rows: tuple[HistoryRow, ...]
    items: tuple[str, ...]
    """Distinct items that hit, without staples."""
    mentions: int
    """How often such items were acted on."""
    staples: int
    """How often staples that hit the same terms were acted on."""


def support(
    rows: Sequence[HistoryRow], terms: Sequence[Term], staple_terms: Sequence[Term], rivals: Sequence[Term] = ()
) -> Support:
    """Collect what supports an interest; an item is a staple if a longer staple phrase hits it.

    Args:
        rows: a history.
        terms: of the interest.
        staple_terms: of the necessities.
        rivals: longer phrases of other interests, see `Pool.rivals`; what stands inside one is not this interest's.
    """
    found: dict[int, HistoryRow] = {}
    items: dict[str, None] = {}
    count = staples = 0
    # Most items say nothing about the interest; one set lookup a word keeps the phrase search to those that may.
    first_words = {term[0] for term in terms}
    for row in rows:
        for item in row.items:
            if first_words.isdisjoint(words(item)):
                continue
            hit = _longest_own(item, terms, rivals)
            if not hit:
                continue
            if longest_hit(item, staple_terms) > hit:
                staples += mentions(row, item)
                continue
            found[row.id] = row
            items[item] = None
            count += mentions(row, item)
    return Support(tuple(found.values()), tuple(items), count, staples)


def _longest_own(item: str, terms: Sequence[Term], rivals: Sequence[Term]) -> int:
    """Give the number of words of the longest term that stands in an item outside every rival, or 0."""
    stems = words(item)
    taken = [(start, start + len(rival)) for rival in rivals for start in _places(stems, rival)]
    return max(
        (
            len(term)
            for term in terms
            for start in _places(stems, term)
            if not any(a <= start and start + len(term) <= b and b - a > len(term) for a, b in taken)
        ),
        default=0,
    )


def _places(stems: Term, term: Term) -> list[int]:
    return [start for start in range(len(stems) - len(term) + 1) if stems[start : start + len(term)] == term]


def pool_recall(
    matched: Mapping[str, Sequence[str]], truth: Mapping[str, Sequence[str]], *, pool: Pool | None = None
) -> float:
    """Give the share of each user's true interests that matching offers, averaged over users that have any.

    Args:
        matched: names offered to each user (`recgpt.interests.matched`).
        truth: interests planted for each user, for example by the generator.
        pool: brings the planted interests to its names (`Pool.find`); what it does not know counts as missed.

    >>> pool_recall({"u": ["camping", "hiking"]}, {"u": ["camping", "fishing"]})
    0.5
    """
    shares = []
    for user, planted in truth.items():
        wanted = set(planted)
        if pool is not None:
            known = {name: pool.find(name) for name in wanted}
            wanted = {entry.name if entry else f"not in the pool: {name}" for name, entry in known.items()}
        if wanted:
            shares.append(len(wanted & set(matched.get(user, ()))) / len(wanted))
    return sum(shares) / len(shares) if shares else 0.0
