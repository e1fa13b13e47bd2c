"""One open bundle with its index and lookups. Immutable, so a request holds one snapshot from first to last."""

from __future__ import annotations

import difflib
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt.index import Verdict, WhyNot
from recgpt.index import arrays as checks
from recgpt.index.arrays import Rows, Vectors
from recgpt.serving.bundle import TABLES, Bundle, open_index
from recgpt.serving.popularity import segment


@dataclass(frozen=True, slots=True)
class Answer:
    """One recommended item; the fields are the columns of `RECOMMENDATIONS`."""

    item_id: str
    score: float
    y_col: float | None
    y_sem: float | None
    tag: str | None
    interest: str | None
    explanation: str | None
    explained_by: str | None
    """`interest`: a model wrote the text for this interest and item; `item`: for the item alone; `rule`: it is the text
    that a rule gave the item; None: there is none."""
    cold: bool
    as_of: datetime
    tag_side_alone: bool
    """The user's own row, without tags, would not have brought the item into the same k."""


class Snapshot:
    """Sorted tables searched by bisection: no dictionary is built, so opening costs no memory per user."""

    def __init__(self, bundle: Bundle) -> None:
        """Make the index over the mapped vectors and join tags to their vectors once."""
        self.bundle = bundle
        self.now = datetime.fromisoformat(bundle.manifest["now"])
        self._created = datetime.fromisoformat(bundle.manifest["created"])
        self._index = open_index(bundle)
        self._columns = {
            (table, name): _Column(contents.column(name))
            for table, contents in bundle.tables.items()
            for name in contents.column_names
        }
        self._keys = {table: self._columns[table, sorting[0]] for table, (_, sorting) in TABLES.items()}
        self._users = _Column(pa.chunked_array([bundle.keys["user_vectors"]]))
        self._items = _Column(pa.chunked_array([bundle.keys["item_vectors"]]))
        places = pc.index_in(bundle.tables["tags"]["tag"], bundle.keys["tag_vectors"])
        self._tag_vector: Rows = places.to_numpy().astype(np.int64)
        # The rows without a segment are the overall list.
        self._overall = range(self._keys["popularity"].named, len(self._keys["popularity"]))

    def span(self, table: str, key: str) -> range:
        """The rows of a table that belong to a key: a user or, in `items` and `explanations`, an item."""
        column = self._keys[table]
        first = bisect_left(column, key, hi=column.named)
        return range(first, bisect_right(column, key, lo=first, hi=column.named))

    def rows(self, table: str, key: str) -> list[dict[str, Any]]:
        """The rows of a key as dictionaries."""
        span = self.span(table, key)
        found: list[dict[str, Any]] = self.bundle.tables[table].slice(span.start, len(span)).to_pylist()
        return found

    def moment(self, clock: datetime) -> datetime:
        """When a request takes place for the bundle, if the clock on the wall shows `clock`."""
        # A bundle with `now` in the past replays a log: its time goes on from `now`, as fast as the clock since it
        # was created. By the wall clock alone all texts of an old log would have run out before the first request.
        return self.now + max(clock - self._created, timedelta(0))

    def vector_row(self, user_id: str) -> int | None:
        """Where the user's vector stands, or None for a cold user."""
        return self._users.find(user_id)

    def attributes(self, user_id: str) -> str | None:
        """What the shop says of a user."""
        span = self.span("users", user_id)
        text: str | None = self._columns["users", "attributes"][span.start] if span else None
        return text

    def segment(self, user_id: str) -> str | None:
        """The user's segment by attributes, if popularity knows it."""
        name = segment(self.attributes(user_id))
        return name if name is not None and self.span("popularity", name) else None

    def knows(self, user_id: str) -> bool:
        """Whether any table has the user."""
        tables = ("users", "history", "interests", "tags", "rejections", "seen")
        return self.vector_row(user_id) is not None or any(self.span(table, user_id) for table in tables)

    def near(self, key: str, kind: Literal["users", "items"]) -> list[str]:
        """A few known ids of users or items that look like this one, from its neighbors in sorted order."""
        around: set[str] = set()
        for column in (self._keys[kind], self._users if kind == "users" else self._items):
            place = bisect_left(column, key)
            around.update(column[row] for row in range(max(place - 100, 0), min(place + 100, len(column))))
        return difflib.get_close_matches(key, sorted(around), n=3, cutoff=0.3) or sorted(around)[:3]

    def answer(
        self,
        user_ids: Sequence[str],
        *,
        k: int,
        beta: float,
        banned: Sequence[AbstractSet[str]],
        moment: datetime,
        vectors: Mapping[str, Vectors],
    ) -> list[list[Answer]]:
        """Answer a batch: one search for all users with vectors, popularity for the others.

        Texts whose `valid_until` is not after `moment` are left out. `vectors` go before the bundle's own.
        """
        users = [self._user_vector(user, vectors) for user in user_ids]
        warm = [row for row, vector in enumerate(users) if vector is not None]
        known = [vector for vector in users if vector is not None]
        asked = np.stack(known) if known else self.bundle.vectors["user_vectors"][:0]
        answers: list[list[Answer]] = [[] for _ in user_ids]
        spans = [self.span("tags", user_ids[row]) for row in warm]
        excluded = [self._item_rows(banned[row]) for row in warm]
        tag_rows = np.concatenate([_nothing(), *(np.arange(span.start, span.stop) for span in spans)])
        found = self._index.search(
            asked,
            self.bundle.vectors["tag_vectors"][self._tag_vector[tag_rows]],
            _offsets(spans),
            beta=beta,
            k=k,
            exclude=(np.concatenate([_nothing(), *excluded]), _offsets(excluded)),
        )
        columns = (found[name].to_pylist() for name in found.column_names)
        for row, item_id, score, y_col, y_sem, tag, alone in zip(*columns, strict=True):
            mine = answers[warm[row]]
            tag_row = None if tag < 0 else int(tag_rows[tag])
            mine.append(self._explained(user_ids[warm[row]], item_id, score, y_col, y_sem, tag_row, moment, alone))
        for row, vector in enumerate(users):
            if vector is None:
                popular = self._popular(user_ids[row], banned[row])[:k]
                answers[row] = [
                    self._explained(user_ids[row], item_id, score, None, None, None, moment)
                    for item_id, score in popular
                ]
        return answers

    def _user_vector(self, user_id: str, given: Mapping[str, Vectors]) -> Vectors | None:
        """What the caller gave for the user, else the bundle's."""
        if user_id in given:
            vector: Vectors = checks.vectors(
                np.asarray(given[user_id])[None], name=f"vectors[{user_id!r}]", dim=self.bundle.manifest["dim"]
            )[0]
            return vector
        place = self.vector_row(user_id)
        return None if place is None else self.bundle.vectors["user_vectors"][place]

    def why_not(self, user_id: str, item_id: str, *, k: int, beta: float, banned: AbstractSet[str]) -> WhyNot:
        """Say where an item stands for a user."""
        place = self.vector_row(user_id)
        if place is not None:
            span = self.span("tags", user_id)
            return self._index.why_not(
                self.bundle.vectors["user_vectors"][place],
                self.bundle.vectors["tag_vectors"][self._tag_vector[span.start : span.stop]],
                item_id,
                beta=beta,
                k=k,
                exclude=self._item_rows(banned),
            )
        ranked = self._popular(user_id, frozenset())
        allowed = [pair for pair in ranked if pair[0] not in banned]
        cut = allowed[:k][-1][1] if allowed else None
        for rank, (popular, score) in enumerate(ranked, start=1):
            if popular == item_id:
                served = any(popular == other for other, _ in allowed[:k])
                verdict: Verdict = "served" if served else "excluded" if item_id in banned else "below k"
                return WhyNot(item_id, verdict, rank=rank, score=score, cut=cut)
        return WhyNot(item_id, "not in the index", cut=cut)

    def _popular(self, user_id: str, banned: AbstractSet[str]) -> list[tuple[str, float]]:
        name = self.segment(user_id)
        own = range(0) if name is None else self.span("popularity", name)
        ids, scores = self._columns["popularity", "item_id"], self._columns["popularity", "score"]
        # The segment's list first; where it is short, the overall list fills up, each item once.
        ranked: dict[str, float] = {}
        for row in (*own, *self._overall):
            ranked.setdefault(ids[row], scores[row])
        return [(item, score) for item, score in ranked.items() if item not in banned]

    def _explained(
        self,
        user_id: str,
        item_id: str,
        score: float,
        y_col: float | None,
        y_sem: float | None,
        tag_row: int | None,
        moment: datetime,
        tag_side_alone: bool = False,
    ) -> Answer:
        tag, interest, as_of = None, None, None
        if tag_row is not None:
            tag, interest, as_of = (self._columns["tags", name][tag_row] for name in ("tag", "interest", "as_of"))
        # The winning tag's interest first, then the user's others: the table holds what goes with this item's category.
        own = [self._columns["interests", "interest"][row] for row in self.span("interests", user_id)]
        text, written_for, source = self._explanation(item_id, [interest, *own], moment)
        by = None if text is None else "rule" if source == "rule" else "item" if written_for is None else "interest"
        interest = written_for or interest
        return Answer(
            item_id, score, y_col, y_sem, tag, interest, text, by, y_col is None, as_of or self.now, tag_side_alone
        )

    def _explanation(
        self, item_id: str, interests: Sequence[str | None], moment: datetime
    ) -> tuple[str | None, str | None, str | None]:
        """The text for the first of the interests that the table has with the item, else the item's own; its source."""
        found: dict[str | None, tuple[str, str]] = {}
        for row in self.span("explanations", item_id):
            until = self._columns["explanations", "valid_until"][row]
            if until is not None and until <= moment:
                continue
            written_for = self._columns["explanations", "interest"][row]
            found.setdefault(
                written_for, (self._columns["explanations", "text"][row], self._columns["explanations", "source"][row])
            )
        first = next((interest for interest in interests if interest is not None and interest in found), None)
        text, source = found.get(first, (None, None))
        return text, first, source

    def _item_rows(self, item_ids: AbstractSet[str]) -> Rows:
        found = [self._items.find(item) for item in sorted(item_ids)]
        return np.array([row for row in found if row is not None], np.int64)


class _Column(Sequence[Any]):
    """A mapped Arrow column as a sequence of Python values, which is what bisection wants."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        # In a sorted key nulls stand last and belong to nobody.
        self.named = len(self._array) - int(self._array.null_count)

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, row: Any) -> Any:
        return self._array[row].as_py()

    def find(self, key: str) -> int | None:
        """The row of a key in a sorted column without repeats."""
        row = bisect_left(self, key)
        return row if row < len(self) and self[row] == key else None


def _nothing() -> Rows:
    return np.empty(0, np.int64)


def _offsets(parts: Sequence[Any]) -> Rows:
    return np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
