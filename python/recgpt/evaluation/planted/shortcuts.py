"""What simple shortcuts reach in a world whose truth is known, beside the items that a perfect recommender would show.

A world is worth something only if they fail where intent is known: popularity (necessities are bought most), the last
category (the next ware is mostly another one), title overlap (words lead back to what one has, and to things that only
sound alike), buying again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.evaluation import metrics
from recgpt.evaluation.metrics import Floats, Ints, Score
from recgpt.evidence import words

LAST = 50
"""Engaged items whose titles count for the overlap."""
ENGAGED = tuple(name for name in schema.RELIABLE if name != "search")


class Reached(NamedTuple):
    """How far a list of k items goes, over users with a truth."""

    hits: Score
    """HR@k: an item of the list is looked at for an interest after `now`."""
    recall: Score
    """Share of the items looked at for an interest after `now` that stand in the list."""
    wants: Score
    """Share of what is wanted next, by weight, of which the list shows at least one item."""
    perfect: Score
    """Share of the 20 items that a perfect recommender would show that stand in the list."""


class Past(NamedTuple):
    """What a recommender may know, as item rows."""

    titles: Sequence[str]
    category: Sequence[str]
    popular: Ints
    """Every item, most bought first."""
    engaged: Mapping[str, Sequence[int]]
    """Each user's engaged items, latest first."""
    bought: Mapping[str, Sequence[int]]


Ranker = Callable[[Past, str, int], Sequence[int]]


def past(events: pa.Table, items: pa.Table, users: Sequence[str], *, now: datetime) -> Past:
    """Read what lies before `now`.

    Args:
        events: EVENTS.
        items: ITEMS.
        users: whose histories are kept.
        now: aware.
    """
    before = events.filter(pc.less(events["timestamp"], pa.scalar(now, schema.TIMESTAMP)))
    before = before.filter(pc.is_in(before["behavior"], pa.array(ENGAGED, pa.large_string())))
    ids = items["item_id"].combine_chunks()
    bought = before.filter(pc.equal(before["behavior"], "purchase"))
    rows = pc.index_in(bought["item_id"], ids).to_numpy()
    popular = np.argsort(-np.bincount(rows, minlength=len(ids)), kind="stable")
    return Past(
        [title or "" for title in items["title"].to_pylist()],
        [category or "" for category in items["category"].to_pylist()],
        popular,
        _own(before, ids, users),
        _own(bought, ids, users),
    )


def _own(events: pa.Table, ids: pa.Array, users: Sequence[str]) -> dict[str, list[int]]:
    own = events.filter(pc.is_in(events["user_id"], pa.array(users, pa.large_string()))).sort_by(
        [("timestamp", "descending")]
    )
    found: dict[str, list[int]] = {user: [] for user in users}
    for user, row in zip(own["user_id"].to_pylist(), pc.index_in(own["item_id"], ids).to_pylist(), strict=True):
        found[user].append(row)
    return found


def popularity(known: Past, user: str, k: int) -> Sequence[int]:
    """Show everybody what is bought most."""
    return [int(row) for row in known.popular[:k]]


def last_category(known: Past, user: str, k: int) -> Sequence[int]:
    """Show what is bought most of the category that the user engaged with last, then of the one before it."""
    found: list[int] = []
    for name in dict.fromkeys(known.category[row] for row in known.engaged[user]):
        found += [int(row) for row in known.popular if known.category[row] == name]
        if len(found) >= k:
            break
    return _filled(known, found, k)


def buy_again(known: Past, user: str, k: int) -> Sequence[int]:
    """Show what the user bought, most often first."""
    return _filled(known, [row for row, _ in Counter(known.bought[user]).most_common()], k)


class TitleOverlap:
    """Show items whose titles share words with what the user engaged with last, rare words counting more."""

    def __init__(self, known: Past) -> None:
        """Weigh the words of a catalogue."""
        stems = [set(words(title)) for title in known.titles]
        count = Counter(stem for title in stems for stem in title)
        self._word = {stem: at for at, stem in enumerate(count)}
        weight = np.array([np.log(len(stems) / one) for one in count.values()])
        self._rows = np.repeat(np.arange(len(stems)), [len(title) for title in stems])
        self._columns = np.array([self._word[stem] for title in stems for stem in sorted(title)], np.int64)
        norm = np.sqrt(np.bincount(self._rows, weight[self._columns] ** 2, minlength=len(stems)))
        self._values = weight[self._columns] / np.maximum(norm, 1e-12)[self._rows]
        self._starts = np.searchsorted(self._rows, np.arange(len(stems) + 1))

    def __call__(self, known: Past, user: str, k: int) -> Sequence[int]:
        """Rank by the cosine of word weights."""
        profile = np.zeros(len(self._word))
        for row in known.engaged[user][:LAST]:
            own = slice(self._starts[row], self._starts[row + 1])
            profile[self._columns[own]] += self._values[own]
        score = np.bincount(self._rows, self._values * profile[self._columns], minlength=len(known.titles))
        best = np.argsort(-score, kind="stable")[:k]
        return _filled(known, [int(row) for row in best if score[row] > 0], k)


def _filled(known: Past, rows: Sequence[int], k: int) -> list[int]:
    return list(dict.fromkeys([*rows[:k], *(int(row) for row in known.popular[: 2 * k])]))[:k]


def perfect(shown: pa.Table, items: pa.Table, users: Sequence[str], k: int = 20) -> list[list[int]]:
    """Give what a perfect recommender would show: the planted table, as item rows, best first."""
    rows = pc.index_in(shown["item_id"].cast(pa.large_string()), items["item_id"].combine_chunks()).to_pylist()
    found: dict[str, list[int]] = {user: [] for user in users}
    for user, rank, row in zip(shown["user_id"].to_pylist(), shown["rank"].to_pylist(), rows, strict=True):
        if user in found and rank <= k:
            found[user].append(row)
    return [found[user] for user in users]


class Judge:
    """Judges lists of items by what happens for an interest after `now`, and by what is wanted next."""

    def __init__(
        self, events: pa.Table, truth: Mapping[str, pa.Table], items: pa.Table, users: Sequence[str], *, now: datetime
    ) -> None:
        """Read the truth.

        Args:
            events: EVENTS, in the order of `truth["causes"]`.
            truth: of the world; its `wants` and `shown` are as of `now`.
            items: ITEMS.
            users: who is judged.
            now: aware.
        """
        self.users = list(users)
        at = {user: row for row, user in enumerate(self.users)}
        ids = items["item_id"].combine_chunks()
        looked = pc.and_(
            pc.equal(truth["causes"]["cause"].cast(pa.large_string()), "interest"),
            pc.is_in(events["behavior"], pa.array([*ENGAGED, "click"], pa.large_string())),
        )
        own = events.filter(pc.and_(looked, pc.greater_equal(events["timestamp"], pa.scalar(now, schema.TIMESTAMP))))
        future: list[set[int]] = [set() for _ in users]
        for user, row in zip(own["user_id"].to_pylist(), pc.index_in(own["item_id"], ids).to_pylist(), strict=True):
            if user in at:
                future[at[user]].add(row)
        self.future = metrics.ragged([sorted(rows) for rows in future])
        ware = dict(zip(truth["items"]["item_id"].to_pylist(), truth["items"]["ware"].to_pylist(), strict=True))
        self._ware = [ware[item] for item in ids.to_pylist()]
        self._shown = metrics.ragged(perfect(truth["shown"], items, self.users))
        self._wants: list[dict[str, float]] = [{} for _ in users]
        for row in truth["wants"].select(["user_id", "ware", "weight"]).to_pylist():
            if row["user_id"] in at:
                self._wants[at[row["user_id"]]][row["ware"]] = row["weight"]

    def reached(self, lists: Sequence[Sequence[int]], k: int) -> Reached:
        """Judge one list of item rows a user, best first."""
        ranked = metrics.ragged(lists)
        values = np.full(len(self.users), np.nan)
        for at, (rows, wanted) in enumerate(zip(lists, self._wants, strict=True)):
            if wanted:
                wares = {self._ware[row] for row in rows[:k]}
                values[at] = sum(weight for name, weight in wanted.items() if name in wares)
        known: Floats = values[~np.isnan(values)]
        return Reached(
            metrics.hit_rate(ranked, self.future, k),
            metrics.recall(ranked, self.future, k),
            Score(float(known.mean()) if len(known) else float("nan"), values),
            metrics.recall(ranked, self._shown, k),
        )


def rankers(known: Past) -> dict[str, Ranker]:
    """Give every shortcut by its name."""
    return {
        "popularity": popularity,
        "last category": last_category,
        "title overlap": TitleOverlap(known),
        "buy again": buy_again,
    }


def shortcuts(judge: Judge, known: Past, k: int = 20) -> dict[str, Reached]:
    """Judge every shortcut."""
    return {
        name: judge.reached([ranker(known, user, k) for user in judge.users], k)
        for name, ranker in rankers(known).items()
    }
