"""What every method must write, in one place: buckets, labels, and the digest by which outputs are compared.

    Time1 (Behavior1, Behavior2), Time2 (Behavior1) | Item1, Item2

Items that share the same set of (bucket, behavior) share a line. Days before `NOW` by UTC date: up to 30 their own
bucket, up to 365 the month's, beyond that the year's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import date, timedelta

import numpy as np

from .workload import BEHAVIORS, DAYS, NOW, START

RELIABLE = len(BEHAVIORS) - 1
"""Behavior codes below this are reliable."""
BITS = 3
"""A context is a bucket's number, shifted left by these bits, and a behavior code: 9 bits together."""


def _bucket(day: date) -> tuple[date, int]:
    """Give a bucket's first day and level: 1 year, 2 month, 3 day. Sorting gives the order in a line."""
    age = (NOW.date() - day).days
    if age <= 30:
        return day, 3
    return (day.replace(day=1), 2) if age <= 365 else (day.replace(month=1, day=1), 1)


_OF_DAY = [_bucket(START.date() + timedelta(days=day)) for day in range(DAYS)]
_BUCKETS = sorted(set(_OF_DAY))
BUCKET_OF_DAY = np.array([_BUCKETS.index(bucket) for bucket in _OF_DAY], np.uint16)
"""The bucket's number of each day since `START`."""
LABELS = [f"{start:%y-%m-%d}"[: 3 * level - 1] for start, level in _BUCKETS]
"""A bucket's label: `17-12-03`, `17-12` or `17`."""
CONTEXTS = len(LABELS) << BITS
"""Contexts are below this."""


def masked_label(bucket: int, mask: int) -> str:
    """Write one bucket with the behaviors whose bits are set."""
    return f"{LABELS[bucket]} ({', '.join(BEHAVIORS[code] for code in range(RELIABLE) if mask >> code & 1)})"


def pieces() -> list[str]:
    """Give the text that a context adds to the contexts before it: 2 * CONTEXTS of them.

    The first half opens a bucket, `), 17-12 (cart`, the second half goes on in it, `, cart`; so what is joined has
    three characters too many at its start and a bracket missing at its end.
    """
    names = [(*BEHAVIORS, "")[context & 7] for context in range(CONTEXTS)]
    return [f"), {LABELS[row >> BITS]} ({name}" for row, name in enumerate(names)] + [f", {name}" for name in names]


def masks() -> list[str]:
    """Give `masked_label` for every bucket and mask, 64 a bucket."""
    return [masked_label(bucket, mask) for bucket in range(len(LABELS)) for mask in range(1 << RELIABLE)]


def digest(texts: Iterable[tuple[int, str]]) -> str:
    """Hash (user, text) pairs so that the order of users, of lines, and of items in a line do not matter."""
    md5 = hashlib.md5()
    for user, text in sorted(texts):
        md5.update(f"{user}\n".encode())
        for line in sorted(
            f"{contexts} | {', '.join(sorted(items.split(', ')))}\n"
            for contexts, _, items in (line.partition(" | ") for line in text.split("\n"))
        ):
            md5.update(line.encode())
    return md5.hexdigest()
