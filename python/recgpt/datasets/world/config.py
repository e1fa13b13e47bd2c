"""How large a world is, and what happens in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from recgpt.errors import InvalidConfigError

TIME_ZONE = "Europe/Berlin"
START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = 86_400
LANGUAGES = ("en", "zh", "mixed")


@dataclass(frozen=True, slots=True)
class Config:
    """The sizes of a world. The same configuration is the same world, and each user in it depends on nobody else."""

    users: int = 60
    items: int = 300
    days: int = 400
    """Length of the log from 2024-01-01 on."""
    events: int = 800
    """Events of a middle user. One in seven has a twentieth of it, one in twenty five times and one in five hundred
    fifty times as many."""
    noise: float = 0.1
    """Share of visits that are accidents: slips of a finger, and one evening of idle curiosity."""
    language: Literal["en", "zh", "mixed"] = "en"
    """Of `title` and of what shoppers write; `mixed`: half of the items, a third of the shoppers Chinese. `title_zh` is
    always there."""
    hostile: bool = False
    """Titles and reviews that attack prompts, pages and terminals, and items without title, category or price."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that make no world.

        Raises:
            InvalidConfigError: a size is below its least, the noise is no share, or the language is unknown.
        """
        for name, least in (("users", 1), ("items", 60), ("days", 30), ("events", 10), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidConfigError(f"`{name}` must be a whole number from {least} up, but it is {value!r}")
        if not (math.isfinite(self.noise) and 0 <= self.noise < 1):
            raise InvalidConfigError(f"`noise` must be a share from 0 to below 1, but it is {self.noise!r}")
        if self.language not in LANGUAGES:
            raise InvalidConfigError(f"`language` must be {', '.join(LANGUAGES)}, but it is {self.language!r}")
