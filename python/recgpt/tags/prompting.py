"""What a prompt of the tags stage says of a user; `prompts` writes it for any moment, as `predict` would ask it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.llm.engine import Prompt
from recgpt.llm.prompts import load
from recgpt.tags.config import Config
from recgpt.tags.sequences import collect, date_label, render, season
from recgpt.text import clean

ATTRIBUTES = 200
"""Most characters of a user's attributes."""
_INTEREST = 80


def slots(attributes: str, interests: Sequence[str], *, now: datetime | None, config: Config) -> dict[str, object]:
    """Fill the prompt's slots other than the sequences; empty texts stand for a shopper nobody knows."""
    return {
        "attributes": attributes or "unknown",
        "interests": "\n".join(interests) or "unknown",
        "date": date_label(now),
        "season": season(now, config.hemisphere),
    }


def liked(interests: pa.Table) -> dict[str, list[str]]:
    """Give each user's interests in the order of their ranks, each once."""
    found: dict[str, list[str]] = defaultdict(list)
    ranked = interests.sort_by("rank")
    for user, interest in zip(ranked["user_id"].to_pylist(), ranked["interest"].to_pylist(), strict=True):
        if (text := clean(interest, limit=_INTEREST)) and text not in found[user]:
            found[user].append(text)
    return dict(found)


def prompts(
    users: schema.ArrowStream,
    interests: schema.ArrowStream,
    events: schema.ArrowStream,
    item_tags: schema.ArrowStream,
    *,
    now: datetime | None,
    count_tokens: Callable[[Sequence[str]], Sequence[int]],
    quantity: Mapping[str, int] | None = None,
    config: Config | None = None,
) -> dict[str, Prompt]:
    """Write for each user the prompt by which mode `rank` asks for the next tag; nothing after `now` is in it.

    Args:
        users: `schema.USERS`; who gets a prompt.
        interests: `schema.INTERESTS`.
        events: `schema.EVENTS`; only what lies before `now` counts.
        item_tags: `schema.ITEM_TAGS`.
        now: timezone-aware; None for a log without times.
        count_tokens: the engine's, or its tokenizer's.
        quantity: tags that each user's prompt asks for, the configuration's number where it does not say; the prompts
            are then those of mode `generate`.
        config: settings.
    """
    settings = config or Config()
    people = schema.table(users, schema.USERS, name="users")
    ids = people["user_id"].to_pylist()
    # Cut to these users first: a year of a shop is a thousand times what a prompt shows.
    table = schema.table(events, schema.EVENTS, name="events")
    table = table.filter(pc.is_in(table["user_id"], value_set=pa.array(ids, pa.large_string())))
    own = schema.table(item_tags, schema.ITEM_TAGS, name="item_tags")
    tag_of = dict(zip(own["item_id"].to_pylist(), own["tag"].to_pylist(), strict=True))
    sequences = collect(table, tag_of, ids, now=now, config=settings)
    by_user = liked(schema.table(interests, schema.INTERESTS, name="interests"))
    inputs = [
        slots(clean(attributes, limit=ATTRIBUTES), by_user.get(user, []), now=now, config=settings)
        for user, attributes in zip(ids, people["attributes"].to_pylist(), strict=True)
    ]
    if quantity is not None:
        inputs = [
            given | {"quantity": quantity.get(user, settings.quantity)} for user, given in zip(ids, inputs, strict=True)
        ]
    rendered = render(
        load("tags_rank" if quantity is None else "tags"),
        [sequences[user] for user in ids],
        inputs,
        count_tokens=count_tokens,
        config=settings,
    )
    return dict(zip(ids, rendered, strict=True))
