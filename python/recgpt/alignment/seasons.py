"""What suits this season or the next: by the occasion that a title names, and by when its category was bought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from recgpt.alignment.shop import Shop, aware
from recgpt.evidence import words
from recgpt.schema import TIMESTAMP

OCCASIONS = {
    "valentine": 2,
    "easter": 4,
    "halloween": 10,
    "thanksgiving": 11,
    "christmas": 12,
    "xmas": 12,
    "hanukkah": 12,
}
"""The month of what is bought for a day of the year, wherever one lives."""
SEASONS = ("winter", "spring", "summer", "autumn")
_LEAST = 20.0
"""Sales that a category must lead one to expect in two seasons before they judge it; `tags.Config` has the same."""
_RATIO = 0.5
"""Below this part of its mean share of the sales a category is out of season; `tags.Config` has the same."""
_DAYS = 60
"""Days of a season that a log must hold before the season judges anything."""


def season_of(month: int, hemisphere: str = "north") -> int:
    """Number the season of a month, winter first; three whole months each.

    >>> SEASONS[season_of(12)], SEASONS[season_of(12, "south")]
    ('winter', 'summer')
    """
    return (month % 12 // 3 + (2 if hemisphere == "south" else 0)) % 4


@dataclass(frozen=True)
class Seasons:
    """The calendar as of a moment, and what was bought in which season before it."""

    now: int
    """The season."""
    hemisphere: str = "north"
    shares: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Season -> category -> share of all purchases of that season; only seasons that the log shows well."""
    sales: Mapping[int, int] = field(default_factory=dict)
    """Purchases of each of these seasons."""

    @classmethod
    def of(cls, shop: Shop, now: datetime, *, hemisphere: str = "north") -> Seasons:
        """Read a log; only what was bought strictly before `now` counts."""
        zone = ZoneInfo(shop.zone)
        bought = shop.events.filter(
            pc.and_(
                pc.equal(shop.events["behavior"], "purchase"),
                pc.less(shop.events["timestamp"], pa.scalar(aware(now), TIMESTAMP)),
            )
        )
        local = bought["timestamp"].cast(pa.timestamp("us", tz=shop.zone))
        rows = pa.table({"month": pc.month(local), "day": pc.day_of_year(local), "item": bought["item_id"]})
        counts: dict[int, Counter[str]] = {}
        for month, item, sold in _grouped(rows, ["month", "item"]):
            if category := shop.category_of.get(item):
                counts.setdefault(season_of(month, hemisphere), Counter())[category] += sold
        shown = Counter(season_of(month, hemisphere) for month, _, _ in _grouped(rows, ["month", "day"]))
        known = [season for season in sorted(counts) if shown[season] >= _DAYS]
        return cls(
            season_of(aware(now).astimezone(zone).month, hemisphere),
            hemisphere,
            {season: {name: n / counts[season].total() for name, n in counts[season].items()} for season in known},
            {season: counts[season].total() for season in known},
        )

    def untimely(self, title: str, category: str) -> str | None:
        """Say why an item suits neither this season nor the next; None if it does, or if nothing tells."""
        fit = (self.now, (self.now + 1) % 4)
        for stem in words(title):
            for occasion, month in OCCASIONS.items():
                # Occasions lie in their own month on both halves of the earth.
                if stem in words(occasion) and season_of(month, self.hemisphere) not in fit:
                    return "occasion_past"
        # The log must show both seasons: what was not sold yet may be sold soon.
        if all(season in self.shares for season in fit):
            mean = sum(own.get(category, 0.0) for own in self.shares.values()) / len(self.shares)
            if mean * sum(self.sales[season] for season in fit) >= _LEAST and all(
                self.shares[season].get(category, 0.0) < _RATIO * mean for season in fit
            ):
                return "out_of_season"
        return None


def _grouped(rows: pa.Table, keys: list[str]) -> list[tuple[Any, Any, int]]:
    counted = rows.group_by(keys).aggregate([([], "count_all")])
    return list(zip(*(counted[name].to_pylist() for name in (*keys, "count_all")), strict=True))
