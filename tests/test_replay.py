"""Replay and its baselines: fractions by hand, a slow and plain twin, and the command line on a bundle and a folder."""

import json
import sys
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from browsing import opened
from command import say

from recgpt import errors, schema, serving
from recgpt.evaluation import Replay, baselines, replay, replay_page, truths
from recgpt.pipeline import data_of

NOW = datetime(2024, 3, 15, tzinfo=UTC)
ITEMS = schema.rows(
    [{"item_id": item, "title": item, "category": (item in "ab" and "x") or "y"} for item in "abcdef"], schema.ITEMS
)


def events(*bought: tuple[str, str, int]) -> pa.Table:
    rows = [
        {"user_id": user, "item_id": item, "behavior": "purchase", "timestamp": NOW + timedelta(days=day)}
        for user, item, day in bought
    ]
    return schema.rows(rows, schema.EVENTS)


LOG = events(
    ("1", "a", -9), ("1", "b", -8), ("2", "a", -7), ("2", "c", -6),
    ("1", "c", 1), ("1", "a", 2), ("2", "d", 3), ("3", "e", 4), ("3", "zz", 5),
)  # fmt: skip
"""Users 1 and 2 are known; 3 comes later and buys e, which nobody had, and zz, which the catalogue lacks."""
USERS = schema.rows(
    [{"user_id": "1", "attributes": "age 20; town"}, {"user_id": "2", "attributes": "town"}, {"user_id": "3"}],
    schema.USERS,
)


class Fixed:
    """A bundle that knows users 1 and 2; tags bring c to user 1, the user tower alone brings f."""

    def __init__(self, now: datetime = NOW) -> None:
        self.manifest = {"now": now.isoformat(), "beta": 0.5}
        self.asked: list[float | None] = []

    def recommend(self, user_ids: Any, k: int = 20, beta: float | None = None, exclude: Any = None) -> pa.Table:
        self.asked.append(beta)
        lists = {"1": "fc" if beta == 1.0 else "cf", "2": "d" if exclude else "ad", "3": "ef"}
        rows = [
            {"user_id": user, "item_id": item, "cold": user == "3"}
            for user in user_ids
            for item in [one for one in lists[user] if one not in (exclude or {}).get(user, ())][:k]
        ]
        return pa.Table.from_pylist(rows)


def judged(bundle: Any = None, **options: Any) -> Replay:
    return replay(bundle or Fixed(), LOG, ITEMS, USERS, **{"k": 1, **options})


def figure(found: Replay, segment: str, ranker: str, measure: str) -> float:
    (row,) = (row for row in found.rows if (row.segment, row.ranker) == (segment, ranker))
    return row.figures[measure].value


def test_every_ranker_segment_and_reading_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["recgpt.evaluation.replay"], "LEAST", 1)
    found = judged()
    assert (found.now, found.users, found.cold) == (NOW, 3, 1)
    # 1 gets c (hit), 2 gets a (no), 3 gets e (hit); bestsellers: a is a hit for 1 alone.
    assert figure(found, "all", "recgpt", "hr@1") == 2 / 3
    assert figure(found, "all", "popularity", "hr@1") == 1 / 3
    assert figure(found, "all", "buy-again", "hr@1") == 1 / 3
    # New: 1 gets c, 2 gets d, 3 gets e, all hits. Item-kNN: 1 c by a, 2 b by a, 3 the bestseller a.
    assert figure(found, "all", "recgpt", "hr@1_new") == 1.0
    assert figure(found, "all", "item-kNN", "hr@1_new") == 1 / 3
    # Unsold: c was sold to 2; d, e and zz to nobody.
    assert figure(found, "all", "recgpt", "hr@1_unsold") == 1.0
    assert figure(found, "warm", "recgpt", "hr@1") == 1 / 2
    assert figure(found, "cold", "recgpt", "hr@1") == 1.0
    assert figure(found, "history: none", "recgpt", "hr@1") == 1.0
    assert figure(found, "history: 1 to 4", "recgpt", "hr@1") == 1 / 2
    assert figure(found, "attribute: town", "popularity", "hr@1") == 1 / 2
    assert figure(found, "attribute: age 20", "recgpt", "hr@1") == 1.0
    assert {row.segment for row in found.rows if row.users == 0} == set()


def test_paired_tests_hold_the_bundle_against_each_baseline() -> None:
    found = judged()
    (one,) = (one for one in found.tests if (one.segment, *one[1:3]) == ("all", "hr@1_new", "popularity"))
    # Popularity without own items: c (2 sales of a, then b and c level, by row): 1 gets c, 2 gets b, 3 gets a.
    assert one.paired.difference.value == pytest.approx(2 / 3)
    assert (one.paired.better, one.paired.worse, one.paired.users) == (2, 0, 3)
    assert one.adjusted >= one.paired.p
    assert {one.baseline for one in found.tests} == set(baselines.rankers())


def test_segments_are_tested_too_and_pay_for_their_number() -> None:
    found = judged()
    segments = [row.segment for row in found.rows if row.ranker == "recgpt"]
    assert segments == ["all", "warm", "cold", "history: none", "history: 1 to 4"]
    tested = {(one.segment, one.measure, one.baseline): one for one in found.tests}
    # Users 1 and 2 get what they then buy, popularity gives 1 the same c and 2 something else.
    warm = tested["warm", "hr@1_new", "popularity"].paired
    assert (warm.difference.value, warm.better, warm.worse, warm.users) == (0.5, 1, 0, 2)
    assert tested["cold", "hr@1_new", "popularity"].paired.users == 1
    family = [one for one in found.tests if one.segment != "all" and one.measure == "hr@1_new"]
    assert len(family) == 4 * len(baselines.rankers())
    assert min(one.adjusted for one in family) == min(1.0, len(family) * min(one.paired.p for one in family))
    assert ("cold", "hr@1_unsold", "popularity") in tested
    assert json.loads(json.dumps(found.figures()))["tests"][-1]["segment"] == "history: 1 to 4"


def test_the_sweep_asks_the_bundle_itself_at_every_beta() -> None:
    bundle = Fixed()
    found = judged(bundle, betas=(0.0, 1.0))
    assert bundle.asked == [None, None, 1.0, 0.0]
    assert [(row.beta, row.hit_rate.mean) for row in found.sweep] == [(0.0, 1.0), (1.0, 2 / 3)]
    assert found.sweep[0].exclusive_recall.mean == pytest.approx((1 + 0 + 0) / 3)


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(errors.NaiveTimestampError, match=r"for UTC write 2024-03-15T00:00:00\+00:00"):
        judged(Fixed(), now=NOW.replace(tzinfo=None))


def test_a_bundle_that_may_know_the_answers_is_refused() -> None:
    with pytest.raises(errors.InvalidConfigError) as caught:
        judged(Fixed(NOW + timedelta(days=1)), now=NOW)
    assert str(caught.value) == (
        "the bundle knows events up to 2024-03-16 00:00:00+00:00, which is after `now` (2024-03-15 00:00:00+00:00): it may "
        "have learnt the answers; choose a `now` from then on, or a bundle made before"
    )
    assert judged(Fixed(NOW - timedelta(days=400)), now=NOW).now == NOW  # an old bundle is only stale


def test_what_can_be_said_only_in_words_is_a_named_caution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "find_spec", lambda _: None)
    narrow = replay(Fixed(), LOG, ITEMS.slice(0, 4), now=NOW, k=2)
    said = {one.name: one.text for one in narrow.cautions}
    assert (
        said["unknown_items"]
        == "the bundle recommends 2 items that the log's catalogue lacks; each takes a place and cannot hit"
    )
    assert "no_als" in said
    strange = events(("3", "a", -1), ("3", "e", 1))
    assert "all_cold" in {one.name for one in replay(Fixed(), strange, ITEMS, k=2).cautions}


def test_readings_without_a_truth_are_named_cautions() -> None:
    again = replay(Fixed(), events(("1", "a", -9), ("1", "a", 1)), ITEMS, k=2, baselines={})
    said = {one.name: one.text for one in again.cautions}
    text = "no held-out purchase is of an item that is new to its user, so there are no figures of new or unsold items"
    assert said["no_new"] == text
    assert set(again.rows[0].figures) == {"hr@2", "ndcg@2"}
    assert again.figures()["beta_sweep"][0]["hr@2_new"] is None
    shared = replay(Fixed(), events(("1", "a", -9), ("2", "c", -9), ("1", "c", 1)), ITEMS, k=2, baselines={})
    said = {one.name: one.text for one in shared.cautions}
    text = "no held-out new purchase is of an item that nobody had before, so there are no figures of unsold items"
    assert said["no_unsold"] == text
    assert set(shared.rows[0].figures) == {"hr@2", "ndcg@2", "hr@2_new", "ndcg@2_new"}
    assert not {"no_new", "no_unsold"} & {one.name for one in judged().cautions}


def test_a_log_without_times_asks_for_each_users_last() -> None:
    rows = [
        {"user_id": "1", "item_id": item, "behavior": "purchase", "position": place} for place, item in enumerate("abc")
    ]
    found = replay(Fixed(), schema.rows(rows, schema.EVENTS), ITEMS, k=1)
    assert (found.now, found.users, found.rows[0].figures["hr@1"].value) == (None, 1, 1.0)
    assert [one.name for one in found.cautions if one.name == "undated"]


def random_log(users: int, items: int, seed: int) -> tuple[pa.Table, list[str]]:
    rng = np.random.default_rng(seed)
    names = [f"i{n:02d}" for n in range(items)]
    bought = [
        (f"u{user}", names[item], -1 - n % 5)
        for user in range(users)
        for n, item in enumerate(rng.integers(0, items, 6))
    ]
    return events(*bought, *((f"u{user}", names[0], 1) for user in range(users))), names


@pytest.mark.parametrize("new", [False, True])
def test_item_knn_equals_the_item_by_item_matrix(new: bool) -> None:
    log, names = random_log(30, 20, 1)
    held_out = truths(log, names, now=NOW)
    found = baselines.item_knn(held_out, 5, new=new)
    had = np.zeros((held_out.everyone.users, len(names)))
    had[held_out.everyone.owners, held_out.everyone.values] = 1
    count = np.maximum(had.sum(axis=0), 1)
    near = had.T @ had / np.sqrt(np.outer(count, count))
    np.fill_diagonal(near, 0)
    for user in range(len(held_out.user_ids)):
        own = held_out.bought.of(user)
        scores = near[own].sum(axis=0)
        if new:
            scores[own] = -1
        # Equal sums may differ in their last bit by the order of adding.
        assert scores[found.of(user)] == pytest.approx(np.sort(scores)[::-1][:5])


@pytest.mark.skipif(find_spec("implicit") is None, reason="implicit is not installed: pip install 'recgpt[bench]'")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_als_ranks_every_user_without_repeats() -> None:
    log, names = random_log(30, 20, 2)
    held_out = truths(log, names, now=NOW)
    found = baselines.als(held_out, 5, new=True, factors=4)
    assert found.sizes.tolist() == [5] * 30
    for user in range(30):
        assert not set(found.of(user).tolist()) & set(held_out.bought.of(user).tolist())


def test_als_without_its_package_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "implicit.als", None)
    with pytest.raises(errors.MissingExtraError, match=r"pip install 'recgpt\[bench\]'"):
        baselines.als(truths(LOG, list("abcdef"), now=NOW), 1)


HOSTILE = "<script>document.title='attacked'</script>"


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_the_page_escapes_what_the_log_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["recgpt.evaluation.replay"], "LEAST", 1)
    users = schema.rows([{"user_id": "1", "attributes": HOSTILE}], schema.USERS)
    found = replay(Fixed(), LOG, ITEMS, users, k=1)
    page = replay_page.write(tmp_path / "replay.html", found).read_text(encoding="utf-8")
    for text in (page, found._repr_html_()):
        assert "<script" not in text
        assert "attribute: &lt;script&gt;" in text
    assert "default-src 'none'" in page
    for said in (
        "What ran",
        "9 events, 6 items",
        "purchase, from `now` on",
        "popularity, buy-again, item-kNN",
        "pyarrow",
    ):
        assert said in page
    assert json.loads(json.dumps(found.figures()))["rows"][0]["ranker"] == "recgpt"
    document, said = opened(tmp_path / "replay.html")
    assert "<title>recgpt replay</title>" in document
    assert "Content Security Policy" not in said


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A bundle of two users and a folder with what happened before and after it."""
    turned = np.eye(3, dtype=np.float32)
    empty: dict[str, Any] = {
        name: getattr(schema, name.upper()).empty_table() for name in ("tags", "interests", "explanations", "history")
    }
    path = serving.write(
        tmp_path / "bundles",
        user_ids=["1", "2"],
        user_vectors=turned[:2],
        item_ids=["c", "d", "f"],
        item_vectors=turned,
        tag_texts=[],
        tag_vectors=np.zeros((0, 3), np.float32),
        items=ITEMS,
        users=USERS,
        popularity=serving.POPULARITY.empty_table(),
        beta=0.5,
        now=NOW,
        lineage={},
        **empty,
    )
    serving.publish(tmp_path / "bundles", path.name)
    (tmp_path / "data").mkdir()
    rows = [
        f"{row['user_id']},{row['item_id']},purchase,{row['timestamp']:%Y-%m-%d %H:%M:%S}" for row in LOG.to_pylist()
    ]
    (tmp_path / "data/events.csv").write_text("\n".join(["who,item_id,behavior,timestamp", *rows]) + "\n", "utf-8")
    return tmp_path


def test_the_command_line_replays_a_bundle_on_a_folder(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (
        "evaluate",
        str(shop / "bundles"),
        "--data",
        str(shop / "data"),
        "--time-zone",
        "UTC",
        "--column",
        "who=user_id",
    )
    found = json.loads(say(capsys, *asked, "--k", "1", "--json", "--html", str(shop / "replay.html")))
    assert (found["users_evaluated"], found["cold"]) == (3, 1)
    assert found["ran"]["bundle"].startswith(str(shop / "bundles"))
    assert "data" in found["ran"]
    assert found["rows"][0]["hr@1_new"][0] == pytest.approx(2 / 3, abs=1e-5)  # 1 gets c, 2 gets d, 3 nothing
    assert (shop / "replay.html").stat().st_size > 10_000
    shown = say(capsys, *asked)
    assert "held out: 3 users, 1 cold" in shown
    assert "recgpt minus" in shown


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--column", "who"), "--column must be OWN=OURS, such as users.country=attributes, but it is 'who'"),
        (("--now", "noon"), "--now must be a time such as 2011-11-11T00:00+00:00, but it is 'noon'"),
        (
            ("--now", "2024-01-01T00:00+00:00", "--time-zone", "UTC", "--column", "who=user_id"),
            "the bundle knows events up to",
        ),
    ],
)
def test_what_a_replay_cannot_use_is_one_line(
    shop: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], text: str
) -> None:
    said = say(capsys, "evaluate", str(shop / "bundles"), "--data", str(shop / "data"), *more, status=1)
    assert text in said
    assert said.startswith(("recgpt: ", "replay "))


@pytest.mark.parametrize("more", [["--world"], ["--noise"], ["--ablate", "history"], ["--households", "3"]])
def test_a_replay_runs_no_stages(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert say(capsys, "evaluate", "bundles", "--data", "world", *more, status=1) == (
        "recgpt: --world, --ablate, --noise and --households run the stages, and --data replays what they made; "
        "choose one\n"
    )


def test_options_of_a_replay_need_its_log(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(capsys, "evaluate", str(shop / "bundles"), "--html", "x.html", status=1) == (
        "recgpt: --html, --now, --time-zone and --column belong to a replay; name its log with --data\n"
    )
    with pytest.raises(errors.InvalidConfigError, match=r"has its own \[data\]"):
        data_of("runs/demo.toml", time_zone="UTC")
    assert data_of("world").dataset == "world"
