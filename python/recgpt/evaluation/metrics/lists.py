"""Ranked lists of all users as ragged arrays, and the checks and set operations that every ranking metric needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recgpt.errors import InvalidArrayError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Ragged(NamedTuple):
    """Lists of item rows, one list a user: user u owns `values[offsets[u]:offsets[u + 1]]`."""

    values: Ints
    """(total,) int64 item rows."""
    offsets: Ints
    """(n + 1,) int64, rising from 0 to `total`."""

    @property
    def users(self) -> int:
        """How many lists there are."""
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Ints:
        """(n,) int64 length of each list."""
        return np.diff(self.offsets)

    @property
    def owners(self) -> Ints:
        """(total,) int64: the user of each value."""
        return np.repeat(np.arange(self.users, dtype=np.int64), self.sizes)

    def of(self, user: int) -> Ints:
        """Return the list of one user."""
        return self.values[self.offsets[user] : self.offsets[user + 1]]

    def take(self, users: Sequence[int] | Ints) -> Ragged:
        """Return the lists of some users, in the given order."""
        return ragged([self.of(int(user)) for user in users])


class Score(NamedTuple):
    """A metric: the mean over users who have a value (NaN if nobody has), and the (n,) float64 values themselves."""

    mean: float
    per_user: Floats


def ragged(lists: Sequence[Sequence[int] | NDArray[Any]]) -> Ragged:
    """Pack lists of item rows.

    >>> ragged([[4, 2], [], [7]]).offsets.tolist()
    [0, 2, 2, 3]
    """
    offsets = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in lists], out=offsets[1:])
    parts = [np.asarray(one, dtype=np.int64) for one in lists if len(one)]
    return Ragged(np.concatenate(parts) if parts else np.empty(0, dtype=np.int64), offsets)


def found(ranked: Ragged, truths: Ragged, k: int) -> tuple[NDArray[np.bool_], Ints]:
    """Tell which ranked values are truths within the first k, and (n,) the number of distinct truths."""
    check_lists(ranked, k)
    if ranked.users != truths.users:
        raise InvalidArrayError(f"`ranked` has {ranked.users} users but `truths` has {truths.users}; must be equal")
    pairs = np.unique(np.stack([truths.owners, truths.values], axis=1), axis=0)
    sizes = np.bincount(pairs[:, 0], minlength=truths.users)
    return among(ranked, truths) & (places(ranked) < k), sizes


def among(lists: Ragged, sets: Ragged, keep: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Tell which values of `lists` stand in the same user's set; negative rows never do."""
    wanted = sets.values >= 0 if keep is None else keep & (sets.values >= 0)
    width = 1 + max(lists.values.max(initial=0), sets.values.max(initial=0))
    return np.isin(lists.owners * width + lists.values, sets.owners[wanted] * width + sets.values[wanted])


def places(lists: Ragged) -> Ints:
    """(total,) place of each value in its list, from 0."""
    return np.arange(len(lists.values), dtype=np.int64) - np.repeat(lists.offsets[:-1], lists.sizes)


def check_lists(ranked: Ragged, k: int) -> None:
    """Refuse lists that no metric can be computed of: negative rows, the same row twice, a cut below 1."""
    if k < 1:
        raise InvalidArrayError(f"`k` must be at least 1, but it is {k}")
    if (ranked.values < 0).any():
        raise InvalidArrayError("a ranked list holds a negative item row; only truths may (an item without a row)")
    if len(ranked.values):
        width = 1 + ranked.values.max()
        keys, counts = np.unique(ranked.owners * width + ranked.values, return_counts=True)
        if (counts > 1).any():
            user, row = divmod(int(keys[counts > 1][0]), int(width))
            raise InvalidArrayError(f"the ranked list of user row {user} holds item row {row} twice; rank it once")


def averaged(values: Floats, has_value: NDArray[np.bool_]) -> Score:
    """Average over the users who have a value; the others get NaN."""
    per_user = np.where(has_value, values, np.nan)
    known = per_user[~np.isnan(per_user)]
    return Score(float(known.mean()) if len(known) else float("nan"), per_user)
