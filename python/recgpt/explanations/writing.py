"""LLM_RE offline: interest-item pairs -> short texts that a reader could believe (section 2.4, Appendix B).

The model finishes one line that begins with the item's own words. The checkers pick among its tries; when none
passes, the pair is kept among the rejections as unscored. An item that is left without an interest-free text, or that
nobody asked the model about, gets one by rule that says no more than its name (`source="rule"`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.brands import Brands
from recgpt.errors import NaiveTimestampError
from recgpt.explanations import checkers, pairing
from recgpt.explanations.config import Config
from recgpt.explanations.facts import Item, items_of
from recgpt.explanations.fallback import by_rule
from recgpt.llm import prompts
from recgpt.llm.engine import Engine, Progress, Prompt, Request, Result
from recgpt.phrases import chinese, discreet, no_invented_claim
from recgpt.text import clean, neutralize

_STOP = ("\n", ".", ",", ":", "!", "?", ";", "|", "。", "！")
_FORMS = {
    True: ("for {interest} on a", "for {interest} when the", "for {interest} on a"),
    False: ("for a", "for", "on a"),
}
"""How a line goes on after the item's words, try by try, with and without an interest: a 135M model that must begin a
concrete phrase writes one; left free it only repeats the date, and says nothing of the interest."""
_OWN_WORDS = 3
"""Room that a forced beginning leaves for the model; a long tag gives up its first words for it."""
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_SEASONS = ("winter", "spring", "summer", "autumn")


CRITERIA = ("relevance", "factuality", "clarity", "safety")
"""Table 6."""


class Written(NamedTuple):
    """What the explanations stage gives back."""

    table: pa.Table
    """`schema.EXPLANATIONS`, interest-free texts first, exactly one an item; sorted by interest and item."""
    rejections: pa.Table
    """`schema.REJECTIONS`, stage `explanations`: pairs without a text; `text` names interest and item."""
    counts: dict[str, Any]
    """`pairs`, `requests`, `answers_total` and `answers_valid` (first tries, before any filtering), `kept` (texts by
    the model), of them `by_interest` and `by_item`, `by_rule` (texts that the rule made), `unscored` (by reason)."""
    first: tuple[FirstTry, ...] = ()
    """The first try of every distinct text, in the order in which they were asked."""


class FirstTry(NamedTuple):
    """What the model wrote at first, before any filtering."""

    interest: str | None
    name: str
    """The item, as a line calls it."""
    text: str
    """The whole line."""
    faults: dict[str, str]
    """Criterion of Table 6 -> the first rule of it that the text breaks; without a fault it passes."""


@dataclass
class _Line:
    """One distinct text to write; several pairs can share it."""

    interest: str | None
    item: Item
    text: str | None = None
    failure: str = "engine"
    raw: str | None = None


def write(
    interests: schema.ArrowStream,
    items: schema.ArrowStream,
    *,
    categories: Any,
    engine: Engine,
    now: datetime | None,
    tags: schema.ArrowStream | None = None,
    item_tags: schema.ArrowStream | None = None,
    pairs: schema.ArrowStream | None = None,
    config: Config | None = None,
    progress: Progress | None = None,
) -> Written:
    """Write the interest-item-explanation lookup table.

    Args:
        interests: `schema.INTERESTS`.
        items: `schema.ITEMS`.
        categories: Tag-to-Cate, maps texts to category names.
        engine: answers; all texts of a round in one call.
        now: timezone-aware; its date and season enter the prompts. None for a log without times: the prompts then say
            that the date is unknown, no text may name a month or season that the item's data does not, and none ends.
        tags: `schema.TAGS`: an interest's tags say which categories it reaches.
        item_tags: `schema.ITEM_TAGS`: how an item is called in a line; its title otherwise.
        pairs: optional table (interest or null, item_id): the model writes only these, plus their items' interest-free
            texts; the other items get theirs by rule.
        config: settings.
        progress: called with (done, total) requests of each round.

    Raises:
        InvalidTableError: a table misses a column or has one of a wrong type, or `pairs` names an unknown item.
        NaiveTimestampError: `now` has no time zone.
    """
    settings = config or Config()
    if now is not None and now.tzinfo is None:
        raise NaiveTimestampError(f"`now` must carry a time zone, but it is {now!r}; give tzinfo, for example UTC")
    catalogue = schema.table(items, schema.ITEMS, name="items")
    if pairs is None:
        wanted = pairing.matched(interests, catalogue, tags, categories)
    else:
        wanted = pairing.asked(pairs, catalogue)
    tag_of: dict[str, str] = {}
    if item_tags is not None:
        named = schema.table(item_tags, schema.ITEM_TAGS, name="item_tags")
        tag_of = dict(zip(named["item_id"].to_pylist(), named["tag"].to_pylist(), strict=True))
    known = items_of(catalogue, tag_of, {item for _, item in wanted})
    lines: dict[tuple[str | None, str, str], _Line] = {}
    nameless: list[pairing.Pair] = []
    of_pair: dict[pairing.Pair, _Line] = {}
    for interest, item in wanted:
        own = known[item]
        if not own.name:
            nameless.append((interest, item))
            continue
        text = clean(interest, limit=80) or None
        of_pair[interest, item] = lines.setdefault((text, own.name, own.facts), _Line(text, own))
    counts, first = _ask(list(lines.values()), engine, now, settings, Brands.of(catalogue), progress)
    told = {item for (interest, item), line in of_pair.items() if interest is None and line.text is not None}
    silent = catalogue.filter(pc.invert(pc.is_in(catalogue["item_id"], value_set=pa.array(told, pa.large_string()))))
    until = None if now is None else now + settings.lifetime
    return _result(of_pair, nameless, by_rule(silent, tag_of), counts, until)._replace(first=tuple(first))


def _ask(
    lines: list[_Line],
    engine: Engine,
    now: datetime | None,
    config: Config,
    brands: Brands,
    progress: Progress | None,
) -> tuple[Counter[str], list[FirstTry]]:
    """Fill the lines: one greedy try for each, then sampled tries together for those that failed."""
    counts: Counter[str] = Counter()
    first: list[FirstTry] = []
    template = prompts.load("explanations")
    for tries in (range(1), range(1, config.samples)):
        waiting = [line for line in lines if line.text is None]
        jobs = [(line, attempt, _prompt(template, line, attempt, now, config)) for line in waiting for attempt in tries]
        if not jobs:
            break
        requests = [
            Request(
                prompt,
                max_tokens=config.answer_tokens,
                stop=_STOP,
                temperature=config.temperature if attempt else 0.0,
                seed=config.seed + attempt,
                key=f"explanations/{attempt}/{number}",
            )
            for number, (_, attempt, prompt) in enumerate(jobs)
        ]
        counts["requests"] += len(requests)
        for (line, attempt, prompt), result in zip(jobs, engine.generate(requests, progress), strict=True):
            if line.text is not None:
                continue
            text, faults = _read(line, prompt, result, brands, *_calendar(now, config))
            if attempt == 0:
                counts["answers_total"] += 1
                counts["answers_valid"] += not faults
                broken = {name: next(fault for own, fault in faults if own == name) for name, _ in faults}
                first.append(FirstTry(line.interest, line.item.name, text, broken))
            line.raw = result.text
            line.failure = faults[0][1] if faults else ""
            line.text = None if faults else text
    return counts, first


def _prompt(template: prompts.Template, line: _Line, attempt: int, now: datetime | None, config: Config) -> Prompt:
    name = neutralize(line.item.name)
    forms = _FORMS[line.interest is not None]
    form = forms[attempt % len(forms)].format(interest=neutralize(line.interest or ""))
    room = checkers.MAX_WORDS - _OWN_WORDS - len(form.split())
    name = " ".join(name.split()[-max(room, 1) :])
    # A name in Chinese gets no English beginning.
    beginning = "" if chinese(name) else f"{name[:1].upper()}{name[1:]} {form}"
    month, season = _calendar(now, config)
    return template.render(
        item=line.item.name,
        interest=line.interest or "",
        date="Date unknown" if now is None else f"{month} {now.day}",
        season=season,
        beginning=beginning,
    )


def _calendar(now: datetime | None, config: Config) -> tuple[str, str]:
    """Month and season in words; both empty where no date is known."""
    if now is None:
        return "", ""
    season = _SEASONS[(now.month % 12 // 3 + (2 if config.hemisphere == "south" else 0)) % 4]
    return _MONTHS[now.month - 1], season


def _read(
    line: _Line, prompt: Prompt, result: Result, brands: Brands, month: str, season: str
) -> tuple[str, list[tuple[str, str]]]:
    """Give the whole line, and each rule that it breaks with the criterion of Table 6 that the rule serves."""
    own = clean(result.text)
    text = clean(f"{prompt.answer} {own}").rstrip(".。 ")
    facts = f"{line.item.facts} ; {line.interest or ''}"
    checked = (
        # What was cut, or never came, is no sentence.
        ("clarity", (result.reason or "engine") if result.status != "ok" else ""),
        ("clarity", checkers.right_length(text)),
        ("clarity", checkers.says_something(own, f"{line.item.name} {line.interest or ''}")),
        ("clarity", checkers.in_voice(own)),
        ("clarity", checkers.clear(text)),
        ("clarity", checkers.complete(text)),
        ("clarity", checkers.no_echo(own, prompt.system)),
        ("clarity", checkers.no_copy(text, line.item.title)),
        ("factuality", no_invented_claim(f"{line.item.name} {own}", line.item.own)),
        ("factuality", checkers.no_invented_number(text, facts)),
        ("factuality", checkers.no_foreign_brand(text, facts, brands)),
        ("safety", checkers.no_empty_praise(text, facts)),
        ("safety", checkers.no_hard_sell(own)),
        ("safety", checkers.no_personal_data(text)),
        ("safety", discreet(text, facts)),
        ("factuality", checkers.of_the_season(text, facts, season, month)),
        ("relevance", checkers.relevant(text, line.item.name, line.interest)),
    )
    return text, [(criterion, fault) for criterion, fault in checked if fault]


def _result(
    of_pair: dict[pairing.Pair, _Line],
    nameless: list[pairing.Pair],
    ruled: pa.Table,
    counts: Counter[str],
    until: datetime | None,
) -> Written:
    table: list[dict[str, Any]] = []
    rejections: list[dict[str, Any]] = []

    def reject(pair: pairing.Pair, reason: str, raw: str | None) -> None:
        text = f"{pair[0] or '(no interest)'} | {pair[1]}"
        rejections.append(
            {"user_id": None, "stage": "explanations", "text": text, "status": "unscored", "reason": reason, "raw": raw}
        )

    for pair, line in sorted(
        of_pair.items(), key=lambda entry: (entry[0][0] is not None, entry[0][0] or "", entry[0][1])
    ):
        if line.text is None:
            reject(pair, line.failure, line.raw)
        else:
            table.append(
                {
                    "interest": pair[0],
                    "item_id": pair[1],
                    "text": line.text,
                    "source": "generate",
                    "valid_until": until,
                }
            )
    for pair in nameless:
        reject(pair, "no_title", None)
    by_interest = sum(row["interest"] is not None for row in table)
    by_item = len(table) - by_interest
    written = schema.rows(table, schema.EXPLANATIONS)
    return Written(
        pa.concat_tables(
            [pa.concat_tables([written.slice(0, by_item), ruled]).sort_by("item_id"), written.slice(by_item)]
        ),
        schema.rows(rejections, schema.REJECTIONS),
        {
            "pairs": len(of_pair) + len(nameless),
            "requests": counts["requests"],
            "answers_total": counts["answers_total"],
            "answers_valid": counts["answers_valid"],
            "kept": len(table),
            "by_interest": by_interest,
            "by_item": by_item,
            "by_rule": ruled.num_rows,
            "unscored": dict(Counter(row["reason"] for row in rejections)),
        },
    )
