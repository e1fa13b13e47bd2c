"""USearch behind the index protocol: what it recalls, what it says of what it missed, and its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from vectors import f32, i64, names

from recgpt.errors import BundleError, InvalidConfigError
from recgpt.index import ExactIndex, USearchIndex


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


def test_a_graph_of_bytes_needs_vectors_of_one_norm() -> None:
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(3000, 16)).astype(np.float32)
    with pytest.raises(InvalidConfigError, match='`dtype` "i8" needs vectors of one norm'):
        USearchIndex(vectors, names(3000), dtype="i8")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert USearchIndex(vectors, names(3000), dtype="i8").recall > 0.95


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
