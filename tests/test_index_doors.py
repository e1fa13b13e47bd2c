"""Every door of an index refuses what it cannot search: bad vectors, wrong arrays, wrong questions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from vectors import f32, i64, names

from recgpt.errors import InvalidArrayError, InvalidConfigError
from recgpt.index import ExactIndex, TorchIndex, USearchIndex

NO_TAGS = np.zeros((0, 2), np.float32)
EVERY = pytest.mark.parametrize("kind", [ExactIndex, USearchIndex, TorchIndex])


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
