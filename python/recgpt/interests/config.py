"""The settings of stage 4."""

from __future__ import annotations

import math
from dataclasses import dataclass

from recgpt.errors import InvalidConfigError


@dataclass(frozen=True, slots=True)
class Config:
    """How interests are offered, chosen, checked and explained. The defaults fit a small model on a CPU."""

    candidates: int = 40
    """Pool interests offered to the model, at most, preselected by `Pool.match`."""
    contrast: int = 8
    """Where fewer than this match, unmatched ones fill up, so that a median means something."""
    most: int = 16
    """Interests a user, at most; the paper's users have 16.1 on average (section 2.1.2)."""
    margin: float = 0.0
    """`rank`: nats a token by which a score must pass the user's own median, or that of `reference`."""
    reference: str = ""
    """`rank`: where set, this text is scored among every user's candidates, an interest is chosen when it comes before
    it, and no baseline is subtracted: for a model that has learned what to answer where nothing fits."""
    least_actions: int = 5
    """Abstain below this many actions in the history."""
    least_periods: int = 2
    """Abstain below this many different time labels, unless the log has no times at all."""
    burst_days: int = 7
    """Support within fewer days than this is a burst."""
    long_term_months: int = 3
    """Support in at least this many different months makes an interest long-term."""
    evidence_rows: int = 8
    """`rank`: rows a user that are taken out one by one, at most; 0 leaves every interest without evidence."""
    evidence_tokens: int = 2400
    """`rank`: tokens a user that finding evidence may compute, at most, without instructions and candidates."""
    evidence_drop: float = 0.01
    """`rank`: nats a token that an interest must lose without a row for the row to be evidence."""
    rows_per_interest: int = 3
    """Evidence rows an interest, at most."""
    reason_samples: int = 3
    """Reasons asked for an interest; the first is greedy. The checker takes the first that passes."""
    reason_tokens: int = 20
    """Tokens a sampled reason may have."""
    reason_words: tuple[int, int] = (3, 25)
    """Least and most words of a reason."""
    answer_tokens: int = 1500
    """`generate`: tokens an answer may have."""
    reasoning_tokens: int = 0
    """`generate`: room for reasoning before the answer; 0 leaves it out, which is better below 1B parameters."""
    control: bool = False
    """`rank`: also rank every user with the next user's history, once with the user's own candidates and once with
    those that match that history, in the same call, so that most of it is shared."""
    seed: int = 0

    def __post_init__(self) -> None:
        least = dict.fromkeys(("candidates", "contrast", "most", "rows_per_interest", "long_term_months"), 1)
        least |= dict.fromkeys(("reason_samples", "reason_tokens", "answer_tokens"), 1)
        least |= dict.fromkeys(("least_actions", "least_periods", "burst_days", "evidence_rows"), 0)
        least |= dict.fromkeys(("evidence_tokens", "reasoning_tokens"), 0)
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InvalidConfigError(f"interests.{name} must be at least {low}, but it is {getattr(self, name)}")
        if self.reference != self.reference.strip():
            raise InvalidConfigError(
                f"interests.reference must begin and end with a word, but it is {self.reference!r}; the space before a "
                "candidate is added"
            )
        if not math.isfinite(self.margin):
            raise InvalidConfigError(f"interests.margin must be a finite number, but it is {self.margin}")
        # At 0 a row that changes nothing would be evidence.
        if not 0 < self.evidence_drop < math.inf:
            raise InvalidConfigError(f"interests.evidence_drop must be above 0, but it is {self.evidence_drop}")
        if len(self.reason_words) != 2 or not 1 <= self.reason_words[0] <= self.reason_words[1]:
            raise InvalidConfigError(
                f"interests.reason_words must be a least and a most number of words, but it is {self.reason_words}"
            )
