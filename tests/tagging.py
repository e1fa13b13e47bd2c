"""What the tests of stage 5 share: a small shop, its log, and an engine that answers by function."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from recgpt import schema, tags
from recgpt.llm.engine import Request, Result, ScoreRequest, ScoreResult

NOW = datetime(2017, 12, 18, tzinfo=UTC)


class Scripted:
    """A stand-in engine: answers by function, remembers what it was asked."""

    name = "scripted"
    context_tokens = 4096

    def __init__(self, answer=None, score=None) -> None:
        self.answer = answer or (lambda request: " share with friends")
        self.scoring = score or (lambda request: [-float(len(text)) for text in request.candidates])
        self.generated: list[list[Request]] = []
        self.scored: list[list[ScoreRequest]] = []

    def generate(self, requests: Sequence[Request], progress=None) -> list[Result]:
        self.generated.append(list(requests))
        answers = [self.answer(request) for request in requests]
        return [answer if isinstance(answer, Result) else Result("ok", answer) for answer in answers]

    def score(self, requests: Sequence[ScoreRequest], progress=None) -> list[ScoreResult]:
        self.scored.append(list(requests))
        results = []
        for request in requests:
            values = self.scoring(request)
            done = values is not None
            results.append(
                ScoreResult("ok", tuple(values), (1,) * len(values))
                if done
                else ScoreResult("unscored", reason="engine: x")
            )
        return results

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def close(self) -> None:
        pass


KINDS = {
    "1": ("SALSA - MILD, 12 OZ, National", "DIPS"),
    "2": ("TORTILLA CHIPS", "SNACKS"),
    "3": ("POTATO CHIPS, Private", "SNACKS"),
    "4": ("ICE - CRUSHED/CUBED", "FRZN ICE"),
    "5": ("DRY CAT FOOD", "PETS"),
    "6": ("SCOOP CAT LITTER", "PETS"),
    "7": ("SMART SET", None),
    "8": ("BREAD:ITALIAN/FRENCH", "BAKERY"),
}


def catalogue() -> pa.Table:
    records = [
        {"item_id": item, "title": title, "category": category, "brand": "Private" if item == "3" else "Acme"}
        for item, (title, category) in KINDS.items()
    ]
    return schema.rows(records, schema.ITEMS)


def log(*rows: tuple) -> pa.Table:
    """Rows of (user, item or query, behavior, days before NOW)."""
    return schema.rows(
        [
            {
                "user_id": user,
                "item_id": None if behavior == "search" else thing,
                "query": thing if behavior == "search" else None,
                "behavior": behavior,
                "timestamp": NOW - timedelta(days=days),
            }
            for user, thing, behavior, days in rows
        ],
        schema.EVENTS,
    )


EVENTS = log(
    ("ann", "2", "purchase", 60),
    ("ann", "3", "purchase", 5),
    ("ann", "4", "click", 2),
    ("ann", "dry cat food cheap", "search", 3),
    ("bob", "2", "purchase", 40),
    ("bob", "1", "purchase", 40),
    ("cid", "2", "purchase", 50),
    ("cid", "1", "purchase", 45),
    ("cid", "8", "purchase", 45),
    ("dan", "5", "purchase", 33),
    ("dan", "6", "purchase", 33),
    ("dan", "1", "purchase", -1),
)
USERS = schema.rows(
    [{"user_id": "ann", "attributes": "age 35-44"}, {"user_id": "zoe", "attributes": None}], schema.USERS
)


def interest(user: str, *texts: str) -> list[dict]:
    return [
        {
            "user_id": user,
            "rank": rank,
            "interest": text,
            "listed": True,
            "stage": "long-term",
            "evidence": [1],
            "source": "rank",
        }
        for rank, text in enumerate(texts, 1)
    ]


INTERESTS = schema.rows(interest("ann", "salsa dancing", "bread baking"), schema.INTERESTS)
CATEGORY = {"mild salsa": "DIPS", "tortilla chip": "SNACKS", "potato chip": "SNACKS", "crushed ice": "FRZN ICE",
            "dry cat food": "PETS", "scoop cat litter": "PETS", "italian bread": "BAKERY"}  # fmt: skip


def phi(texts: list[str]) -> list[str]:
    return [CATEGORY.get(text, "SNACKS") for text in texts]


def predict(engine: Scripted, **options):
    given = {"users": USERS, "interests": INTERESTS, "events": EVENTS} | options
    items = given.pop("items", catalogue())
    return tags.predict(
        given.pop("users"), given.pop("interests"), given.pop("events"), engine=engine, now=NOW, categories=phi,
        items=items, item_tags=tags.item_tags(items), **given,
    )  # fmt: skip


TERMS = {
    "cat ownership": ["cat food", "litter"],
    "party snacks": ["salsa", "chip"],
    "home baking": ["bread", "flour"],
    tags.STAPLES: ["white bread", "crushed ice"],
}


def answered(*triplets: tuple[str, str, str]) -> Result:
    value = {"tags": [dict(zip(("tag", "interest", "reason"), triplet, strict=True)) for triplet in triplets]}
    return Result("ok", json.dumps(value), value)
