"""The fused kernel against its plain-Python twin and torch against the kernel; what an answer is made of."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import f32, i64, names

from recgpt import _core, _reference
from recgpt.errors import InvalidArrayError, InvalidConfigError
from recgpt.index import ExactIndex, TorchIndex, USearchIndex, build

NO_TAGS = np.zeros((0, 2), np.float32)
EVERY = pytest.mark.parametrize("kind", [ExactIndex, USearchIndex, TorchIndex])


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, object]:
    """Coarse values make ties; fine ones make rounding visible; more than 32 items fill several panels."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    coarse = draw(st.booleans())
    dim = draw(st.sampled_from([1, 2, 7, 16]))

    def rows(count: int) -> np.ndarray:
        values = rng.integers(-2, 3, (count, dim)) if coarse else rng.normal(size=(count, dim))
        return values.astype(np.float32)

    items, users = draw(st.sampled_from([1, 2, 31, 33, 80])), draw(st.integers(1, 4))
    tags, excluded = rng.integers(0, 4, users), rng.integers(0, items + 1, users)
    exclude = (rng.integers(0, items, int(excluded.sum())), i64([0, *np.cumsum(excluded)]))
    caps = (rng.integers(0, 3, items).astype(np.int32), draw(st.integers(1, 3)))
    return {
        "vectors": rows(items),
        "users": rows(users),
        "tags": rows(int(tags.sum())),
        "offsets": i64([0, *np.cumsum(tags)]),
        "beta": draw(st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0])),
        "k": draw(st.sampled_from([1, 3, 20, 200])),
        "exclude": exclude if draw(st.booleans()) else None,
        "caps": caps if draw(st.booleans()) else None,
        "fuse": draw(st.sampled_from(["max", "sum"])),
    }


KERNELS = [f"{name} {way}" for name in _core.kernels() for way in ("bytes", "floats")]


@given(worlds())
@settings(deadline=None)
def test_the_kernel_equals_its_twin_bit_for_bit(world: dict[str, object]) -> None:
    vectors, offsets, exclude = world.pop("vectors"), world["offsets"], world["exclude"]
    index = ExactIndex(vectors, names(len(vectors)))
    categories, limit = world["caps"] or (None, 0)
    expected = []
    for row, user in enumerate(world["users"]):
        first, last = offsets[row], offsets[row + 1]
        twin = _reference.search_one(
            vectors,
            user,
            world["tags"][first:last],
            beta=world["beta"],
            k=world["k"],
            exclude=() if exclude is None else set(exclude[0][exclude[1][row] : exclude[1][row + 1]].tolist()),
            categories=None if categories is None else categories.tolist(),
            limit=limit,
            fuse=world["fuse"],
        )
        own = _reference.search_one(
            vectors,
            user,
            world["tags"][:0],
            beta=1.0,
            k=world["k"],
            exclude=() if exclude is None else set(exclude[0][exclude[1][row] : exclude[1][row + 1]].tolist()),
            categories=None if categories is None else categories.tolist(),
            limit=limit,
        )
        without_tags = {item for item, *_ in own}
        for item, score, y_col, y_sem, tag in twin:
            expected.append(
                (row, f"item {item}", score, y_col, y_sem, -1 if tag < 0 else tag + first, item not in without_tags)
            )
    assert [tuple(row.values()) for row in index.search(**world).to_pylist()] == expected
    for kernel in KERNELS:
        other = ExactIndex(vectors, names(len(vectors)), kernel=kernel)
        assert other.search(**world).equals(index.search(**world)), kernel
    # A graph asked for everything sees everything, so here the approximate index must agree to the last bit too.
    world["k"] = 200
    assert USearchIndex(vectors, names(len(vectors))).search(**world).equals(index.search(**world))


@given(worlds())
@settings(deadline=None)
def test_lists_are_one_search_for_each_tag(world: dict[str, object]) -> None:
    vectors, tags, offsets, exclude = world.pop("vectors"), world["tags"], world["offsets"], world["exclude"]
    index = ExactIndex(vectors, names(len(vectors)))
    expected = []
    for row in range(len(world["users"])):
        first, last = offsets[row], offsets[row + 1]
        own = None
        if exclude is not None:
            values = exclude[0][exclude[1][row] : exclude[1][row + 1]]
            own = (values, i64([0, len(values)]))
        for tag in range(first, last) if first < last else [None]:
            mine = tags[:0] if tag is None else tags[tag : tag + 1]
            asked = {**world, "users": world["users"][row : row + 1], "tags": mine, "exclude": own, "fuse": "max"}
            for hit in index.search(**{**asked, "offsets": i64([0, len(mine)])}).to_pylist():
                expected.append({**hit, "row": row, "tag": -1 if tag is None else tag})
    assert index.search(**{**world, "fuse": "lists"}).to_pylist() == expected
    world["k"] = 200
    graph = USearchIndex(vectors, names(len(vectors)))
    assert graph.search(**{**world, "fuse": "lists"}).equals(index.search(**{**world, "fuse": "lists"}))


@given(worlds(), st.data())
@settings(deadline=None)
def test_adding_and_removing_equal_an_index_of_what_is_left(world: dict[str, object], data: st.DataObject) -> None:
    vectors, caps = world.pop("vectors"), world.pop("caps")
    count, ids = len(vectors), np.array(names(len(vectors)))
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=4)))
    grown = ExactIndex(vectors[:0], [])
    for start, end in zip([0, *cuts], [*cuts, count], strict=True):
        grown = grown.add(vectors[start:end], ids[start:end].tolist())
    gone = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    before = grown.search(**world, caps=caps)
    shrunk = grown.remove(ids[gone].tolist())
    assert (len(grown), len(shrunk)) == (count, count - gone.sum())
    assert grown.search(**world, caps=caps).equals(before), "an index that was taken from has changed"
    assert before.equals(ExactIndex(vectors, ids.tolist()).search(**world, caps=caps))
    # `exclude` and `caps` go on by the same rows; the plain index of what is left counts its own.
    place = np.cumsum(~gone) - 1
    if world["exclude"] is not None:
        values, offsets = world["exclude"]
        sizes = [(~gone[values[first:last]]).sum() for first, last in itertools.pairwise(offsets)]
        left = (place[values[~gone[values]]], i64([0, *np.cumsum(sizes)]))
    plain = ExactIndex(vectors[~gone], ids[~gone].tolist())
    asked = {**world, "exclude": None if world["exclude"] is None else left}
    plain_caps = None if caps is None else (caps[0][~gone], caps[1])
    assert shrunk.search(**world, caps=caps).equals(plain.search(**asked, caps=plain_caps))
    # Denying the same rows for one search is the same, and so is allowing the others.
    assert grown.search(**world, caps=caps, deny=np.flatnonzero(gone)).equals(shrunk.search(**world, caps=caps))
    assert grown.search(**world, caps=caps, allow=np.flatnonzero(~gone)).equals(shrunk.search(**world, caps=caps))
    graph = USearchIndex(vectors, ids.tolist())
    world["k"] = 200
    assert graph.search(**world, deny=np.flatnonzero(gone)).equals(shrunk.search(**world))
    assert graph.search(**world, allow=np.flatnonzero(~gone)).equals(shrunk.search(**world))


@given(worlds(), st.data())
@settings(deadline=None)
def test_torch_gives_the_same_answers(world: dict[str, object], data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    vectors, world["fuse"] = world.pop("vectors"), data.draw(st.sampled_from(["max", "sum", "lists"]))
    count = len(vectors)
    for name in ("allow", "deny"):
        world[name] = np.flatnonzero(rng.random(count) < 0.7) if data.draw(st.booleans()) else None
    cut = data.draw(st.integers(0, count))
    gone = [name for name in names(count) if rng.random() < 0.1]
    exact, torch = (
        kind(vectors[:cut], names(count)[:cut]).add(vectors[cut:], names(count)[cut:]).remove(gone)
        for kind in (ExactIndex, TorchIndex)
    )
    assert torch.search(**world).equals(exact.search(**world))


def test_torch_takes_more_items_where_the_bound_leaves_doubt() -> None:
    """A thousand items that differ by less than float32 sums can tell stand behind each other by row."""
    rng = np.random.default_rng(1)
    vectors = np.repeat(rng.normal(size=(1, 64)), 3000, axis=0).astype(np.float32)
    vectors[:, 0] += rng.integers(-2, 3, 3000).astype(np.float32) * 2**-22
    vectors[::3] = rng.normal(size=(1000, 64))
    asked = vectors[1:3].copy(), vectors[4:9].copy(), i64([0, 5, 5])
    exact, torch = ExactIndex(vectors, names(3000)), TorchIndex(vectors, names(3000), device="cpu")
    assert torch.device == "cpu"
    assert torch.search(*asked, k=20).equals(exact.search(*asked, k=20))
    with pytest.raises(InvalidConfigError, match="one that torch has here"):
        TorchIndex(vectors, names(3000), device="cuda:99")


def test_kernels_of_other_processors_are_named_when_they_are_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert _core.kernels()[-1] == "portable"
    for name in {"amx", "avx512", "avx2"} - set(_core.kernels()):
        with capsys.disabled():
            print(f"\nSKIPPED: this processor has no {name}; its kernel is compiled but not run")
    with pytest.raises(InvalidArrayError, match="portable before them, but row 0 is sse9"):
        ExactIndex(f32([[1]]), ["a"], kernel="sse9").search(f32([[1]]), f32(np.zeros((0, 1))), i64([0, 0]))


@pytest.mark.parametrize(
    ("index", "kind"), [("auto", ExactIndex), ("exact", ExactIndex), ("torch", TorchIndex), ("usearch", USearchIndex)]
)
def test_the_index_is_chosen_by_size(monkeypatch: pytest.MonkeyPatch, index: str, kind: type) -> None:
    assert type(build(f32([[1], [1]]), ["a", "b"], index=index)) is kind
    monkeypatch.setattr("recgpt.index.choice.GRAPH_FROM", 2)
    assert type(build(f32([[1], [1]]), ["a", "b"])) is USearchIndex
    with pytest.raises(InvalidConfigError, match='`index` must be "auto"'):
        build(f32([[1]]), ["a"], index="hnsw")


def test_by_hand_beta_tags_and_a_user_without_tags() -> None:
    index = ExactIndex(f32([[1, 0], [0, 1], [1, 1]]), ["hose", "soil", "pot"])
    found = index.search(f32([[1, 0], [0, 2]]), f32([[0, 4], [4, 0]]), i64([0, 2, 2]), beta=0.25, k=2)
    assert found.to_pylist() == [
        # hose: .25 * 1 + .75 * 4 by tag 1; pot: the same by tag 0 (the first of two equal tags); the lower row wins.
        {"row": 0, "item_id": "hose", "score": 3.25, "y_col": 1.0, "y_sem": 4.0, "tag": 1, "tag_side_alone": False},
        {"row": 0, "item_id": "pot", "score": 3.25, "y_col": 1.0, "y_sem": 4.0, "tag": 0, "tag_side_alone": False},
        {"row": 1, "item_id": "soil", "score": 2.0, "y_col": 2.0, "y_sem": None, "tag": -1, "tag_side_alone": False},
        {"row": 1, "item_id": "pot", "score": 2.0, "y_col": 2.0, "y_sem": None, "tag": -1, "tag_side_alone": False},
    ]


def test_caps_skip_items_of_a_full_category() -> None:
    index = ExactIndex(f32([[4], [3], [2], [1]]), ["a", "b", "c", "d"])
    asked = (f32([[1]]), f32(np.zeros((0, 1))), i64([0, 0]))
    caps = (np.array([7, 7, 7, 9], np.int32), 2)
    assert index.search(*asked, caps=caps)["item_id"].to_pylist() == ["a", "b", "d"]
    found = index.search(*asked, caps=caps, exclude=(i64([0]), i64([0, 1])))
    assert found["item_id"].to_pylist() == ["b", "c", "d"]


def test_one_user_cut_over_item_ranges_equals_a_batch() -> None:
    rng = np.random.default_rng(0)
    vectors, users, tags = (rng.normal(size=(n, 8)).astype(np.float32) for n in (20_001, 40, 80))
    index = ExactIndex(vectors, names(len(vectors)))
    batch = index.search(users, tags, i64(range(0, 82, 2)), k=50).select(["item_id", "score"])
    for row in (0, 39):
        alone = index.search(users[row : row + 1], tags[2 * row : 2 * row + 2], i64([0, 2]), k=50)
        assert alone.select(["item_id", "score"]).equals(batch.slice(50 * row, 50))


def test_users_of_a_later_group_keep_their_own_tags() -> None:
    """More users than one group scans together, all with tags of the same few: each still names its own tag row."""
    rng = np.random.default_rng(6)
    index = ExactIndex(rng.normal(size=(40, 4)).astype(np.float32), names(40))
    users, few = rng.normal(size=(1100, 4)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    tags, offsets = few[rng.integers(5, size=3300)], i64(range(0, 3303, 3))
    batch = index.search(users, tags, offsets, k=2)
    for row in (0, 1023, 1024, 1099):
        alone = index.search(users[row : row + 1], tags[3 * row : 3 * row + 3], i64([0, 3]), k=2)
        found = batch.slice(2 * row, 2)
        assert found.select(["item_id", "score"]).equals(alone.select(["item_id", "score"]))
        assert found["tag"].to_pylist() == [tag + 3 * row for tag in alone["tag"].to_pylist()]


def test_why_not_names_rank_and_filter() -> None:
    index = ExactIndex(f32([[4], [3], [2], [1]]), ["a", "b", "c", "d"])
    asked = (f32([1]), f32(np.zeros((0, 1))))
    caps = (np.array([7, 7, 7, 9], np.int32), 2)
    answers = {item: index.why_not(*asked, item, k=2, caps=caps, exclude=i64([0])) for item in "abcdz"}
    assert {item: answer.verdict for item, answer in answers.items()} == {
        "a": "excluded",
        "b": "served",
        "c": "served",
        "d": "below k",
        "z": "not in the index",
    }
    assert (answers["d"].rank, answers["d"].score, answers["d"].cut, answers["d"].y_sem) == (4, 1.0, 2.0, None)
    assert index.why_not(*asked, "c", k=3, caps=caps).verdict == "category full"
    assert index.why_not(*asked, "d", k=3, caps=caps).verdict == "served"


@EVERY
def test_why_not_names_the_list_that_keeps_an_item_out(kind: type) -> None:
    index = kind(f32([[4], [3], [2], [1]]), ["a", "b", "c", "d"])
    asked = (f32([1]), f32(np.zeros((0, 1))))
    lists = {"allow": i64([0, 1, 3]), "deny": i64([1]), "exclude": i64([0, 1])}
    answers = {item: index.why_not(*asked, item, k=1, **lists) for item in "abcd"}
    assert {item: answer.verdict for item, answer in answers.items()} == {
        "a": "excluded",
        "b": "excluded",
        "c": "not allowed",
        "d": "served",
    }
    assert [answers[item].rank for item in "abcd"] == [1, 2, 3, 4]
    assert index.why_not(*asked, "b", k=1, deny=i64([1])).verdict == "denied"
    assert index.why_not(*asked, "c", k=1, deny=i64([0])).verdict == "below k"


@EVERY
def test_four_threads_behind_a_barrier_agree(kind: type) -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(2000, 16)).astype(np.float32)
    index = kind(vectors, names(2000))
    asked = (vectors[:16], vectors[16:48], i64(range(0, 34, 2)))
    expected, barrier, answers = index.search(*asked, k=20), threading.Barrier(4), []

    def ask() -> None:
        barrier.wait()
        answers.extend(index.search(*asked, k=20).equals(expected) for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 40


def test_the_module_is_a_release_build() -> None:
    assert _core.build_profile == "release"
