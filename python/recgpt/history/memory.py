"""What a history state remembers between two days."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recgpt.history.days import END_US
from recgpt.history.meetings import Past
from recgpt.history.seams import Made, Now
from recgpt.history.vocabulary import Rows, Vocabulary, nobody

NONE = -1
"""The layout of a part that a user does not have."""


class Part:
    """One part of everybody's text, by user code."""

    def __init__(self, users: int) -> None:
        self.texts: list[bytes] = [b""] * users
        self.receipts = np.zeros((users, 7), np.int64)
        self.followed = np.zeros((users, 2), np.int64)
        """Tokens in and out with a line break after the part."""
        self.layouts = np.full(users, NONE, np.int8)

    def grow(self, users: int) -> None:
        """Make room for new users."""
        more = Part(users - len(self.texts))
        self.texts += more.texts
        self.receipts = np.concatenate([self.receipts, more.receipts])
        self.followed = np.concatenate([self.followed, more.followed])
        self.layouts = np.concatenate([self.layouts, more.layouts])

    def put(self, made: Made, followed: npt.NDArray[np.int64] | None = None) -> None:
        """Replace the part of some users."""
        for user, text in zip(made.users.tolist(), made.texts, strict=True):
            self.texts[user] = text
        self.receipts[made.users] = made.receipts
        self.layouts[made.users] = made.layouts
        if followed is not None:
            self.followed[made.users] = followed


class Cut(NamedTuple):
    """The whole text of a user whom the budget cut."""

    text: bytes
    receipt: list[int]
    layout: int


@dataclass
class Memory:
    """Everything that was seen and made so far."""

    vocabulary: Vocabulary
    past: Past
    numbers: bool = True
    """Whether all user ids came as whole numbers, which go by value."""
    now: Now | None = None
    """The moment of the last `add`."""
    open: Rows = field(default_factory=nobody)
    """Events of the open month, and undated ones."""
    future: Rows = field(default_factory=nobody)
    """Events that lie at or after `now`."""
    closed_part: Part = field(default_factory=lambda: Part(0))
    open_part: Part = field(default_factory=lambda: Part(0))
    cut: dict[int, Cut] = field(default_factory=dict)
    """By user code."""
    oldest: int = END_US
    """The earliest time, in UTC microseconds."""
    ranks: bool = False
    """Whether events have had positions or no time; the kernel then reaches back as far as one likes."""

    def forget(self, rows: Rows, nothing: Past) -> None:
        """Go back to rows alone, so that the next step makes everything anew."""
        self.open, self.future, self.past, self.now = rows, nobody(), nothing, None
        self.closed_part, self.open_part, self.cut = Part(0), Part(0), {}

    def users(self) -> npt.NDArray[np.intp]:
        """Give the codes of all users who have a text."""
        return np.flatnonzero((self.closed_part.layouts != NONE) | (self.open_part.layouts != NONE))

    def receipts(self, users: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        """Add up the receipts of both parts: seven numbers a user."""
        closed, opened = self.closed_part, self.open_part
        receipts: npt.NDArray[np.int64] = closed.receipts[users] + opened.receipts[users]
        both = (closed.layouts[users] != NONE) & (opened.layouts[users] != NONE)
        receipts[both, :2] += (closed.followed - closed.receipts[:, :2])[users[both]]
        return receipts
