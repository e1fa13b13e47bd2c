"""Item-level compression: one short text an item (paper section 2.1.1)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from recgpt import schema
from recgpt.errors import InvalidConfigError, InvalidTableError
from recgpt.history.wording import is_plain, plain
from recgpt.llm import prompts
from recgpt.llm.engine import Engine, Request, Result
from recgpt.llm.tokenizer import Tokenizer

_FIELDS = ("title", "brand", "category", "attributes", "description")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class BriefConfig:
    """How briefs are made."""

    max_chars: int = 80
    """Longest brief, in characters; a longer title is cut between two words."""
    parts: tuple[str, ...] = ("brand", "category", "attributes")
    """What may follow the title, in this order; of `attributes` the first one."""
    max_tokens: int = 48
    """Room for the LLM's answer."""

    def __post_init__(self) -> None:
        """Refuse sizes that leave no room.

        Raises:
            InvalidConfigError: a size is below 8, or a part is not a text column of an item.
        """
        if unknown := set(self.parts) - set(_FIELDS[1:]):
            raise InvalidConfigError(
                f"`parts` may name {', '.join(_FIELDS[1:])}, but it names {', '.join(sorted(unknown))}"
            )
        if min(self.max_chars, self.max_tokens) < 8:
            raise InvalidConfigError(f"`max_chars` and `max_tokens` must be at least 8, but the config is {self}")


def brief(
    items: schema.ArrowStream,
    *,
    tokenizer: Tokenizer,
    engine: Engine | None = None,
    config: BriefConfig | None = None,
) -> pa.Table:
    """Shorten each item to one line: its title, then what brand, category and first attribute add to it.

    A part whose words are all there already is left out, as is one that no longer fits. An item without a title is
    called by its category or brand, else `item <id>`, so that no brief is empty.

    Args:
        items: `schema.ITEMS`.
        tokenizer: counts the tokens.
        engine: writes the briefs (`prompts/briefs.md`). Items with equal records share one request, whose key is the
            hash of prompt and record. An answer that failed, is too long or holds a separator is not used: the
            extractive brief stands in and `source` says `rule`.
        config: sizes; see `BriefConfig`.

    Returns:
        `schema.BRIEFS`, one row an item in the order of `items`; `source` is `rule` or `generate`.

    Raises:
        InvalidTableError: `items` does not fit or holds an item twice.

    >>> shop = pa.table({"item_id": ["1"], "title": ["Whole milk, 1 gal"], "brand": ["Acme"], "category": ["Milk"]})
    >>> brief(shop, tokenizer=Tokenizer.bytes())["brief"].to_pylist()
    ['Whole milk 1 gal; Acme']
    """
    config = config or BriefConfig()
    table = schema.table(items, schema.ITEMS, name="items")
    columns = {name: table[name].to_pylist() for name in ("item_id", *_FIELDS)}
    ids: list[str] = columns["item_id"]
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(item_id for item_id in ids if item_id in seen or seen.add(item_id))  # type: ignore[func-returns-value]
        raise InvalidTableError(f"`items` must have one row an item, but item {twice!r} comes more than once")
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    texts = [extract(record, config) for record in records]
    sources = ["rule"] * len(texts)
    if engine is not None:
        for row, text in _written(records, engine, config).items():
            texts[row], sources[row] = text, "generate"
    # Many items of a catalogue differ in nothing that a brief shows.
    distinct = list(dict.fromkeys(texts))
    count = dict(zip(distinct, tokenizer.count(distinct).tolist(), strict=True))
    columns_out = [table["item_id"], texts, [count[text] for text in texts], table["category"], sources]
    return pa.Table.from_arrays(
        [
            column if isinstance(column, pa.ChunkedArray) else pa.array(column, field.type)
            for column, field in zip(columns_out, schema.BRIEFS, strict=True)
        ],
        schema=schema.BRIEFS,
    )


def extract(record: Mapping[str, str | None], config: BriefConfig) -> str:
    """Make the extractive brief of one item record."""
    max_chars = config.max_chars
    brand, category = _part(record["brand"]), _part(record["category"])
    text = plain(record["title"], max_chars) or plain(category, max_chars) or plain(brand, max_chars)
    text = text or plain(f"item {record['item_id']}", max_chars) or "item"
    words: frozenset[str] | None = None
    for name in config.parts:
        part = _part(_first(record[name]) if name == "attributes" else record[name])
        if part and len(text) + 2 + len(part) <= max_chars:
            words = words or _words(text)
            if not (added := _part_words(part)) <= words:
                text, words = f"{text}; {part}", words | added
    # Joining can bring about an ending that counts or numbers use, such as ` x3`.
    return plain(text)


def _words(text: str) -> frozenset[str]:
    # A plural says nothing new beside its singular.
    return frozenset(word.removesuffix("s") for word in _WORD.findall(text.casefold()))


# Brands, categories and first attributes come again and again.
_part = lru_cache(maxsize=8192)(plain)
_part_words = lru_cache(maxsize=8192)(_words)


def _first(attributes: str | None) -> str | None:
    return re.split(r"[;,|\n]", attributes, maxsplit=1)[0] if attributes else None


def _written(records: list[dict[str, str | None]], engine: Engine, config: BriefConfig) -> dict[int, str]:
    """Give the rows for which the engine wrote a usable brief."""
    template = prompts.load("briefs")
    rows: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        shown = "\n".join(f"{name}: {text}" for name in _FIELDS if (text := plain(record[name])))
        if shown:
            rows.setdefault(shown, []).append(row)
    requests = [
        Request(
            template.render(item=shown, max_chars=config.max_chars),
            config.max_tokens,
            stop=("\n",),
            key=f"briefs/{hashlib.sha256(f'{template.digest}{config.max_chars}{shown}'.encode()).hexdigest()[:16]}",
        )
        for shown in rows
    ]
    results = engine.generate(requests) if requests else []
    written: dict[int, str] = {}
    for result, same in zip(results, rows.values(), strict=True):
        if usable(result, config.max_chars):
            written |= dict.fromkeys(same, result.text.strip())
    return written


def usable(result: Result, max_chars: int) -> bool:
    """Tell whether an answer can be a brief: complete, one line, within the length, without separators."""
    text = result.text.strip()
    return result.status == "ok" and len(text) <= max_chars and is_plain(text)
