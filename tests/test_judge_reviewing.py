"""What a run gives to people who review: samples with histories and marks, and two arms' lists for one shopper."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import say
from test_judge_run import CONFIG
from typer.testing import CliRunner

from recgpt import pipeline
from recgpt.cli import app
from recgpt.errors import JudgeError
from recgpt.judge import Buffer
from recgpt.judge.review import Questions, Settings
from recgpt.pipeline import milestones, reviewing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A whole run with the scripted engine; gives its configuration file."""
    folder = tmp_path_factory.mktemp("reviewed")
    path = folder / "run.toml"
    path.write_text(CONFIG.format(folder=folder), encoding="utf-8")
    pipeline.run(path)
    return path


def test_a_run_that_nobody_judged_yet_can_be_reviewed_with_histories_and_marks(shop):
    config = pipeline.load(shop)
    store = reviewing.open_store(config)
    kept = store.read().samples.values()
    assert {one.sample.task for one in kept} == {"interests", "tags", "explanations"}
    mined = {
        (row["user_id"], row["interest"]): row
        for row in pq.read_table(config.out / "interests/interests.parquet").to_pylist()
    }
    marked = explained = 0
    for one in kept:
        if one.sample.task == "explanations":
            explained += beside_an_explanation(config, one, mined)
            continue
        rows = {row["id"]: row for row in one.context["history"]}
        assert list(rows) == list(range(1, len(rows) + 1))
        interest = mined.get((one.sample.user_id, one.sample.fields["interest"]))
        assert one.context["cited"] == ([] if interest is None else interest["evidence"])
        assert set(one.context["cited"]) <= set(rows)
        assert all(row["id"] in one.context["cited"] or not row["hits"] for row in rows.values())
        marked += sum(len(row["hits"]) for row in rows.values())
    assert marked > 0
    assert explained > 0
    shown = Questions(store, Settings(gold_every=0)).next("ann", ahead=100)
    assert any(row["hits"] for one in shown for row in one["history"])
    rows = store.buffer.count("samples")
    assert reviewing.open_store(config).buffer.count("samples") == rows, "once is enough"
    with store.buffer.transaction() as database:
        (written,) = database.execute("SELECT count(*) FROM contexts").fetchone()
    assert written == sum(bool(one.context) for one in kept)


def beside_an_explanation(config, one, mined):
    """Check what stands beside an explanation: nothing of a shopper where the text is for the item alone."""
    fields = dict(one.context["fields"])
    assert "tag" in fields
    if one.sample.fields["interest"] == "none stated":
        assert set(one.context) == {"fields"}
        assert set(fields) == {"tag"}
        return 0
    (label,) = fields.keys() - {"tag"}
    holders = {user for user, interest in mined if interest == one.sample.fields["interest"]}
    assert label == f"shopper, one of {len(holders)} with this interest"
    told = {row["user_id"]: row for row in pq.read_table(config.out / "logs/users.parquet").to_pylist()}
    users = [user for user in holders if told[user]["attributes"] == fields[label]]
    assert one.context["cited"] in [mined[user, one.sample.fields["interest"]]["evidence"] for user in users]
    assert any(row["hits"] for row in one.context["history"] if row["id"] in one.context["cited"])
    # What the model judged is as it was: the shopper stands beside it for people alone.
    assert set(one.sample.fields) == {"item", "interest", "text"}
    return 1


def test_the_buffer_alone_still_knows_the_histories(shop):
    config = pipeline.load(shop)
    reviewing.open_store(config)
    alone = reviewing.open_store(milestones.buffer_path(config))
    assert any(one.context for one in alone.read().samples.values())


def test_two_arms_as_tables_and_as_bundles(shop, tmp_path, capsys):
    config = pipeline.load(shop)
    items = pq.read_table(config.out / "logs/items.parquet").to_pylist()[:12]
    users = pq.read_table(config.out / "logs/users.parquet")["user_id"].to_pylist()[:6]
    order = list(range(12))
    rows = [(user, items[place]["item_id"], place) for user in users for place in order[::-1]]
    table = pa.table(dict(zip(("user_id", "item_id", "position"), zip(*rows, strict=True), strict=True)))
    pq.write_table(table, tmp_path / "base.parquet")
    printed = say(
        capsys, "judge", "lists", str(shop), str(tmp_path / "base.parquet"), str(config.serving.bundles), "--k", "8"
    )
    assert ", 8 items: 6 pairs of lists, 6 of them new; compare them with: recgpt judge review" in printed
    again = json.loads(
        say(
            capsys,
            "judge",
            "lists",
            str(shop),
            str(tmp_path / "base.parquet"),
            str(config.serving.bundles),
            "--k",
            "8",
            "--json",
        )
    )
    assert (again["pairs"], again["new"]) == (6, 0)
    names = again["comparison"].removesuffix(", 8 items").split(" against ")
    (base,) = [name for name in names if name.startswith("base ")]
    assert [name.split()[0] for name in names] == ["base", "bundles"]
    store = reviewing.open_store(config)
    pairs = list(store.read().pairs.values())
    assert {one.user_id for one in pairs} == set(users)
    for one in pairs:
        shown = one.lists[one.arms.index(base)]
        assert [row["title"] for row in shown] == [row["title"] for row in items[:8]], "in the order of their position"
        assert len(one.lists[1 - one.arms.index(base)]) == 8
        assert one.history
    (found,) = json.loads(say(capsys, "judge", "repetition", str(shop), "--json"))
    assert (found["pairs"], found["comparison"]) == (6, again["comparison"])


def test_an_arm_beside_itself_is_refused(shop, tmp_path, capsys):
    config = pipeline.load(shop)
    bundles = config.serving.bundles
    current = bundles / (bundles / "CURRENT").read_text().strip()
    table = tmp_path / "a.parquet"
    users = pq.read_table(config.out / "logs/users.parquet")["user_id"].to_pylist()[:4]
    (item, *_) = pq.read_table(config.out / "logs/items.parquet")["item_id"].to_pylist()
    pq.write_table(pa.table({"user_id": users, "item_id": [item] * 4}), table)
    shutil.copy(table, tmp_path / "b.parquet")
    for first, second in ((bundles, bundles), (bundles, current), (table, table), (table, tmp_path / "b.parquet")):
        printed = say(capsys, "judge", "lists", str(shop), str(first), str(second), status=1)
        assert "are the same" in printed
        assert "name another arm" in printed
    # Written otherwise, but the same lists.
    csv = tmp_path / "c.csv"
    csv.write_text("user_id,item_id\n" + "".join(f"{user},{item}\n" for user in users))
    assert "the same list" in say(capsys, "judge", "lists", str(shop), str(table), str(csv), status=1)
    assert "cannot be read" in say(capsys, "judge", "lists", str(shop), str(table), str(tmp_path / "no"), status=1)


def test_arms_that_cannot_be_compared(shop, tmp_path):
    config = pipeline.load(shop)
    pq.write_table(pa.table({"user_id": ["nobody"], "item_id": ["x"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"user_id": ["somebody"], "item_id": ["x"]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"user_id": ["somebody"]}), tmp_path / "c.parquet")
    arms = {"a": tmp_path / "a.parquet", "b": tmp_path / "b.parquet"}
    with pytest.raises(JudgeError, match="a shopper whom a and b both serve was expected, but there is none"):
        reviewing.pairs(config, arms, users=5)
    with pytest.raises(JudgeError, match="user_id and item_id were expected, but item_id is not there"):
        reviewing.pairs(config, arms | {"b": tmp_path / "c.parquet"}, users=5)


def test_unknown_items_are_counted_and_lists_of_a_pair_are_equally_long(shop, tmp_path):
    config = pipeline.load(shop)
    items = pq.read_table(config.out / "logs/items.parquet")["item_id"].to_pylist()[:20]
    users = pq.read_table(config.out / "logs/users.parquet")["user_id"].to_pylist()[:3]

    def table(name, lists):
        rows = [(user, item) for user, own in zip(users, lists, strict=True) for item in own]
        pq.write_table(
            pa.table(dict(zip(("user_id", "item_id"), zip(*rows, strict=True), strict=True))), tmp_path / name
        )
        return tmp_path / name

    arms = {"a": table("a.parquet", [items] * 3), "b": table("b.parquet", [[*items[9::-1][:8], "new1", "new2"]] * 3)}
    found = reviewing.pairs(config, arms, users=5)
    assert (len(found.pairs), found.unknown, found.cut) == (3, {"b": 2}, 3)
    assert {len(items) for one in found.pairs for items in one.lists} == {10}
    assert {one.comparison for one in found.pairs} == {"a against b, 10 items"}
    even = reviewing.pairs(config, arms, users=5, k=8)
    assert (even.unknown, even.cut) == ({}, 0)
    words = ["judge", "lists", str(shop), *map(str, arms.values())]
    done = CliRunner().invoke(app, words)
    assert "the catalogue lacks 2 of its items; people see their ids alone" in done.stderr
    assert "3 of 3 pairs were cut to the shorter of their lists" in done.stderr
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert (list(told["unknown_items"].values()), told["cut"], told["new"]) == ([2], 3, 0)
    arms["b"] = table("c.parquet", [["new1", "new2"]] * 3)
    with pytest.raises(JudgeError, match=r"none of the 2 items of b is in the catalogue of .*, 'new1' among them"):
        reviewing.pairs(config, arms, users=5)


def test_labels_leave_and_enter_by_a_configuration(shop, tmp_path, capsys):
    assert "samples with 0 answers" in say(capsys, "judge", "export", str(shop), str(tmp_path / "labels.json"))
    copied = tmp_path / "copy.sqlite"
    say(capsys, "judge", "import", str(copied), str(tmp_path / "labels.json"))
    assert Buffer(copied).count("samples") == Buffer(milestones.buffer_path(pipeline.load(shop))).count("samples")
