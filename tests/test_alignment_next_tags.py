"""LLM_IT's samples from a log: the stage's own prompt, what was bought next, wrong answers, and nobody held out."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from tagging import EVENTS, INTERESTS, NOW, USERS, Scripted, catalogue, predict

from recgpt import tags
from recgpt.alignment import HeldOut, next_tags
from recgpt.alignment.next_tags import Asked
from recgpt.alignment.samples import SAMPLES
from recgpt.alignment.shop import Shop
from recgpt.datasets import Dataset
from recgpt.errors import AlignmentError, NaiveTimestampError
from recgpt.llm import Tokenizer
from recgpt.llm.engine import Prompt

FIRST = datetime(2024, 1, 1, 12, tzinfo=UTC)
CUT = datetime(2024, 4, 1, tzinfo=UTC)
NAMES = ["Tents", "Socks", "Tea", "Mugs"]
NOBODY = HeldOut()


def shop(*rows: tuple[str, str, float], what: str = "categories", zone: str | None = None) -> Shop:
    """Rows of (user, item, days from the cut on)."""
    events = pa.table({
        "user_id": [user for user, _, _ in rows], "item_id": [item for _, item, _ in rows],
        "behavior": ["purchase"] * len(rows), "timestamp": [CUT + timedelta(days=days) for _, _, days in rows],
    })  # fmt: skip
    items = pa.table({
        "item_id": ["0", "1", "2", "3", "4"], "title": ["Dome Tent", "Wool Socks", "Green Tea", "Tea Mug", "Odd Thing"],
        "category": [*NAMES, None],
    })  # fmt: skip
    people = sorted({user for user, _, _ in rows})
    users = pa.table({"user_id": people, "attributes": [f"called {user}" for user in people]})
    data = Dataset("stall", events, items, users, time_zone=zone)
    return Shop.of(data, tokenizer=Tokenizer.bytes(), what=what, config=tags.Config(prompt_tokens=10_000))


LOG = [
    ("ann", "0", -91.0), ("ann", "1", -40.0), ("ann", "2", -30.0), ("ann", "2", -3.0), ("ann", "4", -2.0),
    ("ann", "3", 0.0), ("ann", "2", 5.0), ("ann", "3", 6.0), ("ann", "4", 7.0), ("ann", "0", 14.0),
    ("bob", "1", -80.0), ("bob", "1", -20.0), ("bob", "1", 1.0), ("cid", "3", -70.0),
]  # fmt: skip


def asked(user: str = "ann", bought: tuple[str, ...] = ("tea",), recent: frozenset[str] = frozenset()) -> Asked:
    return Asked(user, CUT, Prompt("system", f"of {user}", "Next:"), bought, recent)


def made(*prompts: Asked, counts: dict[str, int] | None = None, held: HeldOut = NOBODY, **options) -> pa.Table:
    counts = counts or {"tents": 9, "socks": 5, "tea": 4, "mugs": 1}
    return next_tags.samples(prompts, counts, origin="stall", held=held, **options)


def test_the_prompt_is_the_one_that_the_stage_asks() -> None:
    engine = Scripted()
    predict(engine)
    stage = {request.key: request.prompt for request in engine.scored[0]}
    items = tags.item_tags(catalogue())
    own = tags.prompts(USERS, INTERESTS, EVENTS, items, now=NOW, count_tokens=engine.count_tokens)
    assert own == {"ann": stage["tags/ann"], "zoe": stage["tags/zoe"]}
    assert "salsa dancing\nbread baking" in own["ann"].user


def test_long_prompts_lose_their_oldest_actions() -> None:
    items = tags.item_tags(catalogue())
    count = Scripted().count_tokens
    long, short = (
        tags.prompts(
            USERS, INTERESTS, EVENTS, items, now=NOW, count_tokens=count, config=tags.Config(prompt_tokens=tokens)
        )
        for tokens in (700, 1)
    )
    assert "potato chip" in long["ann"].user
    assert "potato chip" not in short["ann"].user


def test_what_is_right_was_bought_from_the_moment_on_for_14_days() -> None:
    (ann,) = next_tags.ask(shop(*LOG), ["ann"], CUT)
    assert ann.bought == ("mugs", "tea")
    assert ann.recent == {"tea"}
    assert "called ann" in ann.prompt.user
    assert "Date: April 1 (spring)" in ann.prompt.user
    assert "tea mug" not in ann.prompt.user
    assert "dome tent" in ann.prompt.user


def test_the_catalogues_tags_can_be_ranked_too() -> None:
    stall = shop(*LOG, what="tags")
    (ann,) = next_tags.ask(stall, ["ann"], CUT)
    assert ann.bought == ("tea mug", "green tea")


def test_the_shops_own_date_is_shown() -> None:
    (ann,) = next_tags.ask(shop(*LOG, zone="America/New_York"), ["ann"], CUT)
    assert "Date: March 31 (spring)" in ann.prompt.user


def test_candidates_are_what_was_bought_most_before() -> None:
    stall = shop(*LOG)
    assert next_tags.candidates(stall, CUT) == {"socks": 3, "tea": 2, "mugs": 1, "tents": 1}
    assert list(next_tags.candidates(stall, CUT, most=1)) == ["socks"]
    assert next_tags.candidates(stall, CUT + timedelta(days=1, microseconds=1))["socks"] == 4


def test_one_row_a_right_answer_and_the_same_wrong_ones_in_all() -> None:
    table = made(asked(bought=("tea", "mugs", "unheard of")))
    assert table.schema == SAMPLES
    assert table["answer"].to_pylist() == [" tea", " mugs"]
    first, second = table["others"].to_pylist()
    assert sorted(first) == [" socks", " tents"] == sorted(second)
    row = table.to_pylist()[0]
    assert (row["subtask"], row["level"], row["user_id"], row["origin"]) == ("tags", "task", "ann", "stall")
    assert (row["system"], row["prompt"], row["beginning"]) == ("system", "of ann", "Next:")
    assert row["at"] == CUT + timedelta(days=14, microseconds=-1)


def test_fresh_samples_are_silent_of_what_was_just_bought() -> None:
    table = made(
        asked(bought=("tea", "mugs"), recent=frozenset({"tea", "tents"})), asked("bob", ("tea",), frozenset({"tea"})),
        fresh=True,
    )  # fmt: skip
    assert table["answer"].to_pylist() == [" mugs"]
    assert table["others"].to_pylist() == [[" socks"]]


def test_right_and_wrong_answers_are_limited_and_drawn_with_a_seed() -> None:
    counts = {f"n{row}": 100 - row for row in range(100)}
    prompts = [asked(f"u{row}", tuple(f"n{row * 2}" for row in range(20))) for row in range(40)]
    table = made(*prompts, counts=counts, answers=3, others=10)
    assert len(table) == 120
    assert all(len(others) == len(set(others)) == 10 for others in table["others"].to_pylist())
    assert not {f" n{row * 2}" for row in range(20)} & {
        name for others in table["others"].to_pylist() for name in others
    }
    assert made(*prompts, counts=counts, answers=3, others=10).equals(table)
    assert not made(*prompts, counts=counts, answers=3, others=10, seed=1).equals(table)


def test_a_bestseller_is_wrong_more_often_only_where_wrong_answers_follow_popularity() -> None:
    counts = {"right": 1, "bestseller": 1000, **{f"n{row}": 1 for row in range(50)}}
    prompts = [asked(f"u{row}", ("right",)) for row in range(100)]
    often = {
        share: Counter(name for others in rows["others"].to_pylist() for name in others)[" bestseller"]
        for share in (0.0, 1.0)
        for rows in [made(*prompts, counts=counts, others=5, by_popularity=share)]
    }
    assert often[1.0] == 100
    assert often[0.0] < 30


def test_nobody_held_out_and_nothing_of_the_days_judged_becomes_a_sample() -> None:
    with pytest.raises(AlignmentError, match="user_id bob"):
        made(asked(), asked("bob"), held=HeldOut({"bob"}))
    end = CUT + timedelta(days=14)
    assert len(made(asked(), held=HeldOut(since=end))) == 1
    with pytest.raises(AlignmentError, match="has the at"):
        made(asked(), held=HeldOut(since=end - timedelta(microseconds=1)))


def test_one_class_is_refused() -> None:
    with pytest.raises(AlignmentError, match="of 2 prompts none has both"):
        made(asked(bought=()), asked(bought=("tents", "socks", "tea", "mugs")))
    assert next_tags.ask(shop(*LOG), [], CUT) == []


def test_moments_leave_14_days_before_the_end_and_only_people_who_bought_then() -> None:
    rows = [(user, "0", float(day)) for user in ("ann", "bob", "cid") for day in range(-90, 30)]
    stall = shop(*rows)
    until = CUT + timedelta(days=30)
    moments = next_tags.draw(stall, until, held={"bob"}, cuts=3, users=5, min_events=20)
    assert [day.isoformat()[:10] for day in moments] == ["2024-03-02", "2024-03-25", "2024-04-17"]
    assert max(moments) + timedelta(days=14) <= until
    assert [sorted(people) for people in moments.values()] == [["ann", "cid"]] * 3
    found = next_tags.ask_all(stall, moments)
    assert [one.user for one in found] == [user for people in moments.values() for user in people]
    with pytest.raises(AlignmentError, match="no moment lies 60 days after"):
        next_tags.draw(stall, CUT - timedelta(days=20))


def test_held_out_users_have_a_history_and_buy_in_the_days_after() -> None:
    rows = [("ann", "0", -float(day)) for day in range(1, 6)] + [("ann", "1", 3.0)]
    rows += [("bob", "0", -float(day)) for day in range(1, 6)] + [("bob", "1", 15.0)]
    rows += [("cid", "0", -1.0), ("cid", "1", 1.0)]
    assert next_tags.held_out(shop(*rows), CUT, min_events=5) == ["ann"]


def test_swapping_gives_everybody_anothers_prompt_and_keeps_the_truth() -> None:
    own = [asked(name, (name,)) for name in "abcde"]
    other = next_tags.swapped(own)
    assert [one[:2] + one[3:] for one in other] == [one[:2] + one[3:] for one in own]
    assert all(one.prompt != two.prompt for one, two in zip(own, other, strict=True))
    assert {one.prompt for one in own} == {one.prompt for one in other}
    with pytest.raises(AlignmentError, match="only one user was asked"):
        next_tags.swapped(own[:1])


def test_a_request_asks_about_every_candidate() -> None:
    one = next_tags.request(asked(), {"tea": 1, "mugs": 2})
    assert (one.prompt, one.candidates) == (asked().prompt, (" tea", " mugs"))


def test_odd_moments_and_logs_are_refused() -> None:
    stall = shop(*LOG)
    with pytest.raises(NaiveTimestampError):
        next_tags.ask(stall, ["ann"], datetime(2024, 4, 1))
    with pytest.raises(NaiveTimestampError):
        next_tags.draw(stall, datetime(2024, 4, 1))
    with pytest.raises(AlignmentError, match="categories, tags"):
        shop(*LOG, what="brands")
    events = pa.table({"user_id": ["ann"], "item_id": ["0"], "behavior": ["purchase"], "position": [1]})
    items = pa.table({"item_id": ["0"], "title": ["Dome Tent"], "category": [None]})
    users = pa.table({"user_id": ["ann"]})
    with pytest.raises(AlignmentError, match="no event with a time"):
        Shop.of(Dataset("stall", events, items, users), tokenizer=Tokenizer.bytes())
    timed = events.drop_columns("position").append_column("timestamp", pa.array([CUT]))
    with pytest.raises(AlignmentError, match="no item of stall has one of the categories"):
        Shop.of(Dataset("stall", timed, items, users), tokenizer=Tokenizer.bytes())
