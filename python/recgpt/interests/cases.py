"""What stage 4 knows of each user before it asks a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from recgpt import schema
from recgpt.evidence import HistoryRow, Term, parse_rows
from recgpt.interests.config import Config
from recgpt.interests.pool import Match, Pool, PoolInterest
from recgpt.interests.rules import thin_history
from recgpt.text import clean

_SHOWN = pa.schema([schema.HISTORY.field("user_id"), schema.HISTORY.field("text")])


@dataclass(frozen=True, slots=True)
class Case:
    """One user: attributes, history and the pool interests that match it, best first."""

    user_id: str
    attributes: str
    text: str
    rows: tuple[HistoryRow, ...]
    matches: tuple[Match, ...]

    def with_history_of(self, other: Case, *, matches: bool = False) -> Case:
        """Give this user another user's history: the shuffle control; with `matches`, what matches it as well."""
        return Case(self.user_id, self.attributes, other.text, other.rows, other.matches if matches else self.matches)


@dataclass(slots=True)
class Choice:
    """One interest of one user on its way through the checks."""

    case: Case
    interest: str
    entry: PoolInterest | None
    """The pool interest that it is; None if it is extended."""
    terms: tuple[Term, ...]
    score: float | None = None
    mean: float = 0.0
    """`rank`: mean log-probability after the whole history, in nats a token."""
    stage: str = ""
    reason: str | None = None
    evidence: tuple[int, ...] = ()


def histories_of(hist: schema.ArrowStream) -> tuple[list[str], list[tuple[HistoryRow, ...]]]:
    """Read user ids and history rows.

    Raises:
        InvalidTableError: a column is missing.
    """
    shown = schema.table(hist, _SHOWN, name="hist")
    return shown["user_id"].to_pylist(), [tuple(parse_rows(text)) for text in shown["text"].to_pylist()]


def cases_of(
    users: schema.ArrowStream, hist: schema.ArrowStream, pool: Pool, config: Config
) -> tuple[list[Case], list[tuple[str, str]]]:
    """Join attributes and histories, match the pool, and set aside users with too thin a history.

    Returns:
        The cases in the order of `hist`, and (user_id, reason) of each abstention.

    Raises:
        InvalidTableError: a table lacks a column that is needed.
    """
    who = schema.table(users, schema.USERS, name="users")
    shown = schema.table(hist, _SHOWN, name="hist")
    attributes = dict(zip(who["user_id"].to_pylist(), who["attributes"].to_pylist(), strict=True))
    read: list[tuple[str, str, tuple[HistoryRow, ...]]] = []
    abstained: list[tuple[str, str]] = []
    for user_id, text in zip(shown["user_id"].to_pylist(), shown["text"].to_pylist(), strict=True):
        rows = tuple(parse_rows(text))
        thin = thin_history(rows, config)
        if thin:
            abstained.append((user_id, thin))
        else:
            read.append((user_id, text, rows))
    matched: Sequence[list[Match]] = pool.match([rows for _, _, rows in read], most=config.candidates)
    cases = []
    for (user_id, text, rows), matches in zip(read, matched, strict=True):
        if matches:
            cases.append(Case(user_id, clean(attributes.get(user_id)), text, rows, tuple(matches)))
        else:
            abstained.append((user_id, "no match: the history hits no interest of the pool"))
    return cases, abstained
