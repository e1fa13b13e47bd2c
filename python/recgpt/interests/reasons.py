"""Reasons in `rank`: the model finishes a short sentence, and a checker takes the first sample that it can believe."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from recgpt.evidence import longest_hit
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
}
_MARKS = re.compile(r' x\d{1,6}$| #\d{1,6}(?= |$)|"')
_SIZE = re.compile(r"\s*\(?\d.*$")
_SHOWN_ITEMS = 8


def give_reasons(
    choices: Sequence[Choice], *, engine: Engine, template: Template, config: Config, progress: Progress | None
) -> tuple[list[str], int, int, list[Result]]:
    """Ask for all reasons in one engine call and set `choice.reason` where a sample passes.

    The model sees the matching items of the evidence rows only. A sample that ran out of tokens ends at its last comma.

    Returns:
        For each choice why it has no reason (empty if it has one), samples read, samples that passed, the results.
    """
    requests: list[Request] = []
    openings: list[str] = []
    for choice in choices:
        opening = _opening(choice)
        openings.append(opening)
        prompt = template.render(interest=choice.interest, items=_items(choice)[:_SHOWN_ITEMS], opening=opening)
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
            text, fault = _read(result, openings[place])
            fault = fault or _fault(text, choice, config)
            first = first or fault
            if not fault:
                passed += 1
                choice.reason = choice.reason or text
        faults.append("" if choice.reason else first)
    return faults, len(results), passed, results


def _read(result: Result, opening: str) -> tuple[str, str]:
    text = result.text
    if result.status != "ok":
        if result.reason != "length" or "," not in text:
            return "", result.reason
        text = text.rpartition(",")[0]
    return clean(f"{opening} {text.strip()}"), ""


def _fault(text: str, choice: Choice, config: Config) -> str:
    least, most = config.reason_words
    return reason_fault(text, _items(choice), choice.interest, least_words=least, most_words=most) or ""


def _opening(choice: Choice) -> str:
    rows = [row for row in choice.case.rows if row.id in choice.evidence]
    behaviors = Counter(behavior for row in rows for _, behavior in row.contexts)
    # Most frequent first, then the order of the table above; a shop's own behavior gets the neutral verb.
    order = list(_OPENINGS)
    known = sorted((name for name in behaviors if name in _OPENINGS), key=lambda n: (-behaviors[n], order.index(n)))
    return _OPENINGS[known[0]] if known else "They chose"


def _items(choice: Choice) -> list[str]:
    """List what of the evidence the model is shown, and its reason may say: the matching items."""
    found = {
        _plain(item): None
        for row in choice.case.rows
        if row.id in choice.evidence
        for item in row.items
        if longest_hit(item, choice.terms)
    }
    return list(found)


def _plain(item: str) -> str:
    """Show what a thing is: without its size, its marks and what follows a `;`, which small models trip over."""
    name = _MARKS.sub("", item).partition(";")[0].strip()
    return (_SIZE.sub("", name).strip() or name).lower()
