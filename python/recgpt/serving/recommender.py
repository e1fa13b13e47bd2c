"""Answers from a bundle: batched, thread-safe, explained. Imports neither torch nor llama.cpp."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from recgpt.errors import BundleError, InvalidTableError, UnknownItemError, UnknownUserError
from recgpt.index import Verdict
from recgpt.index import arrays as checks
from recgpt.index.arrays import Vectors
from recgpt.schema import TIMESTAMP
from recgpt.serving.current import read
from recgpt.serving.snapshot import Answer, Snapshot

RECOMMENDATIONS = pa.schema(
    [
        pa.field("user_id", pa.large_string(), nullable=False),
        pa.field("item_id", pa.large_string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("y_col", pa.float32()),
        pa.field("y_sem", pa.float32()),
        pa.field("tag", pa.large_string()),
        pa.field("interest", pa.large_string()),
        pa.field("explanation", pa.large_string()),
        pa.field("cold", pa.bool_(), nullable=False),
        pa.field("as_of", TIMESTAMP, nullable=False),
    ]
)
"""`score` is y, or for a cold user the item's popularity in the user's segment, 0 to 1; `y_col` is then null.
`y_sem`, `tag` and `interest` are null for a user without tags. `as_of`: when the winning tag was made, else the run's
`now`. The table's metadata names the `bundle` that every row comes from."""


@dataclass(frozen=True)
class Inspection:
    """All that a bundle knows of one user; rows are dictionaries by column."""

    user_id: str
    cold: bool
    """True if the user has no vector, so that popularity answers."""
    attributes: str | None
    segment: str | None
    history: str | None
    receipt: Mapping[str, Any] | None
    """What became of the user's events: `schema.RECEIPT`."""
    interests: list[dict[str, Any]]
    tags: list[dict[str, Any]]
    recommendations: list[dict[str, Any]]
    """As `recommend` gives them, with `title`, `category`, `explained_by` (`interest`, `item`, `rule` or None) and
    `tag_side_alone`: True if the user's own row, without tags, would not have brought the item into the same k."""
    rejections: list[dict[str, Any]]
    bundle: str
    as_of: datetime


@dataclass(frozen=True)
class Standing:
    """Where one item stands for one user: `recgpt.index.WhyNot` with names in the place of rows."""

    item_id: str
    title: str | None
    verdict: Verdict
    rank: int | None
    score: float | None
    y_col: float | None
    y_sem: float | None
    tag: str | None
    """The user's tag that fits the item best, or None for a user without tags."""
    interest: str | None
    """The interest from which that tag came."""
    cut: float | None


def _clock() -> datetime:
    return datetime.now(UTC)


class Recommender:
    """Serves one bundle at a time. Any number of threads may ask while another calls `refresh`."""

    def __init__(self, path: Path, snapshot: Snapshot, clock: Callable[[], datetime] = _clock) -> None:
        """Hold an open snapshot; use `Recommender.open`."""
        self._path = path
        self._snapshot = snapshot
        self._clock = clock

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, clock: Callable[[], datetime] = _clock) -> Recommender:
        """Open the bundle that `path/CURRENT` names, or the one bundle that `path` is.

        Args:
            path: see above.
            clock: gives the time, timezone-aware; read once a request, to leave out explanations that have run out.

        Raises:
            BundleError: if nothing is published there, or a file is missing or damaged.
        """
        return cls(Path(path), Snapshot(read(path)), clock)

    @property
    def bundle(self) -> str:
        """The hash of the bundle that answers now."""
        return self._snapshot.bundle.hash

    @property
    def folder(self) -> Path:
        """Where the bundle lies that answers now."""
        return self._snapshot.bundle.path

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest of the bundle that answers now."""
        return self._snapshot.bundle.manifest

    def refresh(self) -> bool:
        """Take up what `CURRENT` names now; returns whether that changed. A request in flight ends on its own bundle.

        Raises:
            BundleError: if the new bundle cannot be read; the old one goes on answering.
        """
        bundle = read(self._path)
        if bundle.hash == self._snapshot.bundle.hash:
            return False
        self._snapshot = Snapshot(bundle)
        return True

    def recommend(
        self,
        user_ids: Sequence[str],
        k: int = 20,
        beta: float | None = None,
        exclude: Mapping[str, Iterable[str]] | str | None = None,
        vectors: Mapping[str, Vectors] | None = None,
    ) -> pa.Table:
        """Recommend items to a batch of users, known or not.

        Args:
            user_ids: a sequence or Arrow array of ids, answered in this order. A user without a vector gets what is
                popular in the segment, then what is popular at all, marked `cold`.
            k: how many items a user gets at most.
            beta: weight of the user side against the tag side, 0 to 1; the bundle's own by default.
            exclude: item ids that a user may not get, by user id; or "seen": those in the bundle's seen table.
            vectors: user vectors by id, each (d,) float32, that go before the bundle's: a user whom the bundle does not
                know is served from the first event on. The towers that made the bundle read them from new events,
                without torch and without training: `retrieval.load(rec.folder / "towers").user_vectors_for(events)`.

        Returns:
            A table of `RECOMMENDATIONS`, each user's rows together, best first.

        Raises:
            InvalidTableError: if `user_ids` is no sequence of str, or `exclude` is neither a mapping nor "seen".
            InvalidConfigError: for k or beta out of range.
            InvalidArrayError: if one of `vectors` has another length or is not finite.
            BundleError: for "seen" if the bundle was written without a seen table.
        """
        # Taken once: a refresh in between would label the rows of one bundle with another's hash.
        snapshot = self._snapshot
        moment = snapshot.moment(self._clock())
        return _table(snapshot, *_ask(snapshot, user_ids, k, beta, exclude, moment, vectors or {}))

    def inspect(self, user_id: str, *, k: int = 20, beta: float | None = None) -> Inspection:
        """Show all that the bundle knows of one user, and what it recommends.

        Raises:
            UnknownUserError: if the user is in no table of the bundle; the message names ids that look alike.
        """
        snapshot = self._snapshot
        _known(snapshot, user_id)
        moment = snapshot.moment(self._clock())
        ids, answers = _ask(snapshot, [user_id], k, beta, None, moment, {})
        recommendations = []
        for row, answer in zip(_table(snapshot, ids, answers).to_pylist(), answers[0], strict=True):
            item = (snapshot.rows("items", answer.item_id) or [{}])[0]
            row |= {"title": item.get("title"), "category": item.get("category")}
            row |= {"explained_by": answer.explained_by, "tag_side_alone": answer.tag_side_alone}
            recommendations.append(row)
        history = (snapshot.rows("history", user_id) or [{}])[0]
        attributes = snapshot.attributes(user_id)
        return Inspection(
            user_id=user_id,
            cold=snapshot.vector_row(user_id) is None,
            attributes=attributes,
            segment=snapshot.segment(user_id),
            history=history.get("text"),
            receipt=history.get("receipt"),
            interests=snapshot.rows("interests", user_id),
            tags=snapshot.rows("tags", user_id),
            recommendations=recommendations,
            rejections=snapshot.rows("rejections", user_id),
            bundle=snapshot.bundle.hash,
            as_of=snapshot.now,
        )

    def why_not(
        self,
        user_id: str,
        item_id: str,
        *,
        k: int = 20,
        beta: float | None = None,
        exclude: Mapping[str, Iterable[str]] | str | None = None,
    ) -> Standing:
        """Say where an item stands for a user and what kept it out.

        For a cold user `rank` and `score` are those of popularity, and an item outside that list is `not in the index`.

        Raises:
            UnknownUserError: if the user is in no table of the bundle.
            UnknownItemError: if the bundle does not know the item at all.
            BundleError: for "seen" if the bundle was written without a seen table.
        """
        snapshot = self._snapshot
        _known(snapshot, user_id)
        weight = _weight(snapshot, k, beta)
        banned = _banned(snapshot, [user_id], exclude)[0]
        found = snapshot.why_not(user_id, item_id, k=k, beta=weight, banned=banned)
        items = snapshot.rows("items", item_id)
        if found.verdict == "not in the index" and not items:
            near = snapshot.near(item_id, "items")
            hint = f"ids that look alike: {', '.join(map(repr, near))}" if near else "it holds no items"
            raise UnknownItemError(f"item {item_id!r} is not in the catalogue of bundle {snapshot.bundle.hash}; {hint}")
        tag = {} if found.tag is None else snapshot.rows("tags", user_id)[found.tag]
        named = {"title": items[0]["title"] if items else None, "tag": tag.get("tag"), "interest": tag.get("interest")}
        return Standing(**{**asdict(found), **named})


def _ask(
    snapshot: Snapshot,
    user_ids: Sequence[str],
    k: int,
    beta: float | None,
    exclude: Mapping[str, Iterable[str]] | str | None,
    moment: datetime,
    vectors: Mapping[str, Vectors],
) -> tuple[list[str], list[list[Answer]]]:
    weight = _weight(snapshot, k, beta)
    ids = _ids(user_ids)
    banned = _banned(snapshot, ids, exclude)
    return ids, snapshot.answer(ids, k=k, beta=weight, banned=banned, moment=moment, vectors=vectors)


def _weight(snapshot: Snapshot, k: int, beta: float | None) -> float:
    weight = snapshot.bundle.manifest["beta"] if beta is None else beta
    checks.knobs(weight, k, "max")
    return float(weight)


def _ids(user_ids: Sequence[str] | pa.Array | pa.ChunkedArray) -> list[str]:
    expected = "`user_ids` must be a sequence of str such as ['1', '7']"
    if isinstance(user_ids, str):
        raise InvalidTableError(f"{expected}, but it is the str {user_ids!r}; put it into a list")
    try:
        column = user_ids if isinstance(user_ids, pa.Array | pa.ChunkedArray) else pa.array(user_ids, pa.large_string())
        ids: list[Any] = column.cast(pa.large_string()).to_pylist()
    except (pa.ArrowException, TypeError, UnicodeEncodeError) as error:
        raise InvalidTableError(f"{expected}, but it is not: {error}") from error
    if None in ids:
        raise InvalidTableError(f"{expected}, but row {ids.index(None)} is null; leave it out")
    return ids


def _banned(
    snapshot: Snapshot, user_ids: Sequence[str], exclude: Mapping[str, Iterable[str]] | str | None
) -> list[set[str]]:
    if exclude is None:
        return [set() for _ in user_ids]
    if exclude == "seen":
        if not snapshot.bundle.manifest.get("seen"):
            raise BundleError(
                f"bundle {snapshot.bundle.hash} was written without a table of seen items; build it again with `seen`, "
                "or give `exclude` as a mapping of user ids to item ids"
            )
        return [{row["item_id"] for row in snapshot.rows("seen", user)} for user in user_ids]
    if not isinstance(exclude, Mapping):
        raise InvalidTableError(f'`exclude` must map user ids to item ids, or be "seen", but it is {exclude!r}')
    return [set(exclude.get(user, ())) for user in user_ids]


def _known(snapshot: Snapshot, user_id: str) -> None:
    if not snapshot.knows(user_id):
        near = snapshot.near(user_id, "users")
        hint = f"ids that look alike: {', '.join(map(repr, near))}" if near else "it holds no users"
        raise UnknownUserError(f"user {user_id!r} is in no table of bundle {snapshot.bundle.hash}; {hint}")


def _table(snapshot: Snapshot, user_ids: Sequence[str], answers: Sequence[Sequence[Answer]]) -> pa.Table:
    rows = [(user, answer) for user, found in zip(user_ids, answers, strict=True) for answer in found]
    columns = {"user_id": [user for user, _ in rows]}
    columns |= {name: [getattr(answer, name) for _, answer in rows] for name in RECOMMENDATIONS.names[1:]}
    table = pa.table({name: pa.array(columns[name], RECOMMENDATIONS.field(name).type) for name in columns})
    return table.cast(RECOMMENDATIONS).replace_schema_metadata({"bundle": snapshot.bundle.hash})
