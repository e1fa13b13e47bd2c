"""Whether a round of self-training helped: held-out users' scores, paired, and how varied the answers still are."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from recgpt.alignment.outputs import Outputs
from recgpt.alignment.sifting import Sifted
from recgpt.alignment.truth import Truth
from recgpt.evaluation.metrics import interval
from recgpt.llm import grammar
from recgpt.llm.engine import Request, Result

LEAST_VARIED = 0.8
"""Share of the variety before that has to remain; less is a collapse."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model did with the users of the gate."""

    scores: dict[str, float]
    """By user: the mean of their shares of all `parts`; `explanations` is the same for everybody."""
    parts: dict[str, float]
    """Means over users: `interests`, `tags` and `explanations` (shares of outputs that pass everything, 0 where there
    are none), in a world also `found` (F1 of the interests against what is planted) and `wanted` (share of the tags
    that serve)."""
    variety: dict[str, float]
    """`texts` (share of distinct ones of all that were written), `tags` (of those that were kept), `categories`
    (entropy of the kept tags' categories, in nats)."""

    def plain(self) -> dict[str, Any]:
        """Give plain JSON."""
        return asdict(self)


def measure(outputs: Outputs, sifted: Sifted, truth: Truth | None = None) -> Measured:
    """Score what a model did.

    Args:
        outputs: of the users of the gate.
        sifted: what of it passed.
        truth: of a world; where it is known, it counts as much as what rules and judges say.
    """
    shares: dict[str, dict[str, float]] = {user: {} for user in outputs.users}
    for task in ("interests", "tags"):
        failed = Counter(row["user_id"] for row in getattr(outputs, task).rejections.to_pylist())
        made = Counter(row["user_id"] for row in getattr(outputs, task).table.to_pylist())
        kept = Counter(row["user_id"] for row in sifted.kept[task])
        for user, own in shares.items():
            own[task] = kept[user] / max(1, made[user] + failed[user])
    texts = len(sifted.kept["explanations"]) + sifted.rejected["explanations"].total()
    written = len(sifted.kept["explanations"]) / max(1, texts)
    if truth is not None:
        _against(truth, sifted, shares)
    scores = {user: fmean([*own.values(), written]) for user, own in shares.items()}
    names = next(iter(shares.values()), {})
    parts = {name: fmean(own[name] for own in shares.values()) for name in names}
    return Measured(scores, parts | {"explanations": written}, _variety(outputs, sifted))


def _against(truth: Truth, sifted: Sifted, shares: dict[str, dict[str, float]]) -> None:
    """Add what the truth says of each user: F1 of the interests, and the share of tags that serve."""
    for user, own in shares.items():
        named = {row["interest"] for row in sifted.kept["interests"] if row["user_id"] == user}
        wanted = truth.behind[user].wanted if user in truth.behind else set()
        right = len(named.intersection(truth.planted(user)))
        precision, recall = right / max(1, len(named)), len(named & wanted) / max(1, len(wanted))
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        # Where nothing is to be found, finding nothing is right.
        own["found"] = f1 if wanted or named else 1.0
        tags = [row["tag"] for row in sifted.kept["tags"] if row["user_id"] == user]
        own["wanted"] = sum(truth.standing(user, tag) > 0 for tag in tags) / max(1, len(tags))


def _variety(outputs: Outputs, sifted: Sifted) -> dict[str, float]:
    """Look at what the model itself wrote: what its beginnings and the catalogue bring differs whatever it says."""
    texts = [text for request, result in outputs.texts if result.status == "ok" for text in _own(request, result)]
    tags = [row["tag"] for row in sifted.kept["tags"]]
    counts = np.array(list(Counter(row["category"] for row in sifted.kept["tags"]).values()), np.float64)
    shares = counts / counts.sum() if len(counts) else counts
    return {
        "texts": len(set(texts)) / len(texts) if texts else 0.0,
        "tags": len(set(tags)) / len(tags) if tags else 0.0,
        "categories": float(-(shares * np.log(shares)).sum()),
    }


def _own(request: Request, result: Result) -> list[str]:
    """Give the words of a text's own; of a list its reasons."""
    if request.schema is None:
        return [result.text.strip()]
    parsed = grammar.parse(result.text, request.schema)
    rows = [] if parsed.reason else next(iter(parsed.value.values()))
    return [row["reason"] for row in rows]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of a round."""

    passed: bool
    why: str
    gain: float
    low: float
    high: float
    """95 % interval of the mean gain, over users."""
    users: int


def compare(before: Measured, after: Measured, *, seed: int = 0, varied: float = LEAST_VARIED) -> Verdict:
    """Let a round pass only if it helps held-out users beyond chance and answers stay as varied.

    Args:
        before: of the model so far.
        after: of the model of this round, on the same users.
        seed: of the bootstrap.
        varied: share of each variety before that has to remain.
    """
    users = sorted(before.scores.keys() & after.scores.keys())
    gains = np.array([after.scores[user] - before.scores[user] for user in users], np.float64)
    gain = float(gains.mean()) if len(gains) else 0.0
    low, high = interval(gains, seed=seed) if len(gains) else (0.0, 0.0)
    fallen = [
        f"{name} from {value:.2f} to {after.variety[name]:.2f}"
        for name, value in before.variety.items()
        if after.variety[name] < varied * value
    ]
    if fallen:
        why = f"answers lost their variety: {', '.join(fallen)}, and {varied:.0%} of it have to remain"
    elif len(gains) < 2:
        why = f"{len(gains)} users have a score, and two are needed to compare"
    elif low <= 0:
        why = f"it does not help: {gain:+.3f} [{low:+.3f}, {high:+.3f}] over {len(gains)} users"
    else:
        why = f"it helps: {gain:+.3f} [{low:+.3f}, {high:+.3f}] over {len(gains)} users"
    return Verdict(not fallen and len(gains) > 1 and low > 0, why, gain, low, high, len(gains))
