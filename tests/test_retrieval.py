"""The three towers: what they learn, what they may see, what they refuse, and that serving needs no torch."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recgpt import retrieval, schema
from recgpt.errors import (
    BundleError,
    EmptyLogError,
    InvalidArrayError,
    InvalidTableError,
    MissingExtraError,
    NaiveTimestampError,
)
from recgpt.retrieval.config import POOLINGS
from recgpt.retrieval.features import read_log
from recgpt.retrieval.pooling import Acts

torch = pytest.importorskip("torch")

NOW = datetime(2024, 6, 1, tzinfo=UTC)
KINDS = ("garden", "kitchen", "toy")
WORDS = ("hose", "rake", "spade", "glove", "seed", "bench", "lamp", "pot", "net", "cart")
TINY = retrieval.Config(
    embedding_size=16,
    feature_size=4,
    word_size=8,
    hidden_size=24,
    buckets=4,
    min_count=1,
    uniform_negatives=24,
    pairs=32,
    batch_size=16,
    steps=12,
    epochs=6,
    learning_rate=0.02,
    half_life_days=0,
    threads=1,
)


def items() -> pa.Table:
    """30 items: 10 of each kind, one word each."""
    return pa.table(
        {
            "item_id": [f"{kind}-{word}" for kind in KINDS for word in WORDS],
            "title": [f"{kind} {word}" for kind in KINDS for word in WORDS],
            "category": [kind for kind in KINDS for _ in WORDS],
            "brand": ["acme", "best"] * 15,
            "price": [1.0 + row for row in range(30)],
        }
    )


def tags() -> pa.Table:
    return pa.table({"item_id": items()["item_id"], "tag": items()["title"]})


def events() -> pa.Table:
    """12 users, four a kind, who click and buy 7 of the 10 items of their kind over 80 days; the last 3 are new."""
    rows = []
    for user in range(12):
        kind = KINDS[user % 3]
        for act in range(7):
            item = f"{kind}-{WORDS[(user + act) % 10]}"
            moment = NOW - timedelta(days=80 - 11 * act, hours=user)
            rows.append((f"u{user:02}", item, "click", moment))
            rows.append((f"u{user:02}", item, "purchase", moment + timedelta(minutes=5)))
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip(("user_id", "item_id", "behavior", "timestamp"), map(list, columns), strict=True)))


@pytest.fixture(scope="module")
def towers() -> retrieval.Towers:
    return retrieval.train(events(), items(), tags(), now=NOW, config=TINY)


def test_users_find_new_items_of_their_kind() -> None:
    bought = set(zip(events()["user_id"].to_pylist(), events()["item_id"].to_pylist(), strict=True))
    right = 0
    for seed in range(3):
        towers = retrieval.train(events(), items(), tags(), now=NOW, config=replace(TINY, seed=seed))
        scores = towers.user_vectors @ towers.item_vectors.T
        assert towers.item_ids == items()["item_id"].to_pylist()
        for row, user in enumerate(towers.user_ids):
            fresh = [at for at, item in enumerate(towers.item_ids) if (user, item) not in bought]
            top = sorted(fresh, key=lambda at: -scores[row, at])[:3]
            right += sum(towers.item_ids[at].startswith(KINDS[int(user[1:]) % 3]) for at in top)
    # By chance 3 of 23 new items are of the kind: under 15 of 108. Six seeds gave 15 to 31 of 36 each.
    assert right >= 45


def test_vectors_are_finite_float32_of_length_one(towers: retrieval.Towers) -> None:
    for vectors in (towers.user_vectors, towers.item_vectors, towers.tag_vectors(["garden hose"])):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_tag_finds_its_items_and_unknown_words_are_left_out() -> None:
    right = 0
    for seed in range(4):
        towers = retrieval.train(events(), items(), tags(), now=NOW, config=replace(TINY, seed=seed))
        found = towers.tag_vectors(["garden", "Garden zzzz", "zzzz", ""])
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(found[2:], np.zeros((2, 16), np.float32))
        best = np.argsort(-(towers.item_vectors @ found[0]))[:10]
        right += sum(towers.item_ids[at].startswith("garden-") for at in best)
    # By chance 13 of 40: one seed alone had 6 to 10 of 10.
    assert right >= 28


def test_a_tag_tells_the_items_of_one_category_apart() -> None:
    config = replace(TINY, alpha=1.0, epochs=15, patience=15, refit_epochs=0)
    found = retrieval.train(events(), items(), tags(), now=NOW, config=config)
    # 10 items share a category: knowing no more than it leaves L_tag at log 10 = 2.3.
    assert found.log[-1]["l_tag"] < 1.5


@pytest.mark.parametrize(
    ("pooling", "hidden"), [(kind, hidden) for kind in POOLINGS for hidden in (24, 0) if (kind, hidden) != ("next", 24)]
)
def test_numpy_says_what_torch_says(pooling: str, hidden: int) -> None:
    from recgpt.retrieval import forward
    from recgpt.retrieval.features import ItemFeatures
    from recgpt.retrieval.fitting import sequence
    from recgpt.retrieval.model import TriTower

    rng = np.random.default_rng(0)
    rows = {"user": 5, "item": 6, "category": 3, "brand": 3, "price": 4, "sales": 12, "word": 9}
    net = TriTower(rows, 2, replace(TINY, pooling=pooling, hidden_size=hidden))
    for parameter in net.parameters():  # what starts at zero would say nothing
        torch.nn.init.normal_(parameter, std=0.5)
    weights = {name: tensor.detach().numpy() for name, tensor in net.state_dict().items()}
    words = rng.integers(0, 9, (7, 4))
    words[2] = 0
    names = ("item", "category", "brand", "price")
    features = ItemFeatures(
        **{name: rng.integers(0, rows[name], 7) for name in names}, sales=rng.integers(0, 12, (7, 4)), words=words
    )
    vectors = forward.item_vectors(weights, features)
    with torch.no_grad():
        np.testing.assert_allclose(vectors, net.item_vectors(features).numpy(), atol=1e-6)
        users = np.array([0, 4, 2])
        # The middle user has nothing of the first behavior, the last one nothing of the second.
        sequences = [
            (np.array([1, 2, 6]), np.array([0, 2, 2, 3])),
            (np.array([0, 5, 5]), np.array([0, 1, 3, 3])),
        ]
        latest = [sequence(net, flat, ends) for flat, ends in sequences]
        profile = [(one.rows, one.begin) for one in latest[::-1]] if pooling != "mean" else []
        known_items = torch.from_numpy(vectors)
        said = net.user_vectors(torch.from_numpy(users), known_items, latest, profile, known_items).numpy()
        acts = Acts(sequences, sequences[::-1] if profile else [])
        np.testing.assert_allclose(forward.user_vectors(weights, users, vectors, acts), said, atol=1e-6)
        known = words[(words > 0).any(axis=1)]
        np.testing.assert_allclose(
            forward.tag_vectors(weights, known), net.tag_vectors(torch.from_numpy(known)).numpy(), atol=1e-6
        )


def test_the_same_seed_gives_the_same_vectors_and_the_future_changes_nothing(towers: retrieval.Towers) -> None:
    future = pa.table(
        {
            "user_id": ["u00", "later"],
            "item_id": ["toy-net", "toy-net"],
            "behavior": ["purchase", "purchase"],
            "timestamp": [NOW, NOW + timedelta(days=1)],
        }
    )
    shuffled = pa.concat_tables(
        [future, events().slice(0, 0), events().take(np.random.default_rng(1).permutation(168))]
    )
    again = retrieval.train(shuffled, items(), tags(), now=NOW, config=TINY)
    assert again.user_ids == towers.user_ids
    np.testing.assert_array_equal(again.user_vectors, towers.user_vectors)
    np.testing.assert_array_equal(again.item_vectors, towers.item_vectors)
    other = retrieval.train(events(), items(), tags(), now=NOW, config=replace(TINY, seed=1))
    assert not np.array_equal(other.user_vectors, towers.user_vectors)


def test_training_adds_in_a_fixed_order_and_leaves_the_settings_of_torch_alone() -> None:
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    seen: list[tuple[int, int]] = []

    def stop(done: int, planned: int, text: str) -> None:
        # Without it the demo's towers differed from run to run on two threads (docs/log.md); no small log shows that.
        assert torch.are_deterministic_algorithms_enabled()
        seen.append((done, planned))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrieval.train(events(), items(), tags(), now=NOW, config=TINY, progress=stop)
    assert [done for done, _ in seen] == [1, 2, 3]
    assert seen[0][1] > 3
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_curve_shows_validation_and_refit(towers: retrieval.Towers) -> None:
    phases = [row["phase"] for row in towers.log]
    assert phases[-TINY.refit_epochs :] == ["refit"] * TINY.refit_epochs
    learned = [row for row in towers.log if row["phase"] == "learn"]
    assert all(0 <= row["recall"] <= 1 for row in learned)
    assert learned[-1]["l_col"] < learned[0]["l_col"]


def test_save_and_load_change_nothing(towers: retrieval.Towers, tmp_path: Path) -> None:
    towers.save(tmp_path / "one")
    again = retrieval.load(tmp_path / "one")
    again.save(tmp_path / "two")
    for name in ("towers.safetensors", "towers.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["towers.json", "towers.safetensors"]
    np.testing.assert_array_equal(again.tag_vectors(["toy net"]), towers.tag_vectors(["toy net"]))
    assert again.config == towers.config


@pytest.mark.parametrize("damage", ["missing", "cut", "words"])
def test_damaged_towers_are_refused(towers: retrieval.Towers, tmp_path: Path, damage: str) -> None:
    towers.save(tmp_path)
    weights = tmp_path / "towers.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-9])
    else:
        (tmp_path / "towers.json").write_text('{"format": 2}')
    with pytest.raises(BundleError, match=r"expected towers\.json and towers\.safetensors in"):
        retrieval.load(tmp_path)


def test_vectors_that_are_not_finite_are_refused(towers: retrieval.Towers) -> None:
    vectors = towers.item_vectors.copy()
    vectors[3, 2] = np.nan
    with pytest.raises(InvalidArrayError, match="`item_vectors` must be finite, but 1 of 480 values are not"):
        replace(towers, item_vectors=vectors)
    with pytest.raises(InvalidArrayError, match=r"one row an id, \(12, d\), but its shape is \(11, 16\)"):
        replace(towers, user_vectors=towers.user_vectors[1:])


def test_users_can_be_read_without_training(towers: retrieval.Towers) -> None:
    names, vectors = towers.user_vectors_for(events(), now=NOW)
    assert names == towers.user_ids
    np.testing.assert_allclose(vectors, towers.user_vectors, atol=1e-6)
    # A stranger with the history of a toy buyer finds toys.
    stranger = events().filter(pa.compute.equal(events()["user_id"], "u02")).drop_columns(["user_id"])
    stranger = stranger.append_column("user_id", [["new"] * stranger.num_rows])
    names, vectors = towers.user_vectors_for(stranger, now=NOW)
    assert names == ["new"]
    best = np.argsort(-(towers.item_vectors @ vectors[0]))[:5]
    assert sum(towers.item_ids[at].startswith("toy") for at in best) >= 4


def _without_torch(code: str, tmp_path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_serving_needs_no_torch(towers: retrieval.Towers, tmp_path: Path) -> None:
    towers.save(tmp_path)
    code = (
        "import sys; from recgpt import retrieval; t = retrieval.load(sys.argv[1]); "
        "print(t.tag_vectors(['toy net']).shape, 'torch' in sys.modules)"
    )
    assert _without_torch(code, tmp_path) == "(1, 16) False"


def test_training_without_torch_names_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from recgpt import retrieval\n"
        "from recgpt.errors import MissingExtraError\n"
        "try: retrieval.train(None, None, None, now=None)\n"
        "except MissingExtraError as error: print(error)"
    )
    assert _without_torch(code, tmp_path) == "training needs torch; run: pip install 'recgpt[train]'"
    assert issubclass(MissingExtraError, ImportError)


@pytest.mark.parametrize("refit", [0, 1])
def test_without_a_refit_items_are_served_as_training_met_them(refit: int) -> None:
    """Sales that grew in the held-out days and ids first seen there are features no weight has learnt."""
    users = sorted(set(events()["user_id"].to_pylist()))
    columns = {"user_id": users, "item_id": ["toy-cart"] * 12, "behavior": ["purchase"] * 12}
    log = pa.concat_tables([events().select(list(columns)), pa.table(columns)])  # all buy the same thing last
    untimed = log.append_column("position", [list(range(log.num_rows))])
    found = retrieval.train(untimed, items(), tags(), now=None, config=replace(TINY, epochs=1, refit_epochs=refit))
    assert found.validated is not None
    assert np.array_equal(found.item_vectors, found.validated.item_vectors) == (refit == 0)


def test_towers_side_by_side_learn_everything_from_new_weights() -> None:
    """Then nothing is left of the weights that validation chose but how many epochs they had."""
    anew = retrieval.train(events(), items(), tags(), now=NOW, config=replace(TINY, anew="attention, query"))
    further = retrieval.train(events(), items(), tags(), now=NOW, config=TINY)
    learned = [row for row in anew.log if row["phase"] == "learn"]
    assert learned == [row for row in further.log if row["phase"] == "learn"]
    best = max(range(len(learned)), key=lambda at: learned[at]["recall"])
    refit = anew.log[len(learned) :]
    assert [row["phase"] for row in refit] == ["refit"] * 2 * (best + 1)
    # From new weights the loss begins where it began, not where it had come to.
    assert refit[0]["l_col"] > further.log[len(learned)]["l_col"] + 0.2
    # Two towers in one vector: their cosines' mean, for items, users and tags alike.
    assert anew.item_vectors.shape == (30, 32)
    pair = [anew.user_vectors[:, half] @ anew.item_vectors[:, half].T for half in (slice(16), slice(16, 32))]
    assert not np.allclose(*pair, atol=0.01)
    for vectors in (anew.item_vectors, anew.user_vectors, anew.tag_vectors(["garden hose"])):
        np.testing.assert_allclose((vectors.reshape(-1, 2, 16) ** 2).sum(axis=2), 0.5, atol=1e-5)
    names, read = anew.user_vectors_for(events(), now=NOW)
    np.testing.assert_allclose(read, anew.user_vectors, atol=1e-6)
    assert names == anew.user_ids


def test_a_log_without_times_is_ordered_by_position() -> None:
    timed = events().sort_by("timestamp")
    untimed = timed.drop_columns(["timestamp"]).append_column("position", [list(range(timed.num_rows))])
    found = retrieval.train(untimed, items(), tags(), now=None, config=TINY)
    assert found.user_vectors.shape == (12, 16)
    assert "recall" in found.log[0]
    log = read_log(untimed, found.item_ids, now=None)
    assert not log.timed
    assert (np.diff(log.order[log.user == 0]) > 0).all()


@pytest.mark.parametrize("gone", [["category"], ["brand", "price"], ["category", "brand", "price", "title"]])
def test_items_with_fewer_features_train(gone: list[str]) -> None:
    few = retrieval.train(events(), items().drop_columns(gone), tags(), now=NOW, config=replace(TINY, epochs=1))
    assert np.isfinite(few.item_vectors).all()


def test_no_tags_and_one_short_day_train_too() -> None:
    day = pa.table(
        {
            "user_id": ["a", "b"],
            "item_id": ["toy-net", "toy-pot"],
            "behavior": ["cart", "cart"],
            "timestamp": [NOW - timedelta(hours=1)] * 2,
        }
    )
    nothing = tags().slice(0, 0)
    found = retrieval.train(day, items(), nothing, now=NOW, config=replace(TINY, epochs=1))
    # Nothing can be held out of one day, so nothing was measured and nothing is refitted.
    assert [set(row) for row in found.log] == [{"epoch", "phase", "l_col", "l_tag", "l_cate"}]
    assert found.log[0]["l_tag"] == 0


def test_tags_can_be_the_negatives_of_l_tag(towers: retrieval.Towers) -> None:
    other = retrieval.train(events(), items(), tags(), now=NOW, config=replace(TINY, negatives="tags"))
    assert not np.array_equal(other.item_vectors, towers.item_vectors)
    best = np.argsort(-(other.item_vectors @ other.tag_vectors(["garden hose"])[0]))[:5]
    assert sum(other.item_ids[at].startswith("garden") for at in best) >= 4


def test_a_loss_that_is_not_finite_stops() -> None:
    with pytest.raises(InvalidArrayError, match="the training loss must stay finite, but it is nan in epoch"):
        retrieval.train(events(), items(), tags(), now=NOW, config=replace(TINY, learning_rate=1e30))


def test_bad_input_is_named() -> None:
    with pytest.raises(NaiveTimestampError, match="`now` must be a datetime with a time zone"):
        retrieval.train(events(), items(), tags(), now=datetime(2024, 6, 1))
    with pytest.raises(EmptyLogError, match="none of 0 fits"):
        retrieval.train(events(), items(), tags(), now=NOW - timedelta(days=900))
    with pytest.raises(InvalidTableError, match="distinct ids, but it has 60 rows and 30 distinct ids"):
        retrieval.train(events(), pa.concat_tables([items(), items()]), tags(), now=NOW)


def test_events_are_read_through_the_schema() -> None:
    with pytest.raises(InvalidTableError, match="column `behavior` is missing"):
        retrieval.train(events().drop_columns(["behavior"]), items(), tags(), now=NOW)
    assert schema.EVENTS.names[:3] == ["user_id", "item_id", "behavior"]


def test_towers_learn_without_categories() -> None:
    bare = items().drop_columns(["category"])
    trained = retrieval.train(events(), bare, tags(), now=NOW, config=TINY)
    assert {row["l_cate"] for row in trained.log} == {0.0}
    assert all(math.isfinite(row["l_tag"]) and row["l_tag"] > 0 for row in trained.log)
    assert trained.item_vectors.shape == (30, 16)


def test_the_papers_mean_pooling_finds_new_items_too(towers: retrieval.Towers) -> None:
    mean = retrieval.train(events(), items(), tags(), now=NOW, config=replace(TINY, pooling="mean"))
    assert set(towers.weights) - set(mean.weights) == {"pool_key", "pool_late"}
    best = np.argsort(-(mean.item_vectors @ mean.user_vectors[2]))[:5]
    assert sum(mean.item_ids[at].startswith("toy") for at in best) >= 4
