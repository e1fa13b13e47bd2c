"""Foundation: what a search is after, and what a title says (Appendix C)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from recgpt.alignment.draft import Draft, apart, named, shuffled
from recgpt.alignment.facts import Facts, Item
from recgpt.evidence import words


def query_category(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """A search -> the category of what was looked at soon after, where the two share a word."""
    for search in facts.searches(draw):
        if search.item.category and _meet(search.query, search.item):
            yield Draft(search.query, search.item.category, search.user, search.at)


def query_relevance(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """A search and a title -> whether the item answers it; every second one with an item that shares no word."""
    wrong = False
    for search in facts.searches(draw):
        shown: Item | None = search.item
        if not _meet(search.query, search.item):
            continue
        if wrong:
            shown = apart(search.item, facts.items, draw)
        if shown is None or (wrong and _meet(search.query, shown)):
            continue
        given = named([("search", search.query), ("item", shown.title)])
        yield Draft(given, "not relevant" if wrong else "relevant", search.user, search.at)
        wrong = not wrong


def title_information(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """A title -> what it is, its brand and its details, as far as the catalogue has them and the title says them."""
    for item in shuffled(facts.items, draw):
        lines = [("kind", item.tag), ("brand", item.brand), ("details", ", ".join(item.details))]
        said = [(name, value) for name, value in lines if value and set(words(value)) <= set(words(item.title))]
        if len(said) > 1:
            yield Draft(item.title, named(said))


def item_points(facts: Facts, draw: random.Random) -> Iterator[Draft]:
    """A whole record -> its points, one a line: kind, details, brand, price."""
    for item in shuffled(facts.items, draw):
        price = "" if item.price is None else f"{item.price:.2f}"
        points = [item.tag, *item.details, item.brand and f"by {item.brand}", price and f"costs {price}"]
        given = named([("title", item.title), ("category", " > ".join(item.path)), ("about", item.description),
                       ("brand", item.brand), ("details", "; ".join(item.details)), ("price", price)])  # fmt: skip
        if item.title and sum(map(bool, points)) > 2:
            yield Draft(given, "\n".join(f"- {point}" for point in points if point))


def _meet(query: str, item: Item) -> bool:
    """Tell whether a search and an item share a word: what was looked at next may be something else altogether."""
    return bool(set(words(query)) & set(words(f"{item.title} {item.category}")))
