"""A log and its catalogue, ready to be asked about at any moment: names of what is ranked, tags, briefs, the pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import history, interests, logs, schema, tags
from recgpt.datasets import Dataset
from recgpt.errors import AlignmentError, NaiveTimestampError
from recgpt.llm import Tokenizer
from recgpt.text import clean

KINDS = ("categories", "tags")
_PROMPT_TOKENS = 350


@dataclass(frozen=True)
class Shop:
    """A log and its catalogue, ready to be asked about at any moment."""

    origin: str
    """The name that every sample carries."""
    events: pa.Table
    """Normalized, with times."""
    users: pa.Table
    items: pa.Table
    item_tags: pa.Table
    name_of: Mapping[str, str]
    """What is ranked, by item; an item without a name is no answer."""
    tokenizer: Tokenizer
    briefs: history.Catalogue
    zone: str
    pool: interests.Pool
    config: tags.Config

    @classmethod
    def of(
        cls,
        data: Dataset,
        *,
        tokenizer: Tokenizer,
        what: str = "categories",
        origin: str = "",
        pool: interests.Pool | None = None,
        config: tags.Config | None = None,
    ) -> Shop:
        """Read a data set.

        Args:
            data: with times.
            tokenizer: of the model that will read the prompts.
            what: is ranked: one of `KINDS`.
            origin: by default the data set's name.
            pool: of interests; None is ours.
            config: of the tags stage; by default its own with prompts of 350 tokens, which train twice as fast.

        Raises:
            AlignmentError: `what` is unknown, the log has no times, or no item has what is ranked.
            InputError: the tables are not usable.
        """
        if what not in KINDS:
            raise AlignmentError(f"what is ranked must be one of {', '.join(KINDS)}, but it is {what!r}")
        tables = logs.from_dataset(data)
        events = tables.events.filter(pc.is_valid(tables.events["timestamp"]))
        if not events.num_rows:
            raise AlignmentError(
                f"{origin or data.name} has no event with a time, so that nobody could say what was known before a "
                "purchase; give the log a column `timestamp`"
            )
        item_tags = tags.item_tags(tables.items)
        if what == "tags":
            named = dict(zip(item_tags["item_id"].to_pylist(), item_tags["tag"].to_pylist(), strict=True))
        else:
            ids, names = (tables.items[column].to_pylist() for column in ("item_id", "category"))
            named = {item: text for item, name in zip(ids, names, strict=True) if (text := candidate(name))}
        if not named:
            raise AlignmentError(f"no item of {origin or data.name} has one of the {what}, so nothing could be ranked")
        briefs = history.catalogue(history.brief(tables.items, tokenizer=tokenizer), tokenizer=tokenizer)
        return cls(
            origin or data.name,
            schema.table(events, schema.EVENTS, name="events"),
            tables.users,
            tables.items,
            item_tags,
            named,
            tokenizer,
            briefs,
            data.time_zone or "UTC",
            pool or interests.Pool.load(),
            config or tags.Config(prompt_tokens=_PROMPT_TOKENS),
        )

    def bought(self, since: datetime, until: datetime) -> pa.Table:
        """Give the purchases of named items from `since` on and before `until`."""
        times = self.events["timestamp"]
        late = pc.greater_equal(times, pa.scalar(aware(since), schema.TIMESTAMP))
        early = pc.less(times, pa.scalar(aware(until), schema.TIMESTAMP))
        bought = pc.and_(pc.equal(self.events["behavior"], "purchase"), pc.is_valid(self.events["item_id"]))
        return self.events.filter(pc.and_(pc.and_(late, early), bought)).sort_by("timestamp")

    @cached_property
    def tag_of(self) -> dict[str, str]:
        """Each item's own tag."""
        return dict(zip(*(self.item_tags[name].to_pylist() for name in ("item_id", "tag")), strict=True))

    @cached_property
    def category_of(self) -> dict[str, str]:
        """Each item's category, for those that have one."""
        pairs = zip(*(self.items[name].to_pylist() for name in ("item_id", "category")), strict=True)
        return {item: category for item, category in pairs if category}

    @cached_property
    def title_of(self) -> dict[str, str]:
        """Each item's title, for those that have one."""
        pairs = zip(*(self.items[name].to_pylist() for name in ("item_id", "title")), strict=True)
        return {item: clean(title) for item, title in pairs if title}

    @property
    def begun(self) -> datetime:
        """The first moment of the log."""
        first: datetime = pc.min(self.events["timestamp"]).as_py()
        return first


def candidate(category: str | None) -> str:
    """Write a category as a tag is written.

    >>> candidate("Soft Drinks")
    'soft drinks'
    """
    return clean(category).lower()


def aware(moment: datetime) -> datetime:
    """Refuse a moment without a time zone."""
    if moment.tzinfo is None:
        raise NaiveTimestampError(f"a moment must carry a time zone, but it is {moment!r}; give one, for example UTC")
    return moment
