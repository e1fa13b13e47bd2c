"""What makes an interest wrong, as rules (section 2.1.2, Table 1, Appendix B).

`prompts/rules/interests.toml` lists them all with their checkers. Each checker returns the reason of a rejection, or
None. They look at the history and the attributes only, never at what a model said about itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from recgpt.evidence import HistoryRow, Period, Term, mentions, span, words
from recgpt.interests.config import Config
from recgpt.interests.pool import Pool, PoolInterest, Support

# Names of duties, not of tastes, in any shop. Only for interests that a model named itself.
_DUTY_WORDS = frozenset(
    words(
        "necessity necessities essential essentials staple household chores cleaning grocery groceries supplies daily"
    )
)
_DUTY_FILLER = frozenset(
    words("shopping purchasing buying regular products items goods needs food of and for the home")
)
_AUDIENCE_WORDS = {
    "infant": frozenset(words("baby infant newborn diaper toddler pacifier nursery")),
    "child": frozenset(words("kids children child childrens")),
    "women": frozenset(words("women womens ladies")),
    "men": frozenset(words("mens men gentlemen")),
}

_AGE = re.compile(
    r"\bage\D{0,12}(\d{1,3})(?:\s*(?:-|to|–)\s*(\d{1,3})|(\s*\+))?|\b(\d{2})\s*(?:-|–|to)\s*(\d{2})\b|\b(\d{2})\+"
)
_NO_KIDS = re.compile(
    r"\bno (?:kids|children)\b|\bwithout (?:kids|children)\b|"
    r"\b(?:kids|children)(?:[ _]count)?\s*[:=]?\s*0\b|\b0 (?:kids|children)\b"
)
_KIDS = re.compile(
    r"\b(?:kids|children)(?:[ _]count)?\s*[:=]?\s*[1-9]|\b[1-9]\d*\+? (?:kids?|child(?:ren)?)\b|"
    r"\bwith (?:kids|children)\b|\badults? kids\b|\b(?:mother|father|parent) of\b"
)
_HOUSEHOLD = re.compile(r"\bhousehold(?:[ _]size)?(?: of|\s*[:=])?\s*(\d+)|\bsize\s*[:=]?\s*(\d+)")
_ALONE = re.compile(r"\blives? alone\b|\bsingle(?:[ -]person)?\b|\b1 adult no\b")
_FEMALE = re.compile(r"\b(?:female|woman|women|she)\b")
_MALE = re.compile(r"\b(?:male|man|men|he)\b")

_PLAIN = frozenset(
    words(
        "a an and are as at because been both but by for from had has have he her his in into is it its like of on or "
        "other others she so some such than that the their them these they this those to too was well were when which "
        "while who with also all over same including item items product products thing things shopper household "
        "customer user use used history holds"
    )
)
# What a reason says of numbers and of rhythm must be true of its rows; in names of interests it says nothing.
_SEVERAL = frozenset(
    words("much more most many lot lots several different various variety range kinds kind types type two three")
)
_OFTEN = frozenset(
    words(
        "each every year years month months week weeks time times day days again regularly repeatedly frequently often"
    )
)
_SAID = {
    "purchase": "bought buy buys buying purchased purchase purchases purchasing",
    "search": "searched search searches searching looked looking",
    "cart": "put cart added",
    "favorite": "saved",
    "detail_view": "looked looking viewed",
    "click": "looked looking viewed",
    "review_read": "read reviews",
    "coupon": "redeemed coupon",
}
_VERBS = {
    stem: frozenset(done for done, said in _SAID.items() if stem in words(said))
    for stem in words(" ".join(_SAID.values()))
}
"""What each verb claims to have been done, any of several."""
_FUNCTION_WORDS = (
    _PLAIN
    | _SEVERAL
    | _OFTEN
    | _VERBS.keys()
    | frozenset(words("shows show interest interested enjoy enjoys love loves one"))
)
# Words of names that no item needs to show.
_VAGUE = frozenset(
    words("lover enthusiast fan hobby hobbies lifestyle culture activities activity living healthy home care")
)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a free text of attributes says about a shopper; None where it says nothing."""

    youngest: int | None = None
    """Lowest age that the text allows, in years."""
    kids: bool | None = None
    household: int | None = None
    gender: str | None = None


def traits(attributes: str) -> Traits:
    """Read attributes leniently, in the words of any shop.

    >>> traits("age 65+; 1 Adult No Kids; household of 1")
    Traits(youngest=65, kids=False, household=1, gender=None)
    """
    text = attributes.lower().replace("_", " ")
    age = _AGE.search(text)
    youngest = next((int(group) for group in (age[1], age[4], age[6]) if group), None) if age else None
    kids = False if _NO_KIDS.search(text) else True if _KIDS.search(text) else None
    size = _HOUSEHOLD.search(text)
    household = int(size[1] or size[2]) if size else 1 if _ALONE.search(text) else None
    female, male = bool(_FEMALE.search(text)), bool(_MALE.search(text))
    gender = None if female == male else "female" if female else "male"
    return Traits(youngest, kids, household, gender)


def thin_history(rows: Sequence[HistoryRow], config: Config) -> str | None:
    """Abstain where there is too little to read: few actions, or all of them in one period."""
    actions = sum(mentions(row, item) for row in rows for item in row.items)
    periods = len({label for row in rows for label in row.labels})
    if actions >= config.least_actions and (periods >= config.least_periods or _undated(rows)):
        return None
    return (
        f"thin history: {actions} actions in {periods} periods; "
        f"at least {config.least_actions} in {config.least_periods} are needed"
    )


def audience_of(name: str) -> str:
    """Guess for whom an interest usually is from its name."""
    stems = frozenset(words(name))
    return next((audience for audience, known in _AUDIENCE_WORDS.items() if stems & known), "")


def gift(audience: str, attributes: str) -> str | None:
    """Exclude what fits somebody else, so was probably a gift (Appendix B, requirement 1).

    | things for | are taken as gifts where the attributes say                       |
    |------------|-------------------------------------------------------------------|
    | infants    | no children, and at least 50 years old or living alone            |
    | children   | no children, and at least 50 years old or living alone            |
    | women      | male, in a household of one or of unknown size                    |
    | men        | female, in a household of one or of unknown size                  |
    """
    who = traits(attributes)
    alone = who.household == 1
    if audience in ("infant", "child"):
        if who.kids is False and (alone or (who.youngest or 0) >= 50):
            return f"gift: things for a {audience}, but the attributes say no children"
    elif (alone or who.household is None) and (audience, who.gender) in {("women", "male"), ("men", "female")}:
        return f"gift: things for {audience}, but the attributes say {who.gender}"
    return None


def necessity(name: str, found: Support, *, listed: bool) -> str | None:
    """Reject daily needs: mostly staples behind it, or a name that is one (Table 1; Appendix B, constraint 2)."""
    if found.staples > 4 * found.mentions:
        return f"necessity: {found.staples} of {found.staples + found.mentions} supporting actions are staples"
    stems = set(words(name))
    if not listed and stems & _DUTY_WORDS and stems <= _DUTY_WORDS | _DUTY_FILLER:
        return "necessity: its name is a household duty"
    return None


def no_support(found: Support) -> str | None:
    """Reject what nothing in the history speaks for (Appendix B, constraint 1; Table 1, hallucination)."""
    return None if found.items or found.staples else "no behavior: no item or query of the history speaks for it"


def single_action(found: Support) -> str | None:
    """Reject what rests on one action (Appendix B, constraint 3)."""
    return "single action: one item, once" if found.mentions == 1 else None


def short_burst(found: Support, *, now: date, days: int) -> str | None:
    """Reject what happened in one short stretch (Appendix B, principle 3 and constraint 3).

    A label counts as its middle day. All support within `days` days is a burst, and so is all of it in a single day or
    month; a single year of at least three actions is not, because a year's label hides when in it they were.
    """
    labels = {label for row in found.rows for label in row.labels}
    spans = [days_of for label in labels if (days_of := span(label, now=now))]
    if not spans or len(spans) < len(labels):
        return None
    if len(spans) == 1 and (spans[0][1] - spans[0][0]).days > 31 and found.mentions >= 3:
        return None
    middles = [_middle(days_of) for days_of in spans]
    stretch = (max(middles) - min(middles)).days
    return f"short burst: all support within {stretch + 1} days" if len(spans) == 1 or stretch < days else None


def stage(found: Support, *, now: date, months: int) -> str:
    """Call an interest `long-term` if its support lies in at least `months` different months, else `short-term`.

    A whole year of three actions or more counts as enough months; undated support is short-term.
    """
    spans = [days for row in found.rows for label in row.labels if (days := span(label, now=now))]
    if any((last - first).days > 31 for first, last in spans) and found.mentions >= 3:
        return "long-term"
    return "long-term" if len({(first.year, first.month) for first, _ in spans}) >= months else "short-term"


def claim_terms(name: str) -> tuple[Term, ...]:
    """Turn the name of an extended interest into the words that its evidence must show."""
    plain = [stem for stem in words(name) if stem not in _FUNCTION_WORDS and stem not in _VAGUE and len(stem) > 2]
    return tuple((stem,) for stem in dict.fromkeys(plain))


def listing_fault(interest: str, pool_id: str, offered: Sequence[PoolInterest], pool: Pool) -> str | None:
    """Check that a listed interest is one that was offered, and that an extended one is a short plain name."""
    if pool_id:
        if all(pool_id != entry.pool_id for entry in offered):
            return f"not offered: pool id {pool_id!r} is not in the list"
    elif not 1 <= len(words(interest)) <= 8:
        return "name: an interest has 1 to 8 words"
    elif _is_necessity(interest, pool):
        return "necessity: its name is a household duty"
    return None


def _is_necessity(interest: str, pool: Pool) -> bool:
    """Tell whether a name says nothing but necessities of the pool, such as `baby diapers and buying milk`."""
    known = {frozenset(term) for entry in pool.necessities for term in (words(entry.name), *entry.terms)}
    filler = _DUTY_FILLER - {"and"}
    parts = [frozenset(words(part)) - filler for part in re.split(r"\band\b|[,&/]", interest.lower())]
    whole = frozenset(words(interest)) - filler
    return whole in known or all(part in known for part in parts)


def reason_fault(
    reason: str, told: Mapping[str, Sequence[str]], interest: str, *, periods: int, most_words: int, least_words: int
) -> str | None:
    """Check a reason against the evidence that it explains.

    It must have a fit length, name something of the evidence, and bring no fact of its own: every content word and
    every number must stand in the evidence, under what the verb before it says was done. A word of the interest's name
    is no exception, unless the whole name says what the items are for ("baking mixes for home baking"). Several things
    need two items, "again" two periods, and a rhythm ("often", "each month") three.

    Args:
        reason: the sentence.
        told: the items of the cited rows by what was done with them; a row counts under each of its behaviors.
        interest: its name.
        periods: distinct time labels of the cited rows.
        most_words: longest reason.
        least_words: shortest reason.
    """
    stems = words(reason)
    if not least_words <= len(stems) <= most_words:
        return f"length: {len(stems)} words, not {least_words} to {most_words}"
    known = {done: {stem for item in items for stem in words(item)} for done, items in told.items()}
    evidence = frozenset[str]().union(*known.values())
    content = [stem for stem in _without_name(stems, words(interest)) if stem not in _PLAIN | _SEVERAL | _OFTEN]
    if not evidence.intersection(content):
        return "evidence: it names nothing of the rows"
    if {"interest", "interested"}.intersection(stems):
        return "empty: it only says that there is an interest"
    own = [stem for stem in content if stem not in evidence and stem not in _VERBS]
    if own:
        return f"new facts: {', '.join(dict.fromkeys(own))}"
    items = {item for items in told.values() for item in items}
    if (_SEVERAL - evidence).intersection(stems) and len(items) < 2:
        return "untrue: one item is not several"
    rhythm = (_OFTEN - evidence).intersection(stems)
    if rhythm and periods < (2 if rhythm == {"again"} else 3):
        return f"untrue: {periods} periods are no rhythm"
    if untrue := _untrue(content, known):
        return f"untrue: {untrue}"
    said = [stem for stem in content if stem not in _VERBS]
    if _repeats(stems, 3) or _repeats(said, 2):
        return "repetition: it says the same words again"
    return None


def _without_name(stems: Sequence[str], name: Sequence[str]) -> list[str]:
    """Leave out the interest's name where it says what the items are for."""
    size = len(name)
    for start in range(1, len(stems) - size + 1):
        if stems[start - 1] in ("for", "in") and tuple(stems[start : start + size]) == tuple(name):
            return [*stems[:start], *stems[start + size :]]
    return list(stems)


def _untrue(content: Sequence[str], known: Mapping[str, Collection[str]]) -> str | None:
    """Find what was not done as the reason says: verbs in a row hold for all that follows them."""
    stated: list[frozenset[str]] = []
    verbs = False
    for stem in content:
        if stem in _VERBS and (not stated or not any(stem in words for words in known.values())):
            done = _VERBS[stem] & known.keys()
            if not done:
                return f"no cited row says {stem}"
            stated = [*stated, done] if verbs else [done]
            verbs = True
            continue
        verbs = False
        if not all(any(stem in known[one] for one in done) for done in stated):
            return f"{stem} stands in no row of what was done"
    return None


def _repeats(stems: Sequence[str], size: int) -> bool:
    phrases = [tuple(stems[start : start + size]) for start in range(len(stems) - size + 1)]
    return len(set(phrases)) < len(phrases)


def _undated(rows: Sequence[HistoryRow]) -> bool:
    return all(label == "undated" for row in rows for label in row.labels)


def _middle(days: Period) -> date:
    return days[0] + (days[1] - days[0]) // 2
