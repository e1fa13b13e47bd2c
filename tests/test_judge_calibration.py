"""Calibrated criteria: curves that rise, thresholds that agree with people, files that come back, too few labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recgpt.errors import JudgeError
from recgpt.judge import calibration


def labels(count: int, seed: int = 0):
    """A judge that is too sure: people let pass with the square root of its odds, and rarely below .7."""
    random = np.random.default_rng(seed)
    scores = random.uniform(size=count)
    share = 1 / (1 + np.exp(-8 * (scores - 0.7)))
    return scores, random.uniform(size=count) < share


@pytest.mark.parametrize(("count", "method"), [(150, "platt"), (2000, "isotonic")])
def test_a_curve_rises_and_says_what_people_said(count, method):
    scores, passed = labels(count)
    curve = calibration.fit(scores, passed, digest="d")
    assert (curve.method, curve.labels) == (method, count)
    assert np.all(np.diff(curve.shares) >= 0)
    at = [curve(score) for score in (0.2, 0.7, 0.95)]
    assert at[0] < 0.1 < 0.3 < at[1] < 0.7 < at[2]
    calibrated = np.array([curve(score) for score in scores])
    # The share of labels that agree is no worse than with .5 on the raw score, which is too generous here.
    assert np.mean((calibrated >= curve.threshold) == passed) > np.mean((scores >= 0.5) == passed)


@given(st.integers(0, 1000), st.integers(20, 400))
def test_scores_stay_shares(seed, count):
    random = np.random.default_rng(seed)
    scores, passed = random.uniform(size=count), np.arange(count) % 2 == 0
    curve = calibration.fit(scores, passed, digest="d")
    shares = [curve(score) for score in (0.0, 0.3, 1.0)]
    assert all(0 <= one <= 1 for one in shares)
    assert shares == sorted(shares)


def test_a_judge_that_contradicts_people_says_nothing():
    scores, passed = labels(150)
    curve = calibration.fit(1 - scores, passed, digest="d")
    assert curve(0.1) == curve(0.9) == pytest.approx(passed.mean())
    same = calibration.fit(np.full(300, 0.5), np.arange(300) % 3 == 0, digest="d")
    assert same(0.5) == same(0.9) == pytest.approx(1 / 3)


def test_curves_come_back_and_a_file_that_holds_none_is_refused(tmp_path):
    scores, passed = labels(300)
    curves = {"tags/relevance": calibration.fit(scores, passed, digest="d")}
    calibration.save(curves, tmp_path / "curves.json")
    assert calibration.load(tmp_path / "curves.json") == curves
    for text in ("", "[1]", '{"tags/relevance": {"scores": [1]}}', '{"a": 3}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(JudgeError, match="cannot be read"):
            calibration.load(tmp_path / "bad.json")
    text = (tmp_path / "curves.json").read_text().replace('"scores": [', '"scores": [9.0,', 1)
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(JudgeError, match="ascending"):
        calibration.load(tmp_path / "bad.json")


def test_too_few_labels_of_a_side_and_scores_that_are_none():
    with pytest.raises(JudgeError, match="10 labels that pass and 10 that do not, but there are 95 and 5"):
        calibration.fit([0.5] * 100, [True] * 95 + [False] * 5, digest="d")
    for scores in ([0.5, 1.5], [0.5, float("nan")], [0.5]):
        with pytest.raises(JudgeError, match=r"scores in \[0, 1\]"):
            calibration.fit(scores, [True, False], digest="d")
