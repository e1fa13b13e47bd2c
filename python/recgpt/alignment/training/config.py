"""What one can set about a training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from recgpt.errors import InvalidConfigError


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one training. The defaults suit a LoRA adapter for a model of 135M parameters."""

    method: Literal["lora", "full"] = "lora"
    """`lora` trains two small matrices beside every linear layer of the blocks, `full` every weight."""
    rank: int = 16
    """Columns of LoRA's matrices."""
    alpha: float = 32.0
    """LoRA's product is multiplied by `alpha / rank`."""
    dropout: float = 0.0
    """Share of LoRA's inputs that is left out at random."""
    epochs: int = 1
    """How often every sample is seen."""
    shuffle: bool = False
    """False keeps the order of the samples, which is the curriculum's; True mixes prompts, anew in each epoch."""
    learning_rate: float = 5e-4
    """The highest; it rises over `warmup` of the steps and falls to a tenth along half a cosine."""
    warmup: float = 0.05
    """Share of the steps."""
    weight_decay: float = 0.0
    clip: float = 1.0
    """Longest gradient; a longer one is shortened to it."""
    step_tokens: int = 4096
    """About how many tokens one step learns from, over all devices."""
    row_tokens: int = 1024
    """Prompts are packed into rows of at most so many tokens; a longer prompt has a row of its own. Attention costs
    the square of it: on processors rows of about one prompt are fastest."""
    temperature: float = 0.5
    """Of ranking samples, in nats a token: what scores differ by is divided by it."""
    likelihood: float = 0.1
    """Weight of a right answer's own likelihood in ranking samples."""
    dtype: Literal["auto", "bf16", "f32"] = "auto"
    """Of the base's weights; `auto` is bf16. What is trained is f32 always."""
    device: str = "auto"
    """`auto` is CUDA where there is one."""
    threads: int | None = None
    """Of the processor; None leaves torch's."""
    recompute: bool = False
    """Forget what lies between the blocks and compute it again on the way back: less memory, a third more time."""
    save_every: int = 10
    """Steps between two states on disk, from which a killed training goes on."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            InvalidConfigError: a setting is out of range; it is named.
        """
        for name in ("rank", "epochs", "step_tokens", "row_tokens", "save_every"):
            if getattr(self, name) < 1:
                raise InvalidConfigError(f"training.{name} must be at least 1, but it is {getattr(self, name)}")
        for name in ("alpha", "learning_rate", "clip", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidConfigError(f"training.{name} must be above 0, but it is {getattr(self, name)}")
        for name in ("dropout", "warmup", "weight_decay", "likelihood"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidConfigError(f"training.{name} must be from 0 to 1, but it is {getattr(self, name)}")
        for name, known in (("method", ("lora", "full")), ("dtype", ("auto", "bf16", "f32"))):
            if getattr(self, name) not in known:
                raise InvalidConfigError(
                    f"training.{name} must be {' or '.join(known)}, but it is {getattr(self, name)!r}"
                )
