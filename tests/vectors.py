"""Arrays and names that the tests of the index share."""

from __future__ import annotations

import numpy as np


def f32(rows: object) -> np.ndarray:
    return np.array(rows, np.float32)


def i64(rows: object) -> np.ndarray:
    return np.array(rows, np.int64)


def names(count: int) -> list[str]:
    return [f"item {row}" for row in range(count)]
