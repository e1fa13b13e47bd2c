"""Puts together what people see when they review: the history behind a sample, and two arms' lists for one shopper."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from recgpt import evidence, interests, schema
from recgpt.errors import JudgeError
from recgpt.evaluation.desk.arms import read
from recgpt.interests.rules import claim_terms
from recgpt.judge import Buffer, Criterion, Sample
from recgpt.judge.review import Pair, Store
from recgpt.judge.review.repetition import pair
from recgpt.pipeline.config import Config
from recgpt.pipeline.criteria import criteria_of
from recgpt.pipeline.judging import Tables, samples
from recgpt.pipeline.milestones import buffer_path
from recgpt.serving import Recommender

SHOWN = 20
"""Items of a list that people compare, at most."""


def open_store(place: Config | Path, criteria: Path | None = None) -> Store:
    """Open the buffer of a run, or one by its path, for people to review.

    A run that nobody has judged yet gives its samples; each sample gets the history that it was made from. `criteria`
    is a folder of a shop's own, in place of the configuration's.

    Raises:
        JudgeError: there is no buffer at the path, or the run has not come so far.
    """
    if isinstance(place, Config):
        buffer = Buffer(buffer_path(place))
        if not buffer.count("samples"):
            buffer.add_samples(samples(place, limit=place.judge.samples), source="served", round=buffer.round())
        store = Store(buffer, criteria_of(place, criteria))
        store.add_contexts(contexts(Tables(place), (kept.sample for kept in store.read().samples.values())))
        return store
    return Store(*existing(place, criteria))


def existing(place: Config | Path, criteria: Path | None = None) -> tuple[Buffer, dict[str, Criterion]]:
    """Open a buffer that is there, with the criteria that go with it.

    Raises:
        JudgeError: it is not there.
    """
    path = buffer_path(place) if isinstance(place, Config) else place
    if not path.is_file():
        raise JudgeError(
            f"a buffer was expected at {path}, but there is none: let `recgpt judge run` make it, or name a run's TOML"
        )
    return Buffer(path), criteria_of(place, criteria)


def contexts(tables: Tables, kept: Iterable[Sample]) -> dict[str, dict[str, Any]]:
    """Give the history of each sample's shopper, and which rows its interest cites; by sample.

    Samples without a shopper, and of shoppers whom the run no longer has, are left out.
    """
    history = _histories(tables)
    terms = {entry.pool_id: entry.terms for entry in interests.Pool.load(tables.config.llm.pool).interests}
    mined = {(row["user_id"], row["interest"]): row for row in tables("interests", "interests").to_pylist()}
    found = {}
    for sample in kept:
        if not (rows := history(sample.user_id)):
            continue
        row = mined.get((sample.user_id, sample.fields.get("interest", "")))
        cited = [] if row is None else row["evidence"]
        wanted = [] if row is None else terms.get(row["pool_id"] or "") or claim_terms(row["interest"])
        # A row may hold a year's goods: what speaks for the interest is marked within it.
        found[sample.id] = {
            "history": [
                one | {"hits": [place for place, item in enumerate(one["items"]) if evidence.longest_hit(item, wanted)]}
                if one["id"] in cited
                else one
                for one in rows
            ],
            "cited": cited,
        }
    return found


def pairs(config: Config, arms: Mapping[str, Path], *, users: int, k: int = SHOWN) -> list[Pair]:
    """Make pairs of lists for shoppers whom both arms serve, drawn by a hash of their id and the run's seed.

    Args:
        config: of a run, whose catalogue, attributes and histories are shown.
        arms: two of them by name: a bundle (or a folder of bundles), or a table of `user_id` and `item_id` with each
            user's items in their order, or in that of its column `position`.
        users: most shoppers.
        k: most items a list.

    Raises:
        JudgeError: an arm's table lacks a column, or no shopper is served by both.
        BundleError: an arm is a folder, but no bundle.
    """
    tables = Tables(config)
    known = {row["item_id"]: row for row in tables.items.to_pylist()}
    attributes, history = tables.attributes, _histories(tables)
    served = {name: None if path.is_dir() else _lists(path, k) for name, path in arms.items()}
    there = [set(lists) for lists in served.values() if lists is not None]
    both = sorted(set.intersection(*there) if there else set(attributes), key=lambda user: _draw(user, config.seed))
    chosen = both[:users]
    for name, path in arms.items():
        if path.is_dir() and chosen:
            answers = Recommender.open(path).recommend(chosen, k=k)
            served[name] = _grouped(answers["user_id"].to_pylist(), answers["item_id"].to_pylist(), k)
    found = [
        pair(
            user,
            {name: [_item(known.get(item), item) for item in (lists or {})[user]] for name, lists in served.items()},
            attributes=attributes.get(user) or "",
            history=history(user),
            seed=config.seed,
        )
        for user in chosen
        if all((lists or {}).get(user) for lists in served.values())
    ]
    if not found:
        raise JudgeError(f"a shopper whom {' and '.join(arms)} both serve was expected, but there is none")
    return found


def _histories(tables: Tables) -> Any:
    """Give a function from a user to the rows of the budgeted history; [] for users without one."""
    table = tables("history", "budgeted")
    texts = dict(zip(table["user_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    made: dict[str | None, list[dict[str, Any]]] = {}

    def rows(user: str | None) -> list[dict[str, Any]]:
        if user not in made:
            made[user] = [
                {"id": row.id, "when": _when(row), "items": list(row.items) or [row.text], "hits": []}
                for row in evidence.parse_rows(texts.get(user or "", ""))
            ]
        return made[user]

    return rows


def _when(row: evidence.HistoryRow) -> str:
    """Write a row's contexts as people read them: behaviors of one label together."""
    found: dict[str, list[str]] = {}
    for label, behavior in row.contexts:
        found.setdefault(label, []).append(behavior.replace("_", " "))
    return "; ".join(f"{label} {', '.join(behaviors)}" for label, behaviors in found.items())


def _lists(path: Path, k: int) -> dict[str, list[str]]:
    table = read(path)
    lacking = [name for name in ("user_id", "item_id") if name not in table.column_names]
    if lacking:
        raise JudgeError(
            f"{path}: user_id and item_id were expected, but {', '.join(lacking)} is not there; it has "
            f"{', '.join(table.column_names)}"
        )
    if "position" in table.column_names:
        table = table.sort_by("position")
    users, items = (schema.cast(table[name], pa.large_string()).to_pylist() for name in ("user_id", "item_id"))
    return _grouped(users, items, k)


def _grouped(users: Sequence[str], items: Sequence[str], k: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for user, item in zip(users, items, strict=True):
        row = found.setdefault(user, [])
        if len(row) < k:
            row.append(item)
    return found


def _item(row: Mapping[str, Any] | None, item: str) -> dict[str, str]:
    if row is None:
        return {"title": item, "detail": ""}
    price = "" if row["price"] is None else f"{row['price']:.2f}"
    return {
        "title": row["title"] or item,
        "detail": " · ".join(str(part) for part in (row["brand"], row["category"], price) if part),
    }


def _draw(user: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{user}".encode()).digest()
