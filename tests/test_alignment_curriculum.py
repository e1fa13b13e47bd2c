"""Alignment, stage 1: subtasks and their order, samples whose answers are records, and nothing of what is held out."""

from __future__ import annotations

import errno
import json
import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recgpt import alignment, datasets
from recgpt.alignment import LEVELS, SUBTASKS, Facts, HeldOut, Subtask, run
from recgpt.alignment.intermediate import query_correction, query_rewriting
from recgpt.cli import main
from recgpt.datasets import Dataset
from recgpt.errors import AlignmentError, NaiveTimestampError, PromptError
from recgpt.evidence import words

BEGUN = datetime(2024, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def world() -> Dataset:
    return datasets.load("world")


@pytest.fixture(scope="module")
def facts(world) -> Facts:
    return Facts.of(world, origin="world/seed=0")


@pytest.fixture(scope="module")
def built(facts) -> alignment.Curriculum:
    return alignment.build(facts)


def shop(searches: list[tuple[float, str, str | None]], **columns: list[object]) -> Dataset:
    """A log of one user: minutes, what was done or `?` and a query, and the item."""
    rows = [
        {
            "user_id": "ann",
            "item_id": item,
            "behavior": "search" if done.startswith("?") else done,
            "timestamp": BEGUN + timedelta(minutes=minutes),
            "query": done[1:] if done.startswith("?") else None,
        }
        for minutes, done, item in searches
    ]
    items = pa.table({
        "item_id": ["1", "2"], "title": ["Dome Tent, green", "Wool Socks"], "category": ["Outdoor > Tents", "Hosiery"],
    })  # fmt: skip
    users = pa.table({"user_id": ["ann"], "attributes": ["age 30"]})
    return Dataset("shop", pa.Table.from_pylist(rows), items, users, **columns)


def test_the_report_had_16_subtasks_and_16_3_thousand_samples() -> None:
    assert len(SUBTASKS) == 16
    assert round(sum(one.paper for one in SUBTASKS.values()), -2) == 16_300
    assert [sum(one.level == level for one in SUBTASKS.values()) for level in LEVELS] == [4, 5, 7]


def test_each_subtask_stands_after_what_it_builds_on_and_levels_ascend() -> None:
    order = alignment.order()
    assert sorted(order) == sorted(SUBTASKS)
    for name, one in SUBTASKS.items():
        assert all(order.index(need) < order.index(name) for need in one.needs)
    levels = [LEVELS.index(SUBTASKS[name].level) for name in order]
    assert levels == sorted(levels)


@pytest.mark.parametrize(
    ("needs", "says"),
    [
        ({"a": ("b",), "b": ("a",)}, "in a circle: a -> b -> a"),
        ({"a": ("z",)}, "a builds on z, which is none of a"),
    ],
)
def test_a_wrong_graph_is_refused(needs, says) -> None:
    with pytest.raises(AlignmentError, match=says):
        alignment.order({name: Subtask("advanced", own, 1) for name, own in needs.items()})


def test_a_subtask_may_not_build_on_a_harder_one() -> None:
    graph = {"easy": Subtask("foundation", ("hard",), 1), "hard": Subtask("advanced", (), 1)}
    with pytest.raises(AlignmentError, match="easy is foundation, but builds on hard, which is advanced"):
        alignment.order(graph)


@given(st.floats(0.001, 3))
def test_quotas_scale_the_reports_counts(scale) -> None:
    found = alignment.quotas(scale)
    assert all(count == max(1, round(SUBTASKS[name].paper * scale)) for name, count in found.items())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"scale": 0.0}, "scale must be above 0 and finite, but it is 0.0"),
        ({"scale": float("inf")}, "but it is inf"),
        ({"only": ["poetry"]}, "there is no subtask poetry"),
    ],
)
def test_wrong_wishes_are_refused(facts, wrong, says) -> None:
    with pytest.raises(AlignmentError, match=says):
        alignment.build(facts, **wrong)


def test_the_world_has_something_for_every_subtask(built) -> None:
    assert list(built.counts) == alignment.order()
    assert all(count.made for count in built.counts.values())
    assert built.samples["subtask"].value_counts().to_pylist() == [
        {"values": name, "counts": count.made} for name, count in built.counts.items()
    ]
    for row in built.samples.to_pylist():
        assert row["answer"].strip()
        assert row["prompt"].count("<<<") == 1


def test_one_question_has_one_answer(built) -> None:
    asked = list(zip(built.samples["subtask"].to_pylist(), built.samples["prompt"].to_pylist(), strict=True))
    assert len(set(asked)) == len(asked)


def test_the_same_seed_gives_the_same_samples_whatever_else_is_asked_for(facts, built) -> None:
    some = alignment.build(facts, only=["induction", "query_correction"]).samples
    whole = built.samples.to_pylist()
    assert some.to_pylist() == [row for row in whole if row["subtask"] in ("induction", "query_correction")]
    other = alignment.build(facts, seed=1, only=["classification"]).samples
    assert other.to_pylist() != [row for row in whole if row["subtask"] == "classification"]


def test_answers_are_what_is_true_in_the_world(world, built) -> None:
    answers = {row["prompt"]: (row["answer"], row["subtask"]) for row in built.samples.to_pylist()}
    typed = {row["query"]: row["correction"] for row in world.truth["queries"].to_pylist() if row["kind"] == "misspelt"}
    lines = {"query_correction": 0, "induction": 0, "sentiment": 0}
    themes = {row["ware"]: row["theme"] for row in world.truth["items"].to_pylist() if row["kind"] == "interest"}
    said = {}
    for review, true in zip(world.reviews.to_pylist(), world.truth["reviews"].to_pylist(), strict=True):
        said.setdefault(review["text"], set()).add(true["sentiment"])
    for prompt, (answer, subtask) in answers.items():
        head, body = prompt.split("\n", 1)
        shown = body.partition(f"\n{head.removeprefix('<<<')}>>>")[0]
        if subtask == "query_correction":
            assert typed[shown] == answer
        elif subtask == "induction":
            goods = shown.split(", ")
            planted = {themes[ware] for ware in themes if any(set(words(ware)) <= set(words(tag)) for tag in goods)}
            # Goods of a season have no interest in the truth; the pool has one for some.
            assert answer in planted or not planted
            lines[subtask] -= not planted
        elif subtask == "sentiment":
            assert said[shown.rpartition("review: ")[2]] == {answer}
        else:
            continue
        lines[subtask] += 1
    assert all(lines.values()), lines


def test_what_is_held_out_is_never_learned_from(world) -> None:
    since = datetime(2024, 9, 1, tzinfo=UTC)
    users = sorted(set(world.users["user_id"].to_pylist()))[:30]
    held = HeldOut(users, since)
    samples = alignment.build(Facts.of(world, held_out=held)).samples
    held.refuse(samples)
    assert not set(samples["user_id"].to_pylist()) & set(users)
    assert max(at for at in samples["at"].to_pylist() if at) < since


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (HeldOut(users=["u0042"]), "has the user_id u0042"),
        (HeldOut(since=datetime(2024, 6, 1, tzinfo=UTC)), "has the at 2024"),
        (HeldOut(origins=["world/seed=0"]), "has the origin world/seed=0"),
    ],
)
def test_a_planted_leak_is_refused(built, held, says) -> None:
    with pytest.raises(AlignmentError, match=says):
        held.refuse(built.samples)


def test_a_moment_without_a_zone_holds_nothing_out() -> None:
    with pytest.raises(NaiveTimestampError, match="`since` must carry a time zone"):
        HeldOut(since=datetime(2024, 6, 1))


def test_a_held_out_world_is_refused_before_anything_is_read(world) -> None:
    with pytest.raises(AlignmentError, match="the log 'world' is held out for judging; build from another"):
        Facts.of(world, held_out=HeldOut(origins=["world"]))
    with pytest.raises(AlignmentError, match="nothing of world is left to learn from"):
        Facts.of(world, held_out=HeldOut(since=datetime(2001, 1, 1, tzinfo=UTC)))


def test_topological_order_keeps_subtasks_together_and_shuffled_does_not(built) -> None:
    places = [alignment.order().index(name) for name in alignment.arrange(built.samples)["subtask"].to_pylist()]
    assert places == sorted(places)
    mixed = alignment.arrange(built.samples, "shuffled", seed=3)
    assert sorted(map(repr, mixed.to_pylist())) == sorted(map(repr, built.samples.to_pylist()))
    turns = [one != other for one, other in zip(mixed["subtask"].to_pylist(), mixed["subtask"].to_pylist()[1:])]  # noqa: B905
    assert sum(turns) > len(turns) / 2
    with pytest.raises(AlignmentError, match="order must be topological or shuffled, but it is 'easy'"):
        alignment.arrange(built.samples, "easy")


def test_a_log_without_truth_teaches_by_what_was_typed_next() -> None:
    log = shop([
        (0, "?dome tetn", None), (1, "?dome tent", None), (2, "click", "1"),
        (60, "?tent", None), (61, "?green tent", None), (62, "click", "1"),
        (500, "?socks", None), (540, "?wool socks", None),
    ])  # fmt: skip
    facts = Facts.of(log)
    (slip,) = query_correction(facts, random.Random(0))
    assert (slip.given, slip.answer, slip.user) == ("dome tetn", "dome tent", "ann")
    (fuller,) = query_rewriting(facts, random.Random(0))
    # Forty minutes later it is another search.
    assert (fuller.given, fuller.answer) == ("shopper: age 30\nsearch: tent", "green tent")


def test_only_the_first_look_soon_after_a_search_was_found_by_it() -> None:
    log = shop([
        (0, "?tent", None), (1, "exposure", "2"), (2, "click", "1"), (3, "click", "2"),
        (100, "?socks", None), (160, "click", "2"),
    ])  # fmt: skip
    found = list(Facts.of(log).searches(random.Random(0)))
    assert [(one.query, one.item.item_id) for one in found] == [("tent", "1")]


def test_without_truth_stars_tell_the_sentiment() -> None:
    stamps = [BEGUN + timedelta(hours=hour) for hour in range(3)]
    reviews = pa.table({
        "user_id": ["ann"] * 3, "item_id": ["1"] * 3, "timestamp": pa.array(stamps, pa.timestamp("us", "UTC")),
        "text": ["dry all night", "so so", "it leaks"], "rating": [5.0, 3.0, 1.0],
    })  # fmt: skip
    said = Facts.of(shop([(0, "purchase", "1")], reviews=reviews)).said(random.Random(0))
    assert {one.text: one.positive for one in said} == {"dry all night": True, "it leaks": False}


def test_hostile_texts_stay_inside_their_fence() -> None:
    data = datasets.load("world", hostile=True)
    for row in alignment.build(Facts.of(data), scale=0.2).samples.to_pylist():
        head, body = row["prompt"].split("\n", 1)
        assert body.count(f"\n{head.removeprefix('<<<')}>>>\n") == 1


def test_no_control_token_of_a_record_reaches_a_sample_whole() -> None:
    data = shop([(0, "purchase", "1")])
    marked = data.items.append_column("attributes", pa.array(["green; <|im_end|>", None]))
    marked = marked.append_column("brand", pa.array(["Acorn", None]))
    facts = Facts.of(Dataset("shop", data.events, marked, data.users))
    (sample,) = alignment.build(facts, only=["item_points"]).samples.to_pylist()
    assert "- (|im_end|)" in sample["answer"]
    assert "<|im_end|>" not in sample["prompt"] + sample["answer"]


def test_a_shops_own_wording_is_checked(facts, tmp_path) -> None:
    (tmp_path / "sentiment.md").write_text("Tell me.", encoding="utf-8")
    with pytest.raises(PromptError, match=r"sentiment\.md must begin with a TOML header"):
        alignment.build(facts, only=["sentiment"], folder=tmp_path)


def test_a_shop_with_nothing_to_learn_from_is_told_what_is_missing() -> None:
    with pytest.raises(AlignmentError, match="shop has nothing for sentiment: they need items"):
        alignment.build(Facts.of(shop([(0, "purchase", "1")])), only=["sentiment"])


def test_the_command_writes_the_samples_without_the_days_that_are_judged(tmp_path, capsys, monkeypatch) -> None:
    (tmp_path / "run.toml").write_text(
        f'out = "{tmp_path}/out"\n[data]\ndataset = "world"\ntest_days = 200\n[llm]\nengine = "fake"\n',
        encoding="utf-8",
    )
    (tmp_path / "users.txt").write_text("u0003\n\nu0004\n", encoding="utf-8")
    words = ["align", "curriculum", f"{tmp_path}/run.toml", "--hold-out", f"{tmp_path}/users.txt", "--json"]
    monkeypatch.setattr("sys.argv", ["recgpt", *words, "--scale", "0.5"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    said = json.loads(capsys.readouterr().out)
    samples = pq.read_table(said["file"])
    assert said["samples"] == len(samples) == sum(row["made"] for row in said["subtasks"])
    assert [row["asked"] for row in said["subtasks"][:4]] == [17, 100, 50, 50]
    assert samples.schema.equals(alignment.SAMPLES, check_metadata=False)
    assert not {"u0003", "u0004"} & set(samples["user_id"].to_pylist())
    since = datetime.fromisoformat(json.loads(samples.schema.metadata[b"recgpt.curriculum"])["since"])
    assert max(at for at in samples["at"].to_pylist() if at) < since
    assert [path.name for path in Path(said["file"]).parent.iterdir()] == ["curriculum.parquet"]


def test_where_nothing_can_be_written_the_old_samples_stay(tmp_path, monkeypatch) -> None:
    text = f'out = "{tmp_path}/out"\n[data]\ndataset = "world"\n[llm]\nengine = "fake"\n'
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    _, path = run.curriculum(tmp_path / "run.toml", only=["sentiment"])
    before = path.read_bytes()

    def full(table: pa.Table, where: Path) -> None:
        where.write_bytes(b"PAR1")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(AlignmentError, match=r"curriculum\.parquet cannot be written: No space left on device"):
        run.curriculum(tmp_path / "run.toml", only=["induction"])
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["curriculum.parquet"]
