"""The review server: which sample whom. Who may ask, two lists, and pages have files of their own."""

from __future__ import annotations

import json
import random
import sqlite3
import threading

import pytest
from command import say
from reviewing import ALL, store_of, tags

from recgpt import judge
from recgpt.errors import JudgeError
from recgpt.judge.buffer import GOLD, Label
from recgpt.judge.review import Questions, Settings
from recgpt.judge.review.questions import HELD, named
from recgpt.judge.review.server import _listen

ON = "tags/relevance"
TWO = ("tags/consistency", ON)


@pytest.fixture
def store(tmp_path):
    return store_of(tmp_path / "buffer.sqlite", tags(30))


def questions(store, **settings):
    return Questions(store, Settings(**{"gold_every": 0, **settings}))


def label(sample, who, verdict="Yes", criterion=ON, note=""):
    return Label(sample, criterion, who, verdict, note, 2.0, round=1)


def finish(store, sample, who, verdict="Yes"):
    for criterion in TWO:
        store.say(label(sample, who, verdict, criterion))


def ids(found):
    return [one["id"] for one in found]


def test_two_people_get_different_samples_and_two_a_sample_the_same(store):
    one = questions(store)
    ann, bob = ids(one.next("ann")), ids(one.next("bob"))
    assert len(ann) == len(bob) == 5
    assert not set(ann) & set(bob)
    assert ids(one.next("ann", have=ann)) == []
    both = questions(store, annotators=2)
    assert ids(both.next("ann")) == ids(both.next("bob"))
    assert not set(ids(both.next("eve"))) & set(ids(both.next("ann")))


def test_what_was_handed_out_and_not_answered_comes_back_after_a_while(store):
    now = [0.0]
    found = Questions(store, Settings(gold_every=0), clock=lambda: now[0])
    ann = ids(found.next("ann", ahead=30))
    assert len(ann) == 30
    assert found.next("bob") == []
    now[0] = HELD + 1
    assert ids(found.next("bob")) == ann[:5]


def test_what_was_begun_comes_first_after_a_reload(store):
    begun = ids(questions(store).next("ann"))[3]
    store.say(label(begun, "ann"))
    (first, *_) = questions(store).next("ann")
    assert (first["id"], first["answers"]) == (begun, {ON: {"verdict": "Yes", "skip": None, "note": ""}})


def test_what_was_left_half_answered_goes_to_the_next_person(store):
    now = [0.0]
    found = Questions(store, Settings(gold_every=0), clock=lambda: now[0])
    half, skipped, whole = ids(found.next("ann", ahead=30))[:3]
    store.say(label(half, "ann"))
    store.say(label(skipped, "ann"))
    store.say(label(skipped, "ann", None, "tags/consistency", "skip: cannot be told"))
    finish(store, whole, "ann")
    assert ids(found.next("bob", ahead=30)) == [skipped], "what ann has not finished is still held for her"
    (shown,) = [one for one in found.next("bob", ahead=30) if one["id"] == skipped]
    assert shown["skipped"] == {"tags/consistency": ["cannot be told"], ON: []}
    assert shown["answers"] == {}, "and nothing of what ann said"
    now[0] = HELD + 1
    bob = ids(found.next("bob", ahead=30))
    assert half in bob
    assert whole not in bob
    # To ann it still comes first, and what she finished by skipping does not come again.
    assert ids(questions(store).next("ann", ahead=30))[0] == half
    assert skipped not in ids(questions(store).next("ann", ahead=30))
    finish(store, half, "bob")
    finish(store, skipped, "bob")
    assert not {half, skipped} & set(ids(questions(store).next("eve", ahead=30)))
    # Two people who each answered one of two questions have answered both.
    other = ids(questions(store).next("eve"))[0]
    for who, first, second in (("ann", "Yes", None), ("bob", None, "No")):
        for criterion, word in zip(TWO, (first, second), strict=True):
            store.say(label(other, who, word, criterion, "" if word else "skip: broken"))
    assert other not in ids(questions(store).next("eve", ahead=30))
    assert other in ids(questions(store, annotators=2).next("eve", ahead=30))
    # A skip that was taken back is none.
    store.say(label(other, "bob", None, TWO[0], "undo"))
    assert questions(store).show(store.read(), other, "eve")["skipped"][TWO[0]] == []


def test_samples_of_an_open_milestone_come_before_others(store):
    due = ids(questions(store).next("x", ahead=30))[20:24]
    with store.buffer.transaction() as database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS events (row INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, "
            "data TEXT NOT NULL, time TEXT NOT NULL)"
        )

    def befall(kind, **data):
        with store.buffer.transaction() as database:
            database.execute("INSERT INTO events (kind, data, time) VALUES (?, ?, '')", (kind, json.dumps(data)))

    befall("milestone opened", cases=[{"sample": one} for one in due])
    later = store_of(store.buffer.path, [])
    assert set(ids(questions(later).next("ann", ahead=4))) == set(due)
    befall("milestone closed")
    assert not set(ids(questions(later).next("ann", ahead=4))) & set(due)


def test_the_judge_and_gold_are_hidden_until_everything_is_answered(store):
    (first, *_) = (found := questions(store)).next("ann")
    store.say(label(first["id"], GOLD, "No", note="only the word"))
    assert first["reveal"] is None
    assert "0.81" not in json.dumps(found.next("ann"))
    store.say(label(first["id"], "ann"))
    assert found.show(store.read(), first["id"], "ann")["reveal"] is None
    store.say(label(first["id"], "ann", criterion="tags/consistency"))
    reveal = found.show(store.read(), first["id"], "ann")["reveal"]
    assert reveal[ON] == {
        "judge": {"verdict": "Yes", "score": 0.81, "reason": ""},
        "gold": {"verdict": "No", "note": "only the word"},
    }
    assert found.show(store.read(), first["id"], "bob")["reveal"] is None


def test_gold_questions_come_at_their_turn_and_to_everybody(store):
    golds = ids(questions(store).next("x", ahead=30))[10:14]
    for one in golds:
        store.say(label(one, GOLD, "No"))
    found = questions(store, gold_every=4)
    for who in ("ann", "bob"):
        dealt = ids(found.next(who, ahead=12))
        assert [place for place, one in enumerate(dealt, start=1) if one in golds] == [4, 8, 12]
    assert not set(ids(questions(store).next("eve", ahead=30))) & set(golds), "none is asked where none is wanted"
    told = found.progress("ann")
    assert told["left"] == 26 - 9 + 4, "what bob holds is not ann's"
    dealt = ids(found.next("ann", ahead=12))
    for place, one in enumerate(dealt):
        finish(store, one, "ann", "No" if place == 3 else "Yes")
    told = found.progress("ann")
    assert told["gold"] == {"same": 1, "of": 3}
    assert told["mine"] == 12
    assert told["seconds"] == 4.0
    assert told["judge"] == {"same": 22, "of": 24}


def test_a_careless_annotator_is_found_by_gold_questions(store):
    """Somebody who errs on one question of five is told apart from one who errs on one of fifty, in 20 gold samples."""
    found = questions(store, gold_every=1)
    golds = list(store.read().samples)[:20]
    for one in golds:
        store.say(label(one, GOLD, "No"))
    draw = random.Random(3)
    for who, rate in (("careful", 0.02), ("careless", 0.2)):
        for one in golds:
            finish(store, one, who, "Yes" if draw.random() < rate else "No")
    careful, careless = (found.progress(who)["gold"] for who in ("careful", "careless"))
    assert careful["of"] == careless["of"] == 20
    assert careful["same"] > careless["same"]


def test_differences_are_decided_once_and_can_become_gold(store):
    found = questions(store, annotators=2)
    sample = next(iter(store.read().samples))
    finish(store, sample, "ann")
    store.say(label(sample, "bob", "No", note="only the word is the same"))
    store.say(label(sample, "bob", "Yes", criterion="tags/consistency"))
    (one,) = found.disputes(store.read())
    assert one["criterion"] == ON
    assert [row["verdict"] for row in one["said"]] == ["No", "Yes"]
    assert "ann" not in json.dumps(found.dispute(store.read(), one, "eve"))
    assert found.dispute(store.read(), one, "ann")["own"]
    store.say(label(sample, "adjudication/eve", "No"))
    assert found.disputes(store.read()) == []
    store.say(label(sample, "adjudication/eve", None, note="undo"))
    assert len(found.disputes(store.read())) == 1
    assert found.progress("ann")["people"] == {"same": 1, "of": 2}


def test_saying_it_again_adds_nothing_and_changing_it_takes_the_first_back(store):
    sample = next(iter(store.read().samples))
    for _ in range(3):
        store.say(label(sample, "ann"))
    assert store.buffer.count("labels") == 1
    store.say(label(sample, "ann", "No"))
    assert store.buffer.count("labels") == 3
    assert [row["verdict"] for row in store.buffer.labels(ALL).to_pylist()] == ["No"]
    store.say(label(sample, "ann", None, note="undo"))
    store.say(label(sample, "ann", None, note="undo"))
    assert store.buffer.count("labels") == 4
    assert store.buffer.labels(ALL).num_rows == 0
    store.say(label(sample, "ann", None, note="skip: broken"))
    assert questions(store).show(store.read(), sample, "ann")["answers"][ON]["skip"] == "broken"
    assert store.buffer.labels(ALL).num_rows == 0


def test_threads_and_another_process_are_seen_at_once_and_nothing_is_lost(store):
    samples = list(store.read().samples)

    def work(who):
        for one in samples:
            store.say(label(one, who))

    other = store_of(store.buffer.path, [])
    threads = [threading.Thread(target=work, args=(who,)) for who in ("ann", "bob", "eve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(other.read().said) == 90
    assert other.buffer.labels(ALL).num_rows == 90
    with sqlite3.connect(store.buffer.path) as database, pytest.raises(sqlite3.IntegrityError, match="only grows"):
        database.execute("DELETE FROM contexts")


def test_labels_of_another_wording_are_asked_again(store):
    sample = next(iter(store.read().samples))
    finish(store, sample, "ann")
    text = (judge.criteria.resources.files("recgpt") / "prompts/criteria/tags/relevance.toml").read_text()
    other = judge.criteria.parse("tags", "relevance", text.replace("stated", "given"))
    later = store_of(store.buffer.path, [], ALL | {ON: other})
    shown = questions(later).show(later.read(), sample, "ann")
    assert set(shown["answers"]) == {"tags/consistency"}
    assert shown["reveal"] is None


@pytest.mark.parametrize("name", ["", "  ", "gold", "Gold", "a/b", "x" * 41, "\u202e"])
def test_names_that_stand_for_something_else_are_refused(name):
    with pytest.raises(JudgeError, match="a name has 1 to 40 characters"):
        named(name)
    assert named("  Zoë\u202e  Müller ") == "Zoë Müller"


# The commands.


def test_review_says_what_it_cannot_do(store, tmp_path, capsys):
    missing = tmp_path / "none.sqlite"
    assert "a buffer was expected at" in say(capsys, "judge", "review", str(missing), status=1)
    assert not missing.exists()
    assert "--task is one of" in say(capsys, "judge", "review", str(store.buffer.path), "--task", "x", status=1)
    taken = _listen("127.0.0.1", 0)
    port = str(taken.getsockname()[1])
    printed = say(capsys, "judge", "review", str(store.buffer.path), "--port", port, "--no-browser", status=1)
    assert "name another with --port" in printed
    taken.close()
