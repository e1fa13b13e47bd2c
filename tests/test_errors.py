"""Every error class with the exact text that a person reads: one table, a row for each message."""

import json
import re
import resource
import sqlite3
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import recgpt
from recgpt import _core, alignment, errors, judge, schema, serving
from recgpt.evaluation import summary
from recgpt.index import ExactIndex
from recgpt.judge import calibration, exchange
from recgpt.judge.buffer import Buffer, Label
from recgpt.judge.review import Questions, Store, server
from recgpt.llm import FakeEngine, LlamaCpp, Recorded, Tokenizer, grammar, prompts
from recgpt.llm.chat import Chat
from recgpt.pipeline import config, milestones, reviewing

EMPTY = ("tags", "interests", "explanations", "history")
NOW = datetime(2024, 3, 15, tzinfo=UTC)
BRIEFS = pa.table({"item_id": ["1"], "brief": ["Lamp"], "tokens": pa.array([4], pa.uint32())})


def log(**columns: Any) -> pa.Table:
    stamp = pa.array([datetime(2024, 3, 1, 12)], pa.timestamp("us"))
    base: dict[str, Any] = {"user_id": ["7"], "item_id": ["1"], "behavior": ["purchase"], "timestamp": stamp}
    return pa.table({name: column for name, column in {**base, **columns}.items() if column is not None})


def history(table: pa.Table) -> pa.Table:
    events = recgpt.logs.normalize(table, time_zone="UTC").events
    kept = recgpt.behaviors.extract(events)
    return recgpt.history.compress(kept, BRIEFS, now=NOW, tokenizer=Tokenizer.bytes())


KEPT = recgpt.logs.normalize(log(), time_zone="UTC").events.select(["user_id", "item_id", "behavior", "timestamp"])


def compressed(table: pa.Table = KEPT, **options: Any) -> pa.Table:
    return recgpt.history.compress(table, BRIEFS, now=NOW, tokenizer=Tokenizer.bytes(), **options)


def far(microseconds: int) -> pa.Array:
    return pa.array([microseconds], pa.int64()).cast(pa.timestamp("us"))


def locked(folder: Path) -> None:
    first = Recorded(FakeEngine(), folder)
    try:
        Recorded(FakeEngine(), folder)
    finally:
        first.close()


def without_gguf(folder: Path) -> None:
    model = folder / "model.gguf"
    model.write_bytes(b"GGUF")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "gguf", None)
        Tokenizer.from_gguf(model)


def bundle(folder: Path) -> Path:
    """Publish the smallest bundle: one user, one item."""
    vector = np.ones((1, 2), np.float32)
    rows: dict[str, Any] = {name: getattr(schema, name.upper()).empty_table() for name in EMPTY}
    path = serving.write(
        folder,
        user_ids=["7"],
        user_vectors=vector,
        item_ids=["1"],
        item_vectors=vector,
        tag_texts=[],
        tag_vectors=np.zeros((0, 2), np.float32),
        items=schema.rows([{"item_id": "1", "title": "Lamp"}], schema.ITEMS),
        users=schema.rows([{"user_id": "7"}], schema.USERS),
        popularity=serving.POPULARITY.empty_table(),
        beta=0.5,
        now=NOW,
        lineage={},
        **rows,
    )
    serving.publish(folder, path.name)
    return path


def damaged(folder: Path) -> None:
    path = bundle(folder) / "item_vectors.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    recgpt.Recommender.open(folder)


def hostile_template() -> None:
    Chat("{% for message in messages %}{{ message.__class__ }}{% endfor %}", lambda text, *, special: [])


def judged(folder: Path) -> tuple[Buffer, dict[str, judge.Criterion], str]:
    """A buffer with one sample that ann called relevant."""
    buffer, criteria, sample = Buffer(folder / "labels.sqlite"), judge.load(), judge.Sample("tags", {"tag": "tent"})
    buffer.add_samples([sample], source="served", round=1)
    buffer.add_label(Label(sample.id, "tags/relevance", "ann", "Yes"), criteria)
    return buffer, criteria, sample.id


def contradicting(folder: Path) -> None:
    buffer, criteria, sample = judged(folder)
    buffer.add_label(Label(sample, "tags/relevance", "ann", "No"), criteria)


def unknown_criterion(folder: Path) -> None:
    buffer, _, sample = judged(folder)
    buffer.add_label(Label(sample, "tags/taste", "ann", "No"), {"tags/relevance": judge.load()["tags/relevance"]})


def later_buffer(folder: Path) -> None:
    buffer, _, _ = judged(folder)
    with sqlite3.connect(buffer.path) as database:
        database.execute("UPDATE meta SET format = 9")
    Buffer(buffer.path)


def no_buffer(folder: Path) -> None:
    with sqlite3.connect(folder / "other.sqlite") as database:
        database.execute("CREATE TABLE samples (x)")
    Buffer(folder / "other.sqlite")


def unjudged(folder: Path) -> None:
    path = folder / "run.toml"
    path.write_text(f'out = "{folder}/out"\n[data]\ndataset = "world"\n[llm]\nengine = "fake"\n', encoding="utf-8")
    milestones.visit(config.load(path))


def leaked() -> None:
    same = {
        "subtask": "sentiment",
        "level": "advanced",
        "system": "s",
        "answer": "positive",
        "at": NOW,
        "origin": "shop",
    }
    rows = [
        {**same, "prompt": user, "beginning": "", "others": [], "user_id": user, "prompt_digest": "d"}
        for user in ("ann", "bob")
    ]
    alignment.HeldOut(users=["bob"]).refuse(pa.Table.from_pylist(rows, alignment.SAMPLES))


def full_disk(folder: Path) -> None:
    """No file may grow any further: what a full disk looks like to whoever writes."""
    buffer, criteria, sample = judged(folder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    try:
        buffer.add_label(Label(sample, "tags/relevance", "bob", "No"), criteria)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert buffer.labels()["annotator"].to_pylist() == ["ann"], "nothing was lost, nothing half written"


RELEVANCE = judge.load()["tags/relevance"]


def label_file(folder: Path, **changes: Any) -> None:
    """Take in a file of one sample that two answers of one person contradict, changed."""
    sample = judge.Sample("tags", {"tag": "tent"})
    answer = {"from_name": changes.get("name", "tags/relevance"), "type": "choices"}
    labeled = {"completed_by": {"email": "ann"}, "created_at": "2026-01-01T00:00:00Z"}
    data = {
        "format": 1, "sample": sample.id, "fields": [["tag", "tent"]], "task": "tags", "user_id": None, "round": 1,
        "source": "served", "time": "2026-01-01T00:00:00Z",
        "criteria": {"tags/relevance": changes.get("digest", RELEVANCE.digest)},
    }  # fmt: skip
    answers = [labeled | {"result": [answer | {"value": {"choices": [word]}}]} for word in ("Yes", "No")]
    (folder / "labels.json").write_text(json.dumps([{"data": data, "annotations": answers}]), encoding="utf-8")
    exchange.read(Buffer(folder / "labels.sqlite"), judge.load(), folder / "labels.json")


def without_fastapi(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "find_spec", lambda name: None)
        server.serve(Questions(Store(Buffer(folder / "labels.sqlite"), judge.load())), say=print)


CASES: list[tuple[str, type[Exception], Callable[[Path], Any], str]] = [
    (
        "a missing column",
        errors.InvalidTableError,
        lambda _: recgpt.logs.normalize(log(user_id=None), time_zone="UTC"),
        "`events`: column `user_id` is missing (the columns are: item_id, behavior, timestamp); add or rename it",
    ),
    (
        "a wrong type",
        errors.InvalidTableError,
        lambda _: recgpt.logs.normalize(log(user_id=[True]), time_zone="UTC"),
        "`events`: column `user_id` must be text or whole numbers, but it is bool: row 0 holds 'True'; cast it to text",
    ),
    (
        "no table",
        errors.InvalidTableError,
        lambda _: recgpt.schema.table([1], recgpt.schema.ITEMS, name="items"),
        "`items` must be a table with __arrow_c_stream__ (pyarrow, polars, pandas, duckdb), but it is a list; convert it, for example with pyarrow.table(...)",
    ),
    (
        "too many threads for a history",
        errors.InvalidConfigError,
        lambda _: compressed(threads=4096),
        "`threads` must be None or a whole number from 1 to 1024, but it is 4096; None stands for one a core",
    ),
    (
        "a budget that no computer counts",
        errors.InvalidConfigError,
        lambda _: compressed(budget=2**64),
        "`budget` must be None or a whole number from 0 to 18446744073709551615, but it is 18446744073709551616; None stands for no limit",
    ),
    (
        "a column twice",
        errors.InvalidTableError,
        lambda _: compressed(KEPT.append_column("item_id", KEPT["item_id"])),
        "`kept` is not usable: column `item_id` comes 2 times; keep or rename all but one",
    ),
    (
        "a text that is no text",
        errors.InvalidTableError,
        lambda _: compressed(KEPT.set_column(1, "item_id", pa.array([b"caf\xe9"]).view(pa.string()))),
        "`kept` is not usable: column `item_id` must be UTF-8, but holds b'caf\\xe9'; decode it before, for example with bytes.decode(..., errors='replace')",
    ),
    (
        "a text that is no text in a dictionary",
        errors.InvalidTableError,
        lambda _: compressed(
            KEPT.set_column(2, "behavior", pa.DictionaryArray.from_arrays([0], pa.array([b"\xff"]).view(pa.string())))
        ),
        "`kept` is not usable: column `behavior` must be UTF-8, but holds b'\\xff'; decode it before, for example with bytes.decode(..., errors='replace')",
    ),
    (
        "an empty log",
        errors.EmptyLogError,
        lambda _: recgpt.logs.normalize(log().slice(0, 0), time_zone="UTC"),
        "`events`: there are no rows; expected at least one event: check the file or the query behind it",
    ),
    (
        "no reliable behavior",
        errors.EmptyLogError,
        lambda _: history(log(behavior=["click"])),
        "`kept` must hold at least one reliable event, but it has 0 rows; give `behaviors.extract` the behaviors that the log has (`reliable=`), or map their names when it is read",
    ),
    (
        "no item has a title",
        errors.InvalidTableError,
        lambda _: recgpt.logs.normalize(
            log(), pa.table({"item_id": ["1"], "title": pa.nulls(1, pa.string())}), time_zone="UTC"
        ),
        "`items`: column `title` is empty in every row; give the items titles, or nothing can be written",
    ),
    (
        "a naive timestamp",
        errors.NaiveTimestampError,
        lambda _: recgpt.logs.normalize(log()),
        '`events`: column `timestamp` has times without a time zone (row 0 holds 2024-03-01 12:00:00); state it, for example time_zone="Europe/London", or store UTC',
    ),
    (
        "a timestamp before 1970",
        errors.TimestampRangeError,
        lambda _: recgpt.logs.normalize(log(timestamp=far(-1)), time_zone="UTC"),
        "`events`: every time lies outside the years 1970 to 9999 (row 0 holds '-1'); check the unit of `timestamp` (seconds, milliseconds, microseconds)",
    ),
    (
        "an unknown behavior",
        errors.UnknownBehaviorError,
        lambda _: recgpt.logs.normalize(log(behavior=["buy"]), time_zone="UTC"),
        '`events`: no behavior is known: there are \'buy\' (1 row), expected favorite, purchase, cart, detail_view, review_read, search, click, exposure, return; map the names, for example behaviors={"buy": "purchase"}',
    ),
    (
        "NaN in a vector",
        errors.InvalidArrayError,
        lambda _: ExactIndex(np.full((1, 2), np.nan, np.float32), ["1"]),
        "`vectors` must be finite, each value and each row's norm at most 65504, but row 0 is NaN in column 0",
    ),
    (
        "an unknown key",
        errors.InvalidConfigError,
        lambda _: summary({"hr": 1}),
        "the summary wants exactly its 54 figures; missing: users, users_evaluated, llm_users, events, events_kept, tokens_raw, tokens_compressed, tokens_budgeted, within_budget, interests_per_user, tags_per_user, answers_valid_raw, evidence_supported_raw, evidence_supported_base, rejected, unscored, interests_changed_by_shuffle, interests_changed_by_model, category_accuracy, beta, hr@20, ndcg@20, hr@20_new, ndcg@20_new, hr@20_popularity, ndcg@20_popularity, hr@20_new_popularity, ndcg@20_new_popularity, hr@20_buy_again, ndcg@20_buy_again, hr@20_new_buy_again, ndcg@20_new_buy_again, beta_sweep, llm_hr@20_new, llm_hr@20_new_swapped, llm_beta_sweep, llm_hr@30_category, llm_hr@30_category_popularity, llm_n, explained_by_interest, explained_by_item, explained_by_rule, below_category_floor, pass_interests, pass_tags, pass_explanations, pass_n, pass_calibrated, pass_decided_by, llm_calls, llm_reused, seconds, report, bundle; unknown: hr",
    ),
    (
        "no configuration",
        errors.InvalidConfigError,
        lambda _: config.load("none.toml"),
        "a configuration file was expected at none.toml, but there is none",
    ),
    (
        "an unknown data set",
        errors.DatasetNotFoundError,
        lambda _: recgpt.datasets.load("movielens"),
        "there is no data set 'movielens'; expected completejourney or world; for your own use datasets.read(folder)",
    ),
    (
        "no model",
        errors.ModelNotFoundError,
        lambda _: Tokenizer.from_gguf("none.gguf"),
        "a GGUF model was expected at none.gguf, but there is no such file; check the path",
    ),
    (
        "no model for the engine",
        errors.ModelNotFoundError,
        lambda _: LlamaCpp("none.gguf"),
        "a GGUF model was expected at none.gguf, but there is no such file; check the path",
    ),
    (
        "an odd tokenizer",
        errors.TokenizerError,
        lambda _: _core.Tokenizer.bpe(["a"], [1], [], "mystery"),
        "pre-tokenizer `mystery` is not one of gpt-2, smollm, llama-bpe, qwen2, default; counts would not be exact",
    ),
    (
        "a prompt that is not there",
        errors.PromptError,
        lambda _: prompts.load("poem"),
        "prompt file poem.md was expected in recgpt/prompts",
    ),
    (
        "a schema outside the subset",
        errors.SchemaError,
        lambda _: grammar.to_gbnf({"type": "string"}),
        '`schema`: maxLength up to 1999 was expected, but it is {"type": "string"}',
    ),
    (
        "a locked ledger",
        errors.LedgerError,
        locked,
        "the ledger FOLDER is in use by process PID; wait for that run or end it, or use another folder",
    ),
    (
        "a verdict outside the scale",
        errors.JudgeError,
        lambda folder: Buffer(folder / "labels.sqlite").add_label(
            Label("s", "tags/relevance", "ann", "Maybe"), judge.load()
        ),
        "tags/relevance is answered with Yes, No, but ann said 'Maybe'",
    ),
    (
        "labels of one annotator that contradict each other",
        errors.JudgeError,
        contradicting,
        "ann called tags/relevance of sample HASH 'Yes' and now 'No': take the first back (a label without verdict) before saying otherwise",
    ),
    (
        "a criterion that is not there",
        errors.JudgeError,
        unknown_criterion,
        "there is no criterion 'tags/taste'; there are tags/relevance",
    ),
    (
        "an empty class",
        errors.JudgeError,
        lambda folder: judge.rebalance(judged(folder)[0].labels()),
        "tags/relevance has labels of one class only (Yes); label some outputs that are not, or take labels of earlier rounds in",
    ),
    (
        "a calibration with an empty class",
        errors.JudgeError,
        lambda _: calibration.fit([0.5] * 30, [True] * 30, digest="d"),
        "a calibration needs 10 labels that pass and 10 that do not, but there are 30 and 0; label more, or take the judge's scores as they come",
    ),
    (
        "labels of another version",
        errors.JudgeError,
        later_buffer,
        "the buffer FOLDER/labels.sqlite has format 9, but this recgpt reads up to 1; use the recgpt that wrote it, or a later one",
    ),
    (
        "a buffer that is another database",
        errors.JudgeError,
        no_buffer,
        "FOLDER/other.sqlite is another program's database, not a buffer; name one, or a new file",
    ),
    (
        "a full disk",
        errors.JudgeError,
        full_disk,
        "the buffer FOLDER/labels.sqlite could not be read or written: disk I/O error; what was in it stays; is the disk full, or the file another's?",
    ),
    (
        "a milestone without anything judged",
        errors.JudgeError,
        unjudged,
        "FOLDER/out/judge/buffer.sqlite has no verdicts of VERSION; let `recgpt judge run` judge something first",
    ),
    (
        "a label file of another version of the criteria",
        errors.JudgeError,
        lambda folder: label_file(folder, digest="0" * 64),
        f"FOLDER/labels.json: task 1: tags/relevance was answered under another wording (file 000000000000) than the one that is here (version 1, file {RELEVANCE.digest[:12]}); bring the old file back, or ask people again",
    ),
    (
        "a label file with an unknown criterion",
        errors.JudgeError,
        lambda folder: label_file(folder, name="tags/taste"),
        f"FOLDER/labels.json: task 1: there is no criterion 'tags/taste'; there are {', '.join(judge.load())}: name the folder that has it (judge.criteria), or take its answers out",
    ),
    (
        "a label file in which one annotator contradicts oneself",
        errors.JudgeError,
        label_file,
        "FOLDER/labels.json: task 1: ann answered tags/relevance of sample HASH with 'Yes' and with 'No'; ask what is meant and keep one of them",
    ),
    (
        "a label file that is none",
        errors.JudgeError,
        lambda folder: exchange.read(Buffer(folder / "labels.sqlite"), judge.load(), folder / "none.json"),
        "FOLDER/none.json cannot be read: No such file or directory",
    ),
    (
        "a review page without its packages",
        errors.MissingExtraError,
        without_fastapi,
        'the review page needs FastAPI and uvicorn; pip install "recgpt[judge]"',
    ),
    (
        "a review of nothing",
        errors.JudgeError,
        lambda folder: reviewing.open_store(folder / "labels.sqlite"),
        "a buffer was expected at FOLDER/labels.sqlite, but there is none: let `recgpt judge run` make it, or name a run's TOML",
    ),
    (
        "no bundle",
        errors.BundleError,
        lambda folder: recgpt.Recommender.open(folder / "bundles"),
        "FOLDER/bundles holds neither MANIFEST.json nor CURRENT, so it is no bundle and no parent of one; run the pipeline, or publish a bundle",
    ),
    (
        "no extra",
        errors.MissingExtraError,
        without_gguf,
        "GGUF files need the gguf package: pip install 'recgpt[llama]'",
    ),
    (
        "a template that reaches for Python",
        errors.EngineError,
        lambda _: hostile_template(),
        "the model's chat template cannot be used: access to attribute '__class__' of 'dict' object is unsafe.",
    ),
    (
        "a corrupt bundle",
        errors.BundleError,
        damaged,
        "FOLDER/HASH/item_vectors.arrow must have 794 bytes, but has 793; restore the folder from a copy, roll back, or build the bundle again",
    ),
    (
        "a held-out sample in a training set",
        errors.AlignmentError,
        lambda folder: leaked(),
        "1 of 2 samples are held out: row 1, sentiment, has the user_id bob; leave it out of the training set",
    ),
    (
        "a user that is not there",
        errors.UnknownUserError,
        lambda folder: recgpt.Recommender.open(bundle(folder)).inspect("8"),
        "user '8' is in no table of bundle HASH; ids that look alike: '7'",
    ),
    (
        "an item that is not there",
        errors.UnknownItemError,
        lambda folder: recgpt.Recommender.open(bundle(folder)).why_not("7", "11"),
        "item '11' is not in the catalogue of bundle HASH; ids that look alike: '1'",
    ),
]


def said(error: BaseException, folder: Path) -> str:
    """The message, with what differs from run to run taken out."""
    text = re.sub(
        r"fake/judge=[0-9a-f]{12}/criteria=[0-9a-f]{12}", "VERSION", str(error).replace(str(folder), "FOLDER")
    )
    return re.sub(r"process \d+", "process PID", re.sub(r"\b[0-9a-f]{32}\b", "HASH", text))


@pytest.mark.parametrize(("kind", "call", "text"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_a_person_reads(tmp_path: Path, kind: type[Exception], call: Callable[[Path], Any], text: str) -> None:
    with pytest.raises(errors.RecGPTError) as caught:
        call(tmp_path)
    assert type(caught.value) is kind
    assert said(caught.value, tmp_path) == text


def test_every_error_is_in_the_table() -> None:
    roots = {errors.RecGPTError, errors.InputError}
    every = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RecGPTError)}
    assert every - roots == {case[1] for case in CASES}
