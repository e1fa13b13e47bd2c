"""The words of the world: themes with their wares in English and Chinese, and as many of them as a catalogue carries.

Themes of kind `interest` and `necessity` bear ids of the interest pool, and the words of a ware stand among the pool's
words for that theme and no other, so that an intent can be found from words alone. Three kinds of traps are planted
besides: necessities, needs of a season, and wares that sound like another interest (`tennis bracelet`).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
import numpy.typing as npt

Kind = Literal["interest", "necessity", "season"]


class Words(NamedTuple):
    """One thing, said in both languages."""

    en: str
    zh: str


@dataclass(frozen=True, slots=True)
class Ware:
    """A kind of goods."""

    theme: int
    """Which theme it belongs to."""
    name: Words
    resembles: str | None
    """Id of the interest that its words hint at without being it."""


@dataclass(frozen=True, slots=True)
class Theme:
    """What one shelf of the shop is for."""

    id: str
    """For interests and necessities the id in the interest pool; for a season its name."""
    kind: Kind
    months: tuple[int, ...]
    """Calendar months in season; empty: all year."""
    audience: str
    """`women`, `men`, `young` or empty: to whom it appeals more than to others."""
    department: str
    modifiers: tuple[Words, ...]
    wares: tuple[tuple[Words, str | None], ...]

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.id.removeprefix("staple-").replace("-", " ")


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """The themes of one catalogue; interests stand first."""

    themes: tuple[Theme, ...]
    wares: tuple[Ware, ...]
    """By theme."""
    theme_of: npt.NDArray[np.int64]
    """(wares,)"""
    wares_of: tuple[npt.NDArray[np.int64], ...]
    """The wares of each theme."""
    of: Mapping[Kind, tuple[int, ...]]
    """The themes of each kind."""


BRANDS = (
    Words("Norrland", "北境"),
    Words("Acorn & Co", "橡果"),
    Words("Vela", "维拉"),
    Words("Brightside", "明朗"),
    Words("Kestrel", "红隼"),
    Words("Old Mill", "老磨坊"),
    Words("Sundby", "桑德比"),
    Words("Tarn", "塔恩"),
)
FACTS = (
    Words("2 pack", "两件装"),
    Words("500 g", "500克"),
    Words("blue", "蓝色"),
    Words("steel", "钢制"),
    Words("with lid", "带盖"),
    Words("handmade", "手工"),
    Words("size M", "中号"),
)
RECIPIENTS = (
    Words("my sister", "姐姐"),
    Words("my father", "爸爸"),
    Words("a friend", "朋友"),
    Words("my grandmother", "奶奶"),
)


@lru_cache(maxsize=1)
def themes() -> tuple[Theme, ...]:
    """Read every theme."""
    text = (resources.files("recgpt.datasets.world") / "words" / "themes.tsv").read_text(encoding="utf-8")
    found = []
    for row in csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE):
        wares = []
        for pair in row["wares"].split("; "):
            english, chinese = pair.split("=")
            name, _, resembles = english.partition("~")
            wares.append((Words(name, chinese), resembles or None))
        found.append(
            Theme(
                row["id"],
                cast(Kind, row["kind"]),
                tuple(map(int, row["months"].split())),
                row["audience"],
                row["department"],
                tuple(Words(*pair.split("=")) for pair in row["modifiers"].split("; ")),
                tuple(wares),
            )
        )
    return tuple(found)


def choose(items: int) -> Vocabulary:
    """Choose as many themes as a catalogue of this size carries: at least three items a ware, one a price level."""
    kinds = items // 3
    interests = _first("interest", max(5, kinds // 8))
    each = min(8, max(3, (kinds * 3 // 4) // len(interests)))
    chosen = [
        *(_cut(theme, each) for theme in interests),
        *_first("necessity", max(2, kinds // 24)),
        *_first("season", max(1, kinds // 36)),
    ]
    wares = tuple(Ware(place, *ware) for place, theme in enumerate(chosen) for ware in theme.wares)
    theme_of = np.array([ware.theme for ware in wares])
    return Vocabulary(
        tuple(chosen),
        wares,
        theme_of,
        tuple(np.flatnonzero(theme_of == place) for place in range(len(chosen))),
        {kind: tuple(at for at, theme in enumerate(chosen) if theme.kind == kind) for kind in get_args(Kind)},
    )


def _first(kind: Kind, most: int) -> list[Theme]:
    return [theme for theme in themes() if theme.kind == kind][:most]


def _cut(theme: Theme, each: int) -> Theme:
    return Theme(
        theme.id,
        theme.kind,
        theme.months,
        theme.audience,
        theme.department,
        theme.modifiers,
        theme.wares[:each],
    )


@dataclass(frozen=True, slots=True)
class ReviewText:
    """One sentence of a review, and what it says about what."""

    aspect: str
    positive: bool
    words: Words


@lru_cache(maxsize=1)
def review_texts() -> Sequence[ReviewText]:
    """Read what reviewers write."""
    text = (resources.files("recgpt.datasets.world") / "words" / "reviews.tsv").read_text(encoding="utf-8")
    return tuple(
        ReviewText(row["aspect"], row["sentiment"] == "positive", Words(row["en"], row["zh"]))
        for row in csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    )
