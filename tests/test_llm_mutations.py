"""Ten thousand broken answers: nothing that breaks its schema is believed, and none of them stops a stage."""

import json
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from recgpt import categories, interests, schema, tags
from recgpt.interests.generate import InterestAnswer
from recgpt.llm import FakeEngine, grammar
from recgpt.llm.engine import Result
from recgpt.tags.generation import TagAnswer

NOW = datetime(2024, 3, 15, tzinfo=UTC)
INTEREST = {
    "id": "",
    "interest": "home baking",
    "stage": "long-term",
    "reason": "Bought flour and yeast in two months.",
    "evidence": [1, 2],
}
TAG = {"tag": "bread tin", "interest": "", "reason": "Bought flour, so a bread tin helps with baking."}
PIECES = [
    "{", "}", "[", "]", '"', ":", ",", "NaN", "Infinity", "-Infinity", "1e999", "\\u0000", "\\ud800", "\x00",
    "\x1b[31m", "null", "true", "😀", " ", "9" * 30, "9" * 5000, '"rank": 1,', '"interests": [],', '"tags": [],',
    "\\", "'", "//", "0x1",
    "<|im_end|>", "\ufeff", "\u202e", "-0", "1.0", "01", '"' + "a" * 3000 + '"', "[" * 3000, '{"a":' * 3000,
]  # fmt: skip


class TagAnswers(BaseModel):
    """What the tags stage asks for, said a second time in pydantic's words."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tags: list[TagAnswer]


def mutations(good: dict[str, Any], count: int, seed: int) -> list[str]:
    """Different texts around a good answer: cut, doubled, spliced, of other types, nested, huge, with doubled keys."""
    draw = random.Random(seed)
    whole = json.dumps(good)
    (key,) = good
    texts: dict[str, None] = {}
    while len(texts) < count:
        text = whole
        for _ in range(draw.randint(1, 3)):
            at, end = sorted(draw.randrange(len(text) + 1) for _ in range(2))
            move = draw.randrange(9)
            if move == 0:
                text = text[:at] + text[min(end, at + 8) :]
            elif move == 1:
                text = text[:at] + draw.choice(PIECES) + text[at:]
            elif move == 2:
                text = text[:at]
            elif move == 3:
                text = text[:at] + text[at:end] * draw.choice((0, 2, 30)) + text[end:]
            elif move == 4:
                field = draw.choice([*good[key][0], key])
                odd: Any = draw.choice(
                    [None, True, draw.random(), -1, "", [], {}, [[]], "x" * 5000, [1] * 50, {"a": 1}]
                )
                changed = {key: [{**good[key][0], field: odd}]} if field != key else {key: odd}
                text = json.dumps(changed)
            elif move == 5:
                text = draw.choice(("[", '{"a":', '{"interests":[')) * draw.choice((5, 1000, 30_000)) + text
            elif move == 6:
                text = json.dumps(good)[:-1] + f', "{key}": {json.dumps(good[key])}' + "}"
            elif move == 7:
                field = draw.choice(list(good[key][0]))
                text = json.dumps({key: [{k: v for k, v in good[key][0].items() if k != field}]})
            elif draw.random() < 0.05:
                text = text + " " * 200_000
        texts[text] = None
    return list(texts)


def doubled(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("doubled")
    return dict(pairs)


def constant(name: str) -> Any:
    raise ValueError(name)


def judged(text: str, model: type[BaseModel]) -> BaseModel | None:
    """The value of a text by rules of our own: strict JSON, no doubled keys, strict pydantic."""
    try:
        return model.model_validate(json.loads(text, object_pairs_hook=doubled, parse_constant=constant))
    except (ValueError, RecursionError, ValidationError):
        return None


GOOD = {"interests": [INTEREST]}
GOOD_TAGS = {"tags": [TAG]}


@pytest.mark.parametrize(
    ("good", "model", "wanted"),
    [
        (GOOD, InterestAnswer, grammar.from_model(InterestAnswer)),
        (GOOD_TAGS, TagAnswers, tags.generation.answer_schema(10)),
    ],
    ids=["interests", "tags"],
)
def test_of_ten_thousand_mutations_only_valid_ones_are_accepted(good, model, wanted) -> None:
    accepted = Counter()
    for text in mutations(good, 10_000, seed=1):
        value, reason = grammar.parse(text, wanted)
        assert (value is None) == bool(reason)
        accepted[value is not None] += 1
        if value is not None:
            theirs = judged(text, model)
            assert theirs is not None, text[:300]
            assert theirs.model_dump() == value
            assert not any(ord(character) < 32 for character in text.replace("\\", ""))
    # Some mutations are harmless; most are not.
    assert 100 < accepted[True] < 5_000


def blind(texts: list[str]) -> FakeEngine:
    """An engine that ignores grammars, and says of everything that it is fine."""
    left = iter(texts)

    def answer(request: Any) -> Result:
        text = next(left)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = {"tags": [TAG], "interests": [INTEREST]}
        return Result("ok", text, value, "")

    return FakeEngine(answer, context_tokens=1 << 40)


HISTORY = (
    "r1 24-01 (purchase), 24-02-20 (purchase) | bread flour, baking yeast, cake tin\n"
    "r2 23-12 (purchase), 24-02-25 (search) | rolling pin, vanilla extract, bread flour, muffin tray"
)


def attributes(users: list[str]) -> pa.Table:
    return schema.rows([{"user_id": user, "attributes": None} for user in users], schema.USERS)


def users_of(count: int) -> list[str]:
    return [f"u{number:05d}" for number in range(count)]


def through_interests(count: int, seed: int) -> tuple[int, int]:
    texts = mutations(GOOD, count, seed)
    users = users_of(count)
    hist = pa.table({"user_id": users, "text": [HISTORY] * count})
    mined = interests.mine(attributes(users), hist, engine=blind(texts), now=NOW, mode="generate")
    valid = {user: judged(text, InterestAnswer) for user, text in zip(users, texts, strict=True)}
    for row in mined.table.to_pylist():
        answer = valid[row["user_id"]]
        assert answer is not None
        assert row["rank"] <= len(answer.interests)
    unscored = {row["user_id"]: row for row in mined.rejections.to_pylist() if row["status"] == "unscored"}
    texts_of = dict(zip(users, texts, strict=True))
    for user, answer in valid.items():
        if answer is None:
            assert unscored[user]["raw"] == texts_of[user]
            assert unscored[user]["reason"].startswith(("parse: ", "schema: "))
    return mined.table.num_rows, len(unscored)


def through_tags(count: int, seed: int) -> tuple[int, int]:
    texts = mutations(GOOD_TAGS, count, seed)
    users = users_of(count)
    items = schema.rows([{"item_id": "1", "title": "flour", "category": "Baking"}], schema.ITEMS)
    events = schema.rows(
        [
            {"user_id": user, "item_id": "1", "behavior": "purchase", "timestamp": datetime(2024, 1, 1, tzinfo=UTC)}
            for user in users
        ],
        schema.EVENTS,
    )
    predicted = tags.predict(
        attributes(users), schema.rows([], schema.INTERESTS), events, engine=blind(texts), now=NOW,
        categories=categories.fit(items), items=items,
        item_tags=tags.item_tags(items), mode="generate", config=tags.Config(quantity=10),
    )  # fmt: skip
    valid = {user: judged(text, TagAnswers) for user, text in zip(users, texts, strict=True)}
    assert {row["user_id"] for row in predicted.table.to_pylist()} <= {user for user in users if valid[user]}
    unscored = {row["user_id"]: row for row in predicted.rejections.to_pylist() if row["status"] == "unscored"}
    assert {user for user, answer in valid.items() if answer is None} <= unscored.keys()
    texts_of = dict(zip(users, texts, strict=True))
    assert all(row["raw"] == texts_of[user] for user, row in unscored.items())
    return predicted.table.num_rows, len(unscored)


@pytest.mark.parametrize("through", [through_interests, through_tags])
def test_broken_answers_do_not_stop_a_stage(through) -> None:
    kept, unscored = through(200, seed=2)
    assert kept > 0
    assert unscored > 100


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("through", [through_interests, through_tags])
def test_five_thousand_broken_answers_do_not_stop_a_stage(through) -> None:
    assert through(5_000, seed=3)[1] > 2_500
