"""Which catalogue tags a user is asked about, chosen without an LLM; and tags by rule for every user.

The stated rule. A tag's score for a user is the sum of three parts, each divided by the user's largest: co-occurrence
(the user's recency-weighted tags times the cosine of tag pairs over all users), category affinity (the user's weighted
share of the tag's category) and log popularity. Tags engaged with in the past month and tags out of season are out.
Candidates come from the interests (section 2.2.1): the interests take turns, each offers the tags that go with it
(`association`) in the order of score plus weighted association. Only where that gives too few, as for a user without
interests, the number is filled by score alone, at most a twentieth of the candidates from one category.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recgpt import schema
from recgpt.tags.association import Associations
from recgpt.tags.config import Config
from recgpt.tags.engagement import Engagement, read

_CHUNK = 1024
"""Users scored at once: bounds memory at chunk x vocabulary floats."""
_SPREAD = 20
"""Candidates come from at least this many categories where the catalogue has them."""

Floats = npt.NDArray[np.float32]


class Scorer:
    """Scores catalogue tags for users of one log."""

    def __init__(self, log: Engagement, config: Config) -> None:
        self.log = log
        self.config = config
        popularity = log.popularity()
        vocabulary = np.lexsort((np.arange(len(popularity)), -popularity))[: config.vocabulary]
        self.vocabulary = np.sort(vocabulary)
        """(v,) tag codes that co-occurrence covers, the most popular ones."""
        self.column = np.full(len(log.tags), -1, np.int64)
        self.column[self.vocabulary] = np.arange(len(self.vocabulary))
        self.users = popularity[self.vocabulary].astype(np.float64)
        """(v,) users of each tag."""
        self.popularity = _scaled(np.log1p(popularity[self.vocabulary])[None, :].astype(np.float32))
        self.category = log.tag_category[self.vocabulary]
        self.starts = np.searchsorted(log.user, np.arange(len(log.users) + 1))
        self.code = {user: code for code, user in enumerate(log.users)}
        self.cosine = self._cosine()

    def _rows(self, users: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Pair rows of some users and, for each, the place of its user."""
        sizes = self.starts[users + 1] - self.starts[users]
        place = np.repeat(np.arange(len(users)), sizes)
        rows = np.arange(sizes.sum()) + np.repeat(self.starts[users] - np.append(0, np.cumsum(sizes)[:-1]), sizes)
        inside = self.column[self.log.tag[rows]] >= 0
        return rows[inside], place[inside]

    def _cosine(self) -> Floats:
        size = len(self.vocabulary)
        together = np.zeros((size, size), np.float32)
        for start in range(0, len(self.log.users), _CHUNK):
            users = np.arange(start, min(start + _CHUNK, len(self.log.users)))
            rows, place = self._rows(users)
            engaged = np.zeros((len(users), size), np.float32)
            engaged[place, self.column[self.log.tag[rows]]] = 1.0
            together += engaged.T @ engaged
        norm = np.sqrt(np.maximum(together.diagonal().copy(), 1.0))
        return np.asarray(together / norm[:, None] / norm[None, :], np.float32)

    def gain(self, columns: npt.NDArray[np.int64], column: int) -> npt.NDArray[np.float64]:
        """How much likelier one tag is among the users of each of others: P(tag | other) - P(tag), (n,).

        Cosine alone would say that what everybody buys goes with everything.
        """
        own, other = self.users[column], np.maximum(self.users[columns], 1.0)
        given = self.cosine[columns, column] * np.sqrt(max(own, 1.0) / other)
        return np.asarray(given - own / max(len(self.log.users), 1), np.float64)

    def score(self, users: Sequence[str]) -> Floats:
        """Score the vocabulary for users: (n_users, v) float32; what a rule forbids is -inf.

        Users without events get popularity alone.
        """
        size, count = len(self.vocabulary), len(users)
        known = np.array([self.code.get(user, -1) for user in users], np.int64)
        present = np.flatnonzero(known >= 0)
        weight = np.zeros((count, size), np.float32)
        recent = np.zeros((count, size), bool)
        affinity = np.zeros((count, len(self.log.categories) + 1), np.float32)
        if len(present):
            rows, place = self._rows(known[present])
            columns = self.column[self.log.tag[rows]]
            weight[present[place], columns] = self.log.weight[rows]
            recent[present[place], columns] = self.log.age[rows] < self.config.past_days
            np.add.at(affinity, (present[place], self.category[columns]), self.log.weight[rows])
            affinity[:, -1] = 0.0  # tags without a category share none
        score = _scaled(weight @ self.cosine) + self.config.popularity_weight * self.popularity
        score += self.config.affinity_weight * _scaled(affinity)[:, self.category]
        score[recent | ~self.log.in_season[self.vocabulary][None, :]] = -np.inf
        return score

    def best(self, scores: Floats, limit: int, cap: int) -> npt.NDArray[np.int64]:
        """Take the best columns of one user's scores: ties by tag, at most `cap` a category, forbidden ones out.

        A catalogue without categories has no cap.
        """
        order = np.lexsort((np.arange(len(scores)), -scores))
        order = order[np.isfinite(scores[order])]
        return order[capped(self.category[order], limit, cap if self.log.categories else limit)]


def capped(categories: npt.NDArray[np.int32], limit: int, cap: int) -> npt.NDArray[np.int64]:
    """Places of the first `limit` rows with at most `cap` of each category.

    >>> capped(np.array([1, 1, 1, 2, 2], np.int32), limit=3, cap=2).tolist()
    [0, 1, 3]
    """
    order = np.argsort(categories, kind="stable")
    ordered = categories[order]
    rank = np.empty(len(categories), np.int64)
    rank[order] = np.arange(len(categories)) - np.searchsorted(ordered, ordered)
    return np.flatnonzero(rank < cap)[:limit]


def preselect(
    scorer: Scorer,
    users: Sequence[str],
    interests: Sequence[Sequence[str]],
    associations: Associations,
    *,
    candidates: int,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> list[list[str]]:
    """Choose at most `candidates` catalogue tags a user: those of the interests in turn; where they are few, others.

    Args:
        scorer: of the log.
        users: ids.
        interests: each user's own, by rank.
        associations: knows every interest.
        candidates: tags a user, at most.
        allowed: (v,) which tags of the vocabulary keep the rules that hold for everybody; all by default.
    """
    scores = scorer.score(users)
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    going = {interest: _going(scorer, associations, interest) for own in interests for interest in own}
    cap = max(1, -(-candidates // _SPREAD))
    asked = []
    for row, own in zip(scores, interests, strict=True):
        queues = [iter(_queue(scorer, row, going[interest])) for interest in own]
        chosen: dict[int, None] = {}
        while queues and len(chosen) < candidates:
            queues = [queue for queue in queues if _next(queue, chosen) is not None]
        if len(chosen) < scorer.config.least_from_interests:
            chosen |= dict.fromkeys(scorer.best(row, candidates, cap).tolist())
        asked.append([scorer.log.tags[scorer.vocabulary[column]] for column in [*chosen][:candidates]])
    return asked


def _going(scorer: Scorer, associations: Associations, interest: str) -> Floats:
    """Associate one interest with every tag of the vocabulary: (v,); 0 below the least association."""
    names = [*scorer.log.categories, None]
    values = np.array(
        [
            associations.between(interest, scorer.log.tags[tag], names[category])
            for tag, category in zip(scorer.vocabulary.tolist(), scorer.category.tolist(), strict=True)
        ],
        np.float32,
    )
    values[values < scorer.config.min_association] = 0.0
    return values


def _queue(scorer: Scorer, scores: Floats, going: Floats) -> list[int]:
    """Columns that go with one interest and that no rule forbids, best first."""
    value = scores + scorer.config.interest_weight * going
    order = np.lexsort((np.arange(len(value)), -value))
    columns: list[int] = order[(going[order] > 0) & np.isfinite(scores[order])].tolist()
    return columns


def _next(queue: Iterator[int], chosen: dict[int, None]) -> int | None:
    """Take the next column that no interest has taken yet."""
    for column in queue:
        if column not in chosen:
            chosen[column] = None
            return column
    return None


def by_rule(
    events: schema.ArrowStream,
    item_tags: schema.ArrowStream,
    items: schema.ArrowStream,
    *,
    now: datetime | None,
    users: Sequence[str] | None = None,
    per_user: int = 50,
    config: Config | None = None,
) -> pa.Table:
    """Give every user tags by rule from the log, without an LLM; the rows say so (`source="rule"`).

    The rule is the preselection's own, so the past month, the season and the floor of categories hold here too.

    Args:
        events: `schema.EVENTS`; only what lies before `now` counts.
        item_tags: `schema.ITEM_TAGS`.
        items: `schema.ITEMS`.
        now: timezone-aware; None for a log without times.
        users: who gets tags; everyone in the log by default. A user without events gets popular tags.
        per_user: tags a user.
        config: settings.

    Returns:
        `schema.TAGS`, sorted as `users` and then by rank; interest and reason are null.
    """
    settings = config or Config()
    log = read(events, item_tags, items, now=now, config=settings)
    scorer = Scorer(log, settings)
    chosen = list(log.users if users is None else users)
    cap = max(1, -(-per_user // settings.min_categories))
    who: list[int] = []
    ranks: list[int] = []
    tags: list[int] = []
    values: list[float] = []
    for start in range(0, len(chosen), _CHUNK):
        scores = scorer.score(chosen[start : start + _CHUNK])
        for row, own in enumerate(scores):
            best = scorer.best(own, per_user, cap)
            who += [start + row] * len(best)
            ranks += range(1, len(best) + 1)
            tags += scorer.vocabulary[best].tolist()
            values += own[best].tolist()
    count = len(who)
    names = pa.array([*log.categories, None], pa.large_string())
    return pa.Table.from_arrays(
        [
            pa.array(chosen, pa.large_string()).take(pa.array(who, pa.int64())),
            pa.array(ranks, pa.int32()),
            pa.array(log.tags, pa.large_string()).take(pa.array(tags, pa.int64())),
            pa.nulls(count, pa.large_string()),
            pa.nulls(count, pa.large_string()),
            names.take(pa.array(log.tag_category[tags] % len(names) if count else [], pa.int64())),
            pa.array(values, pa.float64()),
            pa.array(["rule"] * count, pa.large_string()),
            pa.array([now] * count, schema.TIMESTAMP),
        ],
        schema=schema.TAGS,
    )


def _scaled(values: Floats) -> Floats:
    return np.asarray(values / np.maximum(values.max(axis=1, keepdims=True, initial=0.0), 1e-9), np.float32)
