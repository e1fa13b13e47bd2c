"""The fused kernel against its plain-Python twin, USearch against exact search, and every door against bad vectors."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recgpt import _core, _reference
from recgpt.errors import BundleError, InvalidArrayError, InvalidConfigError
from recgpt.index import ExactIndex, TorchIndex, USearchIndex, build

NO_TAGS = np.zeros((0, 2), np.float32)
EVERY = pytest.mark.parametrize("kind", [ExactIndex, USearchIndex, TorchIndex])


def f32(rows: object) -> np.ndarray:
    return np.array(rows, np.float32)


def i64(rows: object) -> np.ndarray:
    return np.array(rows, np.int64)


def names(count: int) -> list[str]:
    return [f"item {row}" for row in range(count)]


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


def test_a_graph_takes_items_that_come_later_and_loses_those_that_go(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    vectors = rng.normal(size=(700, 8)).astype(np.float32)
    asked = vectors[:5] + 0.1, vectors[600:615], i64([0, 5, 5, 9, 15, 15])
    gone = [f"item {row}" for row in range(0, 700, 7)]
    graph, exact = (
        kind(vectors[:500], names(700)[:500]).add(vectors[500:], names(700)[500:]).remove(gone)
        for kind in (USearchIndex, ExactIndex)
    )
    caps = (rng.integers(0, 9, 700).astype(np.int32), 3)
    for more in ({}, {"fuse": "sum"}, {"fuse": "lists"}, {"caps": caps}, {"deny": i64(range(480, 520))}):
        found, wanted = graph.search(*asked, k=20, **more), exact.search(*asked, k=20, **more)
        pairs = [set(zip(*(t[c].to_pylist() for c in ("row", "item_id")), strict=True)) for t in (found, wanted)]
        assert len(pairs[0] & pairs[1]) >= 0.95 * len(pairs[1]), more
        assert not set(found["item_id"].to_pylist()) & set(gone)
        assert any(int(item.split()[1]) >= 500 for item in found["item_id"].to_pylist())
    assert graph.why_not(vectors[0], vectors[:0], "item 7").verdict == "not in the index"
    path = tmp_path / "items.usearch"
    graph.save(path)
    again = USearchIndex.open(path, vectors, names(700))
    assert again.search(*asked, k=20).equals(graph.search(*asked, k=20))
    assert len(again) == len(exact) == 600


def test_ids_that_are_added_twice_or_removed_unknown_are_named() -> None:
    index = ExactIndex(f32([[1], [2]]), ["a", "b"])
    with pytest.raises(InvalidArrayError, match="must be new, but the index has 'b' already"):
        index.add(f32([[3], [4]]), ["c", "b"])
    with pytest.raises(InvalidArrayError, match="must be in the index, but 'z' is not"):
        index.remove(["a", "z"])
    with pytest.raises(InvalidArrayError, match=r"`vectors` must be finite.*row 0 is NaN"):
        index.add(f32([[np.nan]]), ["c"])
    again = index.remove(["a"]).add(f32([[5]]), ["a"])
    assert again.ids.to_pylist() == [None, "b", "a"]
    assert again.search(f32([[1]]), f32(np.zeros((0, 1))), i64([0, 0]))["item_id"].to_pylist() == ["a", "b"]
    assert again.why_not(f32([1]), f32(np.zeros((0, 1))), "b").rank == 2
    assert index.remove(["a"]).why_not(f32([1]), f32(np.zeros((0, 1))), "a").verdict == "not in the index"


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


def test_a_graph_of_bytes_needs_vectors_of_one_norm() -> None:
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(3000, 16)).astype(np.float32)
    with pytest.raises(InvalidConfigError, match='`dtype` "i8" needs vectors of one norm'):
        USearchIndex(vectors, names(3000), dtype="i8")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert USearchIndex(vectors, names(3000), dtype="i8").recall > 0.95


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


@EVERY
@pytest.mark.parametrize(
    ("value", "text"),
    [(np.nan, "row 1 is NaN in column 0"), (np.inf, "row 1 is inf"), (-np.inf, "row 1 is -inf"), (65600, "row 1 is")],
)
def test_a_bad_vector_is_refused_at_every_door(kind: type, value: float, text: str) -> None:
    good, bad = f32([[1, 0], [0, 1]]), f32([[1, 0], [value, 1]])
    with pytest.raises(InvalidArrayError, match=f"`vectors` must be finite.*{text}"):
        kind(bad, ["a", "b"])
    index = kind(good, ["a", "b"])
    with pytest.raises(InvalidArrayError, match=f"`users` must be finite.*{text}"):
        index.search(bad, NO_TAGS, i64([0, 0, 0]))
    with pytest.raises(InvalidArrayError, match=f"`tags` must be finite.*{text}"):
        index.search(good, bad, i64([0, 1, 2]))


def test_one_bad_value_anywhere_is_found() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(300, 16)).astype(np.float32)
    ids = names(300)
    index = ExactIndex(vectors[:1].copy(), ["first"])
    ends = i64([0, *[300] * 300])
    doors: list[Callable[[], object]] = [
        lambda: ExactIndex(vectors, ids),
        lambda: USearchIndex(vectors, ids),
        lambda: index.add(vectors, ids),
        lambda: index.search(vectors, np.zeros((0, 16), np.float32), np.zeros(301, np.int64)),
        lambda: index.search(np.ones((300, 16), np.float32), vectors, ends),
    ]
    for turn in range(1000):
        row, column = rng.integers(300), rng.integers(16)
        kept, vectors[row, column] = vectors[row, column], rng.choice([np.nan, np.inf, -np.inf, 7e4])
        with pytest.raises(InvalidArrayError, match=rf"row {row} is .* in column {column}$"):
            doors[turn % len(doors)]()
        vectors[row, column] = kept


@EVERY
@pytest.mark.parametrize(
    ("vectors", "ids", "text"),
    [
        ([[1.0, 2.0]], ["a"], "it is a list"),
        (np.zeros((2, 2)), ["a", "b"], r"float64 with shape \(2, 2\)"),
        (np.zeros(2, np.float32), ["a", "b"], r"with shape \(2,\)"),
        (np.zeros((2, 0), np.float32), ["a", "b"], r"with shape \(2, 0\)"),
        (f32([[50000, 50000]]), ["a"], "of norm 70710.7"),
        (f32([[1], [2]]), ["a"], "`ids` has 1 rows but `vectors` has 2"),
        (f32([[1], [2], [3]]), ["b", "a", "a"], "rows 1 and 2 are both 'a'"),
        (f32([[1], [2]]), ["a", None], "null in row 1"),
        (f32([[1]]), [object()], "must be a sequence of str"),
    ],
)
def test_wrong_arrays_and_ids(kind: type, vectors: object, ids: list[str], text: str) -> None:
    with pytest.raises(InvalidArrayError, match=text):
        kind(vectors, ids)


@EVERY
@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"users": f32([[1, 2, 3]])}, InvalidArrayError, r"`users` .* \(n, 2\).*\(1, 3\)"),
        ({"offsets": i64([0])}, InvalidArrayError, "`offsets` must be"),
        ({"offsets": i64([0, 2])}, InvalidArrayError, "end at 1, but row 1 is 2"),
        ({"offsets": i64([1, 1])}, InvalidArrayError, "start at 0"),
        ({"offsets": np.array([0, 1], np.int32)}, InvalidArrayError, "int32"),
        ({"exclude": (i64([2]), i64([0, 1]))}, InvalidArrayError, "`exclude` must be item rows.*is 2"),
        ({"exclude": (i64([-1]), i64([0, 1]))}, InvalidArrayError, "is -1"),
        ({"exclude": (i64([0]), i64([0, 2]))}, InvalidArrayError, "`exclude offsets`"),
        ({"caps": (np.array([1], np.int32), 1)}, InvalidArrayError, "caps categories"),
        ({"caps": (np.array([1, 1], np.int32), 0)}, InvalidConfigError, "`caps limit`"),
        ({"beta": 1.5}, InvalidConfigError, "`beta` must be a number from 0"),
        ({"beta": float("nan")}, InvalidConfigError, "`beta`"),
        ({"k": 0}, InvalidConfigError, "`k` must be a whole number of at least 1"),
        ({"fuse": "mean"}, InvalidConfigError, '`fuse` must be "max"'),
        ({"allow": i64([2])}, InvalidArrayError, "`allow` must be item rows.*is 2"),
        ({"deny": i64([0, -1])}, InvalidArrayError, "`deny` must be item rows.*row 1 is -1"),
        ({"deny": np.array([0], np.int32)}, InvalidArrayError, "`deny`.*int32"),
    ],
)
def test_wrong_questions(kind: type, change: dict[str, object], error: type[Exception], text: str) -> None:
    asked = {"users": f32([[1, 0]]), "tags": f32([[0, 1]]), "offsets": i64([0, 1]), **change}
    with pytest.raises(error, match=text):
        kind(f32([[1, 0], [0, 1]]), ["a", "b"]).search(**asked)


@EVERY
def test_no_users_no_items_and_columns(kind: type) -> None:
    found = kind(np.zeros((0, 2), np.float32), []).search(f32([[1, 0]]), NO_TAGS, i64([0, 0]))
    assert found.num_rows == 0
    assert found.schema.names == ["row", "item_id", "score", "y_col", "y_sem", "tag", "tag_side_alone"]
    assert found.schema.field("item_id").type == pa.large_string()
    assert kind(f32([[1, 0]]), ["a"]).search(NO_TAGS, NO_TAGS, i64([0])).num_rows == 0


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


def test_usearch_recalls_what_exact_search_finds() -> None:
    rng = np.random.default_rng(3)
    centers = rng.normal(size=(50, 32))
    vectors = (centers[rng.integers(50, size=5000)] + 0.5 * rng.normal(size=(5000, 32))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = (vectors[rng.integers(5000, size=20)], vectors[rng.integers(5000, size=60)], i64(range(0, 63, 3)))
    exact, graph = ExactIndex(vectors, names(5000)), USearchIndex(vectors, names(5000))
    pairs = [
        set(zip(found["row"].to_pylist(), found["item_id"].to_pylist(), strict=True))
        for found in (exact.search(*asked, k=50), graph.search(*asked, k=50))
    ]
    assert [len(side) for side in pairs] == [20 * 50, 20 * 50]
    assert len(pairs[0] & pairs[1]) / 1000 >= 0.95
    # A filter that removes the best 400 of each user forces the index to widen; all k must survive.
    best = exact.search(*asked, k=400)["item_id"].to_pylist()
    exclude = (i64([int(item.split()[1]) for item in best]), i64(range(0, 8400, 400)))
    assert graph.search(*asked, k=50, exclude=exclude).num_rows == 20 * 50


def test_usearch_says_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    index = USearchIndex(f32([[count] for count in range(100, 0, -1)]), names(100))
    seen = index._candidates
    monkeypatch.setattr(index, "_candidates", lambda fused, width: np.setdiff1d(seen(fused, width), [1]))
    answer = index.why_not(f32([1]), f32(np.zeros((0, 1))), "item 1", k=3)
    assert (answer.verdict, answer.rank, answer.score) == ("missed", 2, 99.0)


def test_usearch_files_are_checked_before_they_are_opened(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(200, 8)).astype(np.float32)
    path = tmp_path / "items.usearch"
    index = USearchIndex(vectors, names(200))
    index.save(path)
    asked = (vectors[:3], np.zeros((0, 8), np.float32), i64([0, 0, 0, 0]))
    assert USearchIndex.open(path, vectors, names(200)).search(*asked, k=10).equals(index.search(*asked, k=10))
    with pytest.raises(BundleError, match="built from other vectors"):
        USearchIndex.open(path, vectors + 1, names(200))
    whole = path.read_bytes()
    for _ in range(50):
        at, bit = int(rng.integers(len(whole))), 1 << int(rng.integers(8))
        for damaged in (whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :], whole[:at]):
            path.write_bytes(damaged)
            with pytest.raises(BundleError, match=r"sha256.*build the index again"):
                USearchIndex.open(path, vectors, names(200))
    (tmp_path / "items.usearch.json").unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        USearchIndex.open(path, vectors, names(200))


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
