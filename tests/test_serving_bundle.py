"""Bundles on disk: written whole or not at all, refused when damaged, swapped and rolled back under load."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from test_serving import ITEMS, NOW, build, records, world

from recgpt import schema
from recgpt.errors import (
    BundleError,
    InvalidArrayError,
    InvalidConfigError,
    InvalidTableError,
)
from recgpt.index import USearchIndex
from recgpt.serving import POPULARITY, SEEN, Recommender, popularity, publish, read, rollback, write
from recgpt.serving.bundle import name_of, open_index


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "bundles"
    prompt = folder.parent / "tags.md"
    prompt.write_text("Name the tags.\n")
    build(folder, extra_files={"prompts/tags.md": prompt})
    return folder


def bad(**values: object) -> dict[str, object]:
    return values


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        (bad(user_vectors=np.array([[0, 1], [np.nan, 0]], np.float32)), InvalidArrayError, "NaN in column 0"),
        (bad(item_vectors=np.zeros((4, 3), np.float32)), InvalidArrayError, r"`user_vectors` must be .*\(n, 3\)"),
        (bad(user_ids=["ann", "ann"]), InvalidArrayError, "ids of `user_vectors`.*both 'ann'"),
        (bad(item_ids=["tea", "soil", "pot", "rake"]), InvalidTableError, "must be in `items`.*'rake'"),
        (bad(tag_texts=["warm drink", "tulip"]), InvalidTableError, "every tag of `tags`.*'garden hose'"),
        (bad(tags=pa.table({"user_id": ["a"]})), InvalidTableError, "column `rank` is missing"),
        (bad(now=datetime(2017, 12, 1)), InvalidConfigError, "`now` must carry a time zone"),
        (bad(beta=3), InvalidConfigError, "`beta`"),
        (bad(lineage={"model": float("nan")}), InvalidConfigError, "`lineage` must hold plain JSON"),
        (bad(lineage={"model": object()}), InvalidConfigError, "`lineage` must hold plain JSON"),
        (bad(extra_files={"a": "/no/such/file"}), InvalidConfigError, "there is no such file"),
    ],
)
def test_wrong_input_leaves_nothing_behind(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        write(tmp_path, **{**world(), **changes})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", "a/../x", "a\\x", "C:x", "a\0", ".x", "", "a/", "a//b", "MANIFEST.json", "tags.arrow", "a\n",
     "a/b/c/d/e", "x" * 101, "ü"],
)  # fmt: skip
def test_no_name_leaves_the_bundle(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidConfigError, match="extra_files"):
        write(tmp_path / "root", **world(), extra_files={name: __file__})
    assert list(tmp_path.iterdir()) == []


def test_manifest_and_files(root: Path) -> None:
    bundle = read(root)
    manifest = json.loads((bundle.path / "MANIFEST.json").read_text())
    assert (manifest["format"], manifest["dim"], manifest["metric"]) == (1, 2, "inner product")
    assert (manifest["counts"]["tags"], manifest["lineage"]) == (2, {"model": "none", "seed": 0})
    assert manifest["norms"]["item_vectors"] == {
        "min": 1.0,
        "p50": pytest.approx((2 + 2**0.5) / 2),
        "p99": pytest.approx(2 + 0.97 * (5**0.5 - 2)),
        "max": pytest.approx(5**0.5),
    }
    assert sorted(manifest["files"])[:2] == ["explanations.arrow", "history.arrow"]
    assert (bundle.path / "prompts/tags.md").read_text() == "Name the tags.\n"
    assert bundle.keys["item_vectors"].to_pylist() == ITEMS
    assert bundle.vectors["item_vectors"].tolist() == [[1, 2], [2, 0], [1, 1], [0, 1]]
    assert not bundle.vectors["item_vectors"].flags.writeable
    assert Recommender.open(bundle.path).bundle == bundle.path.name


def test_every_truncated_or_flipped_file_is_refused(root: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    copy = tmp_path / read(root).path.name
    shutil.copytree(read(root).path, copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    assert len(files) == 14
    for path in files:
        whole = path.read_bytes()
        for _ in range(12):
            at, bit = int(rng.integers(len(whole))), 1 << int(rng.integers(8))
            for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]):
                path.write_bytes(damaged)
                with pytest.raises(BundleError, match=f"{path.name} (must|is).*build the bundle again"):
                    Recommender.open(copy)
        path.unlink()
        with pytest.raises(BundleError, match=path.name):
            Recommender.open(copy)
        path.symlink_to(root / "CURRENT")
        with pytest.raises(BundleError, match=path.name):
            Recommender.open(copy)
        path.unlink()
        path.write_bytes(whole)
    assert Recommender.open(copy).recommend(["ann"]).num_rows == 4
    (copy / "stranger").write_text("x")
    with pytest.raises(BundleError, match=r"stranger is not in MANIFEST.json; remove it"):
        read(copy)


def test_a_forged_manifest_cannot_reach_outside_or_change_the_format(root: Path, tmp_path: Path) -> None:
    def forge(change: dict[str, object]) -> Path:
        copy = tmp_path / "copy"
        shutil.copytree(read(root).path, copy)
        manifest = json.loads((copy / "MANIFEST.json").read_text())
        manifest.update(change)
        (copy / "MANIFEST.json").write_text(json.dumps(manifest))
        return copy.rename(tmp_path / name_of(copy))

    with pytest.raises(BundleError, match="has format 2, but this version reads 1"):
        read(forge({"format": 2}))
    with pytest.raises(BundleError, match=r"'\.\./\.\./x', which is no name"):
        read(forge({"files": {"../../x": {"bytes": 1, "sha256": ""}}}))
    with pytest.raises(BundleError, match="cannot be read"):
        read(forge({"files": 3}))
    with pytest.raises(BundleError, match="is not in"):
        read(forge({"files": {}}))


def test_a_graph_lies_in_the_bundle_with_its_measured_recall(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ["tea", "soil", "pot", "hose", *(f"further {row}" for row in range(2000))]
    own = np.array([[0, 1], [1, 1], [2, 0], [1, 2]], np.float32)
    given = {
        "item_ids": names,
        "item_vectors": np.concatenate([own, rng.normal(size=(2000, 2)) / 10]).astype(np.float32),
        "items": records([{"item_id": name} for name in names], schema.ITEMS),
    }
    path = build(tmp_path / "graph", index="usearch", **given)
    build(tmp_path / "scan", **given)
    graph = open_index(read(tmp_path / "graph"))
    assert isinstance(graph, USearchIndex)
    assert 0.2 < graph.recall < 1  # short vectors in a plane: hard for a graph, so that 1 would be no measurement
    opened = [Recommender.open(tmp_path / name) for name in ("graph", "scan")]
    assert [one.manifest["recall"] for one in opened] == [graph.recall, 1.0]
    lists = [one.recommend(["ann", "bob"], k=3).to_pylist() for one in opened]
    assert [row["item_id"] for row in lists[0]] == [row["item_id"] for row in lists[1]]
    (path / "items.usearch").write_bytes((path / "items.usearch").read_bytes()[::-1])
    with pytest.raises(BundleError, match=r"items\.usearch is damaged"):
        Recommender.open(tmp_path / "graph")


def test_publish_rollback_and_current(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"holds neither MANIFEST\.json nor CURRENT"):
        Recommender.open(tmp_path)
    first, second = build(tmp_path), build(tmp_path, beta=0.25)
    rec = Recommender.open(tmp_path)
    assert (rec.bundle, rec.refresh()) == (second.name, False)
    assert rollback(tmp_path) == first.name
    assert (rec.bundle, rec.refresh(), rec.bundle, rec.manifest["beta"]) == (second.name, True, first.name, 0.5)
    with pytest.raises(BundleError, match="names no earlier bundle"):
        rollback(tmp_path)
    with pytest.raises(BundleError, match=r"by 32 hex digits, but names '\.\./evil'"):
        publish(tmp_path, "../evil")
    (second / "tags.arrow").write_bytes(b"")
    with pytest.raises(BundleError, match=r"tags\.arrow must have"):
        publish(tmp_path, second.name)
    (tmp_path / "CURRENT").write_text(f"{second.name}\n")
    with pytest.raises(BundleError, match=r"tags\.arrow"):
        rec.refresh()
    assert rec.recommend(["ann"]).schema.metadata == {b"bundle": first.name.encode()}
    for text in ("", "../../etc", f"{first.name}\n{second.name}\n", "\xff"):
        (tmp_path / "CURRENT").write_bytes(text.encode("latin-1"))
        with pytest.raises(BundleError, match="publish a bundle"):
            Recommender.open(tmp_path)


def test_a_failing_rename_keeps_what_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(tmp_path)

    def full(path: Path, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(BundleError, match="No space left on device"):
        write(tmp_path, **{**world(), "beta": 0.25})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([first.name, "CURRENT"])
    assert Recommender.open(tmp_path).bundle == first.name


def test_the_canary_notices_other_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recgpt.serving import build as builder

    plain = builder.load

    def swapped(folder: Path, name: str) -> object:
        bundle = plain(folder, name)
        bundle.vectors["item_vectors"] = bundle.vectors["item_vectors"][::-1]
        return bundle

    monkeypatch.setattr(builder, "load", swapped)
    with pytest.raises(BundleError, match="otherwise than exact search"):
        write(tmp_path, **world())
    assert list(tmp_path.iterdir()) == []


def test_threads_during_swaps_see_one_bundle_each(tmp_path: Path) -> None:
    names, expected = [], {}
    for beta in (0.0, 1.0):
        names.append(build(tmp_path, beta=beta).name)
        expected[names[-1].encode()] = Recommender.open(tmp_path).recommend(["ann", "cal"])["score"].to_pylist()
    rec, barrier, stop = Recommender.open(tmp_path), threading.Barrier(5), threading.Event()
    wrong: list[object] = []
    counts: list[int] = []

    def ask() -> None:
        barrier.wait()
        count = 0
        while not stop.is_set():
            try:
                answer = rec.recommend(["ann", "cal"])
                if answer["score"].to_pylist() != expected[answer.schema.metadata[b"bundle"]]:
                    wrong.append(answer)
            except Exception as error:
                wrong.append(error)
            count += 1
        counts.append(count)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait()
    swaps = []
    for swap in range(20):
        publish(tmp_path, names[swap % 2])
        swaps.append(rec.refresh())
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert min(counts) > 0
    assert swaps == [True] * 20


def test_serving_needs_no_model_library(root: Path) -> None:
    code = (
        "import sys\n"
        "from recgpt.serving import Recommender\n"
        "rec = Recommender.open(sys.argv[1])\n"
        "assert rec.recommend(['ann'])['item_id'][0].as_py() == 'hose'\n"
        "rec.inspect('ann')\n"
        "print(sorted({'torch', 'llama_cpp', 'gguf', 'safetensors'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_popularity_by_hand() -> None:
    def event(user: str, item: str | None, days: int, behavior: str = "purchase") -> dict[str, object]:
        return {"user_id": user, "item_id": item, "behavior": behavior, "timestamp": NOW - timedelta(days=days)}

    events = records(
        [
            event("ann", "tea", 1), event("ann", "tea", 2), event("cal", "tea", 3), event("bob", "tea", 4),
            event("bob", "pot", 4), event("cal", "hose", 89, "cart"), event("bob", "soil", 91), event("bob", "soil", 0),
            event("ann", "pot", 1, "exposure"), event("ann", "pot", 1, "return"), event("dee", None, 1, "search"),
            event("eve", "pot", 5),
        ],
        schema.EVENTS,
    )  # fmt: skip
    counted = popularity(events, world()["users"], now=NOW)
    third = float(np.float32(1) / np.float32(4))
    assert [tuple(row.values()) for row in counted.to_pylist()] == [
        # Four people took something: ann, bob, cal and eve, who has no attributes.
        (None, "tea", 0.75),
        (None, "pot", 0.5),
        (None, "hose", third),
        ("age 35-44", "tea", 1.0),
        ("age 35-44", "hose", 0.5),
        ("age 65+", "pot", 1.0),
        ("age 65+", "tea", 1.0),
    ]
    assert popularity(events, world()["users"], now=NOW, top=1)["item_id"].to_pylist() == ["tea", "tea", "pot"]
    assert popularity(schema.EVENTS.empty_table(), world()["users"], now=NOW).num_rows == 0
    untimed = records([{"user_id": "ann", "item_id": "tea", "behavior": "click", "position": 1}], schema.EVENTS)
    assert popularity(untimed, schema.USERS.empty_table(), now=NOW).num_rows == 1
    with pytest.raises(InvalidConfigError, match="`now` must carry a time zone"):
        popularity(events, world()["users"], now=datetime(2017, 12, 1))


def test_a_bundle_without_users_tags_or_popularity_still_answers(tmp_path: Path) -> None:
    nothing = np.zeros((0, 2), np.float32)
    build(
        tmp_path,
        user_ids=[], user_vectors=nothing, tag_texts=[], tag_vectors=nothing, tags=schema.TAGS.empty_table(),
        users=schema.USERS.empty_table(), popularity=POPULARITY.empty_table(), seen=SEEN.empty_table(),
    )  # fmt: skip
    rec = Recommender.open(tmp_path)
    assert rec.recommend(["ann"], exclude="seen").num_rows == 0
    assert rec.inspect("ann").cold
