"""The planted world: the same for the same seed, user by user, and its truth tables agree with its events."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recgpt import datasets, errors, interests, logs, text
from recgpt.datasets import world
from recgpt.datasets.world import hostile, truth
from recgpt.datasets.world.config import START
from recgpt.datasets.world.events import odds, there
from recgpt.datasets.world.queries import misspelt
from recgpt.datasets.world.vocabulary import BRANDS, FACTS, themes
from recgpt.schema import BEHAVIORS, EVENTS, ITEMS, REVIEWS, USERS

NOW = START + timedelta(days=380)


@pytest.fixture(scope="module")
def made() -> datasets.Dataset:
    return datasets.load("world", users=80, now=NOW)


def rows(table: pa.Table, **wanted: Any) -> list[dict[str, Any]]:
    for column, value in wanted.items():
        table = table.filter(pc.equal(table[column], value))
    return table.to_pylist()


def test_the_same_options_give_the_same_world() -> None:
    once, again, other = (datasets.load("world", users=5, items=60, days=60, seed=seed) for seed in (3, 3, 4))
    for table in ("events", "items", "users", "reviews"):
        assert getattr(once, table).equals(getattr(again, table))
    assert not once.events.equals(other.events)
    assert set(once.truth) == {
        *("interests", "causes", "wants", "shown", "questions", "reviews"),
        *("items", "queries"),
    }
    for name, table in once.truth.items():
        assert table.equals(again.truth[name]), name


@given(st.integers(0, 10**6), st.integers(0, 30))
def test_a_user_alone_is_the_same_user_in_any_company(seed: int, number: int) -> None:
    few, many = (world.World(world.Config(users=users, items=60, days=60, events=60, seed=seed)) for users in (1, 99))
    alone, among = few.shard([number], 60), many.shard([number + 1, number], 60)
    user = few.shard([number], 60).users["user_id"][0].as_py()
    for name, table in {"events": among.events, "reviews": among.reviews, **among.truth}.items():
        mine = {"events": alone.events, "reviews": alone.reviews, **alone.truth}[name]
        assert mine.to_pylist() == rows(table, user_id=user), name


def test_the_tables_are_what_readers_expect(made: datasets.Dataset) -> None:
    assert set(made.events["behavior"].unique().to_pylist()) == set(BEHAVIORS)
    assert made.events.schema.names == [*EVENTS.names, "duration_s"]
    assert made.items.select(ITEMS.names).schema == ITEMS
    assert made.users.schema == USERS
    assert made.reviews is not None
    assert made.reviews.schema.names == REVIEWS.names
    assert (made.items.num_rows, made.users.num_rows, made.users["attributes"].null_count) == (300, 80, 1)
    kept = logs.from_dataset(made)
    assert not kept.report.defects
    assert kept.report.left_out("events") == 0
    for name in ("INTERESTS", "CAUSES", "WANTS", "SHOWN", "QUESTIONS", "REVIEWS"):
        assert made.truth[name.lower()].schema.names == getattr(truth, name).names


def test_every_event_has_a_cause_and_every_interest_a_time(made: datasets.Dataset) -> None:
    causes = made.truth["causes"]
    assert causes["user_id"].equals(made.events["user_id"])
    assert causes["timestamp"].equals(made.events["timestamp"])
    keys = causes.group_by(["user_id", "timestamp"]).aggregate([])
    assert keys.num_rows == causes.num_rows, "two events of a user at one time: a cause could not be told from another"
    assert set(causes["cause"].to_pylist()) == {
        *("interest", "necessity", "season", "gift", "promotion", "accident"),
    }
    lives: dict[tuple[str, str], dict[str, Any]] = {
        (row["user_id"], row["interest"]): row for row in made.truth["interests"].to_pylist()
    }
    theme = {row["item_id"]: row for row in made.truth["items"].to_pylist()}
    shown: Counter[str] = Counter()
    for event, cause in zip(made.events.to_pylist(), causes.to_pylist(), strict=True):
        if cause["cause"] == "interest":
            life = lives[event["user_id"], cause["interest"]]
            # What is sent back goes back three days after the visit.
            at = event["timestamp"] - timedelta(days=3) * (event["behavior"] == "return")
            assert life["start"] <= at < (life["end"] or datetime.max.replace(tzinfo=UTC))
            if event["behavior"] not in ("exposure", "search"):
                assert theme[event["item_id"]]["theme"] == cause["interest"]
                shown[event["user_id"]] += 1
        else:
            assert cause["interest"] is None
        if cause["cause"] == "accident" and event["behavior"] not in ("exposure", "search"):
            assert (event["user_id"], theme[event["item_id"]]["theme"]) not in lives
            assert event["duration_s"] in (None, 1.0)
        if cause["cause"] in ("necessity", "season") and event["behavior"] == "purchase":
            assert theme[event["item_id"]]["kind"] == cause["cause"]
        assert (event["behavior"] == "search") == (event["query"] is not None) == (cause["meant"] is not None)
        launched = None if event["item_id"] is None else event["item_id"]
        assert (launched is None) == (event["behavior"] == "search")
    assert len(shown) > 70


def test_nothing_is_touched_before_it_is_launched(made: datasets.Dataset) -> None:
    noisy = datasets.load("world", users=40, items=400, events=400, noise=0.4, language="mixed", hostile=True)
    for data in (made, noisy):
        launched = dict(zip(data.items["item_id"].to_pylist(), data.items["launched"].to_pylist(), strict=True))
        assert max(launched.values()) > START
        for rows_of in (data.events, data.reviews):
            assert rows_of is not None
            held = rows_of.select(["item_id", "timestamp"]).filter(rows_of["item_id"].is_valid()).to_pylist()
            assert not [one for one in held if one["timestamp"] < launched[one["item_id"]]]


@given(st.integers(0, 10**6))
def test_what_is_not_launched_yet_is_replaced_by_its_like(seed: int) -> None:
    shop = world.World(world.Config(items=1200 + seed % 400, days=60, seed=seed)).shop
    rows, random = np.arange(len(shop.ware)), np.random.default_rng(seed)
    day = random.integers(0, 60, len(rows))
    found = there(shop, rows, day)
    place = found - shop.first[shop.block]
    assert ((place >= 0) & (place < shop.launched[shop.block, day])).all()
    assert (shop.block[found] == shop.block).all()
    stays = rows - shop.first[shop.block] < shop.launched[shop.block, day]
    assert (found[stays] == rows[stays]).all()
    assert 0 < stays.sum() < len(rows)


def test_interests_last_as_their_stage_says(made: datasets.Dataset) -> None:
    stages = Counter(row["stage"] for row in made.truth["interests"].to_pylist())
    assert stages["long-term"] > 80
    assert stages["short-term"] > 20
    drifting = 0
    for row in made.truth["interests"].to_pylist():
        lasts = row["end"] - row["start"] if row["end"] else None
        if row["stage"] == "short-term":
            assert timedelta(days=10) <= lasts <= timedelta(days=28)
        else:
            assert lasts is None or lasts >= timedelta(days=150)
            drifting += row["start"] > START or lasts is not None
    assert drifting > 20
    counts = Counter(made.events["user_id"].to_pylist())
    assert min(counts.values()) < 100 < 600 < max(counts.values())


def test_traps_are_where_they_belong(made: datasets.Dataset) -> None:
    events = made.events.append_column("cause", made.truth["causes"]["cause"])
    gifts = rows(events, cause="gift", behavior="search")
    assert any(row["query"].startswith("gift for") for row in gifts)
    months = Counter(row["timestamp"].month for row in gifts)
    assert months[12] > len(gifts) / 4
    assert {row["timestamp"].strftime("%m-%d") for row in rows(events, cause="promotion")} <= {
        *("06-18", "11-11", "11-29", "06-21", "11-14", "12-02"),
    }
    season = {row["item_id"]: row["months"] for row in made.truth["items"].to_pylist() if row["kind"] == "season"}
    for row in rows(events, cause="season", behavior="purchase"):
        assert row["timestamp"].month in season[row["item_id"]]
    # An evening of idle curiosity: several views of one shelf on one day.
    views = Counter(
        (row["user_id"], row["timestamp"].date()) for row in rows(events, cause="accident", behavior="detail_view")
    )
    assert max(views.values()) >= 3


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_more_noise_only_adds(noise: float) -> None:
    base, noisy = (datasets.load("world", users=6, noise=share, seed=5) for share in (0.2, noise))
    for data in (base, noisy):
        assert data.truth["interests"].equals(base.truth["interests"])

    def regular(data: datasets.Dataset) -> pa.Table:
        return data.events.filter(pc.not_equal(data.truth["causes"]["cause"], "accident"))

    assert regular(base).equals(regular(noisy))
    share = 1 - regular(noisy).num_rows / noisy.events.num_rows
    assert share == 0 if noise == 0 else 0.2 < share < 0.5


def test_what_is_wanted_next_can_be_shown(made: datasets.Dataset) -> None:
    items = {row["item_id"]: row for row in made.truth["items"].to_pylist()}
    launched = dict(zip(made.items["item_id"].to_pylist(), made.items["launched"].to_pylist(), strict=True))
    live: dict[str, set[str]] = defaultdict(set)
    for row in made.truth["interests"].to_pylist():
        if row["start"] <= NOW and (row["end"] is None or row["end"] > NOW):
            live[row["user_id"]].add(row["interest"])
    wants: dict[str, dict[str, Any]] = defaultdict(dict)
    for row in made.truth["wants"].to_pylist():
        wants[row["user_id"]][row["ware"]] = row
        assert (row["interest"] in live[row["user_id"]]) if row["cause"] == "interest" else row["interest"] is None
    for user, own in wants.items():
        assert sum(row["weight"] for row in own.values()) == pytest.approx(1)
        assert [row["rank"] for row in own.values()] == list(range(1, len(own) + 1))
        gains = [row["gain"] for row in made.truth["shown"].to_pylist() if row["user_id"] == user]
        assert gains == sorted(gains, reverse=True)
        assert 0 < sum(gains) <= 1 + 1e-9
    for row in made.truth["shown"].to_pylist():
        assert items[row["item_id"]]["ware"] in wants[row["user_id"]]
        assert launched[row["item_id"]] <= NOW
    # What one wants next is what the log goes on with; who comes often gets past the next three.
    came: dict[str, Counter[str]] = defaultdict(Counter)
    for event, cause in zip(made.events.to_pylist(), made.truth["causes"].to_pylist(), strict=True):
        if event["timestamp"] >= NOW and cause["cause"] == "interest" and event["behavior"] == "click":
            came[event["user_id"]][items[event["item_id"]]["ware"]] += 1
    inside = sum(count for user, found in came.items() for ware, count in found.items() if ware in wants[user])
    assert inside > 0.8 * sum(sum(found.values()) for found in came.values()) > 50


@pytest.mark.parametrize(
    ("liked", "others", "want"),
    [
        (1, 1, (1 - 1 / 8, 1 / 8)),  # of three draws all are the other one with (1/2)^3
        (2, 0, (1 / 2, 0.0)),
        (0, 4, (0.0, 1 / 4)),
        (1, 2, (1 - 8 / 27, 4 / 27)),
    ],
)
def test_odds_of_an_item(liked: int, others: int, want: tuple[float, float]) -> None:
    assert odds(liked, others) == pytest.approx(want)


def test_every_title_says_its_interest_and_no_other() -> None:
    """What makes the world solvable: the pool's words find each ware's interest, others only where planted."""
    pool = interests.Pool.load()
    names = {entry.pool_id: entry.name for entry in (*pool.interests, *pool.necessities)}
    wares = 0
    for theme in themes():
        if theme.kind != "season":
            assert names[theme.id] == theme.name
        for name, resembles in theme.wares:
            wares += 1
            want = {theme.id} if theme.kind == "interest" else set()
            want |= {resembles} if resembles else set()
            for modifier in theme.modifiers:
                for brand, fact in zip(BRANDS, [*FACTS, FACTS[0]], strict=True):
                    title = f"{brand.en} {modifier.en} {name.en}, {fact.en}"
                    brief = f"{title}; {theme.department} > {name.en.capitalize()}"  # as histories say it
                    found = {pool.interests[at].pool_id for at in (*pool.hits(title), *pool.hits(brief))}
                    assert theme.kind == "season" or found == want, title
    assert wares > 280


def test_searches_are_corrected(made: datasets.Dataset) -> None:
    known = {row["query"]: row for row in made.truth["queries"].to_pylist()}
    assert {row["kind"] for row in known.values()} == {"plain", "misspelt", "vague", "question", "gift"}
    seen: Counter[str] = Counter()
    for event, cause in zip(made.events.to_pylist(), made.truth["causes"].to_pylist(), strict=True):
        if event["behavior"] == "search":
            row = known[event["query"]]
            seen[row["kind"]] += 1
            if row["kind"] in ("plain", "misspelt"):
                assert row["correction"] == cause["meant"]
            if row["kind"] == "misspelt":
                assert event["query"] != cause["meant"]
    assert min(seen.values()) > 10
    assert seen["plain"] > sum(seen.values()) / 2
    assert misspelt("aa") == ["aaa"]


def test_questions_are_answered_by_what_is_missing(made: datasets.Dataset) -> None:
    ware = {row["item_id"]: row["ware"] for row in made.truth["items"].to_pylist()}
    assert made.truth["questions"].num_rows > 30
    meant = {(row["user_id"], row["timestamp"]): row["meant"] for row in made.truth["causes"].to_pylist()}
    for row in made.truth["questions"].to_pylist():
        bought = {
            ware[event["item_id"]]
            for event in rows(made.events, user_id=row["user_id"], behavior="purchase")
            if event["timestamp"] < row["timestamp"]
        }
        assert row["answer"][0] == meant[row["user_id"], row["timestamp"]]
        assert not bought & set(row["answer"][1:])


def test_reviews_say_what_the_truth_says(made: datasets.Dataset) -> None:
    assert made.reviews is not None
    said = made.truth["reviews"]
    assert said.num_rows == made.reviews.num_rows > 100
    texts: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for review, row in zip(made.reviews.to_pylist(), said.to_pylist(), strict=True):
        assert (review["rating"] >= 4) == (row["sentiment"] == "positive")
        assert (review["item_id"], review["timestamp"]) == (row["item_id"], row["timestamp"])
        texts[review["text"]].add((row["aspect"], row["sentiment"]))
    assert all(len(said) == 1 for said in texts.values())
    assert {aspect for said in texts.values() for aspect, _ in said} == {"quality", "size", "price", "delivery", "look"}


def test_hostile_texts_come_on_request_only(made: datasets.Dataset) -> None:
    assert not set(hostile.TITLES) & set(made.items["title"].to_pylist())
    attacked = datasets.load("world", users=30, hostile=True)
    titles = attacked.items["title"].to_pylist()
    assert set(hostile.TITLES) <= set(titles)
    assert sum(attacked.truth["items"]["hostile"].to_pylist()) == len(hostile.TITLES)
    for column in ("title", "category", "price"):
        assert 0 < attacked.items[column].null_count < 30
    assert attacked.reviews is not None
    assert set(hostile.REVIEWS) <= set(attacked.reviews["text"].to_pylist())
    kept = logs.from_dataset(attacked)
    assert [defect.kind for defect in kept.report.defects] == ["no_title"]
    # They leave the first stage without anything that only a machine sees.
    for title in kept.items["title"].drop_null().to_pylist():
        assert title == text.clean(title)
    # The attack changes what is written, not what happens.
    assert attacked.truth["causes"].equals(datasets.load("world", users=30).truth["causes"])


@pytest.mark.parametrize(("language", "least", "most"), [("en", 0.0, 0.0), ("zh", 1.0, 1.0), ("mixed", 0.2, 0.8)])
def test_titles_and_queries_speak_the_language(language: str, least: float, most: float) -> None:
    data = datasets.load("world", users=30, language=language)

    def chinese(texts: list[str]) -> float:
        return sum(any("\u4e00" <= letter <= "\u9fff" for letter in one) for one in texts) / len(texts)

    assert least <= chinese(data.items["title"].to_pylist()) <= most
    assert least * 0.5 <= chinese(data.events["query"].drop_null().to_pylist()) <= most
    assert chinese(data.items["title_zh"].to_pylist()) == 1


def test_fifty_thousand_events_of_one_user() -> None:
    one = world.World(world.Config(events=80_000, days=730, items=2000))
    life = max((one.user(number) for number in range(4)), key=lambda life: len(life.log.time))
    assert len(life.log.time) > 50_000
    assert (np.diff(life.log.time) > 0).all()
    assert life.log.time[-1] < 730 * 86_400


def test_a_streamed_world_is_the_world_in_memory(tmp_path: Path) -> None:
    config = world.Config(users=25, items=90, days=90, events=60, seed=2)
    told: list[tuple[int, int]] = []
    out = world.stream(config, tmp_path / "w", size=10, progress=lambda done, whole: told.append((done, whole)))
    memory = world.World(config).dataset()
    assert told == [(10, 25), (20, 25), (25, 25)]
    assert (out.users, out.events) == (25, memory.events.num_rows)
    assert out.bytes == sum(path.stat().st_size for path in (tmp_path / "w").rglob("*.parquet"))
    assert not list(tmp_path.rglob("*.part"))
    read = logs.from_dataset(datasets.read(tmp_path / "w"))
    straight = logs.from_dataset(memory)
    assert read.events.select(EVENTS.names).equals(straight.events.select(EVENTS.names))
    assert read.items.equals(straight.items)
    assert pq.ParquetFile(tmp_path / "w" / "events.parquet").num_row_groups == 3
    for name, table in memory.truth.items():
        back = pq.read_table(tmp_path / "w" / "truth" / f"{name}.parquet").to_pylist()
        key = ["user_id", "timestamp"] if name == "causes" else []
        assert back == (table.sort_by([(one, "ascending") for one in key]) if key else table).to_pylist(), name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"items": 3}, "`items` must be a whole number from 60 up, but it is 3"),
        ({"users": 0}, "`users` must be a whole number from 1 up, but it is 0"),
        ({"events": 2.5}, "`events` must be a whole number from 10 up, but it is 2.5"),
        ({"noise": 1.0}, "`noise` must be a share from 0 to below 1, but it is 1.0"),
        ({"noise": float("nan")}, "`noise` must be a share"),
        ({"language": "de"}, "`language` must be en, zh, mixed, but it is 'de'"),
        ({"shops": 2}, "a world has no shops; it has users, items, days, events, noise, language, hostile, seed"),
        ({"now": datetime(2030, 1, 1, tzinfo=UTC)}, "`now` must lie in the 400 days from 2024-01-01 on"),
    ],
)
def test_worlds_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(errors.InvalidConfigError, match=said):
        datasets.load("world", **options)


def test_a_naive_now_is_refused() -> None:
    with pytest.raises(errors.NaiveTimestampError, match="must carry a time zone"):
        datasets.load("world", now=datetime(2024, 5, 1))
