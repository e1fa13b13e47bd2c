"""What a policy would have earned, from another policy's log: IPS and SNIPS, where propensities were logged.

An exposure that the other policy would have shown w times as often counts w times: w = pi(shown | here) / propensity.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recgpt.errors import InvalidArrayError
from recgpt.evaluation.desk.arms import LEAST_CHANCE, Arm, Caution
from recgpt.evaluation.metrics import Estimate, Floats, Ints, ratio

THIN = 0.01
"""Below this share of effective rows the estimate hangs on a few of them."""


class Policy(NamedTuple):
    """The value (clicked exposures / exposures) of the other arm's policy, estimated from one arm's log."""

    log: str
    """The arm whose log was read."""
    own: Estimate
    """What this arm's own policy earned."""
    ips: Estimate
    snips: Estimate
    effective: float
    """(sum w)^2 / sum w^2: exposures that would tell as much if they were the other policy's own."""
    other: Estimate
    """What the other policy earned in its own log: what IPS and SNIPS should come near."""


def ips(reward: Floats, own: Floats, other: Floats, clusters: Ints | None = None) -> Estimate:
    """Inverse propensity score (Horvitz and Thompson 1952): sum of w r over n; unbiased if own > 0 where other is.

    Args:
        reward: (n,) what came of each exposure.
        own: (n,) with which probability the logging policy showed it, in (0, 1].
        other: (n,) with which the judged policy would have.
        clusters: (n,) whose exposure it was, from 0 on; they are what is drawn at random. None = every row alone.

    >>> ips(np.array([1.0, 0, 1, 0]), np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.25, 0.75, 0.5, 0.5])).value
    0.375
    """
    weight = _weights(reward, own, other)
    return ratio(_by(weight * reward, clusters), _by(np.ones(len(reward)), clusters))


def snips(reward: Floats, own: Floats, other: Floats, clusters: Ints | None = None) -> Estimate:
    """Self-normalized IPS (Swaminathan and Joachims 2015): sum of w r over sum of w; steadier, and never out of range.

    >>> snips(np.array([1.0, 0, 1, 0]), np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.25, 0.25, 0.25, 0.25])).value
    0.5
    """
    weight = _weights(reward, own, other)
    return ratio(_by(weight * reward, clusters), _by(weight, clusters))


def effective(own: Floats, other: Floats) -> float:
    """Kish's effective sample size of the weights.

    >>> effective(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    1.0
    """
    weight = _weights(own, own, other)
    square = float((weight**2).sum())
    return float(weight.sum()) ** 2 / square if square else 0.0


def policies(first: Arm, second: Arm) -> tuple[list[Policy], list[Caution]]:
    """Judge each arm's policy from the other's log, where the logs carry what that needs."""
    arms = (first, second)
    has = [[name in arm.more for arm in arms] for name in ("propensity", "other_propensity")]
    if not any(map(any, has)):
        return [], []
    found, cautions = [], []
    rewards = [(arm.click > 0).astype(np.float64) for arm in arms]
    values = [
        ratio(_by(reward, arm.user), _by(np.ones(len(reward)), arm.user))
        for reward, arm in zip(rewards, arms, strict=True)
    ]
    for row, arm in enumerate(arms):
        lacks = [name for name, there in zip(("propensity", "other_propensity"), has, strict=True) if not there[row]]
        if lacks:
            text = f"arm {arm.name}: no `{'` and no `'.join(lacks)}`; the other policy was not judged from its log"
            cautions.append(Caution("one_sided_propensities", text))
            continue
        own, other = arm.more["propensity"], arm.more["other_propensity"]
        if not other.any():
            text = (
                f"arm {arm.name}: the other policy would have shown nothing of it, so that its log says nothing of it"
            )
            cautions.append(Caution("no_overlap", text))
            continue
        size = effective(own, other)
        guesses = ips(rewards[row], own, other, arm.user), snips(rewards[row], own, other, arm.user)
        found.append(Policy(arm.name, values[row], *guesses, size, values[1 - row]))
        if size < THIN * len(own):
            text = (
                f"arm {arm.name}: its {len(own):,} exposures tell as much of the other policy as {size:,.0f} of its own"
            )
            cautions.append(Caution("low_overlap", f"{text}; read IPS and SNIPS as anecdotes"))
    return found, cautions


def _by(values: Floats, clusters: Ints | None) -> Floats:
    return values if clusters is None else np.bincount(clusters, weights=values).astype(np.float64)


def _weights(reward: Floats, own: Floats, other: Floats) -> Floats:
    if not len(reward) == len(own) == len(other):
        raise InvalidArrayError(
            f"`reward`, `own` and `other` must have one value an exposure, but have "
            f"{len(reward)}, {len(own)} and {len(other)}"
        )
    inside = [(one >= LEAST_CHANCE) & (one <= 1) for one in (own, other)]
    if not inside[0].all() or not (inside[1] | (other == 0)).all():
        raise InvalidArrayError(
            f"`own` must lie from {LEAST_CHANCE:g} to 1 and `other` too or be 0; a probability outside was found"
        )
    weights: Floats = other / own
    return weights
