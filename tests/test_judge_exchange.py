"""Labels out and in: the round trip is exact, pandas reads the table, and what does not fit is refused as a whole."""

from __future__ import annotations

import copy
import json
import sqlite3
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pyarrow.parquet as pq
import pytest
from command import say
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reviewing import ALL, store_of, tags

from recgpt import judge
from recgpt.cli import main
from recgpt.errors import JudgeError
from recgpt.judge import Buffer, Sample, exchange
from recgpt.judge.buffer import Label

ON = "tags/relevance"
OTHER = "tags/consistency"


@pytest.fixture
def store(tmp_path):
    """Answers of two people, one changed, one taken back, a skip, and the judge's verdicts."""
    found = store_of(tmp_path / "buffer.sqlite", tags(4))
    ids = list(found.read().samples)
    for sample, criterion, who, verdict, note in (
        (0, ON, "ann", "Yes", ""), (0, OTHER, "ann", "No", "a note, \"quoted\" & <b>"), (0, ON, "bob", "No", ""),
        (1, ON, "ann", "Yes", ""), (1, ON, "ann", "No", "looked again"), (2, ON, "ann", "Yes", "taken back"),
        (2, ON, "ann", None, "undo"), (3, ON, "Zoë", None, "skip: broken"), (3, OTHER, "Zoë", "Yes", "\u8336"),
    ):  # fmt: skip
        found.say(Label(ids[sample], criterion, who, verdict, note, 1.25, 2))
    return found


def out(store, tmp_path, name="labels.json"):
    exchange.write(store.buffer, ALL, tmp_path / name)
    return tmp_path / name


def tasks(path):
    return json.loads(path.read_text(encoding="utf-8"))


def rows(buffer, table):
    with sqlite3.connect(buffer.path) as database:
        return database.execute(f"SELECT * FROM {table}").fetchall()


def test_the_round_trip_is_exact(store, tmp_path):
    first = out(store, tmp_path)
    copied = Buffer(tmp_path / "copy.sqlite")
    assert exchange.read(copied, ALL, first).startswith("4 samples, 6 labels, 8 verdicts taken in from")
    assert exchange.write(copied, ALL, tmp_path / "again.json").startswith("4 samples with 6 answers in")
    assert (tmp_path / "again.json").read_bytes() == first.read_bytes()
    assert copied.labels(ALL).equals(store.buffer.labels(ALL))
    assert copied.verdicts().equals(store.buffer.verdicts())
    assert rows(copied, "samples") == rows(store.buffer, "samples")
    assert exchange.read(copied, ALL, first).startswith("0 samples, 0 labels, 0 verdicts")
    assert rows(copied, "labels")[0][1:] == rows(store.buffer, "labels")[0][1:]


TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from([ON, OTHER]),
            st.sampled_from(["ann", "bob", "Zoë 茶"]),
            st.sampled_from(["Yes", "No", None]),
            TEXT,
            st.one_of(st.none(), st.floats(0, 9)),
        ),
        max_size=8,
    ),
    TEXT,
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_labels_come_back_as_they_were(tmp_path_factory, said, text):
    folder = tmp_path_factory.mktemp("exchange")
    samples = [Sample("tags", {"interest": text, "tag": f"{text} {place}"}, user_id=text) for place in range(4)]
    store = store_of(folder / "buffer.sqlite", samples, context=False)
    for place, criterion, who, verdict, note, seconds in said:
        note = note if verdict else f"skip: {note}"
        store.say(Label(samples[place].id, criterion, who, verdict, note, seconds, place))
    first, copied = out(store, folder), Buffer(folder / "copy.sqlite")
    exchange.read(copied, ALL, first)
    assert out(store_of(copied.path, []), folder, "again.json").read_bytes() == first.read_bytes()
    by = ["sample", "criterion", "annotator"]
    assert (
        copied.labels(ALL)
        .sort_by([(name, "ascending") for name in by])
        .equals(store.buffer.labels(ALL).sort_by([(name, "ascending") for name in by]))
    )


def test_it_is_what_label_studio_reads(store, tmp_path):
    found = tasks(out(store, tmp_path))
    first = found[0]
    assert set(first) == {"id", "data", "annotations", "predictions"}
    assert first["data"]["text"].splitlines()[-1].startswith("tag: ")
    (result, *_) = first["annotations"][0]["result"]
    assert (result["from_name"], result["to_name"], result["type"]) == (ON, "sample", "choices")
    assert result["value"] == {"choices": ["Yes"]}
    skips = [one for task in found for one in task["annotations"] if one["was_cancelled"]]
    assert [one["result"][0]["meta"]["text"] for one in skips] == [["skip: broken"]]
    assert first["predictions"][0]["model_version"] == "v1"
    setup = ElementTree.parse(tmp_path / "labels.xml").getroot()
    choices = {one.get("name"): [word.get("value") for word in one] for one in setup.iter("Choices")}
    assert choices[ON] == ["Yes", "No"]
    assert set(choices) == {key for key, one in ALL.items() if not one.rule}
    assert {one.get("toName") for one in setup.iter("Choices")} == {setup.find("Text").get("name")}


def test_what_people_labeled_in_label_studio_comes_in(store, tmp_path):
    """An annotation as its own export has it: a number for a person, one time for all, no meta, other kinds beside."""
    path = out(store, tmp_path)
    found = tasks(path)
    found[2]["annotations"] = [
        {"id": 7, "completed_by": 12, "created_at": "2026-03-01T10:00:00.000000Z", "lead_time": 8.5,
         "was_cancelled": False, "ground_truth": False,
         "result": [
             {"id": "x", "from_name": ON, "to_name": "sample", "type": "choices", "value": {"choices": ["No"]}},
             {"id": "y", "from_name": "remark", "to_name": "sample", "type": "textarea", "value": {"text": ["hm"]}},
         ]},
        {"id": 8, "completed_by": {"id": 3, "email": "eve@example.org"}, "created_at": "2026-03-01T11:00:00Z",
         "lead_time": None, "was_cancelled": True, "result": []},
    ]  # fmt: skip
    path.write_text(json.dumps(found))
    assert "1 labels" in exchange.read(store.buffer, ALL, path)
    row = store.buffer.labels(ALL).to_pylist()[-1]
    assert (row["annotator"], row["verdict"], row["seconds"], row["round"]) == ("12", "No", 8.5, 1)
    assert row["time"].isoformat() == "2026-03-01T10:00:00+00:00"


def test_what_was_taken_back_is_not_brought_again_by_an_older_file(store, tmp_path):
    path = out(store, tmp_path)
    sample = next(iter(store.read().samples))
    store.say(Label(sample, ON, "ann", None, "undo"))
    before = store.buffer.labels(ALL).num_rows
    assert "0 labels" in exchange.read(store.buffer, ALL, path)
    assert store.buffer.labels(ALL).num_rows == before


def test_pandas_reads_the_table(store, tmp_path):
    printed = exchange.write(store.buffer, ALL, tmp_path / "labels.parquet")
    assert printed == f"5 labels in {tmp_path / 'labels.parquet'}"
    found = pd.read_parquet(tmp_path / "labels.parquet")
    assert list(found.columns) == exchange.FLAT.names
    assert found["seconds"].dtype == found["judge_score"].dtype == "float64"
    assert (found["round"].dtype, found["passed"].dtype) == ("int64", "bool")
    assert str(found["time"].dtype) == "datetime64[us, UTC]"
    assert found.groupby("annotator")["passed"].mean().to_dict() == {"Zoë": 1.0, "ann": 1 / 3, "bob": 0.0}
    agreed = (found["verdict"] == found["judge_verdict"]).groupby(found["criterion"]).mean()
    assert agreed.to_dict() == {OTHER: 0.5, ON: 1 / 3}
    assert json.loads(found["fields"][0])["tag"] == found["output"][0]
    types = map(str, pq.read_schema(tmp_path / "labels.parquet").types)
    assert not [one for one in types if one.startswith(("list", "dictionary", "struct"))]


def damage(path, change):
    found = tasks(path)
    change(found)
    path.write_text(json.dumps(found))
    return path


def result(found):
    return found[0]["annotations"][0]["result"][0]


def set_(where, key, value):
    def change(found):
        where(found)[key] = value

    return change


def twice(found):
    other = copy.deepcopy(found[0]["annotations"][0])
    other["result"][0]["value"]["choices"] = ["No"]
    found[0]["annotations"].append(other)


DATA = [
    (set_(lambda f: f[0]["data"]["criteria"], ON, "0" * 64), "was answered under another wording (file 000000000000)"),
    (lambda f: f[0]["data"]["criteria"].pop(ON), "was answered under another wording (file None)"),
    (set_(result, "from_name", "tags/taste"), "there is no criterion 'tags/taste'; there are"),
    (set_(lambda f: result(f)["value"], "choices", ["Maybe"]), "is answered with Yes, No, but ann said 'Maybe'"),
    (set_(lambda f: result(f)["value"], "choices", ["Yes", "No"]), "one verdict for tags/relevance was expected"),
    (set_(lambda f: result(f)["value"], "choices", []), "one verdict for tags/relevance was expected"),
    (twice, "ann answered tags/relevance of sample"),
    (set_(lambda f: f[0]["annotations"][0], "completed_by", {"email": " "}), "nobody's name"),
    (set_(lambda f: f[0]["data"], "sample", "0" * 32), "is not what it was; export it again"),
    (set_(lambda f: f[0]["data"]["fields"], 0, ["tag", "other"]), "is not what it was; export it again"),
    (set_(lambda f: f[0]["data"], "format", 9), "has format 9, but this recgpt reads up to 1"),
    (set_(lambda f: f[0]["data"], "source", "elsewhere"), "is not one that recgpt exported: task 'tags' and source"),
    (set_(lambda f: f[0]["data"], "time", "2026-01-01T00:00:00"), "has no zone"),
    (lambda f: f[0].pop("data"), "is not one that recgpt exported: 'data' is missing"),
    (lambda f: f[0]["data"].pop("round"), "'round' is missing"),
    (set_(lambda f: f[0]["data"], "round", 10**30), "is not from 0 to 2^31 - 1"),
    (set_(lambda f: f[0]["data"], "round", -5), "is not from 0 to 2^31 - 1"),
    (set_(lambda f: f[0], "annotations", 3), "is not one that recgpt exported"),
    (set_(lambda f: f, 0, "text"), "is not one that recgpt exported"),
    (set_(lambda f: f[0]["predictions"][0]["result"][0], "from_name", "x"), "there is no criterion 'x'"),
]


@pytest.mark.parametrize(("change", "said"), DATA, ids=[one[1][:40] for one in DATA])
def test_a_file_that_does_not_fit_is_refused_and_nothing_of_it_is_kept(store, tmp_path, change, said):
    path = damage(out(store, tmp_path), change)
    copied = Buffer(tmp_path / "copy.sqlite")
    with pytest.raises(JudgeError) as caught:
        exchange.read(copied, ALL, path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}: task 1")
    assert [copied.count(name) for name in ("samples", "labels", "verdicts")] == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "but it is no JSON"),
        ("", "but it is no JSON"),
        ("{}", "but it is a object"),
        ("[" * 100_000, "but it is no JSON"),
        ("\ufffe", "but it is no JSON"),
    ],
)
def test_a_file_that_is_no_list_of_tasks(store, tmp_path, text, said):
    (tmp_path / "bad.json").write_text(text, encoding="utf-8")
    with pytest.raises(JudgeError, match=said):
        exchange.read(store.buffer, ALL, tmp_path / "bad.json")
    with pytest.raises(JudgeError, match="cannot be read: No such file"):
        exchange.read(store.buffer, ALL, tmp_path / "none.json")


def test_an_annotator_who_says_otherwise_here_is_named(store, tmp_path):
    path = out(store, tmp_path)
    sample = next(iter(store.read().samples))
    store.say(Label(sample, ON, "ann", "No"))
    before = store.buffer.count("labels")
    with pytest.raises(JudgeError, match="with 'Yes', but with 'No' in"):
        exchange.read(store.buffer, ALL, path)
    assert store.buffer.count("labels") == before


def test_labels_of_an_edited_criterion_do_not_leave_and_do_not_enter(store, tmp_path):
    path = out(store, tmp_path)
    text = (judge.criteria.resources.files("recgpt") / "prompts/criteria/tags/relevance.toml").read_text()
    edited = ALL | {ON: judge.criteria.parse("tags", "relevance", text.replace("version = 1", "version = 2"))}
    with pytest.raises(JudgeError, match="than the one that is here"):
        exchange.read(Buffer(tmp_path / "copy.sqlite"), edited, path)
    assert "with 2 answers" in exchange.write(store.buffer, edited, tmp_path / "edited.json")


def test_a_full_disk_leaves_the_old_file(store, tmp_path, monkeypatch):
    path = out(store, tmp_path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exchange.os, "replace", full)
    with pytest.raises(JudgeError, match=r"labels\.\w+ cannot be written: No space left on device"):
        out(store, tmp_path)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_the_commands(store, tmp_path, capsys):
    place, path = str(store.buffer.path), tmp_path / "labels.json"
    assert "4 samples with 6 answers in" in say(capsys, "judge", "export", place, str(path))
    assert "0 samples with 0 answers" in say(
        capsys, "judge", "export", place, str(tmp_path / "none.json"), "--task", "interests"
    )
    assert "5 labels in" in say(capsys, "judge", "export", place, str(tmp_path / "labels.parquet"))
    copied = str(tmp_path / "copy.sqlite")
    assert "4 samples, 6 labels" in say(capsys, "judge", "import", copied, str(path))
    assert "must end in .json" in say(capsys, "judge", "export", place, str(tmp_path / "x.csv"), status=1)
    assert "a task is one of" in say(capsys, "judge", "export", place, str(path), "--task", "x", status=1)
    assert "a buffer was expected" in say(capsys, "judge", "export", str(tmp_path / "no.sqlite"), str(path), status=1)


KIND = """
source = "ours"
version = 1
scale = ["Yes", "No"]
passes = ["Yes"]
decided_by = "llm"
question = "Is the tag {word}?"
[[positive]]
text = "tent"
why = "it is"
[[negative]]
text = "rod"
why = "it is not"
"""


def test_answers_under_unknown_and_reworded_criteria_are_said_to_be_left_out(store, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "own"
    (folder / "tags").mkdir(parents=True)
    (folder / "tags/kindness.toml").write_text(KIND.format(word="kind"), encoding="utf-8")
    own, samples = judge.load(folder), list(store.read().samples)
    for place, one in enumerate(samples[:3]):
        store.buffer.add_label(Label(one, "tags/kindness", "ann", "Yes", round=2), own)
        # What was taken back, and what was said again under the new wording, is missed by nobody.
        if place == 2:
            store.buffer.add_label(Label(one, "tags/kindness", "ann", None, round=2), own)

    def left(*words):
        monkeypatch.setattr("sys.argv", ["recgpt", "judge", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        assert not stopped.value.code, printed.err
        return printed

    place, unknown = str(store.buffer.path), "2 answers are left out, under tags/kindness: there is no such criterion"
    counts = [{"criterion": "tags/kindness", "task": "tags", "answers": 2, "why": "unknown"}]
    for words in (("export", place, str(tmp_path / "x.json")), ("export", place, str(tmp_path / "x.parquet"))):
        printed = left(*words)
        assert unknown in printed.err
        assert "by --criteria FOLDER" in printed.err
        assert " 6 " in printed.out or "5 labels" in printed.out
        assert json.loads(left(*words, "--json").out)["answers_left_out"] == counts
        assert not left(*words, "--criteria", str(folder)).err
        assert not left(*words, "--task", "interests").err
    assert unknown in left("annotators", place).err
    assert json.loads(left("annotators", place, "--json").out)["answers_left_out"] == counts
    assert json.loads(left("dataset", place, str(tmp_path / "x.jsonl"), "--json").out)["answers_left_out"] == counts

    (folder / "tags/kindness.toml").write_text(KIND.format(word="very kind"), encoding="utf-8")
    store.buffer.add_label(Label(samples[0], "tags/kindness", "ann", "No", round=2), judge.load(folder))
    printed = left("export", place, str(tmp_path / "x.json"), "--criteria", str(folder)).err
    assert printed.startswith("1 answer is left out, under tags/kindness: its file was worded otherwise then; bring")
