"""Shortcuts in the planted world: scored by hand, and far below what could be shown."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pyarrow as pa

from recgpt import datasets
from recgpt.datasets.world import START
from recgpt.evaluation.planted import shortcuts as short

NOW = START + timedelta(days=380)


def test_shortcuts_stay_below_what_could_be_shown() -> None:
    data = datasets.load("world", users=150, items=2000, now=NOW)
    users = data.users["user_id"].to_pylist()
    judge = short.Judge(data.events, data.truth, data.items, users, now=NOW)
    known = short.past(data.events, data.items, users, now=NOW)
    found = short.shortcuts(judge, known)
    best = judge.reached(short.perfect(data.truth["shown"], data.items, users), 20)
    assert best.hits.mean > 0.9
    assert best.wants.mean > 0.9
    for name, reached in found.items():
        assert reached.hits.mean < best.hits.mean / 2, name
        assert reached.wants.mean < best.wants.mean / 2, name
        assert reached.recall.mean < best.recall.mean / 2, name


def test_reached_by_hand() -> None:
    """Two users, four items; what follows `now` for an interest: u0 looks at a and b, u1 at nothing."""
    at = START + timedelta(days=3)
    items = pa.table({"item_id": ["a", "b", "c", "d"], "title": ["x"] * 4, "category": ["y"] * 4})
    events = pa.table(
        {
            "user_id": ["u0", "u0", "u0", "u1"],
            "item_id": ["a", "b", "c", "d"],
            "behavior": ["click", "purchase", "click", "click"],
            "timestamp": pa.array([at, at, at, START], pa.timestamp("us", "UTC")),
        }
    )
    facts = {
        "causes": pa.table({"cause": ["interest", "interest", "accident", "interest"]}),
        "items": pa.table({"item_id": ["a", "b", "c", "d"], "ware": ["tent", "stove", "rope", "tent"]}),
        "wants": pa.table({"user_id": ["u0", "u0"], "ware": ["tent", "rope"], "weight": [0.75, 0.25]}),
        "shown": pa.table({"user_id": ["u0"] * 3, "rank": [3, 1, 2], "item_id": ["c", "d", "a"]}),
    }
    judge = short.Judge(events, facts, items, ["u0", "u1"], now=at)
    reached = judge.reached([[3, 0], [1]], 2)  # u0 is shown d and a, u1 b
    assert reached.hits.per_user.tolist()[0] == 1.0
    assert reached.recall.mean == 1 / 2  # a of a and b
    assert reached.wants.mean == 0.75  # two tents are one ware
    assert reached.perfect.mean == 2 / 3  # d and a of d, a, c
    assert short.perfect(facts["shown"], items, ["u1", "u0"], 2) == [[], [3, 0]]
    assert np.isnan(reached.hits.per_user[1])
    assert np.isnan(reached.wants.per_user[1])
    assert judge.reached([[1], []], 2).wants.mean == 0.0
