"""The click, purchase and search sequences of the tag prompt, newest actions kept, within a token limit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.llm.engine import Prompt
from recgpt.llm.prompts import Template
from recgpt.tags.config import Config
from recgpt.tags.engagement import before
from recgpt.text import clean

_CLICKED = ("click", "detail_view", "review_read", "favorite", "cart")
"""Looked at or saved, not bought: the paper's click sequence."""
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_SEASONS = ("winter", "spring", "summer", "autumn")


@dataclass
class Sequences:
    """One user's actions, oldest first: (date label or empty, text)."""

    clicks: list[tuple[str, str]] = field(default_factory=list)
    purchases: list[tuple[str, str]] = field(default_factory=list)
    searches: list[tuple[str, str]] = field(default_factory=list)


def season(now: datetime | None, hemisphere: str) -> str:
    """Name the season of a date: meteorological, three whole months each; nothing where no date is known.

    >>> from datetime import datetime, timezone
    >>> season(datetime(2017, 12, 18, tzinfo=timezone.utc), "north")
    'winter'
    """
    if now is None:
        return ""
    return _SEASONS[(now.month % 12 // 3 + (2 if hemisphere == "south" else 0)) % 4]


def date_label(now: datetime | None) -> str:
    """Write a date as the prompts do, in English whatever the locale."""
    return "unknown" if now is None else f"{_MONTHS[now.month - 1]} {now.day}"


def collect(
    events: schema.ArrowStream, item_tags: dict[str, str], users: Sequence[str], *, now: datetime | None, config: Config
) -> dict[str, Sequences]:
    """Collect each user's latest actions; an item enters as its own tag, an action repeated on one day once."""
    table = before(events, now)
    table = table.filter(pc.is_in(table["user_id"], value_set=pa.array(users, pa.large_string())))
    table = table.append_column("row", pa.array(range(table.num_rows), pa.int64()))
    table = table.sort_by([("timestamp", "ascending"), ("position", "ascending"), ("row", "ascending")])
    found: dict[str, Sequences] = defaultdict(Sequences)
    for event in table.to_pylist():
        own, behavior = found[event["user_id"]], event["behavior"]
        label = f"{event['timestamp']:%m-%d}" if event["timestamp"] is not None else ""
        text = item_tags.get(event["item_id"] or "", "")
        if event["query"] and behavior == "search":
            target, text = own.searches, clean(event["query"], limit=60)
        elif behavior == "purchase":
            target = own.purchases
        elif behavior in _CLICKED:
            target = own.clicks
        else:
            continue
        if text and (label, text) not in target[-config.sequence_length :]:
            target.append((label, text))
    for own in found.values():
        for target in (own.clicks, own.purchases, own.searches):
            del target[: -config.sequence_length]
    return {user: found[user] for user in users}


def render(
    template: Template,
    sequences: Sequence[Sequences],
    inputs: Sequence[dict[str, object]],
    *,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    config: Config,
) -> list[Prompt]:
    """Render one prompt a user whose input stays within `config.prompt_tokens`; the oldest actions leave first."""
    keep = [config.sequence_length] * len(sequences)
    while True:
        prompts = [
            template.render(
                clicks=_written(own.clicks, limit),
                purchases=_written(own.purchases, limit),
                searches=_written(own.searches, limit),
                **given,
            )
            for own, limit, given in zip(sequences, keep, inputs, strict=True)
        ]
        counts = count_tokens([prompt.user for prompt in prompts])
        long = [row for row, count in enumerate(counts) if count > config.prompt_tokens and keep[row]]
        if not long:
            return prompts
        for row in long:
            keep[row] = keep[row] * 3 // 4


def _written(actions: list[tuple[str, str]], limit: int) -> str:
    """Write the latest actions, one date before all its texts.

    >>> _written([("12-01", "potato chip"), ("12-01", "salsa dip"), ("12-03", "rye bread")], 3)
    '12-01 potato chip, salsa dip; 12-03 rye bread'
    """
    days: list[tuple[str, list[str]]] = []
    for label, text in actions[len(actions) - min(limit, len(actions)) :]:
        if not days or days[-1][0] != label:
            days.append((label, []))
        days[-1][1].append(text)
    return "; ".join(f"{label} {', '.join(texts)}".strip() for label, texts in days) or "none"
