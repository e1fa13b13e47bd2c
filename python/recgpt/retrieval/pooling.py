"""A user's items before a moment: the latest for the pooled sequences, many more for the profile. numpy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recgpt.retrieval.config import Config
from recgpt.retrieval.features import Ints, Log, Sequences

Ragged = list[tuple[Ints, Ints]]
"""A behavior: flat item rows, oldest first, and (n + 1,) offsets where each user's begin and end."""
STEPS_BACK = 12
"""Rows of the table of "how late": places 1, 2, 3-4, 5-8, ... from the end; the last row takes all further ones."""


class Acts(NamedTuple):
    """What a user tower reads of some users."""

    latest: Ragged
    profile: Ragged
    """Empty where pooling is `mean`."""


class History:
    """Reads what users did before given moments.

    Args:
        log: Events.
        config: Pooling and lengths.
    """

    def __init__(self, log: Log, config: Config) -> None:
        self.sequences = Sequences(log, config.sequence_length)
        self.long = Sequences(log, config.profile_length) if config.pooling != "mean" else None

    def before(self, users: Ints, orders: Ints | None = None) -> Acts:
        """Everything strictly before each user's order (None: all)."""
        profile = self.long.before(users, orders) if self.long else []
        return Acts(self.sequences.before(users, orders), profile)


def steps_back(offsets: Ints) -> Ints:
    """Bucket of each act's place from the end of its user's sequence, by powers of two.

    Places and not days: a log without times has them too.

    >>> steps_back(np.array([0, 5, 6])).tolist()
    [3, 2, 2, 1, 0, 0]
    """
    back = np.repeat(offsets[1:], np.diff(offsets)) - np.arange(offsets[-1])
    exponent: Ints = np.minimum(np.ceil(np.log2(np.maximum(back, 1))).astype(np.int64), STEPS_BACK - 1)
    return exponent
