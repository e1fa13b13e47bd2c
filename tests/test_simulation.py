"""The closed loop: arms learn from their own shoppers alone, truth is met or not as planted, and everything says simulation."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recgpt import datasets, errors, schema
from recgpt.evaluation import desk
from recgpt.evaluation.metrics import Ragged, ragged
from recgpt.evaluation.simulation import LIKED, OTHER, Planted, Simulation, simulate

START = datetime(2025, 1, 1, tzinfo=UTC)
USERS, THEMES, EACH = 40, 4, 3


class Shop:
    """Four themes of three items; user u likes theme u modulo 4, which makes chances easy."""

    user_ids = tuple(f"u{number:02d}" for number in range(USERS))
    item_ids = tuple(f"i{number:02d}" for number in range(THEMES * EACH))
    theme = np.repeat(np.arange(THEMES), EACH)

    def wants(self, day: datetime) -> np.ndarray:
        found = np.full((USERS, THEMES), OTHER)
        found[np.arange(USERS), np.arange(USERS) % THEMES] = LIKED
        return found


class Knowing:
    """Shows each shopper the three items of the theme that the number in the id says, and keeps what it was told."""

    def __init__(self, shift: int) -> None:
        self.shift, self.told = shift, schema.EVENTS.empty_table()

    def pages(self, user_ids: Sequence[str], events: pa.Table, now: datetime, k: int) -> Ragged:
        assert not len(events) or max(events["timestamp"].to_pylist()) < now
        self.told = events
        themes = [(int(user[1:]) + self.shift) % THEMES for user in user_ids]
        return ragged([np.arange(theme * EACH, theme * EACH + EACH)[:k] for theme in themes])


def past() -> pa.Table:
    rows = [
        {
            "user_id": user,
            "item_id": Shop.item_ids[number % 12],
            "behavior": "purchase",
            "timestamp": START - timedelta(days=1),
        }
        for number, user in enumerate(Shop.user_ids)
    ]
    late = [{"user_id": "u00", "item_id": "i00", "behavior": "purchase", "timestamp": START}]
    return schema.rows(rows + late, schema.EVENTS)


ITEMS = schema.rows(
    [{"item_id": item, "title": item, "category": f"t{at // EACH}"} for at, item in enumerate(Shop.item_ids)],
    schema.ITEMS,
)


def run(**options: int) -> tuple[Simulation, Knowing, Knowing]:
    wrong, right = Knowing(1), Knowing(0)
    found = simulate(
        Shop(), {"wrong": wrong, "right": right}, past(), ITEMS, start=START, **{"days": 6, "k": 3, **options}
    )
    return found, wrong, right


def test_truth_is_met_by_the_arm_that_knows_it_and_by_no_other() -> None:
    found, _, _ = run()
    met = {name: {one.met for one in found.days if one.arm == name} for name in ("wrong", "right")}
    assert met == {"wrong": {0.0}, "right": {1.0}}
    assert {one.shown for one in found.days} == {1.0}
    (ctr,) = (one for one in found.desk.lifts if one.metric == "CTR")
    assert ctr.p is not None
    assert ctr.p < 1e-9
    assert 0.1 < ctr.second.value < LIKED
    assert ctr.first.value < 2 * OTHER


def test_arms_have_their_own_shoppers_and_hear_of_no_others() -> None:
    found, wrong, right = run()
    people = [set(log["user_id"].to_pylist()) for log in found.exposures]
    assert not people[0] & people[1]
    for arm, own, log in zip((wrong, right), people, found.exposures, strict=True):
        assert own <= set(arm.told["user_id"].to_pylist())
        assert not set(arm.told["user_id"].to_pylist()) & (set.union(*people) - own)
        clicks = sum(log["click"].to_pylist())
        assert arm.told["behavior"].to_pylist().count("click") <= clicks
        assert arm.told["behavior"].to_pylist().count("purchase") == USERS // 2  # nothing of the first day itself


def test_the_same_seed_is_the_same_simulation() -> None:
    assert run()[0].figures() == run()[0].figures()
    assert run(seed=1)[0].figures() != run()[0].figures()


def test_every_form_says_simulation(tmp_path: Path) -> None:
    found, _, _ = run()
    figures = found.figures()
    assert figures["simulation"] is True
    assert len(figures["days"]) == 2 * 6
    assert "NaN" not in json.dumps(figures)
    page = desk.write(tmp_path / "loop.html", found.desk, days=found.plots()).read_text(encoding="utf-8")
    assert page.count("imulation") > 5
    assert "Share of living interests on the page (simulation)" in page
    assert "<b>Simulation</b>" in found.desk._repr_html_()


def test_two_arms_and_a_day_are_needed() -> None:
    with pytest.raises(errors.InvalidConfigError, match="needs two arms, days and places, but has 1, 30 and 20"):
        simulate(Shop(), {"one": Knowing(0)}, past(), ITEMS, start=START)


def test_a_planted_world_wants_what_lives_that_day() -> None:
    data = datasets.load("world", users=12, items=120, days=120, seed=3)
    world = Planted(data.users, data.truth)
    names = data.truth["items"]["theme"].to_pylist()
    months = dict(zip(names, data.truth["items"]["months"].to_pylist(), strict=True))
    day = datetime(2024, 3, 10, tzinfo=UTC)
    wants, seen = world.wants(day), 0
    for row in data.truth["interests"].to_pylist():
        if row["interest"] not in names:
            continue
        theme = world.theme[names.index(row["interest"])]
        lives = row["start"] <= day and (row["end"] is None or day < row["end"])
        season = not months[row["interest"]] or day.month in months[row["interest"]]
        if lives and season:
            assert wants[world.user_ids.index(row["user_id"]), theme] == LIKED
            seen += 1
    assert seen > 5
    assert (wants == LIKED).sum() <= seen


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_item_knn_and_the_towers_run_the_loop() -> None:
    from recgpt.pipeline import simulation

    found = simulation.simulate(users=16, items=80, days=2)
    assert found.desk.names == ("item-kNN", "recgpt")
    assert all(log["position"].to_numpy().max() == 19 for log in found.exposures)
