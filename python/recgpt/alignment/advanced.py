"""Advanced: what reviews say, what goods have in common, what follows from it, and writing about goods (Appendix C)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from recgpt.alignment.draft import Draft, named, options, shuffled
from recgpt.alignment.facts import Facts, Item
from recgpt.evidence import words

SHOWN = 4
"""Goods that are shown together."""
SEEN = 8
"""Latest purchases that a recommendation starts from."""
EACH = 5
"""Recommendations to one shopper, at most."""


def keywords(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """A review -> the good, the aspect, and what it names of the record; without reviews the record's own words."""
    reviewed = False
    for review in facts.said(draw):
        reviewed = True
        found = [review.item.tag, review.aspect, *_details_in(review.text, review.item)]
        if review.item.tag and any(found[1:]):
            given = named([("item", review.item.title), ("review", review.text)])
            yield Draft(given, ", ".join(filter(None, found)), review.user, review.at)
    for item in () if reviewed else shuffled(facts.items, draw):
        text = item.description or item.title
        found = [item.tag, *_details_in(text, item)]
        if item.tag and len(found) > 1 and set(words(item.tag)) <= set(words(text)):
            yield Draft(named([("item", text)]), ", ".join(found))


def _details_in(text: str, item: Item) -> list[str]:
    return [detail for detail in item.details if set(words(detail)) <= set(words(text))]


def sentiment(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """A review -> positive or negative."""
    for review in facts.said(draw):
        given = named([("item", review.item.title), ("review", review.text)])
        yield Draft(given, "positive" if review.positive else "negative", review.user, review.at)


def classification(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """A title and four shelves -> its own shelf."""
    shelves = sorted(facts.by_category)
    for item in shuffled(facts.items, draw):
        if item.title and item.category and len(shelves) > 1:
            choices = options(item.category, shelves, draw)
            yield Draft(named([("text", item.title), ("shelves", "; ".join(choices))]), item.category)


def induction(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """Goods that somebody bought -> the interest that they have in common, of the pool and by their words."""
    for life in facts.lives(draw):
        for interest, goods in facts.bought_for(life).items():
            if len(goods) >= SHOWN - 1:
                tags = draw.sample(list(goods), min(SHOWN, len(goods)))
                yield Draft(", ".join(tags), interest, life.user, max(goods[tag] for tag in tags))


def deduction(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """What an interest needs, and what somebody of that interest has -> what is missing."""
    goods = {
        interest: tags
        for interest, items in facts.by_interest.items()
        if len(tags := list(dict.fromkeys(item.tag for item in items if item.tag))) > 1
    }
    while goods:
        for interest in shuffled(sorted(goods), draw):
            needed = draw.sample(goods[interest], min(SHOWN, len(goods[interest])))
            had = needed[: draw.randint(1, len(needed) - 1)]
            given = named([
                ("rule", f"who likes {interest} needs {', '.join(sorted(needed))}"),
                ("shopper", f"likes {interest} and has {', '.join(had)}"),
            ])  # fmt: skip
            yield Draft(given, ", ".join(sorted(set(needed) - set(had))))


def recommendation(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """The latest purchases and four goods -> the one that was bought next, new to the shopper."""
    for life in facts.lives(draw):
        bought = life.bought
        tags = [facts.items[event.item].tag for event in bought]
        had = set(tags)
        first = {tag: place for place, tag in reversed(list(enumerate(tags)))}
        new = sorted(place for tag, place in first.items() if tag and place >= SHOWN)
        for place in draw.sample(new, min(EACH, len(new))):
            past = list(dict.fromkeys(tag for tag in tags[max(0, place - SEEN) : place] if tag))
            # Wrong answers are drawn by how often goods stand in the catalogue, and were never bought by this shopper.
            others = [item.tag for item in draw.choices(facts.items, k=4 * SHOWN) if item.tag and item.tag not in had]
            choices = options(tags[place], others, draw)
            if past and len(choices) == SHOWN:
                lines = [("shopper", life.attributes), ("bought", ", ".join(past)), ("goods", "; ".join(choices))]
                yield Draft(named(lines), tags[place], life.user, bought[place].at)


def description(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """The facts of an item -> the catalogue's own description, where it says nothing that the facts do not."""
    for item in shuffled(facts.items, draw):
        known = set(words(" ".join([item.title, *item.path, item.brand, *item.details])))
        if item.description and set(words(item.description)) <= known:
            given = named([
                ("title", item.title), ("category", " > ".join(item.path)), ("brand", item.brand),
                ("details", "; ".join(item.details)),
            ])  # fmt: skip
            yield Draft(given, item.description)
