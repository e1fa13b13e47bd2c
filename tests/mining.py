"""What the tests of stage 4 share: two histories, and an engine that likes what the prompt names."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pyarrow as pa

from recgpt import interests
from recgpt.evidence import longest_hit, words
from recgpt.llm.engine import Prompt, Request, Result, ScoreRequest, ScoreResult, Usage

NOW = datetime(2017, 12, 18, tzinfo=UTC)
POOL = interests.Pool.load()
TERMS = {entry.name: entry.terms for entry in POOL.interests}

CAMPER = "\n".join(
    [
        "r1 17-06 (purchase) | Dome tent, Whole milk 1 gal, White bread",
        "r2 17-09 (purchase) | Camp stove fuel, Fluid milk, Toilet tissue",
        'r3 17-11-25 (search) | "sleeping bag"',
        "r4 17-12-02 (purchase) | Whole milk 1 gal, Paper towels",
        "r5 17-12-10 (purchase) | Sleeping bag, White bread",
    ]
)
CAT = "\n".join(
    [
        "r1 17-05 (purchase) | CAT LITTER 20 LB, White bread",
        "r2 17-08 (purchase) | CANNED CAT FOOD, Paper towels",
        "r3 17-11-20 (purchase) | CAT LITTER 20 LB, DRY CAT FOOD",
        "r4 17-12-03 (purchase) | CANNED CAT FOOD",
    ]
)


class Scripted:
    """An engine that likes a candidate more, the more words of its pool terms stand in the prompt."""

    name = "scripted"
    context_tokens = 4096

    def __init__(self, answer: Callable[[Request], str] | None = None) -> None:
        self.answer = answer or copying
        self.scored: list[ScoreRequest] = []
        self.asked: list[Request] = []
        self.calls = 0

    def generate(self, requests: Sequence[Request], progress: object = None) -> list[Result]:
        self.calls += 1
        self.asked += requests
        return [Result("ok", self.answer(request), usage=Usage(10, 5, 2)) for request in requests]

    def score(self, requests: Sequence[ScoreRequest], progress: object = None) -> list[ScoreResult]:
        self.calls += 1
        self.scored += requests
        return [
            ScoreResult("ok", tuple(self.like(request.prompt, name) for name in request.candidates),
                        (1,) * len(request.candidates), usage=Usage(10, 5, 0))
            for request in requests
        ]  # fmt: skip

    def like(self, prompt: Prompt, candidate: str) -> float:
        terms = TERMS.get(candidate.strip(), (words(candidate),))
        lines = prompt.user.split("\n")
        return -5.0 + sum(longest_hit(part, terms) > 0 for line in lines for part in line.split(", "))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def close(self) -> None:
        """Nothing to free."""


def copying(request: Request) -> str:
    """Finish the sentence with the first two items that were shown."""
    items = request.prompt.user.split("<<<items\n")[1].split("\nitems>>>")[0].split("\n")
    return " " + " and ".join(items[:2]) + " again"


def tables(**users: tuple[str, str]) -> tuple[pa.Table, pa.Table]:
    who = pa.table({"user_id": list(users), "attributes": [attributes for attributes, _ in users.values()]})
    hist = pa.table({"user_id": list(users), "text": [text for _, text in users.values()]})
    return who, hist


def mined(*, config: interests.Config | None = None, engine: Scripted | None = None, **users: tuple[str, str]):
    who, hist = tables(**users)
    return interests.mine(who, hist, engine=engine or Scripted(), now=NOW, config=config)


def reasons_of(result: interests.Mined, name: str) -> list[str]:
    return [row["reason"] for row in result.rejections.to_pylist() if row["text"] == name]


def written(**changes: object) -> dict[str, object]:
    return {
        "id": "camping",
        "interest": "camping",
        "stage": "long-term",
        "reason": "They bought a dome tent and a sleeping bag.",
        "evidence": [1, 5],
    } | changes


def generated(*entries: dict[str, object], text: str = CAMPER, raw: str | None = None) -> interests.Mined:
    who, hist = tables(user=("age 35-44", text))
    answer = raw if raw is not None else json.dumps({"interests": entries})
    return interests.mine(who, hist, engine=Scripted(lambda _: answer), now=NOW, mode="generate")
