"""The bench's log and peers: what is compared must be the same work."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recgpt import _reference, schema

sys.path.insert(0, str(Path(__file__).parent.parent / "benches"))

from history_bench import catalogue, machine, ours, peer_python, rules, workload
from history_bench.workload import BEHAVIORS, CLICK, NOW, NOW_US, START_US

RECORDS = 20_000


@pytest.fixture(scope="module")
def work() -> workload.Workload:
    return workload.generate(RECORDS)


def test_the_log_is_what_it_says(work: workload.Workload) -> None:
    events = work.events
    assert events.num_rows == RECORDS
    assert events.schema.types == [pa.int32(), schema.TIMESTAMP, pa.dictionary(pa.int8(), pa.string()), pa.int32()]
    assert BEHAVIORS[:CLICK] == schema.RELIABLE
    time = events["timestamp"].to_numpy().view(np.int64)
    assert np.all(np.diff(time) >= 0)
    assert time[0] >= START_US
    assert time[-1] < NOW_US
    code = events["behavior"].combine_chunks().indices.to_numpy()
    assert np.mean(code == CLICK) == pytest.approx(0.515, abs=0.02)
    item = events["item_id"].to_numpy()
    assert np.array_equal(item >= catalogue.ITEMS, code == workload.SEARCH)


def test_the_same_seed_makes_the_same_log(work: workload.Workload) -> None:
    assert workload.generate(RECORDS).events.equals(work.events)
    assert not workload.generate(RECORDS, seed=1).events.equals(work.events)


def test_sorting_by_user_keeps_the_records(work: workload.Workload) -> None:
    by_user = work.by_user().events
    user, time = by_user["user_id"].to_numpy(), by_user["timestamp"].to_numpy().view(np.int64)
    assert np.all((np.diff(user) > 0) | (np.diff(time) >= 0))
    order = [("user_id", "ascending"), ("timestamp", "ascending"), ("item_id", "ascending"), ("behavior", "ascending")]
    plain = pa.schema([field.with_type(pa.string()) if field.name == "behavior" else field for field in by_user.schema])
    assert by_user.cast(plain).sort_by(order).equals(work.events.cast(plain).sort_by(order))


def test_one_user_holds_a_quarter() -> None:
    sizes = np.bincount(workload.generate(200_000, "skewed").events["user_id"].to_numpy())
    assert sizes.sum() == 200_000
    assert sizes.max() == pytest.approx(50_000, rel=0.03)


def test_texts_are_distinct_and_plain() -> None:
    texts = catalogue.texts(items=3_000, queries=1_000)
    assert len(set(texts)) == 4_000
    assert all(text == text.strip() and not set(text) & set(",|") for text in texts)
    assert np.mean([len(text) for text in catalogue.texts()]) == pytest.approx(34, abs=1)


def test_labels_are_those_of_the_reference() -> None:
    for day in range(workload.DAYS):
        date = (workload.START + np.timedelta64(day, "D").astype(object)).date()
        bucket = _reference.bucket_of(date, NOW.date(), stable=False)
        assert rules.LABELS[rules.BUCKET_OF_DAY[day]] == bucket.label(long=False)


def test_plain_python_writes_what_recgpt_writes(work: workload.Workload) -> None:
    from recgpt.llm.tokenizer import Tokenizer

    made = ours.pairs(ours.compress(ours.prepare(work, Tokenizer.bytes())))
    plain = peer_python.pairs(peer_python.compress(peer_python.prepare(work)))
    assert len(made) == len(plain) > 1
    assert rules.digest(made) == rules.digest(plain)


def test_figures_of_another_build_are_forgotten_and_of_another_machine_refused(tmp_path, monkeypatch, capsys) -> None:
    import history as bench

    file = tmp_path / "history.json"
    monkeypatch.setattr(bench, "KEPT", file)
    here, build = {"cpu": "this"}, machine.build()
    assert bench.kept(here, build, fresh=False) == {}
    new, old = {"build": build, "figures": {"a": 1}}, {"build": "other", "figures": {"b": 1}}
    file.write_text(json.dumps({"machine": here, "sections": {"speed": new, "memory": old, "real": {"figures": {}}}}))
    assert bench.kept(here, build, fresh=False) == {"speed": new}
    assert "another build and forgotten: memory, real" in capsys.readouterr().out
    assert bench.kept(here, build, fresh=True) == {}
    with pytest.raises(SystemExit, match="was measured on"):
        bench.kept({"cpu": "that"}, build, fresh=False)


def test_the_kinds_of_columns_say_the_same(work: workload.Workload) -> None:
    from recgpt.llm.tokenizer import Tokenizer

    told = [ours.pairs(ours.compress(ours.prepare(make(work), Tokenizer.bytes()))) for make in ours.COLUMNS.values()]
    # Texts go in another order of users, and positions may change the order inside a second.
    assert len({rules.digest(pairs) for pairs in told}) == 1


def test_a_digest_sees_what_differs() -> None:
    base = rules.digest([(1, "17 (cart) | a, b\n16 (cart) | c")])
    assert base == rules.digest([(1, "16 (cart) | c\n17 (cart) | b, a")])
    for other in ("17 (cart) | a, b", "17 (cart) | a, b\n16 (cart) | d", "16 (cart) | a, b\n17 (cart) | c"):
        assert base != rules.digest([(1, other)])


def test_polars_writes_the_same(work: workload.Workload) -> None:
    pytest.importorskip("polars", reason="polars comes with recgpt[bench]")
    from history_bench import peer_polars

    truth = rules.digest(peer_python.compress(peer_python.prepare(work)))
    data = peer_polars.prepare(work)
    for form in peer_polars.FORMS:
        assert rules.digest(peer_polars.pairs(peer_polars.compress(data, form, "in-memory"))) == truth, form


def test_duckdb_writes_the_same(work: workload.Workload) -> None:
    pytest.importorskip("duckdb", reason="duckdb comes with recgpt[bench]")
    from history_bench import peer_duckdb

    truth = rules.digest(peer_python.compress(peer_python.prepare(work)))
    data = peer_duckdb.prepare(work, threads=2)
    for form in peer_duckdb.FORMS:
        assert rules.digest(peer_duckdb.pairs(peer_duckdb.compress(data, form))) == truth, form
