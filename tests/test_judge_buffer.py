"""The judge's buffer and rebalancing: it only grows, contradicts nobody in silence, and newest labels come first."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recgpt import judge, schema
from recgpt.errors import JudgeError
from recgpt.judge import Sample
from recgpt.judge.buffer import Buffer, Label
from recgpt.judge.rebalance import quotas, rebalance

ALL = judge.load()
SAMPLES = [Sample("tags", {"tag": f"tent {place}"}, user_id="u") for place in range(50)]
ON = "tags/relevance"


@pytest.fixture
def buffer(tmp_path):
    found = Buffer(tmp_path / "judge" / "buffer.sqlite")
    found.add_samples(SAMPLES, source="served", round=1)
    return found


def say(verdict, place=0, who="ann", **rest):
    return Label(SAMPLES[place].id, ON, who, verdict, **rest)


def test_samples_come_back_and_are_not_doubled(buffer):
    assert buffer.add_samples(SAMPLES[:3], source="served", round=2) == 0
    assert buffer.count("samples") == 50
    assert buffer.samples()[SAMPLES[7].id].fields == {"tag": "tent 7"}
    assert set(buffer.samples([SAMPLES[7].id])) == {SAMPLES[7].id}


def test_a_contradiction_is_refused_until_the_first_label_is_taken_back(buffer):
    buffer.add_label(say("Yes", seconds=2.5), ALL)
    buffer.add_label(say("Yes"), ALL)
    with pytest.raises(JudgeError, match="take the first back"):
        buffer.add_labels([say("Yes", place=1), say("No")], ALL)
    assert buffer.labels().num_rows == 1, "all or none"
    buffer.add_label(say(None, note="undo"), ALL)
    assert buffer.labels().num_rows == 0
    buffer.add_label(say("No", note="only the word is the same"), ALL)
    (row,) = buffer.labels().to_pylist()
    assert (row["verdict"], row["note"], row["source"]) == ("No", "only the word is the same", "served")
    assert buffer.count("labels") == 4


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (Label(SAMPLES[0].id, "tags/taste", "ann", "Yes"), "there is no criterion 'tags/taste'"),
        (say("Maybe"), "is answered with Yes, No"),
        (Label(SAMPLES[0].id, "interests/willingness", "ann", "Yes"), "asks about interests, but .* is of tags"),
        (Label("none", ON, "ann", "Yes"), "is not in the buffer"),
        (say("Yes", who=" "), "the name of its annotator"),
    ],
)
def test_a_label_that_fits_nowhere_is_refused_and_nothing_is_lost(buffer, label, said):
    buffer.add_label(say("Yes", place=3), ALL)
    with pytest.raises(JudgeError, match=said):
        buffer.add_label(label, ALL)
    assert buffer.labels().num_rows == 1


def test_labels_of_another_wording_are_not_mixed_in(buffer):
    buffer.add_label(say("Yes"), ALL)
    other = judge.criteria.parse("tags", "relevance", _text().replace("stated", "given"))
    assert buffer.labels(ALL | {ON: other}).num_rows == 0
    assert buffer.labels(ALL).num_rows == buffer.labels().num_rows == 1
    buffer.add_label(say("No"), ALL | {ON: other})


def _text():
    from importlib import resources

    return (resources.files("recgpt") / "prompts" / "criteria" / "tags" / "relevance.toml").read_text()


@pytest.mark.parametrize("table", ["samples", "labels", "verdicts"])
@pytest.mark.parametrize("verb", ["UPDATE {} SET round = 9", "DELETE FROM {}"])
def test_rows_are_neither_changed_nor_removed(buffer, table, verb):
    buffer.add_label(say("Yes"), ALL)
    buffer.add_verdicts(judge.judge(SAMPLES[:1], ALL, engine=None).table, ALL, judge="v1", round=1)
    with sqlite3.connect(buffer.path) as database, pytest.raises(sqlite3.IntegrityError, match="only grows"):
        database.execute(verb.format(table))


def test_verdicts_come_back_by_judge(buffer):
    table = judge.judge(SAMPLES[:2], ALL, engine=None).table
    buffer.add_verdicts(table, ALL, judge="v1", round=1)
    assert buffer.verdicts(judge="v1").num_rows == table.num_rows
    assert buffer.verdicts(judge="v2").num_rows == 0


def test_a_file_that_is_no_buffer_and_one_of_a_later_format(tmp_path, buffer):
    (tmp_path / "text").write_text("not a database, but a text of some length" * 50)
    with pytest.raises(JudgeError, match="could not be read or written"):
        Buffer(tmp_path / "text")
    with sqlite3.connect(buffer.path) as database:
        database.execute("UPDATE meta SET format = 7")
    with pytest.raises(JudgeError, match="has format 7"):
        Buffer(buffer.path)


def test_threads_and_two_openings_lose_nothing(buffer):
    second = Buffer(buffer.path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda place: (buffer, second)[place % 2].add_label(say("Yes", place=place), ALL), range(50)))
    assert second.labels().num_rows == 50


def test_a_killed_writer_loses_nothing_that_it_confirmed(buffer):
    code = """
import sys
from recgpt import judge
from recgpt.judge.buffer import Buffer, Label
buffer, criteria = Buffer(sys.argv[1]), judge.load()
for sample in buffer.samples():
    buffer.add_label(Label(sample, "tags/relevance", "ann", "Yes"), criteria)
    print(sample, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(buffer.path)], stdout=subprocess.PIPE, text=True) as writer:
        confirmed = [line.strip() for line in itertools.islice(writer.stdout, 10)]
        os.kill(writer.pid, signal.SIGKILL)
    assert set(confirmed) <= set(Buffer(buffer.path).labels()["sample"].to_pylist())


def labels(rows) -> pa.Table:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return schema.rows(
        [
            {"sample": f"s{sample}", "task": "tags", "criterion": ON, "annotator": "ann", "verdict": verdict,
             "note": "", "seconds": None, "round": at, "source": "served", "time": start + timedelta(days=at)}
            for sample, verdict, at in rows
        ],
        schema.LABELS,
    )  # fmt: skip


ROWS = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from(["Yes", "Yes", "Yes", "No"]), st.integers(0, 5)), max_size=80
)


@given(
    ROWS,
    st.integers(1, 20),
    st.floats(0.2, 5.0),
    st.integers(0, 3),
    st.sets(st.integers(0, 5), max_size=2),
    st.randoms(),
)
def test_rebalancing(rows, per_class, half_life, seed, held_out, random):
    table = labels(rows)
    closed = {sample for sample, _, at in rows if at in held_out}
    newest = {}
    for sample, verdict, at in sorted(rows, key=lambda row: row[2]):
        if sample not in closed:
            newest[sample] = (verdict, at)
    # Where two labels of a round differ, which of them is the newer one is the annotator's business.
    if any(len({v for s, v, at in rows if s == sample and at == newest[sample][1]}) > 1 for sample in newest):
        return
    sizes = Counter(verdict for verdict, _ in newest.values())
    given_ = {"per_class": per_class, "half_life": half_life, "held_out": held_out, "seed": seed}
    if len(sizes) < 2:
        if sizes:
            with pytest.raises(JudgeError, match="one class only"):
                rebalance(table, **given_)
        return
    chosen = rebalance(table, **given_).to_pylist()
    assert Counter(row["verdict"] for row in chosen) == {name: min(per_class, size) for name, size in sizes.items()}
    assert not {row["sample"] for row in chosen} & {f"s{sample}" for sample in closed}
    assert all(newest[int(row["sample"][1:])] == (row["verdict"], row["round"]) for row in chosen)
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert rebalance(labels(shuffled), **given_).to_pylist() == chosen


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 80), st.floats(0.1, 10.0))
def test_newer_rounds_are_kept_at_least_as_much(sizes, target, half_life):
    kept = quotas(sizes, target, half_life)
    assert sum(kept) == min(target, sum(sizes))
    assert all(0 <= one <= size for one, size in zip(kept, sizes, strict=True))
    shares = [(one / size, 1 / size) for one, size in zip(kept, sizes, strict=True) if size]
    # Up to the rounding of one label in each round.
    assert all(newer[0] + newer[1] + older[1] >= older[0] for newer, older in itertools.pairwise(shares))


def test_by_default_classes_are_as_large_as_the_rarest_and_arguments_are_checked():
    table = labels([(n, "Yes", n % 3) for n in range(30)] + [(100 + n, "No", n % 3) for n in range(4)])
    chosen = rebalance(table)
    assert Counter(chosen["verdict"].to_pylist()) == {"Yes": 4, "No": 4}
    for wrong in ({"half_life": 0.0}, {"per_class": 0}):
        with pytest.raises(JudgeError, match=f"{next(iter(wrong))} must be"):
            rebalance(table, **wrong)
