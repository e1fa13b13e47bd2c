"""What one can set about the tags stage."""

from __future__ import annotations

import math
from dataclasses import dataclass

from recgpt.errors import InvalidConfigError


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the tags stage (section 2.2.1, Appendix B). The defaults fit a 135M model on two cores."""

    quantity: int = 50
    """Tags asked for each user; the paper asks for 50. Fewer that pass the rules is an honest answer."""
    min_categories: int = 10
    """Floor of distinct categories: a category gets quantity / min_categories tags before others fill up."""
    past_days: float = 30.0
    """The past month: tags engaged with in this many days before now are out. Without times, the last 30 events."""
    min_season_ratio: float = 0.5
    """A category is out of season when its share of the month's sales is below this part of its mean monthly share."""
    min_season_months: int = 11
    """Calendar months of sales needed before the season rule judges anything."""
    min_season_sales: float = 20.0
    """Sales that a category must lead one to expect in a month before the season rule judges it."""
    hemisphere: str = "north"
    """`north` or `south`: names the season in the prompts."""
    half_life_days: float = 60.0
    """Age at which an event counts half for the preselection and for tags by rule."""
    affinity_weight: float = 0.5
    """Weight of the category affinity beside co-occurrence (weight 1) in the preselection."""
    popularity_weight: float = 0.2
    """Weight of log popularity in the preselection."""
    interest_weight: float = 0.5
    """Weight of the association among the candidates of one interest."""
    association_weight: float = 2.0
    """What a full association adds to a tag's score in mode `rank`, in nats a token."""
    least_from_interests: int = 20
    """Mode `rank` asks about tags of no interest only where a user's interests offer fewer tags than this."""
    vocabulary: int = 4096
    """Most popular catalogue tags that co-occurrence is counted for: the matrix holds its square of float32."""
    baseline: float = 1.0
    """`rank`: how much of a tag's mean log-probability without any history is taken off its score; at 0 nobody asks for
    it, for a model that has learned the task."""
    min_association: float = 0.3
    """A tag belongs to its best interest from this association on; below it the relation could not be stated."""
    sequence_length: int = 40
    """Latest actions of each behavior in the prompt, before the token limit."""
    prompt_tokens: int = 700
    """Longest rendered input of one user; older actions leave first."""
    reason_tokens: int = 12
    """Longest free part of a reason, in tokens."""
    answer_tokens: int = 3000
    """Room for the answer in mode `generate`."""
    temperature: float = 0.7
    """Sampling of second tries; first tries are greedy."""
    seed: int = 0
    """Where sampling starts."""

    def __post_init__(self) -> None:
        for name in ("quantity", "min_categories", "sequence_length", "vocabulary", "reason_tokens", "answer_tokens"):
            if getattr(self, name) < 1:
                raise InvalidConfigError(f"tags.{name} must be at least 1, but it is {getattr(self, name)}")
        if not math.isfinite(self.baseline):
            raise InvalidConfigError(f"tags.baseline must be a finite number, but it is {self.baseline}")
        if self.hemisphere not in {"north", "south"}:
            raise InvalidConfigError(f"tags.hemisphere must be north or south, but it is {self.hemisphere!r}")
