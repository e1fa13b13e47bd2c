"""Pre-alignment: the truth-teller and an engine as teachers, rejection by rules, judge and people, and no leaks."""

from __future__ import annotations

import csv
import errno
import json
import os
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import scripted
from typer.testing import CliRunner

from recgpt import interests, judge
from recgpt.alignment import HeldOut, teacher, worlds
from recgpt.alignment.harvest import NOTHING, ranking, written
from recgpt.alignment.samples import SAMPLES
from recgpt.alignment.teacher import teach
from recgpt.alignment.truth import fenced
from recgpt.alignment.truth_lists import interests as list_interests
from recgpt.alignment.wording import ENDINGS, listing, scene, use
from recgpt.cli import app
from recgpt.datasets.world.vocabulary import themes
from recgpt.errors import AlignmentError
from recgpt.evidence import parse_rows
from recgpt.explanations import checkers as lines
from recgpt.judge import Buffer
from recgpt.judge.buffer import Label
from recgpt.llm import FakeEngine
from recgpt.llm.engine import ScoreRequest
from recgpt.llm.prompts import load
from recgpt.phrases import discreet, no_invented_claim
from recgpt.pipeline.config import load as configured
from recgpt.pipeline.criteria import criteria_of
from recgpt.pipeline.reviewing import open_store
from recgpt.tags import checkers as reasons

CONFIG = """
out = "{folder}/out"
[data]
dataset = "world"
[data.world]
users = 12
items = 300
events = 120
[history]
budget = 2000
[llm]
engine = "fake"
households = 6
min_events = 10
context_tokens = 60000
candidates = 30
[tags]
quantity = 8
prompt_tokens = 4000
[interests]
reason_tokens = 400
[judge]
samples = 6
"""


def config_in(folder: Path) -> Path:
    (folder / "run.toml").write_text(CONFIG.format(folder=folder), encoding="utf-8")
    return folder / "run.toml"


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> teacher.Taught:
    return teach(config_in(tmp_path_factory.mktemp("taught")), users=12)


@pytest.fixture(scope="module")
def rows(taught) -> list[dict[str, object]]:
    return taught.samples.to_pylist()


@pytest.fixture(scope="module")
def truth(taught):
    config = worlds.world_of(configured(taught.path.parents[2] / "run.toml"), taught.path.parent / "again",
                             seed=100, users=12, turn=0.0)  # fmt: skip
    return worlds.truth_of(worlds.prepared(config, None))


def test_the_samples_are_the_production_prompts_with_answers(taught, rows) -> None:
    assert taught.samples.schema.equals(SAMPLES, check_metadata=False)
    assert pq.read_table(taught.path).equals(taught.samples)
    names = ("interests_rank", "interest_reason", "tags_rank", "tags_reason", "explanations")
    digests = {load(name).digest: name for name in names}
    found = {digests[row["prompt_digest"]] for row in rows}
    assert found == set(digests.values())
    assert {row["origin"] for row in rows} == {"world/seed=100"}
    for row in rows:
        template = load(digests[row["prompt_digest"]])
        assert row["system"] == template.sections["system"].strip("\n")
        assert row["answer"].startswith(" "), row
        assert row["answer"].strip(), row


def test_ranking_puts_what_is_true_before_what_is_not(rows, truth) -> None:
    own = [row for row in rows if row["subtask"] == "interests" and row["others"]]
    assert any(row["answer"] == NOTHING for row in own)
    assert any(row["answer"] != NOTHING for row in own)
    for row in own:
        true = set(truth.planted(row["user_id"]))
        if row["answer"] == NOTHING:
            assert not true & {one.strip() for one in row["others"]}
        else:
            assert row["answer"].strip() in true
            assert NOTHING in row["others"]
            assert not true & {one.strip() for one in row["others"]}
    for row in (row for row in rows if row["subtask"] == "tags" and row["others"]):
        best = truth.standing(row["user_id"], row["answer"].strip())
        assert best > max(truth.standing(row["user_id"], one.strip()) for one in row["others"])


def test_samples_of_one_prompt_stand_together_and_none_stands_twice(rows) -> None:
    prompts = [(row["prompt"], row["beginning"]) for row in rows if row["others"]]
    starts = [place for place, one in enumerate(prompts) if not place or prompts[place - 1] != one]
    assert len(starts) == len(set(prompts))
    assert len({(row["prompt"], row["beginning"], row["answer"], *row["others"]) for row in rows}) == len(rows)


def test_the_engines_order_of_grades() -> None:
    grades = {"tent": 2, "stove": 2, "rope": 1, "milk": 0}
    found = list(ranking("ann", [" tent", " milk", " rope", " stove"], lambda _, one: grades[one], reference=True))
    assert found == [
        (" tent", [" rope", " milk", NOTHING]),
        (" stove", [" rope", " milk", NOTHING]),
        (" rope", [" milk"]),
        (NOTHING, [" milk"]),
    ]
    assert list(ranking("ann", [" tent"], lambda _, one: grades[one], reference=False)) == []


def test_several_worlds_show_several_seasons(tmp_path) -> None:
    found = teach(config_in(tmp_path), users=12, worlds=2)
    said = {row["prompt"].split("\n")[0] for row in found.samples.to_pylist() if row["subtask"] == "explanations"}
    assert said == {"January 21, winter", "July 22, summer"}
    assert set(found.samples["origin"].to_pylist()) == {"world/seed=100", "world/seed=101"}


def test_written_lists_pass_the_stages_own_parsers(tmp_path) -> None:
    found = teach(config_in(tmp_path), users=12, mode="generate")
    own = [row for row in found.samples.to_pylist() if not row["others"] and row["subtask"] != "explanations"]
    assert {row["subtask"] for row in own} == {"interests", "tags"}
    for row in own:
        value = json.loads(row["answer"])
        assert value[row["subtask"]]
        assert row["answer"] == written(value)
        assert "First think in the field" not in row["prompt"]
    kept = {row["task"]: row["outputs"] for row in found.table() if row["became"] == "kept"}
    assert kept["interests"] >= 5
    assert kept["tags"] >= 20


def test_a_list_with_reasoning_thinks_before_it_answers(truth) -> None:
    from recgpt.interests.generate import InterestAnswer
    from recgpt.llm import grammar
    from recgpt.llm.engine import Prompt, Request

    user = next(user for user, one in truth.behind.items() if one.planted)
    name = next(iter(truth.planted(user)))
    pool = interests.Pool.load()
    entry = pool.find(name)
    ware = next(ware for ware, theme in truth.themes.items() if theme == name)
    prompt = f"<<<history\nr1 24-05 (purchase) | {ware} x2\nhistory>>>\nPreset list:\n{entry.pool_id}: {name}\n"
    schema = grammar.with_reasoning(grammar.from_model(InterestAnswer), tokens=100)
    value = list_interests(truth, pool, user, Request(Prompt("", prompt), 500, schema=schema))
    assert list(value) == ["reasoning", "interests"]
    assert value["reasoning"].startswith(f"r1: {name}.")
    assert grammar.parse(json.dumps(value), schema, InterestAnswer).value.interests[0].evidence == [1]


def test_what_the_truth_is_told_with_passes_the_stages_checkers() -> None:
    known = {name.en for theme in themes() for name, _ in theme.wares}
    folder = resources.files("recgpt.datasets.world") / "words"
    table = csv.DictReader((folder / "uses.tsv").read_text(encoding="utf-8").splitlines(), delimiter="\t")
    told = {row["ware"]: row["uses"].split("; ") for row in table}
    assert told.keys() == known
    system = load("tags_reason").sections["system"]
    for ware, texts in told.items():
        begun = f"They like it, so they may use {ware} to"
        for text in texts:
            faults = (
                reasons.has_substance(text, begun),
                reasons.no_echo(text, system),
                reasons.complete(text),
                no_invented_claim(text, begun),
                discreet(text, ware),
            )
            assert not any(faults), (ware, text, faults)
    scenes = csv.DictReader((folder / "scenes.tsv").read_text(encoding="utf-8").splitlines(), delimiter="\t")
    system = load("explanations").sections["system"]
    shown = {row.pop("scene"): row for row in scenes}
    seasons = {"spring", "summer", "autumn", "winter"}
    assert shown.keys() == {theme.name for theme in themes()} | seasons
    for name, row in shown.items():
        season = name if name in seasons else ""
        for ending in ENDINGS:
            for text in row[ending].split("; "):
                whole = f"Thing here {ending} {text}"
                faults = (
                    lines.says_something(text, "" if season else name),
                    lines.in_voice(text),
                    lines.clear(whole),
                    lines.complete(whole),
                    lines.no_echo(text, system),
                    no_invented_claim(text, ""),
                    lines.no_empty_praise(text, ""),
                    lines.no_hard_sell(text),
                    lines.no_personal_data(text),
                    discreet(text, ""),
                    lines.of_the_season(whole, "", season, ""),
                )
                assert not any(faults), (name, ending, text, faults)


def test_the_wording_keeps_to_its_room() -> None:
    assert use("dome tent", "x", room=1) == "" == use("no such ware", "x")
    assert scene("camping", "summer", "on a", "x", room=1, given="dome tent") == ""
    assert "lake" not in scene("camping", "", "on a", "x", room=9, given="lake night forest floor weekend")
    assert listing(["easel"]) == "an easel"
    assert listing([]) == ""


def test_the_truth_teller_knows_nobody_elses_interests(truth) -> None:
    from recgpt.alignment.truth_teller import TruthTeller

    teller = TruthTeller(truth, name="w", pool=interests.Pool.load(), count=lambda texts: map(len, texts))
    user = next(user for user, one in truth.behind.items() if one.planted)
    name = next(iter(truth.planted(user)))
    prompt = load("interests_rank").render(history="", attributes="")
    request = ScoreRequest(prompt, (f" {name}", NOTHING, " sushi and japanese food"), f"interests/{user}")
    own, nothing, wrong = teller.score([request])[0].means()
    assert own > nothing > wrong
    stranger = ScoreRequest(request.prompt, request.candidates, "interests/nobody")
    assert teller.score([stranger])[0].means()[0] == wrong


def test_the_world_that_a_run_is_judged_on_is_no_teacher(tmp_path) -> None:
    with pytest.raises(AlignmentError, match="the world of seed 0 is the one that this run is judged on"):
        teach(config_in(tmp_path), seed=0)
    held = HeldOut(origins=["world/seed=0"])
    row = {name: [None] for name in SAMPLES.names} | {"subtask": ["tags"], "origin": ["world/seed=0"]}
    planted = pa.table({name: pa.array(row[name], SAMPLES.field(name).type) for name in SAMPLES.names})
    with pytest.raises(AlignmentError, match="held out"):
        held.refuse(planted)


def said_of_items(found: teacher.Taught) -> set[str]:
    return {
        f"{row['beginning']}{row['answer']}" for row in found.samples.to_pylist() if row["subtask"] == "explanations"
    }


def test_people_overrule_what_rules_let_through(taught) -> None:
    config = taught.path.parents[2] / "run.toml"
    settings = configured(config)
    buffer, criteria = Buffer(settings.out / "judge" / "buffer.sqlite"), criteria_of(settings)
    shown = buffer.samples()
    assert {one.task for one in shown.values()} == set(judge.TASKS)
    assert len(shown) <= 18
    bad = next(one for one in shown.values() if one.task == "explanations")
    text = list(bad.fields.values())[-1]
    assert text in said_of_items(taught)
    buffer.add_label(Label(bad.id, "explanations/clarity", "ann", "Bad", "dull", round=1), criteria)
    again = teach(config, users=12)
    assert text not in said_of_items(again)
    assert {"task": "explanations", "became": "people: clarity", "outputs": 1} in again.table()
    assert again.left == taught.left - 1


def test_the_review_page_shows_a_teachers_samples_with_their_own_histories(taught) -> None:
    settings = configured(taught.path.parents[2] / "run.toml")
    # No run of this configuration was ever made: what stands there is the teacher's.
    store = open_store(settings)
    shown = store.read().samples
    assert {kept.sample.task for kept in shown.values()} == set(judge.TASKS)
    own = [kept for kept in shown.values() if kept.sample.task == "interests"]
    assert own
    histories = pq.read_table(taught.path.parent / "teacher/seed-100/history/budgeted.parquet").to_pylist()
    texts = {row["user_id"]: row["text"] for row in histories}
    for kept in own:
        rows = parse_rows(texts[kept.sample.user_id])
        assert [row["id"] for row in kept.context["history"]] == [row.id for row in rows]
        assert kept.context["cited"]


def test_a_judge_rejects_what_no_rule_sees(tmp_path) -> None:
    def scored(request: ScoreRequest) -> list[float]:
        """Call everything the best, but no tag consistent."""
        right = len(request.candidates) - 1 if request.key.startswith("judge/tags/consistency") else 0
        return [-1.0 if place == right else -9.0 for place in range(len(request.candidates))]

    found = teach(config_in(tmp_path), users=6, judged=True, engine=FakeEngine(scorer=scored))
    became = {(row["task"], row["became"]): row["outputs"] for row in found.table()}
    assert became["tags", "llm: consistency"] > 0
    assert not became.get(("tags", "kept"))
    assert became["interests", "kept"] > 0


def engine_that(**answers: object) -> FakeEngine:
    """A capable model by script: lists of interests from the preset list, and tags from the sequences."""

    def answer(request) -> str:
        stage = request.key.split("/")[0]
        if request.schema is None:
            return "a quiet evening with friends"
        return str(answers[stage](request.prompt.user) if callable(answers[stage]) else answers[stage])

    return FakeEngine(answer, context_tokens=60_000)


def capable(prompt: str) -> str:
    """Name every preset interest for which a row of the history holds something bought."""
    pool, found = interests.Pool.load(), []
    for row in parse_rows(fenced(prompt, "history")):
        for item in row.items if ("purchase" in dict.fromkeys(done for _, done in row.contexts)) else ():
            for entry in (pool.interests[at] for at in pool.hits(item)):
                if f"\n{entry.pool_id}: " in prompt and entry.name not in {one["interest"] for one in found}:
                    said = f"They bought {item.split(' x')[0].split(' > ')[-1]}."
                    found.append({"id": entry.pool_id, "interest": entry.name, "stage": "long-term", "reason": said,
                                  "evidence": [row.id]})  # fmt: skip
    return json.dumps({"reasoning": "They return.", "interests": found})


def test_an_engine_teaches_from_the_log_without_the_held_out(tmp_path) -> None:
    held = ["u0001", "u0002"]
    empty = json.dumps({"tags": [{"tag": "nothing", "interest": "", "reason": "no"}]})
    found = teach(
        config_in(tmp_path), teacher="engine", users=5, held_out=held,
        engine=engine_that(interests=capable, tags=empty),
    )  # fmt: skip
    users = set(found.samples["user_id"].to_pylist()) - {None}
    assert users
    assert not users & set(held)
    lists = [row for row in found.samples.to_pylist() if row["subtask"] == "interests" and not row["others"]]
    assert lists
    assert all(row["answer"].startswith('{"reasoning": "They return."') for row in lists)
    ranked = [row for row in found.samples.to_pylist() if row["subtask"] == "interests" and row["others"]]
    named = {row["user_id"]: {one["interest"] for one in json.loads(row["answer"])["interests"]} for row in lists}
    assert any(row["answer"] != NOTHING for row in ranked)
    for row in ranked:
        if row["user_id"] in named and row["answer"] != NOTHING:
            assert row["answer"].strip() in named[row["user_id"]]
    assert max(pc.drop_null(found.samples["at"]).to_pylist()) < configured_now(tmp_path)


def test_a_server_teaches(tmp_path) -> None:
    def answer(path: str, body: dict[str, object]) -> tuple[int, object]:
        user = body["messages"][-1]["content"]
        text = capable(user) if "Preset list:" in user else '{"tags": []}' if "<<<interests" in user else "a quiet day"
        return 200, scripted.chat(text)

    with scripted.Server() as server:
        server.models = [{"id": "thinker", "owned_by": "somebody", "max_model_len": 60_000}]
        server.answer = answer
        config = config_in(tmp_path)
        text = config.read_text().replace('engine = "fake"', 'engine = "openai"\nmode = "generate"')
        config.write_text(f'{text}[llm.server]\nurl = "{server.url}"\ndialect = "openai"\nmodel = "thinker"\n')
        found = teach(config, teacher="engine", users=4)
        assert "thinker" in found.teacher
        before = len(server.asked)
        assert {row["task"] for row in found.table() if row["became"] == "kept"} == set(judge.TASKS)
        again = teach(config, teacher="engine", users=4)
        # Only what was no usable answer is asked for again, if that.
        assert again.samples.equals(found.samples)
        assert len(server.asked) == before


def configured_now(folder: Path):
    from recgpt.pipeline import source

    return source.read(configured(folder / "run.toml").data)[1]


def test_a_teacher_of_nonsense_is_refused_with_its_reasons(tmp_path) -> None:
    nonsense = engine_that(interests="I love shopping!", tags="{}")
    nonsense._answer = lambda request: "lorem ipsum" if request.schema else ""
    with pytest.raises(AlignmentError, match=r"(?s)nothing usable|called nothing right.*(parse|schema)"):
        teach(config_in(tmp_path), teacher="engine", users=4, engine=nonsense)
    assert not (tmp_path / "out/alignment/teacher.parquet").exists()


def test_a_teacher_to_whom_nothing_is_right_is_refused(taught) -> None:
    answers = pa.array([NOTHING] * taught.samples.num_rows, pa.large_string())
    place = taught.samples.column_names.index("answer")
    blind = replace(taught, samples=taught.samples.set_column(place, SAMPLES.field("answer"), answers))
    with pytest.raises(AlignmentError, match="called nothing right in interests: ranking would only learn to reject"):
        teacher.usable(blind)
    with pytest.raises(AlignmentError, match=r"nothing usable came from the teacher world: \d+ of \d+ outputs"):
        teacher.usable(replace(taught, samples=SAMPLES.empty_table()))


def test_a_full_disk_is_told_and_the_old_samples_stay(tmp_path, monkeypatch) -> None:
    config = config_in(tmp_path)
    path = teach(config, users=6).path
    before = path.read_bytes()

    def full(table: pa.Table, where: Path, **_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(where))

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(AlignmentError, match="No space left on device"):
        teach(config, users=6, seed=101)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"teacher": "oracle"}, "a teacher is one of world, engine"),
        ({"worlds": 0}, "at least one world"),
        ({"worlds": 3, "users": 2}, "a user for each"),
    ],
)
def test_what_cannot_be_taught_is_refused(tmp_path, options, said) -> None:
    with pytest.raises(AlignmentError, match=said):
        teach(config_in(tmp_path), **options)


def test_the_command_prints_what_became_of_the_outputs_beside_the_report(tmp_path) -> None:
    done = CliRunner().invoke(app, ["align", "teach", str(config_in(tmp_path)), "--users", "6"])
    assert done.exit_code == 0, done.output
    assert "teacher=world" in done.output
    assert "the report: 90.0k -> 19.0k (21%)" in " ".join(done.output.split())
    done = CliRunner().invoke(app, ["align", "teach", str(config_in(tmp_path)), "--users", "6", "--json"])
    said = json.loads(done.stdout)
    assert said["teacher"] == "world"
    assert said["kept"] < said["made"]
    assert said["samples"] == pq.read_table(said["file"]).num_rows
