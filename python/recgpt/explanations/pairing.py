"""Which texts to write: interests x items of a matching category, one interest-free text an item (section 2.4.2)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa

from recgpt import schema
from recgpt.errors import InvalidTableError

PAIRS = pa.schema([schema.EXPLANATIONS.field("interest"), schema.EXPLANATIONS.field("item_id")])
"""`pairs` tables: an interest, or null for the interest-free text, and an item."""

Pair = tuple[str | None, str]


def matched(
    interests: schema.ArrowStream, items: pa.Table, tags: schema.ArrowStream | None, categories: Any
) -> list[Pair]:
    """Pair every interest with the items of the categories that its tags map to; and every item with no interest.

    Args:
        interests: `schema.INTERESTS`.
        items: `schema.ITEMS`.
        tags: `schema.TAGS`; without it, or without a tag of an interest, the interest's own text is mapped.
        categories: Tag-to-Cate.
    """
    mined = schema.table(interests, schema.INTERESTS, name="interests")
    texts: dict[str, set[str]] = {interest: set() for interest in mined["interest"].to_pylist()}
    if tags is not None:
        table = schema.table(tags, schema.TAGS, name="tags")
        for interest, tag in zip(table["interest"].to_pylist(), table["tag"].to_pylist(), strict=True):
            if interest in texts:
                texts[interest].add(tag)
    for interest, own in texts.items():
        own.update([] if own else [interest])
    distinct = sorted({text for own in texts.values() for text in own})
    category_of = dict(zip(distinct, categories(distinct), strict=True)) if distinct else {}
    by_category: dict[str, list[str]] = defaultdict(list)
    ids = items["item_id"].to_pylist()
    for item, category in zip(ids, items["category"].to_pylist(), strict=True):
        if category:
            by_category[category].append(item)
    found: list[Pair] = [(None, item) for item in ids]
    for interest in sorted(texts):
        for category in sorted({category_of[text] for text in texts[interest]}):
            found += [(interest, item) for item in by_category.get(category, ())]
    return found


def asked(pairs: schema.ArrowStream, items: pa.Table) -> list[Pair]:
    """Take the pairs that a caller asks for, plus the interest-free text of each of their items.

    Raises:
        InvalidTableError: a pair names an item that `items` does not hold.
    """
    table = schema.table(pairs, PAIRS, name="pairs")
    wanted = list(zip(table["interest"].to_pylist(), table["item_id"].to_pylist(), strict=True))
    missing = sorted({item for _, item in wanted} - set(items["item_id"].to_pylist()))
    if missing:
        raise InvalidTableError(
            f"`pairs` names {len(missing)} items that `items` does not hold, such as {missing[0]!r}; "
            "leave those pairs out or add the items"
        )
    return list(dict.fromkeys([*((None, item) for _, item in wanted), *wanted]))
