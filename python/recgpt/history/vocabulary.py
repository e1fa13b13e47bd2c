"""Events as columns of codes that keep their meaning while logs are added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recgpt.history.catalogue import Catalogue, Texts, flat, named
from recgpt.history.crossing import (
    NOTHING,
    Encoded,
    Longs,
    behavior_names,
    code_behaviors,
    code_items,
    code_queries,
    code_users,
    read_moments,
)

MISSING, QUERY, NEITHER = range(3)
"""Kinds of things that are not in the catalogue, in the order of their entries."""

Ints = npt.NDArray[np.int32]


class Rows(NamedTuple):
    """Events as codes of a `Vocabulary`."""

    user: Ints
    time: Longs
    """UTC microseconds, or `NO_TIME`."""
    position: Longs
    behavior: Ints
    thing: Ints

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Rows:
        """Give some rows."""
        return Rows(self.user[rows], self.time[rows], self.position[rows], self.behavior[rows], self.thing[rows])


def joined(parts: Sequence[Rows]) -> Rows:
    """Put rows one after the other."""
    user, time, position, behavior, thing = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Rows(user, time, position, behavior, thing)


def nobody() -> Rows:
    """Give no rows."""
    short, long = np.zeros(0, np.int32), np.zeros(0, np.int64)
    return Rows(short, long, long, short, short)


class Vocabulary:
    """What codes of users, behaviors and things stand for. A code is given once and never changes.

    Things are rows of the catalogue, then what logs brought along, in the order of their coming. The kernel wants those
    in an order of its own, so `entries` gives them new codes for each call.
    """

    def __init__(self, catalogue: Catalogue, keep: Sequence[str] | None) -> None:
        self.catalogue, self.keep = catalogue, keep
        self.users: dict[str, int] = {}
        self.names: list[str] = []
        """User ids by code."""
        self.behaviors: list[str] = []
        self.first = len(catalogue.core)
        """The first code behind the catalogue, which is that of `NOTHING`."""
        self.extras: dict[tuple[int, str], int] = {(NEITHER, ""): self.first}
        self.keys: list[tuple[int, str]] = [(NEITHER, "")]
        self.missing: set[str] = set()
        """Ids without a brief, of all rows."""
        # Things with equal texts are one class: the first of them by code.
        texts = catalogue.texts.slice(0, len(catalogue.ids))
        encoded = texts.dictionary_encode()
        code = encoded.indices.to_numpy()
        _, first = np.unique(code, return_index=True)
        self._classes = first.astype(np.int32)[code] if len(code) else np.zeros(0, np.int32)
        unnamed = pc.starts_with(texts, "item ")
        rows = np.flatnonzero(unnamed.to_numpy(zero_copy_only=False))
        called = texts.take(pa.array(rows)).to_pylist()
        # An item without a brief is called `item <id>`, so only such texts can be another item's too.
        self._of_text = {text: int(self._classes[row]) for text, row in zip(called, rows.tolist(), strict=True)}
        self._extra_classes = [self.first]

    def restore(
        self, users: Sequence[str], behaviors: Sequence[str], keys: Sequence[tuple[int, str]], missing: Sequence[str]
    ) -> None:
        """Learn again what another vocabulary of the same catalogue knew; `keys` begin with that of nothing."""
        self.names = list(users)
        self.users = {name: code for code, name in enumerate(users)}
        self.behaviors, self.missing = list(behaviors), set(missing)
        for kind, name in keys[1:]:
            self._extra(kind, name)

    def code(self, events: pa.Table) -> Rows:
        """Turn events of the wanted behaviors into codes, and learn what is new.

        Raises:
            InvalidTableError: a behavior's name cannot stand in a line, or there are too many.
            TimestampRangeError: a timestamp lies outside the years 1970 to 9999.
        """
        names, behavior = code_behaviors(events["behavior"], self.keep)
        of_behavior = _resolve(behavior)
        kept = of_behavior >= 0
        came = set(names[:-1]) | {names[code] for code in np.unique(of_behavior[kept]).tolist()}
        behavior_names(came | set(self.behaviors))
        time, position = read_moments(events, "events", kept)
        user = self._users(events["user_id"], kept)
        things = self._things(events)
        self.behaviors += sorted(came - set(self.behaviors))
        place = {name: code for code, name in enumerate(self.behaviors)}
        own = np.array([place.get(name, -1) for name in names], np.int32)
        return Rows(user, time[kept], position[kept], own[of_behavior[kept]], things[kept])

    def _users(self, column: pa.ChunkedArray, kept: npt.NDArray[np.bool_]) -> Ints:
        ids, encoded = code_users(column)
        code = _resolve(encoded)[kept]
        present = np.zeros(encoded.meaning[2], bool)
        present[code] = True
        those = np.flatnonzero(present)
        came = [str(ids + row) for row in those.tolist()] if isinstance(ids, int) else ids.take(those).to_pylist()
        own = np.full(len(present), -1, np.int32)
        for place, name in zip(those.tolist(), came, strict=True):
            own[place] = self.users.setdefault(name, len(self.users))
            if len(self.users) > len(self.names):
                self.names.append(name)
        return own[code]

    def _things(self, events: pa.Table) -> Ints:
        item, missing = code_items(events["item_id"], self.catalogue)
        query, asked = code_queries(events, 0)
        self.missing.update(missing)
        own = np.arange(self.first + len(missing), dtype=np.int32)
        own[self.first :] = [self._extra(MISSING, name) for name in missing]
        code = _resolve(item)
        found = np.where(code >= 0, own[code] if len(own) else self.first, self.first).astype(np.int32)
        if query is not None:
            of_query = np.array([*(self._extra(QUERY, text) for text in asked), self.first, self.first], np.int32)
            found = np.where(code >= 0, found, of_query[_resolve(query)])
        return found

    def _extra(self, kind: int, name: str) -> int:
        code = self.extras.setdefault((kind, name), self.first + len(self.keys))
        if len(self.extras) > len(self.keys):
            self.keys.append((kind, name))
            shared = self._of_text.setdefault(named(name), code) if kind == MISSING else code
            self._extra_classes.append(shared)
        return code

    def classes(self, things: Ints) -> Ints:
        """Give each thing the first thing with the same text."""
        inside = things < self.first
        extra = np.array(self._extra_classes, np.int32)[np.where(inside, 0, things - self.first)]
        if not len(self._classes):
            return extra
        return np.where(inside, self._classes[np.where(inside, things, 0)], extra).astype(np.int32)

    def entries(self, things: Ints) -> tuple[Ints, Texts, int]:
        """Give things their entries in a call, the texts that come behind the catalogue, and the entry of nothing."""
        inside = things < self.first
        outside = np.unique(things[~inside] - self.first).tolist()
        order = sorted({0, *outside}, key=self.keys.__getitem__)
        entry = np.zeros(len(self.keys), np.int32)
        entry[order] = self.first + np.arange(len(order))
        texts = []
        for kind, name in (self.keys[row] for row in order):
            texts.append(named(name) if kind == MISSING else f'"{name}"' if kind == QUERY else NOTHING)
        codes = things
        if outside:
            codes = np.where(inside, things, entry[np.where(inside, 0, things - self.first)])
        return codes, flat(texts), self.first + len(order) - 1


def _resolve(encoded: Encoded) -> Longs:
    """Give the code of each row; -1 where it is null."""
    base, codes, _ = encoded.meaning
    values = encoded.values
    null = values.is_null().to_numpy() if values.null_count else None
    if null is not None:
        values = values.fill_null(base)
    numbers: Longs = np.subtract(values.to_numpy(), base, dtype=np.int64)
    if codes is not None:
        numbers = codes[numbers].astype(np.int64) if len(codes) else np.full(len(numbers), -1)
    if null is not None:
        numbers[null] = -1
    return numbers
