"""The truth-teller's lists for mode `generate`: interests with evidence, and tags with reasons."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from recgpt.alignment import wording
from recgpt.alignment.truth import Truth, fenced
from recgpt.evidence import parse_rows
from recgpt.interests import Pool
from recgpt.interests.cases import Case, Choice
from recgpt.interests.pool import PoolInterest, support
from recgpt.interests.reasons import opening, told
from recgpt.llm.engine import Request
from recgpt.llm.grammar import reasoning_tokens
from recgpt.tags.checkers import MAX_REASON_WORDS
from recgpt.tags.sequences import date_label
from recgpt.tags.words import split

ROWS = 3
"""Rows that an interest cites, at most."""
WARES = 3
"""Wares that a reason names, at most."""
_DATES = re.compile(r"\d\d-\d\d ")
_MONTHS = tuple(date_label(datetime(2024, month, 1, tzinfo=UTC)).split()[0] for month in range(1, 13))
_DID = {"purchases": "bought", "clicks": "looked at", "searches": "searched for"}


def interests(truth: Truth, pool: Pool, user: str, request: Request) -> dict[str, Any]:
    """List the planted interests that the history shows, those that most of it speaks for first."""
    prompt = request.prompt.user
    history, known = fenced(prompt, "history"), {entry.pool_id: entry for entry in pool.interests}
    offered = [known[line.split(":")[0]] for line in prompt.split("\n") if line.split(":")[0] in known]
    case = Case(user, "", history, tuple(parse_rows(history)), ())
    found = []
    for entry in offered:
        if entry.name in truth.planted(user):
            shown = support(case.rows, entry.terms, pool.staple_terms, pool.rivals(entry.terms))
            if one := _interest(truth, case, entry, [row.id for row in shown.rows]):
                found.append((shown.mentions, one))
    entries = [one for _, one in sorted(found, key=lambda pair: (-pair[0], pair[1]["id"]))]
    answer: dict[str, Any] = {}
    if room := reasoning_tokens(request.schema):
        thoughts = [f"{', '.join(f'r{row}' for row in one['evidence'])}: {one['interest']}." for one in entries]
        answer["reasoning"] = " ".join([*thoughts, "The rest is need, gift or chance."])[: 3 * room]
    return {**answer, "interests": entries}


def _interest(truth: Truth, case: Case, entry: PoolInterest, rows: list[int]) -> dict[str, Any] | None:
    """Write one interest, from the rows that show most of it."""
    choice = Choice(case, entry.name, entry, entry.terms)
    strength = {}
    for row in rows:
        choice.evidence = (row,)
        strength[row] = sum(map(len, told(choice).values()))
    choice.evidence = tuple(sorted(sorted(rows, key=lambda row: (-strength[row], -row))[:ROWS]))
    begun, items = opening(told(choice))
    wares = list(dict.fromkeys(filter(None, map(truth.ware, items))))[:WARES]
    if not wares:
        return None
    return {
        "id": entry.pool_id,
        "interest": entry.name,
        "stage": truth.behind[case.user_id].planted[entry.name],
        "reason": f"{begun} {wording.listing(wares)}.",
        "evidence": list(choice.evidence),
    }


def tags(truth: Truth, pool: Pool, user: str, request: Request) -> dict[str, Any]:
    """List tags for what is wanted next, then for other goods of the shopper's interests that are in season.

    What stands in the sequences is left out; each ware comes once, the interests in turn.
    """
    prompt = request.prompt.user
    own = [line for line in fenced(prompt, "interests").split("\n") if line != "unknown"]
    month = _MONTHS.index(prompt.split(" ", 2)[1]) + 1 if prompt.split(" ", 2)[1] in _MONTHS else 0
    done = {tag: did for name, did in reversed(_DID.items()) for tag in _listed(fenced(prompt, name))}
    wants = sorted(truth.wants.get(user, {}).items(), key=lambda pair: -pair[1])
    others = [ware for ware, theme in truth.themes.items() if theme in own and _in_season(truth, theme, month)]
    found = []
    for ware in dict.fromkeys([*(ware for ware, _ in wants), *others]):
        theme = truth.themes[ware]
        fresh = [tag for tag in truth.tags.get(ware, ()) if tag not in done and len(tag.split()) > 1]
        if fresh and (theme in own or not own):
            tag = wording.drawn(fresh, user, ware)
            if reason := _reason(truth, tag, ware, theme if own else "", done):
                found.append({"tag": tag, "interest": theme if own else "", "reason": reason})
    return {"tags": found[: _quantity(request)]}


def _reason(truth: Truth, tag: str, ware: str, interest: str, done: dict[str, str]) -> str:
    """Tie a tag to what the shopper likes and, where it is short enough, to something that goes with it."""
    near = [(one, did) for one, did in done.items() if truth.themes.get(truth.ware(one)) == truth.themes[ware]]
    begun = [f"They {did} {one} and may use {tag} to" for one, did in near if one in truth.wares]
    begun = [wording.drawn(begun, tag)] if begun else []
    if interest:
        begun.append(f"They like {interest} and may use {tag} to")
    for text in begun:
        if use := wording.use(ware, tag, interest, room=MAX_REASON_WORDS - len(split(text))):
            return f"{text} {use}."
    return ""


def _listed(sequence: str) -> list[str]:
    return [text for part in sequence.split("; ") for text in _DATES.sub("", part).split(", ") if text != "none"]


def _in_season(truth: Truth, theme: str, month: int) -> bool:
    months = truth.months.get(theme, ())
    return not months or not month or month in months


def _quantity(request: Request) -> int:
    """Read how many are asked for."""
    found = re.search(r"^Give (\d+) different entries", request.prompt.system, re.M)
    return int(found[1]) if found else WARES
