"""Variants of a user's history: as it comes, as reliable lines, in both readings, and on each rung of the ladder.

raw          one line an event, clicks and returns included; the newest lines that fit the prompt
reliable     one line a reliable event; the newest lines that fit
sequence     the paper's step 2 with whole item sets merged, within the prompt's budget
item         step 2 with each item written once, within the budget
cheapest     what `recgpt run` uses
full ...     the shortest text for which the ladder needs no later rung: nothing given up, days -> months, months ->
             years, rare behaviors -> `other`, items -> counts of their category; `dropped` has half of the last
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import history
from recgpt.pipeline import tables
from recgpt.pipeline.run import Stages
from recgpt.text import clean

RUNGS = ("full", "months", "years", "rare", "categories")
"""Rungs of the ladder by what they still give up; `dropped` comes after them."""
_YEAR = re.compile(r"(?<![\d-])\d\d(\d\d)? \(")
_COUNT = re.compile(r" x\d+(,|$)", re.M)
_LABEL = "%Y-%m-%d"


class Written(NamedTuple):
    """One variant of one user's history."""

    text: str
    kept: float
    """Share of the variant's events that the text still tells of, in whatever detail."""


def texts(run: Stages, users: Sequence[str]) -> dict[str, dict[str, Written]]:
    """Write users' histories in every variant, with row ids; variants that leave a user no text are left out."""
    catalogue = history.catalogue(run.briefs, tokenizer=run.tokenizer)
    names = dict(zip(run.briefs["item_id"].to_pylist(), run.briefs["brief"].to_pylist(), strict=True))
    return {user: _variants(run, user, catalogue, names) for user in users}


def _variants(run: Stages, user: str, catalogue: history.Catalogue, names: Mapping[str, str]) -> dict[str, Written]:
    budget = run.config.history.budget
    kept = tables.only(run.kept, [user])
    compress = _compressor(run, kept, catalogue)
    found = {
        "raw": _lines(run, tables.only(run.events, [user]), names, budget),
        "reliable": _lines(run, kept, names, budget),
    }
    for layout in ("sequence", "item", "cheapest"):
        found[layout] = _told(compress(budget, layout))
    whole = compress(None, "cheapest")
    shortest = whole
    for place, rung in enumerate(RUNGS):
        # Further down the ladder no text is longer.
        shortest = _shortest(compress, whole, place, min(budget, shortest.tokens))
        found[rung] = _told(shortest)
    found["dropped"] = _told(compress(shortest.tokens // 2, "cheapest"))
    return {name: one for name, one in found.items() if one.text}


class _Text(NamedTuple):
    text: str
    tokens: int
    events: int
    dropped: int
    folded: int


def _told(text: _Text) -> Written:
    return Written(text.text, 1 - text.dropped / max(1, text.events))


def _compressor(run: Stages, kept: pa.Table, catalogue: history.Catalogue) -> Callable[[int | None, str], _Text]:
    def compress(budget: int | None, layout: str) -> _Text:
        assert run.now is not None
        (row,) = history.compress(
            kept,
            catalogue,
            now=run.now,
            tokenizer=run.tokenizer,
            time_zone=run.time_zone,
            layout=layout,
            budget=budget,
            row_ids=True,
            threads=1,
        ).to_pylist()
        receipt = row["receipt"]
        return _Text(row["text"], row["tokens"], receipt["events"], receipt["dropped"], receipt["folded"])

    return compress


def _rung(text: _Text, whole: _Text) -> int:
    """Say which rung a text stands on, from what it still holds."""
    if text.dropped:
        return len(RUNGS)
    if _COUNT.search(text.text):
        return RUNGS.index("categories")
    if text.folded:
        return RUNGS.index("rare")
    if len(_YEAR.findall(text.text)) > len(_YEAR.findall(whole.text)):
        return RUNGS.index("years")
    # Fewer labels of days can also come from another layout; a text without any where there were some cannot.
    return RUNGS.index("months") if text.tokens < whole.tokens else 0


def _shortest(compress: Callable[[int | None, str], _Text], whole: _Text, rung: int, most: int) -> _Text:
    """Find the shortest text that stands on a rung or below, within the prompt's budget."""
    low, high = 0, min(whole.tokens, most)
    best = compress(high, "cheapest")
    while low < high:
        middle = (low + high) // 2
        text = compress(middle, "cheapest")
        if _rung(text, whole) <= rung:
            best, high = text, min(middle, text.tokens)
        else:
            low = middle + 1
    return best


def _lines(run: Stages, events: pa.Table, names: Mapping[str, str], budget: int) -> Written:
    """One line an event, the newest that fit into the budget."""
    own = events.filter(pc.not_equal(events["behavior"], "exposure")).sort_by("timestamp")
    local = pc.strftime(pc.local_timestamp(own["timestamp"].cast(pa.timestamp("us", tz=run.time_zone))), _LABEL)
    lines = []
    for day, row in zip(local.to_pylist(), own.to_pylist(), strict=True):
        query = re.sub(r'[",|]', " ", clean(row["query"] or "")).strip()
        thing = names.get(row["item_id"], row["item_id"]) if row["item_id"] else f'"{query}"'
        lines.append(f"{day} ({row['behavior']}) | {thing}")
    # The row id and the line break are counted with the line.
    sizes = [int(count) for count in run.tokenizer.count([f"r{len(lines)} {line}\n" for line in lines])]
    kept = int((np.cumsum(sizes[::-1]) <= budget).sum())
    shown = lines[len(lines) - kept :]
    text = "\n".join(f"r{at} {line}" for at, line in enumerate(shown, start=1))
    return Written(text, kept / max(1, len(lines)))
