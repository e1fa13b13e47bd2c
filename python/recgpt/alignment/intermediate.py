"""Intermediate: what to buy, what a concept means, what sets an item apart, and mending searches (Appendix C)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from difflib import SequenceMatcher
from itertools import pairwise
from statistics import median

from recgpt.alignment.draft import Draft, named, shuffled
from recgpt.alignment.facts import Facts, Item, Life
from recgpt.evidence import words

FEW = 3
"""Items that stand for a category or an interest."""
NEXT = timedelta(days=60)
"""What was bought so long after counts as what was needed next."""
REFINED = timedelta(minutes=10)
"""A search so soon after another one is the same search in other words."""
CLOSE = 0.8
"""Likeness from which two searches differ by a slip of the fingers only (ratio of matching letters)."""


def what_to_buy(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """A question of somebody of whom a little is known -> the goods: as truth says, then as people went on to buy."""
    for question in facts.questions(draw):
        given = named([("shopper", question.attributes), ("question", question.question)])
        yield Draft(given, ", ".join(question.answer[:FEW]), question.user, question.at)
    for life in facts.lives(draw):
        yield from _bought_next(facts, life)


def _bought_next(facts: Facts, life: Life) -> Iterator[Draft]:
    """For each interest that somebody bought for twice: what they had, and what came next."""
    for interest, goods in facts.bought_for(life).items():
        tags = list(goods)
        for at in range(1, len(tags)):
            following = [tag for tag in tags[at:] if goods[tag] - goods[tags[at]] <= NEXT][:FEW]
            given = named([
                ("shopper", life.attributes), ("has", ", ".join(tags[max(0, at - FEW) : at])),
                ("question", f"what do I still need for {interest}?"),
            ])  # fmt: skip
            yield Draft(given, ", ".join(following), life.user, goods[following[-1]])


def concept(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """A category -> where it stands, what is in it, and what it costs, from its own items."""
    for name in shuffled(sorted(facts.by_category), draw):
        items = facts.by_category[name]
        kinds = [tag for tag, _ in Counter(item.tag for item in items if item.tag).most_common(FEW)]
        prices = [item.price for item in items if item.price is not None]
        if len(items) < FEW or not kinds:
            continue
        wide = items[0].path[-2] if len(items[0].path) > 1 else ""
        said = [f"{name} is a shelf of {wide}." if wide else f"{name} is a shelf of the shop.",
                f"It holds goods such as {', '.join(kinds)}."]  # fmt: skip
        if prices:
            said.append(f"Half of them cost {median(prices):.2f} or less.")
        yield Draft(name, " ".join(said))


def selling_point(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """An item among others of its category -> what it alone says of itself, word for word from its record."""
    for item in shuffled(facts.items, draw):
        rivals = [other for other in facts.by_category.get(item.category, ()) if other is not item and other.title]
        if not item.tag or len(rivals) < FEW:
            continue
        rivals = draw.sample(rivals, FEW)
        own = [part for part in (*item.details, *item.tag.split()) if not any(_says(rival, part) for rival in rivals)]
        if own:
            given = named([("item", _shown(item)), ("others", "; ".join(map(_shown, rivals)))])
            yield Draft(given, ", ".join(own))


def _shown(item: Item) -> str:
    return ", ".join([item.title, *(detail for detail in item.details if detail not in item.title)])


def _says(item: Item, part: str) -> bool:
    return set(words(part)) <= set(words(f"{_shown(item)} {item.description}"))


def query_correction(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """A misspelt search -> what was meant; where no truth says so, the almost equal words that were typed next."""
    known = False
    for user, at, query, ware in facts.meant("misspelt", draw):
        known = True
        yield Draft(query, ware, user, at)
    for life in () if known else facts.lives(draw):
        for first, after in _retyped(life):
            fewer = set(words(first[0])) >= set(words(after[0]))
            if not fewer and SequenceMatcher(None, first[0], after[0]).ratio() >= CLOSE:
                yield Draft(first[0], after[0], life.user, after[1])


def query_rewriting(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """A vague search -> the good it was after; where no truth says so, the fuller words that were typed next."""
    known = False
    for user, at, query, ware in facts.meant("vague", draw):
        known = True
        yield Draft(named([("shopper", facts.users.get(user, "")), ("search", query)]), ware, user, at)
    for life in () if known else facts.lives(draw):
        for first, after in _retyped(life):
            if set(words(first[0])) < set(words(after[0])):
                given = named([("shopper", life.attributes), ("search", first[0])])
                yield Draft(given, after[0], life.user, after[1])


def _retyped(life: Life) -> Iterator[tuple[tuple[str, datetime], tuple[str, datetime]]]:
    """Pairs of searches of which the second follows at once."""
    typed = [(event.query, event.at) for event in life.events if event.query]
    for first, after in pairwise(typed):
        if first[0].lower() != after[0].lower() and after[1] - first[1] <= REFINED:
            yield first, after
