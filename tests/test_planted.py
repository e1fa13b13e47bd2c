"""Scores against a planted truth: by hand on two users, then the whole command with the scripted engine."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from planting import evaluate
from typer.testing import CliRunner

from recgpt import errors, pipeline, schema
from recgpt.cli import app
from recgpt.cli.planted import show
from recgpt.datasets.world import START
from recgpt.evaluation.metrics import Score
from recgpt.evaluation.planted import interests as scores
from recgpt.evaluation.planted import stages
from recgpt.evaluation.planted.behind import Behind, behind, thing
from recgpt.pipeline import planted

NOW = START + timedelta(days=100)


def at(day: int) -> Any:
    return START + timedelta(days=day)


ITEMS = {
    "tent": ("Vela dome tent", "camping", "dome tent", None, "interest"),
    "stove": ("Vela camp stove", "camping", "camp stove", None, "interest"),
    "milk": ("whole milk", "milk", "whole milk", None, "necessity"),
    "racket": ("tennis racket", "tennis and racket sports", "tennis racket", None, "interest"),
    "bracelet": ("tennis bracelet", "jewelry", "tennis bracelet", "tennis and racket sports", "interest"),
    "lotion": ("sunscreen lotion", "sun protection", "sunscreen lotion", None, "season"),
    "rod": ("fishing rod", "fishing", "fishing rod", None, "interest"),
}
# (user, item or query, cause, interest, ware meant), one a day from day 1.
LOG = [
    ("a", "tent", "interest", "camping", None),
    ("a", "stove", "interest", "camping", None),
    ("a", '"dome tnt"', "interest", "camping", "dome tent"),
    ("a", "milk", "necessity", None, None),
    ("a", "lotion", "season", None, None),
    ("a", "rod", "gift", None, None),
    ("a", "bracelet", "interest", "jewelry", None),
    ("b", "racket", "interest", "tennis and racket sports", None),
    ("b", "racket", "interest", "tennis and racket sports", None),
]


@pytest.fixture
def truth() -> dict[str, Behind]:
    pool = planted.Pool()
    events = schema.rows(
        [
            {
                "user_id": user,
                "item_id": None if what.startswith('"') else what,
                "behavior": "search" if what.startswith('"') else "purchase",
                "timestamp": at(day),
                "query": what.strip('"') if what.startswith('"') else None,
            }
            for day, (user, what, *_) in enumerate(LOG, start=1)
        ]
        # After `now`: nobody may know of it.
        + [{"user_id": "b", "item_id": "rod", "behavior": "purchase", "timestamp": NOW}],
        schema.EVENTS,
    )
    causes = [{"cause": cause, "interest": interest, "meant": meant} for _, _, cause, interest, meant in LOG]
    planted_rows = [
        ("a", "camping", "long-term", at(-500), None),
        ("a", "jewelry", "short-term", at(2), at(20)),
        ("a", "golf", "long-term", at(0), None),
        ("b", "tennis and racket sports", "long-term", at(50), None),
    ]
    facts = {
        "causes": pa.Table.from_pylist([*causes, {"cause": "interest", "interest": "fishing", "meant": None}]),
        "items": pa.Table.from_pylist(
            [
                {"item_id": name, "theme": theme, "ware": ware, "resembles": like, "kind": kind}
                for name, (_, theme, ware, like, kind) in ITEMS.items()
            ]
        ),
        "interests": pa.Table.from_pylist(
            [
                {"user_id": user, "interest": name, "stage": stage, "start": start, "end": end}
                for user, name, stage, start, end in planted_rows
            ]
        ),
    }
    items = schema.rows([{"item_id": name, "title": title} for name, (title, *_) in ITEMS.items()], schema.ITEMS)
    briefs = schema.rows(
        [{"item_id": name, "brief": title, "tokens": 1, "category": None} for name, (title, *_) in ITEMS.items()],
        schema.BRIEFS,
    )
    return behind(events, facts, items, briefs, ["a", "b"], now=NOW, hits=pool.hits)


def test_behind_a_log(truth: dict[str, Behind]) -> None:
    a, b = truth["a"], truth["b"]
    assert a.planted == {"camping": "long-term", "jewelry": "short-term"}  # nothing shows golf
    assert a.wanted == {"camping"}  # one bracelet is too little to ask for
    assert a.live == {"camping"}  # jewelry ended on day 20
    assert a.things["camping"] == {"Vela dome tent", "Vela camp stove", '"dome tnt"', ""}
    assert b.planted == {"tennis and racket sports": "short-term"}  # 50 days old: nobody could know more
    assert b.wanted == set()
    assert "fishing" not in b.hit
    assert a.hit["tennis and racket sports"] == [("interest", "jewelry")]
    assert (thing("Vela dome tent #2"), thing("Outdoor x12"), thing('"tea" x2')) == (
        "Vela dome tent",
        "Outdoor",
        '"tea"',
    )


def mined(*rows: tuple[str, str, str, list[int]]) -> pa.Table:
    return schema.rows(
        [
            {
                **{"user_id": user, "rank": 1, "interest": name, "listed": True, "source": "rank"},
                **{"stage": stage, "evidence": cited},
            }
            for user, name, stage, cited in rows
        ],
        schema.INTERESTS,
    )  # fmt: skip


def test_scores_of_interests_by_hand(truth: dict[str, Behind]) -> None:
    pool = planted.Pool()
    histories = {
        "a": "r1 24 (purchase) | Vela dome tent, whole milk\nr2 24 (purchase) | fishing rod\n"
        'r3 24 (search) | "dome tnt"'
    }
    found = scores.score(
        mined(
            ("a", "camping", "long-term", [1, 2, 3]),  # right; two of three rows show it
            ("a", "jewelry", "long-term", []),  # right, wrong stage
            ("a", "fishing", "long-term", [2]),  # a gift: weak, and its row does not count
            ("a", "tennis and racket sports", "short-term", []),  # the bracelet: none
            ("a", "beach and sun", "short-term", []),  # a need of the season: necessity
            ("a", "milk", "long-term", []),  # necessity by name
            ("a", "golf", "long-term", []),  # planted, but nothing shows it: hallucination
            ("a", "stamp dealing", "long-term", []),  # in no pool and no text: hallucination
        ),
        histories,
        truth,
        resolve=pool.resolve,
        necessities=pool.necessities,
    )  # fmt: skip
    assert found.classes == {"right": 2, "necessity": 2, "weak": 1, "none": 1, "hallucination": 2}
    assert found.precision.per_user[0] == 2 / 8
    assert found.recall.per_user[0] == 1 / 1
    assert found.f1.per_user[0] == pytest.approx(2 * (2 / 8) * 1 / (2 / 8 + 1))
    assert found.stage.per_user[0] == 1 / 2
    assert found.evidence.per_user[0] == 2 / 4
    assert found.live.per_user[0] == 1 / 2
    assert found.hallucination.per_user[0] == 2 / 8
    # b: nothing mined and nothing that had to be found.
    assert all(np.isnan(score.per_user[1]) for score in found[:7])
    assert found.precision.mean == 2 / 8


def test_nothing_right_is_nothing(truth: dict[str, Behind]) -> None:
    pool = planted.Pool()
    empty = scores.score(schema.INTERESTS.empty_table(), {}, truth, resolve=pool.resolve)
    assert (empty.recall.per_user[0], empty.f1.per_user[0]) == (0.0, 0.0)
    assert math.isnan(empty.precision.mean)
    wrong = scores.score(mined(("a", "sushi and japanese food", "x", [])), {}, truth, resolve=pool.resolve)
    assert (wrong.precision.mean, wrong.f1.mean) == (0.0, 0.0)
    unknown = scores.score(mined(("a", "tnt", "x", [])), {}, truth, resolve=lambda text: None)
    assert unknown.classes["none"] == 1  # its word stands in a search, but it is nothing of the user's


WANTS = pa.Table.from_pylist(
    [
        {"user_id": "a", "ware": "camp stove", "category": "Outdoor > Stove"},
        {"user_id": "a", "ware": "dome tent", "category": "Outdoor > Tent"},
    ]
)


def tagged(*rows: tuple[int, str, str | None]) -> pa.Table:
    return schema.rows(
        [{"user_id": "a", "rank": rank, "tag": tag, "interest": why, "source": "rank"} for rank, tag, why in rows],
        schema.TAGS,
    )


def test_scores_of_tags_by_hand() -> None:
    facts = {
        "items": pa.Table.from_pylist([{"ware": one[2], "theme": one[1]} for one in ITEMS.values()]),
        "wants": WANTS,
    }
    phi = {
        "compact camp stoves": "Outdoor > Stove",
        "fishing rod": "Outdoor > Rod",
        "smart coaster": "Outdoor > Stove",
        "graphite tennis racket": "Sport > Racket",
    }
    found = stages.tag_scores(
        tagged(
            (1, "compact camp stoves", "camping"),
            (2, "fishing rod", "camping"),
            (3, "smart coaster", None),
            (4, "graphite tennis racket", "tennis and racket sports"),
        ),
        facts,
        ["a", "b"],
        categories=lambda texts: [phi[text] for text in texts],
        resolve=planted.Pool().resolve,
    )
    assert found.hr.per_user.tolist()[0] == 1 / 2  # the stove's category of stove and tent
    assert found.valid.mean == 3 / 4  # no shop has a smart coaster
    assert found.fitting.mean == 2 / 3  # a rod is not for camping
    assert found.wanted.mean == 1 / 4
    assert np.isnan(found.hr.per_user[1])
    items = pa.table({"item_id": ["x", "y"], "category": ["Outdoor > Tent", "Food"]})
    bought = schema.rows([{"user_id": "z", "item_id": "x", "behavior": "purchase", "timestamp": at(1)}], schema.EVENTS)
    assert stages.popular_hr(bought, items, facts, ["a"]).mean == 1 / 2


def test_scores_of_explanations_by_hand(truth: dict[str, Behind]) -> None:
    facts = {"items": pa.Table.from_pylist([{"item_id": name, "theme": one[1]} for name, one in ITEMS.items()])}
    texts = schema.rows(
        [
            {"interest": why, "item_id": item, "text": "x", "source": "rank"}
            for why, item in (("camping", "tent"), ("camping", "milk"), ("fishing", "rod"), (None, "stove"))
        ],
        schema.EXPLANATIONS,
    )
    found = stages.explanation_scores(
        texts,
        mined(("a", "camping", "x", []), ("a", "fishing", "x", [])),
        {"a": ["tent", "milk", "rod", "stove"], "b": ["tent"]},
        facts,
        truth,
        resolve=planted.Pool().resolve,
    )
    assert (found.linked, found.pairs) == (2 / 3, 3)  # milk is not for camping
    assert found.explained.per_user.tolist() == [3 / 4, 0.0]  # b was mined nothing
    assert found.supported.mean == 1 / 3  # the tent; milk is no camping, fishing was a gift


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_every_stage_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    found = evaluate(tmp_path)
    assert found["world"]["users"] == 40
    assert found["llm_users"] == 4
    assert found["engine"].startswith("fake")
    for name in ("precision", "recall", "f1", "stage", "evidence"):
        value = found["interests"][name]
        assert 0 <= value["low"] <= value["value"] <= value["high"] <= 1, name
    assert sum(found["interests"]["classes"].values()) == round(4 * found["interests"]["per_user"])
    assert found["matching"]["stage"] == {"value": None, "low": None, "high": None, "users": 0}
    assert found["tags"]["hr"]["value"] > found["tags"]["hr_of_popular_categories"]["value"]
    assert found["tags"]["valid"]["value"] > 0.8
    best = found["retrieval"]["what could be shown"]
    assert best["perfect"]["value"] == 1.0
    for name, reached in found["retrieval"].items():
        assert reached["wants"]["value"] <= best["wants"]["value"], name
    assert set(found["retrieval"]) == set(found["retrieval_llm_users"])
    assert {"popularity", "last category", "title overlap", "buy again", "user tower alone"} <= set(found["retrieval"])
    assert found["explanations"]["pairs"] >= 0
    assert {"interests", "tags", "retrieval", "explanations", "evaluation"} <= set(found["seconds"])
    # The shop's own outputs stay alone.
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["world"]
    show(found)
    shown = capsys.readouterr().out
    assert "lists of 20: users with a model's tags" in shown
    assert "hallucinations, of the mined" in shown


def test_what_a_world_cannot_judge(tmp_path: Path) -> None:
    config = pipeline.Config(out=tmp_path, data={"dataset": "world"})
    assert planted.on_world(None).out == Path("out/world")
    assert planted.on_world(config, 3).llm.households == 3
    with pytest.raises(errors.InvalidConfigError, match=r"from 1 to 399, but data.test_days is 400"):
        planted.on_world(config.model_copy(update={"data": config.data.model_copy(update={"test_days": 400})}))
    few = {
        "data": {"dataset": "world", "world": {"users": 2, "items": 60, "days": 60}},
        "llm": {"engine": "fake", "min_events": 9999},
    }
    lonely = pipeline.Config(out=tmp_path, **few)
    with pytest.raises(errors.EmptyLogError, match=r"12 are wanted \(llm.households\) with 9999 reliable events"):
        pipeline.evaluate_world(lonely, ablation=True)
    for options, said in (
        (["evaluate", "--noise"], "add --world"),
        (["evaluate", "--ablate", "history"], "add --world"),
        (["evaluate"], "only --world goes without one"),
    ):
        done = CliRunner().invoke(app, options)
        assert isinstance(done.exception, errors.InvalidConfigError)
        assert said in str(done.exception)


def test_an_estimate_says_for_how_many() -> None:
    value = planted.estimate(Score(0.5, np.array([1.0, 0.0, np.nan])))
    assert (value["value"], value["users"]) == (0.5, 2)
    assert value["low"] <= 0.5 <= value["high"]
    # What nobody has is null, in JSON as well.
    nobody = planted.estimate(Score(math.nan, np.array([math.nan])))
    assert nobody == {"value": None, "low": None, "high": None, "users": 0}
