"""Bundles that cannot be broken without notice, and answers that say where they come from."""

from __future__ import annotations

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
from recgpt.serving import POPULARITY, RECOMMENDATIONS, SEEN, Recommender, publish, read, write
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


def test_a_text_that_a_rule_made_is_shown_as_the_rule_s(tmp_path: Path) -> None:
    texts = [
        {"interest": None, "item_id": "hose", "text": "Hose, from this store's catalogue", "source": "rule"},
        {"interest": None, "item_id": "soil", "text": "A soft start", "source": "generate"},
    ]
    build(tmp_path, explanations=records(texts, schema.EXPLANATIONS))
    rec = Recommender.open(tmp_path, clock=lambda: datetime(2100, 1, 1, tzinfo=UTC))
    by = {row["item_id"]: row["explained_by"] for row in rec.inspect("ann").recommendations}
    assert (by["hose"], by["soil"]) == ("rule", "item")
    assert {by[item] for item in by.keys() - {"hose", "soil"}} == {None}


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
    assert (pot.title, pot.tag, pot.interest) == ("The pot", "garden hose", "gardening")
    tea = rec.why_not("ann", "tea")
    assert (tea.tag, tea.interest, rec.why_not("bob", "tea").tag) == ("garden hose", "gardening", None)
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
