"""Reasons in `rank`: the model finishes a short sentence, and a checker takes the first sample that it can believe."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from recgpt.evidence import Term, longest_hit
from recgpt.interests.cases import Choice
from recgpt.interests.config import Config
from recgpt.interests.rules import reason_fault
from recgpt.llm.engine import Engine, Progress, Request, Result
from recgpt.llm.prompts import Template
from recgpt.text import clean

_OPENINGS = {
    "purchase": "They bought",
    "search": "They searched for",
    "cart": "They put in the cart",
    "favorite": "They saved",
    "detail_view": "They looked at",
    "review_read": "They read reviews of",
    "click": "They looked at",
    "coupon": "They redeemed a coupon for",
}
_NEUTRAL = "Their history holds"
"""Begins the reason where only a shop's own behaviors are cited, of which nobody knows what they mean."""
_MARKS = re.compile(r' x\d{1,6}$| #\d{1,6}(?= |$)|"')
_PIECES = re.compile(r";| - |/")
_LOOSE_START = re.compile(
    r"^an? (?:variety|mix|range|number|selection) of (?:item|product|thing)s,? (?:including|such as) "
)
_LOOSE_END = re.compile(r",?(?: and)?(?: (?:a|an|few|some|other|more))* (?:item|product|thing)s?$")
"""What a small model puts around a list, and says nothing."""
_SIZE = re.compile(r"\s*\(?\d.*$")
_SHOWN_ITEMS = 8


def give_reasons(
    choices: Sequence[Choice], *, engine: Engine, template: Template, config: Config, progress: Progress | None
) -> tuple[list[str], int, int, list[Result]]:
    """Ask for all reasons in one engine call and set `choice.reason` where a sample passes.

    One verb begins the sentence, so the model sees only what was really done so: of the evidence rows the matching
    items with which most was done alike. It does not see the interest, or it would repeat its name. A sample that ran
    out of tokens ends at its last comma.

    Returns:
        For each choice why it has no reason (empty if it has one), samples read, samples that passed, the results.
    """
    requests: list[Request] = []
    openings: list[str] = []
    for choice in choices:
        begun, items = opening(told(choice))
        openings.append(begun)
        prompt = template.render(items=items[:_SHOWN_ITEMS], opening=begun)
        requests += [
            Request(
                prompt,
                max_tokens=config.reason_tokens,
                stop=(".", "\n", ";"),
                temperature=0.7 if sample else 0.0,
                seed=config.seed + sample,
                key=f"interests/{choice.case.user_id}/reason/{sample}",
            )
            for sample in range(config.reason_samples)
        ]
    results = engine.generate(requests, progress) if requests else []
    faults: list[str] = []
    passed = 0
    for place, choice in enumerate(choices):
        first = ""
        for result in results[place * config.reason_samples : (place + 1) * config.reason_samples]:
            text, fault = read(result, openings[place])
            fault = fault or _fault(text, choice, config)
            first = first or fault
            if not fault:
                passed += 1
                choice.reason = choice.reason or text
        faults.append("" if choice.reason else first)
    return faults, len(results), passed, results


def read(result: Result, begun: str) -> tuple[str, str]:
    """Put a sample behind its beginning, without what says nothing; and say why it cannot be read, if so."""
    text = result.text
    if result.status != "ok":
        if result.reason != "length" or "," not in text:
            return "", result.reason
        text = text.rpartition(",")[0]
    said = _LOOSE_START.sub("", text.replace("*", "").strip())
    listed = _LOOSE_END.sub("", said)
    if listed != said and "," in listed:
        head, _, last = listed.rpartition(", ")
        listed = f"{head} and {last}"
    return clean(f"{begun} {listed}"), ""


def _fault(text: str, choice: Choice, config: Config) -> str:
    least, most = config.reason_words
    return (
        reason_fault(text, told(choice), choice.interest, periods=periods(choice), least_words=least, most_words=most)
        or ""
    )


def told(choice: Choice) -> dict[str, list[str]]:
    """List what the evidence tells: its matching items, plain, by what was done with them, in the order of the rows."""
    found: dict[str, dict[str, None]] = {}
    for row in choice.case.rows:
        if row.id in choice.evidence:
            matching = {_plain(item, choice.terms): None for item in row.items if longest_hit(item, choice.terms)}
            for behavior in dict.fromkeys(behavior for _, behavior in row.contexts):
                found.setdefault(behavior, {}).update(matching)
    return {behavior: list(items) for behavior, items in found.items() if items}


def periods(choice: Choice) -> int:
    """Count the distinct time labels of the evidence."""
    return len({label for row in choice.case.rows if row.id in choice.evidence for label in row.labels})


def opening(told: Mapping[str, Sequence[str]]) -> tuple[str, list[str]]:
    """Choose the verb that most items share, equals in the order of the table above, and those items."""
    order = list(_OPENINGS)
    known = sorted((name for name in told if name in order), key=lambda name: (-len(told[name]), order.index(name)))
    if known:
        return _OPENINGS[known[0]], list(told[known[0]])
    return _NEUTRAL, list(dict.fromkeys(item for items in told.values() for item in items))


def _plain(item: str, terms: Sequence[Term]) -> str:
    """Show what a thing is: the piece of its name that shows the interest, without size and marks.

    A brief joins title, brand and category by `;`, and shops join kinds by `/` and shelves by ` - `. Small models take
    the pieces for several things, or a shelf for a thing.

    >>> _plain("Pails 1 ga; Private; Ice Cream/Milk/Sherbts #2 x3", [("ice", "cream")])
    'ice cream'
    """
    name = _MARKS.sub("", item).strip()
    pieces = [piece.strip() for piece in _PIECES.split(name) if piece.strip()] or [name]
    shown = next((piece for piece in pieces if longest_hit(piece, terms)), pieces[0])
    return (_SIZE.sub("", shown).strip() or shown).lower()
