"""Who shops: what is known of a person, and the interests that are planted in them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recgpt.datasets.world.catalogue import LEVELS, Ints
from recgpt.datasets.world.config import Config
from recgpt.datasets.world.vocabulary import BRANDS, Vocabulary

PROFILE, VISITS, ACCIDENTS = range(3)
"""Streams of a user's randomness: more accidents change nothing else."""
FOREVER = 1 << 30
"""The end, in days, of an interest that has none."""
LONG, SHORT = (150, FOREVER), (10, 28)
"""Least and most days that an interest of each stage lasts. Four weeks touch two calendar months at most, so that no
short-term interest looks like one that lasted for months."""
_CITIES = ("Berlin", "Hamburg", "Munich", "Leipzig", "Shanghai", "Hangzhou", "Chengdu", "Shenzhen")
_TIERS = ((0.14, 0.05), (0.82, 0.8), (0.038, 5.0), (0.002, 50.0))
"""(share of the users, multiple of `Config.events`): sparse, middle, heavy, extreme; 1.0 on average."""


class Interest(NamedTuple):
    """One planted interest. Days count from the log's first."""

    theme: int
    start: int
    """May lie before the log."""
    end: int
    """First day on which it is gone; FOREVER if it stays."""
    long: bool
    strength: float
    """Share of the user's visits while it lives, against the user's other interests."""
    path: Ints
    """The wares of its theme in the order in which this user comes to want them, again and again."""
    pause: int
    """How many visits go to one ware before the next."""


class Shopper(NamedTuple):
    """One user."""

    number: int
    attributes: str
    chinese: bool
    events: int
    """About how many events the log should have."""
    level: float
    """Price level at the log's begin."""
    drift: float
    """Price levels gained or lost until its end."""
    likes: npt.NDArray[np.bool_]
    """(2, brands): liked before and from `change` on."""
    change: int
    """The day on which taste in brands changes."""
    interests: tuple[Interest, ...]

    def levels(self, days: Ints, length: int) -> Ints:
        """Give the price level that this user looks at on each day."""
        return np.clip(np.rint(self.level + self.drift * days / length), 0, LEVELS - 1).astype(np.int64)


def stream(config: Config, number: int, which: int) -> np.random.Generator:
    """Give a user's own randomness: a counter under the key (seed, user), so that nobody else's draws move it."""
    key = np.array([config.seed, number], np.uint64)
    return np.random.Generator(np.random.Philox(counter=np.array([0, 0, 0, which], np.uint64), key=key))


def draw(config: Config, words: Vocabulary, number: int) -> Shopper:
    """Draw one shopper."""
    random = stream(config, number, PROFILE)
    u = random.random(12)
    age = int(18 + 62 * u[0] ** 1.3)
    gender = "female" if u[1] < 0.5 else "male"
    stage, size, kids = _life(age, u[2], u[3])
    chinese = config.language == "zh" or (config.language == "mixed" and u[4] < 1 / 3)
    city = _CITIES[int(u[5] * 4) + 4 * chinese]
    family = "no kids" if not kids else "1 kid" if kids == 1 else f"{kids} kids"
    likes = random.random((2, len(BRANDS))) < 0.35
    # The first lives on in the second: a taste that changes wholly could not be told from another person's.
    likes[1] |= likes[0] & (random.random(len(BRANDS)) < 0.5)
    shares = np.cumsum([share for share, _ in _TIERS])
    tier = _TIERS[min(int(np.searchsorted(shares, u[6], side="right")), len(_TIERS) - 1)][1]
    return Shopper(
        number,
        f"age {age}; {gender}; {city}; {stage}; household of {size}; {family}",
        chinese,
        max(3, int(config.events * tier * (0.6 + 0.8 * u[7]))),
        float(u[8] * LEVELS - 0.5),
        float(1.6 * (u[9] - 0.5)),
        likes,
        int(config.days * (0.3 + 0.5 * u[10])),
        _interests(config, words, random, age, gender),
    )


def _life(age: int, first: float, second: float) -> tuple[str, int, int]:
    """Life stage, household size and number of kids."""
    if age < 26:
        return ("student", 1, 0) if first < 0.6 else ("couple", 2, 0) if first < 0.8 else ("single", 1, 0)
    if age < 50:
        kids = 0 if first < 0.4 else 1 + int(2.5 * second)
        if kids:
            return ("young family" if age < 40 else "family"), 2 + kids, kids
        return ("single", 1, 0) if second < 0.5 else ("couple", 2, 0)
    return ("empty nest" if age < 66 else "retired"), 1 + (first < 0.6), 0


def _interests(
    config: Config, words: Vocabulary, random: np.random.Generator, age: int, gender: str
) -> tuple[Interest, ...]:
    """Plant one to four long-term interests and up to two short-term ones."""
    themes = words.of["interest"]
    fits = {"women": gender == "female", "men": gender == "male", "young": age < 35, "": True}
    pull = np.array([1.0 if fits[words.themes[one].audience] else 0.15 for one in themes])
    long = int(random.integers(1, 5))
    short = int(random.integers(0, 3))
    chosen = random.choice(themes, min(long + short, len(themes)), replace=False, p=pull / pull.sum()).tolist()
    found = []
    for place, theme in enumerate(chosen):
        u = random.random(4)
        path = random.permutation(words.wares_of[theme])
        if place < long:
            # The first is always there: nobody is without an interest to be found.
            start = int(-1000 * u[1]) if u[0] < 0.6 or not place else int(0.6 * config.days * u[1])
            ends = place and u[2] < 0.35 and max(start, 0) + LONG[0] < config.days
            end = int(max(start, 0) + LONG[0] + u[3] * (config.days - max(start, 0) - LONG[0])) if ends else FOREVER
            found.append(Interest(theme, start, end, True, 0.5 + u[3], path, 1 + int(random.integers(2))))
        else:
            length = min(int(random.integers(SHORT[0], SHORT[1] + 1)), config.days)
            # Half of them near the end, where `now` mostly lies.
            first = max(0, config.days - 70) if u[0] < 0.5 else 0
            start = first + int(u[1] * max(1, config.days - length - first + 1))
            start = min(start, config.days - length)
            found.append(Interest(theme, start, start + length, False, 0.5, path, 1))
    return tuple(found)
