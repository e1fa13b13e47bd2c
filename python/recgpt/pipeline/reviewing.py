"""Puts together what people see when they review: the history behind a sample, and two arms' lists for one shopper."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from recgpt import evidence, interests, schema
from recgpt.errors import InvalidConfigError, JudgeError
from recgpt.evaluation.desk.arms import read
from recgpt.interests.rules import claim_terms
from recgpt.judge import Buffer, Criterion, Sample
from recgpt.judge.review import Pair, Store
from recgpt.judge.review.repetition import pair
from recgpt.judge.review.store import against
from recgpt.pipeline.config import Config
from recgpt.pipeline.criteria import criteria_of
from recgpt.pipeline.judging import Tables, explained, samples
from recgpt.pipeline.milestones import buffer_path
from recgpt.serving import Recommender

SHOWN = 20
"""Items of a list that people compare, at most."""


@dataclass(frozen=True)
class Compared:
    """Two arms' lists, made ready for people."""

    pairs: list[Pair]
    unknown: dict[str, int]
    """By name of an arm that has some: items of its lists that the catalogue lacks; people see their ids alone."""
    cut: int
    """Pairs whose longer list was cut to the length of the other one."""


def open_store(place: Config | Path, criteria: Path | None = None) -> Store:
    """Open the buffer of a run, or one by its path, for people to review.

    A run that nobody has judged yet gives its samples, if it has come so far; each sample of a run gets the history
    that it was made from. A teacher's samples, and those of a model that trains itself, bring theirs: their shoppers
    are others of the same names. `criteria` is a folder of a shop's own, in place of the configuration's.

    Raises:
        JudgeError: there is no buffer at the path, or the run has not come so far.
    """
    if isinstance(place, Config):
        buffer = Buffer(buffer_path(place))
        if not (served := buffer.of_source("served")):
            try:
                found = samples(place, limit=place.judge.samples)
            except JudgeError:
                if not buffer.count("samples"):
                    raise
                found = []
            buffer.add_samples(found, source="served", round=buffer.round())
            served = {one.id for one in found}
        store = Store(buffer, criteria_of(place, criteria))
        if served:
            kept = store.read().samples
            store.add_contexts(contexts(Tables(place), (kept[one].sample for one in kept if one in served)))
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

    An explanation is written for an interest and an item. People see it as somebody would: beside it stand one of the
    shoppers with that interest, the tag by which the item reaches this shopper, and the history. The judge is not shown
    them: its question stays the same whoever is drawn. Shoppers whom the run no longer has are left out.
    """
    history, told = _histories(tables), _beside(tables)
    terms = {entry.pool_id: entry.terms for entry in interests.Pool.load(tables.config.llm.pool).interests}
    mined = {(row["user_id"], row["interest"]): row for row in tables("interests", "interests").to_pylist()}
    found = {}
    for sample in kept:
        user, fields = told(sample) if sample.task == "explanations" else (sample.user_id, [])
        if fields:
            found[sample.id] = {"fields": fields}
        if not (rows := history(user)):
            continue
        row = mined.get((user, sample.fields.get("interest", "")))
        cited = [] if row is None else row["evidence"]
        wanted = [] if row is None else terms.get(row["pool_id"] or "") or claim_terms(row["interest"])
        # A row may hold a year's goods: what speaks for the interest is marked within it.
        found.setdefault(sample.id, {}).update(
            history=[
                one | {"hits": [place for place, item in enumerate(one["items"]) if evidence.longest_hit(item, wanted)]}
                if one["id"] in cited
                else one
                for one in rows
            ],
            cited=cited,
        )
    return found


def _beside(tables: Tables) -> Callable[[Sample], tuple[str | None, list[list[str]]]]:
    """Give a function from an explanation to one shopper who could read it, and to what people are told of both."""
    rows = explained(tables)
    shelf = dict(zip(tables.items["item_id"].to_pylist(), tables.items["category"].to_pylist(), strict=True))
    holders: dict[str, list[str]] = {}
    for row in tables("interests", "interests").to_pylist():
        holders.setdefault(row["interest"], []).append(row["user_id"])
    tags: dict[tuple[str, str | None], dict[str, str]] = {}
    for row in tables("tags", "tags").to_pylist():
        tags.setdefault((row["interest"], row["category"]), {}).setdefault(row["user_id"], row["tag"])

    def told(sample: Sample) -> tuple[str | None, list[list[str]]]:
        row = rows.get(sample.id)
        if row is None:
            return None, []
        item, interest = row["item_id"], row["interest"]
        by_tag, users = tags.get((interest, shelf.get(item)), {}), holders.get(interest or "", [])
        own = ["tag", tables.tag_of.get(item) or "none"]
        if not users:
            return None, [own]
        # Rather somebody whom a tag leads to this shelf; of equal ones a hash chooses.
        user = min(users, key=lambda one: (one not in by_tag, hashlib.sha256(f"{one}/{sample.id}".encode()).digest()))
        label = f"shopper, one of {len(users)} with this interest"
        known = str(tables.attributes.get(user) or "unknown")
        return user, [[label, known], ["tag", by_tag[user]] if user in by_tag else own]

    return told


def arms(first: Path, second: Path) -> dict[str, Path]:
    """Name two arms by what they are, so that another bundle under the same path is another arm.

    Returns:
        Name -> the bundle's own folder, or the table's file.

    Raises:
        InvalidConfigError: both are the same, or a table is not there.
        BundleError: an arm is a folder, but no bundle.
    """
    found: dict[str, Path] = {}
    for path in (first, second):
        if path.is_dir():
            opened = Recommender.open(path)
            mark, place = opened.bundle, opened.folder
        else:
            try:
                mark, place = hashlib.sha256(path.read_bytes()).hexdigest(), path
            except OSError as error:
                raise InvalidConfigError(
                    f"a bundle, or a table of user_id and item_id, was expected at {path}, but it cannot be read: "
                    f"{error.strerror}"
                ) from error
        if mark[:8] in {name[-8:] for name in found}:
            raise InvalidConfigError(
                f"{first} and {second} are the same ({mark[:8]}): a list beside itself shows nothing; name another arm"
            )
        found[f"{path.resolve().stem} {mark[:8]}"] = place
    return found


def pairs(config: Config, arms: Mapping[str, Path], *, users: int, k: int = SHOWN) -> Compared:
    """Make pairs of lists for shoppers whom both arms serve, drawn by a hash of their id and the run's seed.

    Args:
        config: of a run, whose catalogue, attributes and histories are shown.
        arms: two of them by name: a bundle (or a folder of bundles), or a table of `user_id` and `item_id` with each
            user's items in their order, or in that of its column `position`.
        users: most shoppers.
        k: most items a list; both lists of a pair are as long as the shorter one, since a longer one repeats more.

    Raises:
        JudgeError: an arm's table lacks a column, no shopper is served by both, the catalogue has no item of an arm,
            or all get the same from both.
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
    whole = {
        user: {name: (lists or {})[user] for name, lists in served.items()}
        for user in chosen
        if all((lists or {}).get(user) for lists in served.values())
    }
    unknown = {}
    for name in served:
        shown = {item for lists in whole.values() for item in lists[name]}
        if odd := sorted(shown - known.keys(), key=str):
            unknown[name] = len(odd)
            if len(odd) == len(shown):
                raise JudgeError(
                    f"none of the {len(odd)} items of {name} is in the catalogue of {config.out}, {odd[0]!r} among "
                    "them; name an arm of this run's items"
                )
    size = {user: min(map(len, lists.values())) for user, lists in whole.items()}
    found = [
        pair(
            user,
            {name: [_item(known.get(item), item) for item in items[: size[user]]] for name, items in lists.items()},
            attributes=attributes.get(user) or "",
            history=history(user),
            comparison=f"{against(arms)}, {max(size.values())} items",
            seed=config.seed,
        )
        for user, lists in whole.items()
    ]
    if found and all(one.lists[0] == one.lists[1] for one in found):
        raise JudgeError(
            f"{' and '.join(arms)} give each of {len(found)} shoppers the same list; two arms that differ are needed"
        )
    if not found:
        raise JudgeError(f"a shopper whom {' and '.join(arms)} both serve was expected, but there is none")
    cut = sum(any(len(items) > size[user] for items in lists.values()) for user, lists in whole.items())
    return Compared(found, unknown, cut)


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
