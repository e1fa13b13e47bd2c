"""What happened to every row of a log: nothing is left out without a count, a name and an example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recgpt.logs.columns import Mask, Rows, show
from recgpt.text import plural

EXAMPLES = 3
"""How many rows a defect shows."""


class Kind(NamedTuple):
    """What a kind of defect means, and how people mend it."""

    kept: bool
    meaning: str
    fix: str


KINDS: Mapping[str, Kind] = {
    "null_user": Kind(False, "events without a user", "give every event a `user_id`, or remove anonymous rows"),
    "null_behavior": Kind(False, "events without a behavior", "fill `behavior`"),
    "unknown_behavior": Kind(
        False,
        "events whose behavior is unknown",
        'map the name, for example behaviors={"review": "purchase"}; "coupon" -> "coupon" keeps one of your own',
    ),
    "null_item": Kind(False, "events with neither item nor query", "give `item_id`, or `query` for a search"),
    "unreadable_timestamp": Kind(
        False, "events whose timestamp cannot be read", "write ISO 8601, such as 2017-12-03 18:30:00"
    ),
    "timestamp_out_of_range": Kind(
        False, "events outside the years 1970 to 9999", "check the unit (seconds, milliseconds) of `timestamp`"
    ),
    "null_timestamp": Kind(False, "events without a time in a log that has times", "fill `timestamp`"),
    "null_position": Kind(False, "events without a position in a log that has no times", "fill `position`"),
    "duplicate_event": Kind(False, "events equal to another one in every column", "nothing: one of each was kept"),
    "skipped_local_time": Kind(
        True, "local times that the clock skipped in spring", "store UTC; here they became the moment of the change"
    ),
    "repeated_local_time": Kind(
        True, "local times that the clock showed twice in autumn", "store UTC; here the first of the two was taken"
    ),
    "item_not_in_items": Kind(True, "events on items that `items` does not have", "add the items to the catalogue"),
    "user_not_in_users": Kind(
        True, "events of users that `users` does not have", "nothing: those users were added without attributes"
    ),
    "null_item_id": Kind(False, "items without an id", "give every item an `item_id`"),
    "duplicate_item": Kind(False, "items whose id came before", "keep one row an item; here the first was kept"),
    "no_title": Kind(True, "items without a title", "give them titles; they stay, but no text can be written for them"),
    "unusable_price": Kind(True, "prices below zero, infinite or NaN", "correct them; here they became null"),
    "null_user_id": Kind(False, "users without an id", "give every user a `user_id`"),
    "duplicate_user": Kind(False, "users whose id came before", "keep one row a user; here the first was kept"),
    "unsortable_column": Kind(
        True, "events with an extra column that has no order (lists, structs)", "flatten it; here it was left out"
    ),
}


@dataclass(frozen=True, slots=True)
class Example:
    """One row that shows a defect."""

    row: int
    """Row number in the table that came in, counted from 0 (a CSV line number less 2)."""
    value: str


@dataclass(frozen=True, slots=True)
class Defect:
    """One kind of defect in one table."""

    table: str
    kind: str
    """A key of `KINDS`."""
    rows: int
    kept: bool
    """Whether these rows are still in the result; the others were left out."""
    examples: tuple[Example, ...]

    @property
    def meaning(self) -> str:
        """What is wrong, in words."""
        return KINDS[self.kind].meaning

    @property
    def fix(self) -> str:
        """How to mend it."""
        return KINDS[self.kind].fix

    def line(self) -> str:
        """Say it for people: what is wrong, how often, what became of the rows, where, and the fix."""
        shown = ", ".join(f"row {example.row}: {example.value}" for example in self.examples)
        return f"{self.meaning}: {self.rows:,} ({'kept' if self.kept else 'left out'}; {shown}); {self.fix}"


def note(defects: list[Defect], table: str, kind: str, mask: Mask, values: pa.Array, rows: Rows | None = None) -> None:
    """Count one kind of defect with its first rows; `rows` are the row numbers that came in."""
    found = np.flatnonzero(mask)
    if not len(found):
        return
    numbers = found if rows is None else rows[found]
    order = np.argsort(numbers, kind="stable")[:EXAMPLES]
    examples = tuple(Example(int(numbers[i]), show(values[int(found[i])].as_py())) for i in order)
    defects.append(Defect(table, kind, len(found), KINDS[kind].kept, examples))


@dataclass(frozen=True, slots=True)
class BehaviorCount:
    """How often the log used one behavior name, and what recgpt calls it."""

    name: str
    behavior: str | None
    """None: unknown, so these rows are not in `events`."""
    rows: int


@dataclass(frozen=True, slots=True)
class Report:
    """The account of one normalization: `rows_in = rows_out + rows left out`, for each table."""

    rows_in: Mapping[str, int]
    """Rows that came, by table name (`events`, `items`, `users`)."""
    rows_out: Mapping[str, int]
    """Rows in the result."""
    rows_added: Mapping[str, int]
    """Rows made here: users and items that the events name and no table had."""
    defects: tuple[Defect, ...]
    behaviors: tuple[BehaviorCount, ...]
    """Every behavior name of the log, the most frequent first."""
    first: datetime | None
    """Earliest event, UTC; None for a log without times."""
    last: datetime | None
    time_zone: str | None
    """The zone that was stated for naive times."""

    def count(self, kind: str) -> int:
        """Rows with one kind of defect, over all tables."""
        if kind not in KINDS:
            raise KeyError(f"{kind!r} is not a kind of defect; the kinds are {', '.join(KINDS)}")
        return sum(defect.rows for defect in self.defects if defect.kind == kind)

    def left_out(self, table: str) -> int:
        """Rows of one table that are not in the result."""
        return sum(defect.rows for defect in self.defects if defect.table == table and not defect.kept)

    def lines(self) -> list[str]:
        """Say it for people, one fact a line."""
        out = []
        for table in self.rows_in:
            added = f", {self.rows_added[table]:,} added" if self.rows_added.get(table) else ""
            out.append(f"{table}: {plural(self.rows_in[table], 'row')} in, {self.rows_out[table]:,} out{added}")
        if self.first and self.last:
            out.append(f"time: {self.first:%Y-%m-%d %H:%M} to {self.last:%Y-%m-%d %H:%M} UTC")
        else:
            out.append("time: none, `position` keeps the order")
        for entry in self.behaviors:
            name = entry.name if entry.behavior in (entry.name, None) else f"{entry.name} -> {entry.behavior}"
            unknown = " (unknown: left out)" if entry.behavior is None else ""
            out.append(f"behavior {name}: {plural(entry.rows, 'row')}{unknown}")
        for defect in self.defects:
            out.append(f"{defect.table}: {defect.line()}")
        return out

    def to_dict(self) -> dict[str, Any]:
        """Give plain values that JSON can hold."""
        out = asdict(self)
        for key in ("rows_in", "rows_out", "rows_added"):
            out[key] = dict(out[key])
        out["first"] = self.first.isoformat() if self.first else None
        out["last"] = self.last.isoformat() if self.last else None
        out["defects"] = [
            {
                **asdict(defect),
                "meaning": defect.meaning,
                "fix": defect.fix,
                "examples": list(map(asdict, defect.examples)),
            }
            for defect in self.defects
        ]
        out["behaviors"] = list(map(asdict, self.behaviors))
        return out
