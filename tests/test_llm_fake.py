"""The scripted engine behaves as a real one does."""

import pytest
from pydantic import BaseModel, Field

from recgpt.errors import EngineError
from recgpt.llm import FakeEngine, Tokenizer, grammar
from recgpt.llm.engine import Prompt, Request, Result, ScoreRequest


class Tag(BaseModel):
    tag: str = Field(max_length=12)


PROMPT = Prompt("You name tags.", "oat milk, oat milk, dark chocolate")


def test_queue_function_and_rule():
    engine = FakeEngine(lambda request: f"seed {request.seed}")
    engine.enqueue("first", Result("unscored", "", None, "engine: lost"))
    results = engine.generate([Request(PROMPT, 5, seed=seed) for seed in range(3)])
    assert [result.text for result in results] == ["first", "", "seed 2"]
    assert [result.reason for result in results] == ["", "engine: lost", ""]
    assert len(engine.requests) == 3
    assert FakeEngine().generate([Request(PROMPT, 2)])[0].text == "dark chocolate"


def test_free_text_speaks_of_one_line_of_the_data_and_is_stable():
    prompt = Prompt("Say when.", "December 18\n<<<items\ndome tent\nwool sock 12\nitems>>>\nWhich show an interest?")
    texts = [FakeEngine().generate([Request(prompt, 12, seed=seed)])[0].text for seed in range(20)]
    assert texts == [FakeEngine().generate([Request(prompt, 12, seed=seed)])[0].text for seed in range(20)]
    assert {" ".join(text.split()[:2]) for text in texts} == {"dome tent", "wool sock"}
    assert len(set(texts)) > 2
    assert FakeEngine().generate([Request(Prompt("a", ""), 1)])[0].text == "nothing"


def test_cuts_stops_and_schemas_are_checked():
    engine = FakeEngine()
    engine.enqueue("one two three four", "one. two", "not json", '{"tag": "oat milk"}', '{"tag": 1}')
    schema = grammar.from_model(Tag)
    requests = [Request(PROMPT, 3), Request(PROMPT, 3, stop=(".",))] + [Request(PROMPT, 20, schema=schema)] * 4
    results = engine.generate(requests)
    assert [result.status for result in results] == ["unscored", "ok", "unscored", "ok", "unscored", "ok"]
    assert results[0].reason == "length"
    assert results[1].text == "one"
    assert results[2].reason.startswith("parse: ")
    assert results[3].value == {"tag": "oat milk"}
    assert results[4].reason.startswith("schema: ")
    assert results[5].value == {"tag": "oat"}


def test_scores_follow_the_prompt():
    engine = FakeEngine(name="overlap")
    (result,) = engine.score([ScoreRequest(PROMPT, (" oat milk", " dark tea", " garden hose"))])
    assert engine.name == "fake/overlap"
    assert result.means() == sorted(result.means(), reverse=True)
    assert result == engine.score([ScoreRequest(PROMPT, (" oat milk", " dark tea", " garden hose"))])[0]
    engine.enqueue_scores([-1.0])
    with pytest.raises(EngineError, match="3 log-probabilities"):
        engine.score([ScoreRequest(PROMPT, ("a", "b", "c"))])


def test_exceptions_progress_and_tokens():
    engine = FakeEngine(tokenizer=Tokenizer.bytes())
    assert engine.count_tokens(["oat", "é"]) == [3, 2]
    engine.enqueue(KeyError("scripted"))
    with pytest.raises(KeyError):
        engine.generate([Request(PROMPT, 5)])
    seen = []
    engine.generate([Request(PROMPT, 50)] * 2, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
