"""Bundles that cannot be broken without notice, and answers that say where they come from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recgpt import schema
from recgpt.errors import (
    BundleError,
    InvalidArrayError,
    InvalidConfigError,
    InvalidTableError,
    UnknownItemError,
    UnknownUserError,
)
from recgpt.serving import POPULARITY, RECOMMENDATIONS, SEEN, Recommender, popularity, publish, read, rollback, write
from recgpt.serving.bundle import name_of
from recgpt.serving.snapshot import Snapshot

NOW = datetime(2017, 12, 1, tzinfo=UTC)
ITEMS = ["hose", "pot", "soil", "tea"]


def records(rows: list[dict[str, object]], wanted: pa.Schema) -> pa.Table:
    return schema.rows(rows, wanted)


def tag(user: str, rank: int, text: str, interest: str | None) -> dict[str, object]:
    return {
        "user_id": user, "rank": rank, "tag": text, "interest": interest, "source": "rank",
        "as_of": NOW - timedelta(days=rank),
    }  # fmt: skip


def world() -> dict[str, object]:
    """ann has two tags, bob none, cal and dee no vector (dee no attributes), eve is in no table."""
    explanations = [
        ("gardening", "hose", "Rain on call", None),
        (None, "hose", "Reaches every bed", None),
        (None, "soil", "A soft start", None),
        ("gardening", "soil", "Out of season", NOW - timedelta(days=1)),
    ]
    return {
        "user_ids": ["bob", "ann"],
        "user_vectors": np.array([[0, 1], [1, 0]], np.float32),
        "item_ids": ["tea", "soil", "pot", "hose"],
        "item_vectors": np.array([[0, 1], [1, 1], [2, 0], [1, 2]], np.float32),
        "tag_texts": ["warm drink", "garden hose"],
        "tag_vectors": np.array([[0, 0.5], [0, 2]], np.float32),
        "tags": records([tag("ann", 2, "warm drink", None), tag("ann", 1, "garden hose", "gardening")], schema.TAGS),
        "interests": records(
            [
                {
                    "user_id": "ann",
                    "rank": 1,
                    "interest": "gardening",
                    "listed": True,
                    "stage": "long-term",
                    "reason": "waters daily",
                    "evidence": [1, 2],
                    "source": "rank",
                    "as_of": NOW,
                }
            ],
            schema.INTERESTS,
        ),
        "explanations": records(
            [
                {"interest": interest, "item_id": item, "text": text, "source": "rank", "valid_until": until}
                for interest, item, text, until in explanations
            ],
            schema.EXPLANATIONS,
        ),
        "history": records(
            [
                {
                    "user_id": "ann",
                    "text": "17-11 (purchase) | hose",
                    "tokens": 9,
                    "receipt": {
                        "tokens_in": 9,
                        "tokens_out": 9,
                        "events": 1,
                        "full": 1,
                        "coarsened": 0,
                        "folded": 0,
                        "dropped": 0,
                        "layout": "item",
                    },
                }
            ],
            schema.HISTORY,
        ),
        "items": records(
            [{"item_id": item, "title": f"The {item}", "category": "GARDEN"} for item in ITEMS], schema.ITEMS
        ),
        "users": records(
            [
                {"user_id": user, "attributes": text}
                for user, text in [
                    ("dee", None),
                    ("ann", "age 35-44; couple"),
                    ("cal", "age 35-44"),
                    ("bob", "age 65+"),
                ]
            ],
            schema.USERS,
        ),
        "popularity": records(
            [
                {"segment": None, "item_id": "tea", "score": 0.5},
                {"segment": None, "item_id": "hose", "score": 0.25},
                {"segment": "age 35-44", "item_id": "soil", "score": 0.75},
            ],
            POPULARITY,
        ),
        "rejections": records(
            [
                {"user_id": None, "stage": "explanations", "status": "rejected", "reason": "too long"},
                {"user_id": "ann", "stage": "tags", "status": "rejected", "reason": "brand name"},
            ],
            schema.REJECTIONS,
        ),
        "seen": pa.table({"user_id": ["cal", "ann", "ann"], "item_id": ["soil", "pot", "hose"]}),
        "beta": 0.5,
        "now": NOW,
        "lineage": {"model": "none", "seed": 0},
    }


def build(root: Path, **changes: object) -> Path:
    path = write(root, **{**world(), **changes})
    publish(root, path.name)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "bundles"
    prompt = folder.parent / "tags.md"
    prompt.write_text("Name the tags.\n")
    build(folder, extra_files={"prompts/tags.md": prompt})
    return folder


def test_a_vector_that_is_given_serves_a_user_whom_the_bundle_does_not_know(root: Path) -> None:
    """`towers.user_vectors_for(new events)` makes such vectors: a stranger is not cold from the first event on."""
    rec = Recommender.open(root)
    given = {"new": np.array([0.0, 1.0], np.float32), "bob": np.array([0.0, 3.0], np.float32)}
    answers = rec.recommend(["new", "bob", "cal"], k=1, exclude={"new": ["hose"]}, vectors=given).to_pylist()
    plain = rec.recommend(["new", "bob", "cal"], k=1).to_pylist()
    # soil and tea score 1 both, and the lower row wins.
    assert [answers[0][name] for name in ("item_id", "y_col", "cold")] == ["soil", 1.0, False]
    assert plain[0]["cold"]
    assert [answers[1][name] for name in ("item_id", "y_col", "cold")] == ["hose", 6.0, False]
    assert answers[2] == plain[2]
    for wrong in (np.zeros(3, np.float32), np.array([np.nan, 0], np.float32)):
        with pytest.raises(InvalidArrayError, match="`vectors"):
            rec.recommend(["new"], vectors={"new": wrong})
    assert (rec.folder / "MANIFEST.json").exists()


def test_answers_by_hand(root: Path) -> None:
    rec = Recommender.open(root)
    answers = rec.recommend(["ann", "bob", "cal", "nobody"], k=2)
    assert answers.schema.equals(RECOMMENDATIONS)
    assert answers.schema.metadata == {b"bundle": rec.bundle.encode()}
    columns = ["user_id", "item_id", "score", "y_col", "y_sem", "tag", "interest", "explanation", "cold", "as_of"]
    yesterday = NOW - timedelta(days=1)
    expected = [
        # hose: .5 * (1, 0).(1, 2) + .5 * max(.5 * 2, 2 * 2); soil: .5 * 1 + .5 * 2, its interest text has run out.
        ("ann", "hose", 2.5, 1.0, 4.0, "garden hose", "gardening", "Rain on call", False, yesterday),
        ("ann", "soil", 1.5, 1.0, 2.0, "garden hose", "gardening", "A soft start", False, yesterday),
        ("bob", "hose", 2.0, 2.0, None, None, None, "Reaches every bed", False, NOW),
        # soil and tea score 1 both: the lower item row wins, and rows are sorted by id.
        ("bob", "soil", 1.0, 1.0, None, None, None, "A soft start", False, NOW),
        ("cal", "soil", 0.75, None, None, None, None, "A soft start", True, NOW),
        ("cal", "tea", 0.5, None, None, None, None, None, True, NOW),
        ("nobody", "tea", 0.5, None, None, None, None, None, True, NOW),
        ("nobody", "hose", 0.25, None, None, None, None, "Reaches every bed", True, NOW),
    ]
    assert answers.to_pylist() == [dict(zip(columns, row, strict=True)) for row in expected]


def test_another_interest_of_the_user_explains_where_the_winning_tag_has_none(tmp_path: Path) -> None:
    tags = records([tag("ann", 1, "garden hose", None), tag("ann", 2, "warm drink", None)], schema.TAGS)
    build(tmp_path, tags=tags)
    hose, soil = Recommender.open(tmp_path).inspect("ann", k=2).recommendations
    assert (hose["tag"], hose["interest"], hose["explanation"]) == ("garden hose", "gardening", "Rain on call")
    assert hose["explained_by"] == "interest"
    # Soil's text for gardening has run out, so the item speaks for itself.
    assert (soil["interest"], soil["explanation"], soil["explained_by"]) == (None, "A soft start", "item")


def test_beta_exclude_and_seen(root: Path) -> None:
    rec = Recommender.open(root)

    def items(user: str, **options: object) -> list[str]:
        return rec.recommend([user], **options)["item_id"].to_pylist()

    assert items("ann", beta=1) == ["pot", "hose", "soil", "tea"]
    assert items("ann", beta=0) == ["hose", "soil", "tea", "pot"]
    assert items("ann", exclude={"ann": ["hose", "no such item"], "bob": ["soil"]}, k=1) == ["soil"]
    assert items("ann", exclude="seen") == ["soil", "tea"]
    assert items("cal", exclude="seen") == ["tea", "hose"]
    assert items("dee") == ["tea", "hose"]
    assert rec.recommend([]).num_rows == 0
    again = rec.recommend(pa.chunked_array([["bob"], ["bob"]]), k=1)
    assert again["item_id"].to_pylist() == ["hose", "hose"]


def test_seen_without_a_table_of_seen_items_is_an_error(tmp_path: Path) -> None:
    build(tmp_path, seen=None)
    rec = Recommender.open(tmp_path)
    for ask in (lambda: rec.recommend(["ann"], exclude="seen"), lambda: rec.why_not("ann", "hose", exclude="seen")):
        with pytest.raises(BundleError, match="without a table of seen items; build it again with `seen`, or give"):
            ask()
    # A table in which nobody has seen anything is an answer.
    build(tmp_path, seen=SEEN.empty_table())
    rec.refresh()
    assert rec.recommend(["ann"], exclude="seen").num_rows == 4


def test_an_explanation_runs_out_by_the_clock_since_the_bundle_was_created(tmp_path: Path) -> None:
    texts = [
        {"interest": "gardening", "item_id": "hose", "text": "Rain on call", "source": "rank",
         "valid_until": NOW + timedelta(days=2)},
        {"interest": None, "item_id": "hose", "text": "Reaches every bed", "source": "rank",
         "valid_until": NOW + timedelta(days=3)},
    ]  # fmt: skip
    build(tmp_path, explanations=records(texts, schema.EXPLANATIONS))
    created = datetime.fromisoformat(read(tmp_path).manifest["created"])
    clock, reads = [created], []
    rec = Recommender.open(tmp_path, clock=lambda: reads.append(clock[0]) or clock[0])
    said = []
    # Years lie between the log and the making of the bundle; they do not count. Nor does a clock that went back.
    for days in (-1, 0, 1.9, 2, 2.9, 3):
        clock[0] = created + timedelta(days=days)
        text = rec.recommend(["ann"], k=1)["explanation"].to_pylist()[0]
        assert rec.inspect("ann", k=1).recommendations[0]["explanation"] == text
        said.append(text)
    assert said == ["Rain on call"] * 3 + ["Reaches every bed"] * 2 + [None]
    assert len(reads) == 2 * len(said)


def test_a_refresh_in_the_middle_of_a_request_does_not_mix_bundles(tmp_path: Path) -> None:
    paths = [build(tmp_path, beta=beta) for beta in (1.0, 0.0)]
    snapshots = [Snapshot(read(path)) for path in paths]

    class Refreshed(Recommender):
        """Every look at the served bundle finds the next one, as if a refresh came between any two looks."""

        _snapshot = property(lambda self: snapshots.pop(0), lambda self, given: None)

    answer = Refreshed(tmp_path, snapshots[0]).recommend(["ann"], k=1)
    # By the user side alone ann gets the pot, by her tags alone the hose.
    assert (answer.schema.metadata, answer["item_id"].to_pylist()) == ({b"bundle": paths[0].name.encode()}, ["pot"])


def test_inspect_shows_all_that_is_known(root: Path) -> None:
    rec = Recommender.open(root)
    ann = rec.inspect("ann")
    assert (ann.attributes, ann.cold, ann.history) == ("age 35-44; couple", False, "17-11 (purchase) | hose")
    assert (ann.segment, ann.receipt["full"], ann.bundle, ann.as_of) == ("age 35-44", 1, rec.bundle, NOW)
    assert [row["interest"] for row in ann.interests] == ["gardening"]
    assert [row["tag"] for row in ann.tags] == ["garden hose", "warm drink"]
    assert [row["reason"] for row in ann.rejections] == ["brand name"]
    shown = [(row["title"], row["category"], row["explained_by"]) for row in ann.recommendations]
    # The user side alone ranks pot, hose, soil, tea.
    assert [row["tag_side_alone"] for row in rec.inspect("ann", k=2).recommendations] == [False, True]
    assert shown == [
        ("The hose", "GARDEN", "interest"),
        ("The soil", "GARDEN", "item"),
        ("The pot", "GARDEN", None),
        ("The tea", "GARDEN", None),
    ]
    dee = rec.inspect("dee")
    assert (dee.cold, dee.history, dee.receipt, dee.tags, dee.segment) == (True, None, None, [], None)
    with pytest.raises(UnknownUserError, match=r"user 'anne' is in no table.*look alike: 'ann'"):
        rec.inspect("anne")


def test_why_not(root: Path) -> None:
    rec = Recommender.open(root)
    pot = rec.why_not("ann", "pot", k=2)
    assert (pot.verdict, pot.rank, pot.score, pot.y_col, pot.y_sem, pot.cut) == ("below k", 3, 1.0, 2.0, 0.0, 1.5)
    assert rec.why_not("ann", "hose", k=2, exclude="seen").verdict == "excluded"
    assert rec.why_not("ann", "hose").verdict == "served"
    with pytest.raises(UnknownItemError, match=r"item 'spad' is not in the catalogue of bundle .*look alike: 'hose'"):
        rec.why_not("ann", "spad")
    assert (rec.why_not("cal", "hose", k=1).verdict, rec.why_not("cal", "hose", k=1).rank) == ("below k", 3)
    assert rec.why_not("cal", "soil", exclude="seen").verdict == "excluded"
    assert rec.why_not("cal", "pot").verdict == "not in the index"
    with pytest.raises(UnknownUserError):
        rec.why_not("eve", "hose")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"user_ids": "ann"}, InvalidTableError, "`user_ids` must be a sequence of str"),
        ({"user_ids": [7]}, InvalidTableError, "`user_ids` must be a sequence of str"),
        ({"user_ids": 7}, InvalidTableError, "`user_ids` must be a sequence of str"),
        ({"user_ids": ["ann", None]}, InvalidTableError, "row 1 is null"),
        ({"user_ids": ["\ud800"]}, InvalidTableError, "surrogates not allowed"),
        ({"k": 0}, InvalidConfigError, "`k` must be a whole number"),
        ({"beta": 2}, InvalidConfigError, "`beta` must be"),
        ({"exclude": "sold"}, InvalidTableError, '`exclude` must map user ids to item ids, or be "seen"'),
    ],
)
def test_wrong_questions(root: Path, options: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Recommender.open(root).recommend(**{"user_ids": ["ann"], **options})


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
