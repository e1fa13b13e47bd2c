"""Calibration: from the judge's normalized probability to the share of people who agreed, by criterion.

Isotonic regression where there are enough labels, Platt's logistic curve where there are few, both scikit-learn's.
What was fitted is kept as the corners of a curve, in JSON, so that judging needs no scikit-learn. The threshold of a
criterion is the score nearest to .5 with which judge and people agree most often on the labels it was fitted on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from recgpt.errors import JudgeError, MissingExtraError

FEW = 200
"""Below so many labels Platt's two parameters are fitted: isotonic regression has as many as it has steps, and
overfits (Niculescu-Mizil and Caruana 2005 put the change at 200 to 1,000)."""
LEAST = 10
"""Labels of each side below which nothing is fitted."""
_CORNERS = 101


@dataclass(frozen=True, slots=True)
class Curve:
    """A calibrated criterion."""

    method: Literal["isotonic", "platt"]
    scores: tuple[float, ...]
    """Corners, ascending; between two of them the line is straight."""
    shares: tuple[float, ...]
    """Share of people who let such outputs pass, ascending too."""
    threshold: float
    """Calibrated score from which an output passes."""
    labels: int
    digest: str
    """Of the criterion's file: another wording needs another curve."""

    def __call__(self, score: float) -> float:
        """Calibrate one score."""
        return float(np.interp(score, self.scores, self.shares))


def fit(scores: Sequence[float], passed: Sequence[bool], *, digest: str) -> Curve:
    """Fit one criterion.

    Args:
        scores: the judge's probabilities that outputs pass, in [0, 1].
        passed: what people said of the same outputs.
        digest: of the criterion.

    Raises:
        JudgeError: fewer than `LEAST` labels of a side, or a score that is none.
        MissingExtraError: scikit-learn is not installed.
    """
    given, said = np.asarray(scores, np.float64), np.asarray(passed, np.bool_)
    if len(given) != len(said) or not np.all((given >= 0) & (given <= 1)):
        raise JudgeError(f"{len(given)} scores in [0, 1] for {len(said)} labels were expected, but some are not")
    if min(said.sum(), (~said).sum()) < LEAST:
        raise JudgeError(
            f"a calibration needs {LEAST} labels that pass and {LEAST} that do not, but there are {said.sum()} and "
            f"{(~said).sum()}; label more, or take the judge's scores as they come"
        )
    method: Literal["isotonic", "platt"] = "platt" if len(given) < FEW else "isotonic"
    if find_spec("sklearn") is None:
        raise MissingExtraError('calibration needs scikit-learn; pip install "recgpt[judge]"')
    corners, shares = _platt(given, said) if method == "platt" else _isotonic(given, said)
    calibrated = np.interp(given, corners, shares)
    return Curve(
        method, tuple(corners.tolist()), tuple(shares.tolist()), _threshold(calibrated, said), len(given), digest
    )


def save(curves: Mapping[str, Curve], path: Path | str) -> None:
    """Write curves by key of criterion."""
    Path(path).write_text(json.dumps({key: asdict(curve) for key, curve in curves.items()}, indent=1), encoding="utf-8")


def load(path: Path | str) -> dict[str, Curve]:
    """Read what `save` wrote.

    Raises:
        JudgeError: the file is missing or holds no curves.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        curves = {
            key: Curve(**(one | {"scores": tuple(one["scores"]), "shares": tuple(one["shares"])}))
            for key, one in found.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise JudgeError(f"{path} was expected to hold calibrated criteria, but cannot be read: {error}") from error
    for key, curve in curves.items():
        steps = np.diff(curve.scores)
        if len(curve.scores) != len(curve.shares) or len(curve.scores) < 2 or np.any(steps < 0):
            raise JudgeError(f"{path}: the curve of {key} needs two or more corners with ascending scores")
    return curves


def _isotonic(
    scores: npt.NDArray[np.float64], passed: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, passed)
    corners = np.asarray(fitted.X_thresholds_, np.float64)
    shares = np.asarray(fitted.y_thresholds_, np.float64)
    # All scores equal: one corner says the share for each of them.
    return (corners, shares) if len(corners) > 1 else (np.array([0.0, 1.0]), np.repeat(shares, 2))


def _platt(
    scores: npt.NDArray[np.float64], passed: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression().fit(_logit(scores)[:, None], passed)
    corners = np.linspace(0.0, 1.0, _CORNERS)
    shares = np.asarray(fitted.predict_proba(_logit(corners)[:, None])[:, 1], np.float64)
    # A judge that is worse than chance would turn the curve around; then it says nothing at all.
    return corners, shares if fitted.coef_[0, 0] > 0 else np.full(_CORNERS, passed.mean())


def _logit(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    near = np.clip(scores, 1e-4, 1 - 1e-4)
    return np.log(near / (1 - near))


def _threshold(scores: npt.NDArray[np.float64], passed: npt.NDArray[np.bool_]) -> float:
    """Find the score from which passing agrees with most labels; of equals the one nearest to .5."""
    tried = np.unique(np.append(scores, [0.5, 1.0]))
    right = np.array([np.mean((scores >= one) == passed) for one in tried])
    best = np.flatnonzero(right == right.max())
    return float(tried[best[np.argmin(np.abs(tried[best] - 0.5))]])
