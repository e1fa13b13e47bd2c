"""What a text may say of an item: its name, and all that the catalogue tells of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from recgpt.explanations.fallback import own_words
from recgpt.text import clean


@dataclass(frozen=True)
class Item:
    """What a text may speak of."""

    name: str
    """The item's own tag, else its title: what the line begins with."""
    title: str
    facts: str
    """Everything that the catalogue says."""
    own: str
    """What it says of the item itself, its category left out: claims beyond it are invented."""


def items_of(catalogue: pa.Table, tag_of: Mapping[str, str], wanted: set[str]) -> dict[str, Item]:
    """Read what may be said of some items.

    Args:
        catalogue: `schema.ITEMS`.
        tag_of: the items' own tags, as far as they have one.
        wanted: item ids.
    """
    rows = catalogue.filter(pc.is_in(catalogue["item_id"], value_set=pa.array(sorted(wanted), pa.large_string())))
    known = {}
    for row in rows.to_pylist():
        title, tag = clean(row["title"], limit=120), clean(tag_of.get(row["item_id"]), limit=60)
        said = [title, *(clean(row[name]) for name in ("brand", "attributes", "description"))]
        category = clean(row["category"])
        tag = own_words(tag, category, " ; ".join(said))
        known[row["item_id"]] = Item(
            tag or " ".join(title.split(",")[0].split()[:5]),
            title,
            " ; ".join([tag, *said, category]),
            " ; ".join([tag, *said]),
        )
    return known
