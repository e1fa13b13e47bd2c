"""What one can set about the explanations stage."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from recgpt.errors import InvalidConfigError


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of the explanations stage (section 2.4, Appendix B)."""

    answer_tokens: int = 16
    """Longest free part of a text, in tokens."""
    samples: int = 3
    """Tries for one text: the first is greedy, the others are sampled and made only where the first failed."""
    temperature: float = 0.7
    """Sampling of the later tries."""
    valid_days: float = 14.0
    """How long a text may be shown: the paper's two weeks between runs."""
    hemisphere: str = "north"
    """`north` or `south`: names the season in the prompt."""
    seed: int = 0
    """Where sampling starts."""

    def __post_init__(self) -> None:
        for name in ("answer_tokens", "samples"):
            if getattr(self, name) < 1:
                raise InvalidConfigError(f"explanations.{name} must be at least 1, but it is {getattr(self, name)}")
        if self.hemisphere not in {"north", "south"}:
            raise InvalidConfigError(f"explanations.hemisphere must be north or south, but it is {self.hemisphere!r}")

    @property
    def lifetime(self) -> timedelta:
        """How long a text may be shown."""
        return timedelta(days=self.valid_days)
