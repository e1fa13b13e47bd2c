"""Warnings about the tag side, each with its figures, and silence where all is well."""

from __future__ import annotations

import numpy as np
import pytest

from recgpt.evaluation import guard
from recgpt.evaluation.metrics import Score
from recgpt.evaluation.sweep import SweepRow


def row(beta: float, categories: float, gini: float) -> SweepRow:
    value = Score(categories, categories + np.array([-1.0, 0.0, 0.0, 1.0]))
    return SweepRow(beta, value, value, value, value, gini)


FAR, NEAR = np.array([0.1, 0.9, 0.9, 0.9], np.float32), np.full(20, 0.8, np.float32)


@pytest.mark.parametrize(
    ("categories", "gini", "near", "expected"),
    [
        (6.0, 0.8, NEAR, []),
        (4.0, 0.8, NEAR, ["at beta 0.8 the first 20 span 4.0 categories, fewer than the 5.0 of the user tower alone"]),
        (6.0, 0.95, NEAR, ["at beta 0.8 exposure is more uneven (Gini 0.950) than with the user tower alone (0.900)"]),
        (6.0, 0.8, FAR, ["25% of the tags have no item with a cosine of 0.3 or more"]),
        (4.0, 0.95, FAR, ["at beta 0.8 the first", "at beta 0.8 exposure", "25% of the tags"]),
    ],
)
def test_each_warning_names_its_figures(categories: float, gini: float, near: np.ndarray, expected: list[str]) -> None:
    sweep = [row(0.5, 1.0, 0.99), row(0.8, categories, gini), row(1.0, 5.0, 0.9)]
    found = guard.warnings(sweep, beta=0.75, near=near)
    assert len(found) == len(expected)
    for said, wanted in zip(found, expected, strict=True):
        assert said.startswith(wanted)


def test_the_user_tower_alone_warns_of_nothing_but_its_tags() -> None:
    assert guard.warnings([row(1.0, 5.0, 0.9)], beta=1.0, near=NEAR[:0]) == []


def test_a_difference_within_its_error_is_none() -> None:
    alone = Score(5.0, np.array([4.0, 6.0, 5.0, 5.0]))
    fewer = Score(4.75, np.array([5.0, 4.0, 6.0, 4.0]))
    rows = [SweepRow(beta, *[value] * 4, 0.9) for beta, value in ((0.5, fewer), (1.0, alone))]
    assert guard.warnings(rows, beta=0.5, near=NEAR) == []


def test_closest_is_the_best_cosine_and_unknown_tags_have_none() -> None:
    items = np.array([[1, 0], [0, 1]], np.float32)
    tags = np.array([[0.6, 0.8], [0, 0], [-1, 0]], np.float32)
    np.testing.assert_allclose(guard.closest(tags, items), [0.8, 0, 0], atol=1e-6)
    assert len(guard.closest(np.tile(tags, (1000, 1)), items)) == guard.TAGS
    assert not len(guard.closest(tags[:0], items))
