"""Two-weekly incremental learning: each step by hand, nothing that is held out, and one update by the command."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from test_alignment_next_tags import CUT, LOG, shop

from recgpt import interests
from recgpt.alignment import HeldOut, incremental, training, update
from recgpt.alignment.incremental import Config, Profile, Record, Triplet
from recgpt.alignment.samples import SAMPLES
from recgpt.alignment.seasons import Seasons, season_of
from recgpt.cli import main
from recgpt.errors import AlignmentError, InvalidConfigError, NaiveTimestampError, UnknownUserError
from recgpt.llm import LlamaCpp, default_model_path, grammar
from recgpt.llm.engine import Prompt, ScoreRequest
from recgpt.tags.generation import answer_schema

POOL = interests.Pool.load()
END = CUT + timedelta(days=14)
NOBODY = HeldOut()
OPEN = Config(min_events=1)


def record(tag: str = "espresso coffee", category: str = "Coffee", user: str = "ann", hour: int = 0, **more) -> Record:
    return Record(
        user, more.get("item", tag), CUT + timedelta(hours=hour), "purchase", tag, category, more.get("title", tag)
    )


KNOWN = Profile(("coffee culture", "camping"), {"dome tent": "Tents", "coffee filter": "Coffee", "hand soap": "Soap"})


@pytest.mark.parametrize(
    ("one", "goes"),
    [
        (record(), True),
        (record("camping stove", "Stoves"), True),
        (record("bar soap", "Soap"), True),
        (record("hand soap", ""), True),
        (record("garden hose", "Garden"), False),
        (record("garden hose", ""), False),
    ],
)
def test_a_record_is_relevant_by_interest_category_or_tag(one, goes) -> None:
    assert incremental.relevant(one, KNOWN, POOL) is goes


def test_the_strongest_interest_that_a_title_names_is_taken() -> None:
    assert incremental.named("camping coffee pot", ["camping", "coffee culture"], POOL) == "camping"
    assert incremental.named("camping coffee pot", ["coffee culture", "camping"], POOL) == "coffee culture"
    assert not incremental.named("garden hose", ["camping"], POOL)


def test_purification_says_why_something_is_out() -> None:
    records = [record(), record("garden hose", "Garden"), record("halloween soap", "Soap"), record(user="bob")]
    kept, out = incremental.purify(records, {"ann": KNOWN}, POOL, Seasons(season_of(12)))
    assert kept == [record()]
    assert out == {"irrelevant": 2, "occasion_past": 1}


@pytest.mark.parametrize(
    ("now", "hemisphere", "title", "reason"),
    [
        (12, "north", "Halloween Candy", "occasion_past"),
        (9, "north", "Halloween Candy", None),
        (6, "north", "Halloween Candy", None),
        (6, "north", "Christmas Lights", "occasion_past"),
        (10, "north", "Christmas Lights", None),
        (12, "south", "Christmas Lights", None),
        (12, "south", "Easter Eggs", None),
        (6, "north", "Easter Lily", "occasion_past"),
        (6, "north", "Dome Tent", None),
    ],
)
def test_an_occasion_is_timely_in_its_season_and_the_one_before(now, hemisphere, title, reason) -> None:
    assert Seasons(season_of(now, hemisphere), hemisphere).untimely(title, "any") == reason


def test_a_category_is_out_where_neither_season_bought_half_of_its_share() -> None:
    summer = {season: {"Tents": 0.01, "Tea": 0.5} for season in (0, 1, 3)} | {2: {"Tents": 0.2, "Tea": 0.5}}
    sales = dict.fromkeys(range(4), 1000)
    assert Seasons(3, shares=summer, sales=sales).untimely("", "Tents") == "out_of_season"
    assert Seasons(1, shares=summer, sales=sales).untimely("", "Tents") is None
    assert Seasons(3, shares=summer, sales=sales).untimely("", "Tea") is None
    assert Seasons(3, shares=summer, sales=dict.fromkeys(range(4), 100)).untimely("", "Tents") is None
    # What was bought in the next season is not known: nothing is judged.
    del summer[0]
    assert Seasons(3, shares=summer, sales=sales).untimely("", "Tents") is None


def test_seasons_are_read_from_the_log_before_the_moment() -> None:
    rows = [("ann", "0", float(day)) for day in range(-120, 20)]
    read = Seasons.of(shop(*rows), CUT)
    assert (read.now, read.sales, read.shares) == (1, {0: 89}, {0: {"Tents": 1.0}})
    assert Seasons.of(shop(*rows), CUT, hemisphere="south").now == 3


@pytest.mark.parametrize(
    ("one", "interest", "rationale"),
    [
        (record(), "coffee culture", "They had coffee filter before and like coffee culture, so espresso coffee fits."),
        (record("bar soap", "Soap"), "", "They had hand soap before, so bar soap fits."),
        (record("dome tent", ""), "", "They had dome tent before, so dome tent fits."),
    ],
)
def test_completion_names_an_interest_and_what_the_user_had(one, interest, rationale) -> None:
    known = KNOWN._replace(interests=("coffee culture",))
    assert incremental.complete([one], {"ann": known}, POOL) == [Triplet(one, interest, rationale)]


def test_completion_names_nothing_of_somebodys_health() -> None:
    known = Profile((), {"pregnancy test": "Care"})
    (done,) = incremental.complete([record("hand cream", "Care")], {"ann": known}, POOL)
    assert done.rationale == "They had goods of Care before, so hand cream fits."


def triplets(*pairs: tuple[str, str, str]) -> list[Triplet]:
    return [Triplet(record(tag, category, user, hour), "", "") for hour, (user, tag, category) in enumerate(pairs)]


def test_balance_keeps_two_a_category_and_each_tag_once() -> None:
    many = triplets(*(("ann", f"tag {row % 10}", "A" if row % 10 < 7 else f"B{row}") for row in range(30)))
    first, kept = incremental.balance(many, most=80, per_category=2, seed=0)
    assert first == 10
    assert sorted(one.record.category for one in kept) == ["A", "A", "B7", "B8", "B9"]
    assert all(one.record.at < CUT + timedelta(hours=10) for one in kept)
    assert kept == sorted(kept, key=lambda one: one.record.at)
    assert incremental.balance(many[::-1], most=80, per_category=2, seed=0) == (first, kept)


def test_balance_draws_80_tags_of_each_user_on_its_own() -> None:
    ann, bob = (triplets(*((user, f"tag {row}", f"C{row}") for row in range(200))) for user in ("ann", "bob"))
    first, kept = incremental.balance(ann + bob, most=80, per_category=2, seed=0)
    assert (first, len(kept)) == (160, 160)
    assert incremental.balance(bob, most=80, per_category=2, seed=0)[1] == kept[80:]
    assert incremental.balance(bob, most=80, per_category=2, seed=1)[1] != kept[80:]


def test_balance_leaves_what_has_no_category_alone_and_nothing_of_nothing() -> None:
    own = triplets(*(("ann", f"tag {row}", "") for row in range(5)))
    assert incremental.balance(own, most=80, per_category=2, seed=0) == (5, own)
    assert incremental.balance([], most=80, per_category=2, seed=0) == (0, [])


def test_a_window_from_records_to_samples() -> None:
    rows = [*LOG, ("bob", "0", 1.5), ("bob", "3", 2.0), ("ann", "1", 13.99)]
    made = incremental.window(shop(*rows), END, held=NOBODY, config=OPEN)
    assert made.counts == {
        "records": 7, "relevant": 5, "timely": 5, "with_interest": 5, "tags_a_user": 4, "balanced": 4, "samples": 4,
        "users": 2,
    }  # fmt: skip
    table = made.samples
    assert table.schema == SAMPLES
    assert [tuple(row.values()) for row in table.select(["user_id", "answer", "others"]).to_pylist()] == [
        ("ann", " mugs", [" tents"]),
        ("ann", " tea", [" tents"]),
        ("ann", " socks", [" tents"]),
        ("bob", " socks", [" tea"]),
    ]
    assert set(table["at"].to_pylist()) == {END - timedelta(microseconds=1)}
    assert "04-02" not in "".join(table["prompt"].to_pylist())
    assert len(incremental.listed(made.triplets)) == 4


def test_generate_mode_writes_what_its_own_reader_reads() -> None:
    made = incremental.window(shop(*LOG), END, held=NOBODY, mode="generate", config=OPEN)
    ann, bob = made.samples.to_pylist()
    assert (ann["user_id"], bob["user_id"], ann["others"]) == ("ann", "bob", [])
    read = grammar.parse(bob["answer"], answer_schema(50))
    reason = "They had wool sock before and like socks and loungewear, so wool sock fits."
    assert read.value == {"tags": [{"tag": "wool sock", "interest": "socks and loungewear", "reason": reason}]}
    assert "Give 1 different entries" in bob["system"]


def test_nothing_held_out_is_learned() -> None:
    stall = shop(*LOG)
    assert (
        "ann" not in incremental.window(stall, END, held=HeldOut({"ann"}), config=OPEN).samples["user_id"].to_pylist()
    )
    for mode in ("rank", "generate"):
        with pytest.raises(AlignmentError, match="user_id ann"):
            incremental.window(stall, END, held=HeldOut({"ann"}), users=["ann"], mode=mode, config=OPEN)
        with pytest.raises(AlignmentError, match="has the at"):
            incremental.window(stall, END, held=HeldOut(since=END - timedelta(days=1)), mode=mode, config=OPEN)


def test_empty_windows_strangers_and_odd_settings_are_refused() -> None:
    stall = shop(*LOG)
    with pytest.raises(AlignmentError, match="clicked or bought anything in stall between 2025"):
        incremental.window(stall, END + timedelta(days=400), held=NOBODY)
    with pytest.raises(AlignmentError, match=r"of 1 clicks and purchases .* none is fit to learn from \(1 irrelevant"):
        incremental.window(shop(*LOG, ("dan", "1", -50), ("dan", "0", 1.5)), END, held=NOBODY, users=["dan"])
    with pytest.raises(NaiveTimestampError):
        incremental.window(stall, datetime(2024, 4, 1), held=NOBODY)
    with pytest.raises(UnknownUserError):
        incremental.window(stall, END, held=NOBODY, users=["ann", "eve"])
    with pytest.raises(InvalidConfigError):
        incremental.window(stall, END, held=NOBODY, mode="guess")
    with pytest.raises(InvalidConfigError):
        Config(per_category=0)
    with pytest.raises(InvalidConfigError):
        Config(by_popularity=1.5)


@pytest.fixture
def run_file(tmp_path) -> Path:
    """A small world, its last 14 days held out, and a scripted engine."""
    path = tmp_path / "run.toml"
    path.write_text(
        f'out = "{tmp_path}/out"\n[data]\ndataset = "world"\ntest_days = 14\n'
        '[data.world]\nusers = 12\nitems = 200\ndays = 120\n[llm]\nengine = "fake"\n[tags]\nprompt_tokens = 4000\n'
    )
    assert tomllib.loads(path.read_text())
    return path


def test_an_update_trains_from_the_current_adapter_and_writes_the_next_beside_it(run_file, tmp_path) -> None:
    current = tmp_path / "adapters" / "tags-2023-01-01.gguf"
    current.parent.mkdir()
    current.write_bytes(b"GGUF")
    asked = {}

    def train(samples, **given):
        asked.update(given, samples=samples)
        return SimpleNamespace(path=given["out"])

    held = [f"u{row}" for row in range(3)]
    made = update.update(run_file, current=current, held_out=held, train=train)
    day = f"{made.until.date()}"
    assert made.adapter == asked["out"] == current.with_name(f"tags-{day}.gguf")
    assert asked["start"] == current
    assert set(asked["held_out"].users) == set(held)
    assert pq.read_table(made.samples).cast(SAMPLES).equals(asked["samples"])
    again = update.update(run_file, current=current, held_out=held, train=train)
    assert again.samples.read_bytes() == made.samples.read_bytes()
    with pytest.raises(AlignmentError, match="is already that of"):
        update.update(run_file, current=made.adapter, train=train)
    first = update.update(run_file, train=train, until=datetime(made.until.year, made.until.month, made.until.day))
    assert (first.adapter, asked["start"]) == (tmp_path / "out" / "alignment" / f"tags-{day}.gguf", None)


def test_the_command_writes_samples_and_never_of_the_days_that_are_judged(run_file, monkeypatch, capsys) -> None:
    def call(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["recgpt", "align", "incremental", str(run_file), *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    assert call("--only-samples", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["adapter"] is None
    rows = pq.read_table(said["samples"])
    assert len(rows) == said["counts"]["samples"] > 0
    until = datetime.fromisoformat(said["until"])
    assert set(rows["at"].to_pylist()) == {until - timedelta(microseconds=1)}
    assert call("--only-samples") == 0
    assert "suit this season or the next" in capsys.readouterr().out
    assert call("--until", f"{until + timedelta(days=1):%Y-%m-%d}") != 0
    assert "may end at" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_real_update_leaves_an_adapter_that_the_engine_serves(run_file) -> None:
    settings = incremental.Config(users=2, tags=3, others=4, candidates=20)
    made = update.update(run_file, settings=settings, training=training.Config(step_tokens=1024, rank=2, device="cpu"))
    assert made.adapter is not None
    manifest = json.loads(made.adapter.with_suffix(".json").read_text())
    assert manifest["samples"]["prompts"] == made.window.counts["users"] >= 1
    row = made.window.samples.to_pylist()[0]
    asked = ScoreRequest(Prompt(row["system"], row["prompt"], row["beginning"]), (row["answer"], *row["others"]))
    with LlamaCpp(default_model_path(), context_tokens=2048) as engine:
        before, after = (one.score([asked])[0] for one in (engine, engine.adapted(made.adapter)))
    assert (before.status, after.status) == ("ok", "ok")
    assert before.logprobs != after.logprobs


def test_the_bench_pairs_windows_and_counts_households_once() -> None:
    path = Path(__file__).parents[1] / "benches" / "incremental.py"
    spec = importlib.util.spec_from_file_location("incremental_bench", path)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    first, second = {"ann": 0.2, "bob": 0.5, "cid": 1.0}, {"ann": 0.4, "bob": 0.5}
    got = bench.paired([(first, second), ({"ann": 0.0}, {"ann": 0.1})])
    assert (got["points"], got["households"], got["baskets"]) == (10.0, 2, 3)
    assert got["interval"] == [-3.07, 23.07]
