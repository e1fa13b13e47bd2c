"""The output types: schema, grammar and parser of one model, and an engine that is not trusted."""

import json
import random
import re
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from recgpt.errors import SchemaError
from recgpt.llm import grammar


class Interest(BaseModel):
    interest: Annotated[str, Field(min_length=1, max_length=40)]
    stage: Literal["new", "steady"]
    rank: Annotated[int, Field(ge=1, le=20)]
    listed: bool


class Answer(BaseModel):
    interests: Annotated[list[Interest], Field(min_length=1, max_length=3)]


SCHEMA = grammar.from_model(Answer)
GOOD = '{"interests": [{"interest": "home baking", "stage": "new", "rank": 2, "listed": true}]}'


def test_from_model_keeps_order_and_requires_everything():
    item = SCHEMA["properties"]["interests"]["items"]
    assert SCHEMA["required"] == ["interests"]
    assert item["required"] == ["interest", "stage", "rank", "listed"]
    assert item["properties"]["stage"] == {"enum": ["new", "steady"]}
    assert item["properties"]["rank"] == {"type": "integer", "minimum": 1, "maximum": 20}


def test_gbnf_text():
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "maxLength": 5}, "b": {"enum": ['x"y']}},
        "required": ["a", "b"],
    }
    assert grammar.to_gbnf(schema) == (
        'root ::= "{\\"a\\":" space root-0 ",\\"b\\":" space root-1 "}"\n'
        'root-0 ::= "\\"" char{0,5} "\\""\n'
        'root-1 ::= "\\"x\\\\\\"y\\""\n'
        'space ::= " "?\n'
        'char ::= [^"\\\\\\x00-\\x1F\\x7F-\\x9F] | "\\\\" ["\\\\]\n'
    )


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "string"}, "maxLength"),
        ({"type": "string", "maxLength": 2000}, "maxLength"),
        ({"type": "string", "maxLength": 5, "pattern": "a+"}, "only maxLength"),
        ({"type": "integer", "minimum": 1}, "maximum"),
        ({"type": "number"}, "one of object"),
        ({"type": "array", "items": {"type": "boolean"}}, "maxItems"),
        ({"enum": []}, "enum"),
        ({"enum": ["a\n"]}, "control"),
        ({"enum": ["a\u202eb"]}, "control"),
        (5, "an object was expected, but it is 5"),
        ({"type": "object", "properties": {"a": {"type": "boolean"}}}, "required"),
        ({"type": "object", "properties": {'a" ::= ': {"type": "boolean"}}, "required": ['a" ::= ']}, "names"),
    ],
)
def test_schemas_outside_the_subset_are_named(schema, place):
    with pytest.raises(SchemaError, match=place):
        grammar.to_gbnf(schema)


def test_recursive_model_is_refused():
    class Loop(BaseModel):
        inner: "Loop"

    Loop.model_rebuild(_types_namespace={"Loop": Loop})
    with pytest.raises(SchemaError, match=r"itself|object"):
        grammar.from_model(Loop)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "root ::= ",
        "root ::= other\n",
        'root ::= "a" | \n',
        'root ::= ("a"\n',
        "root ::= [a\n",
        'root ::= "a"{3,2}\n',
        'root ::= "a"{0,2000}\n',
        "root ::= {0,2}\n",
        'root ::= "a"\nroot ::= "b"\n',
        'root ::= "\\q"\n',
        "root = x\n",
    ],
)
def test_invalid_grammars_never_reach_llama_cpp(text):
    with pytest.raises(SchemaError):
        grammar.validate(text)


@given(st.integers(-3000, 3000), st.integers(0, 4000), st.data())
def test_integer_ranges_are_exact(low, span, data):
    high = low + span
    parts = grammar._integers(low, high)
    pattern = "|".join(part.replace('"', "").replace(" ", "").replace("{", "{") for part in parts)
    for value in (low, high, data.draw(st.integers(low, high))):
        assert re.fullmatch(pattern, str(value))
    for value in (low - 1, high + 1, data.draw(st.integers(high + 1, high + 99999))):
        assert not re.fullmatch(pattern, str(value))


def test_parse_good():
    value, reason = grammar.parse(GOOD, SCHEMA)
    assert (value["interests"][0]["rank"], reason) == (2, "")
    model, reason = grammar.parse(GOOD, SCHEMA, Answer)
    assert isinstance(model, Answer)
    assert model.interests[0].interest == "home baking"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD[:-3], "parse: "),
        (GOOD + " thanks", "parse: Extra data"),
        (GOOD.replace("2", "NaN"), "parse: NaN is not JSON"),
        (GOOD.replace("2", "-Infinity"), "parse: -Infinity"),
        (GOOD.replace("2", "1" * 5000), "parse: "),
        (GOOD.replace('"rank": 2', '"rank": 2, "rank": 3'), "parse: a key occurs twice"),
        ("[" * 90000, "parse: nested too deep"),
        ("x" * 200_000, "parse: 200000 characters"),
        (GOOD.replace("2", "2.0"), "schema: answer.interests[0].rank must be an integer"),
        (GOOD.replace("2", "true"), "schema: answer.interests[0].rank"),
        (GOOD.replace("2", "21"), "schema: answer.interests[0].rank"),
        (GOOD.replace("true", "1"), "schema: answer.interests[0].listed"),
        (GOOD.replace("new", "old"), "schema: answer.interests[0].stage is none"),
        (GOOD.replace("home", "\\ud800"), "schema: answer.interests[0].interest"),
        (GOOD.replace("home", "a\\nb"), "schema: answer.interests[0].interest"),
        (GOOD.replace("home", "h" * 60), "schema: answer.interests[0].interest"),
        ('{"interests": []}', "schema: answer.interests must be a list of 1 to 3"),
        ("null", "schema: answer must be an object"),
        ("", "parse: "),
    ],
)
def test_parse_says_why(text, reason):
    value, why = grammar.parse(text, SCHEMA)
    assert value is None
    assert why.startswith(reason)


def test_three_thousand_mutations_never_raise_and_never_pass_wrongly():
    random_ = random.Random(0)
    pieces = [
        "{",
        "}",
        "[",
        "]",
        '"',
        ":",
        ",",
        "NaN",
        "1e999",
        "\\u0000",
        "\x00",
        "null",
        "😀",
        " ",
        "9" * 30,
        '"rank": 1,',
    ]
    accepted = 0
    for _ in range(3000):
        text = GOOD
        for _ in range(random_.randint(1, 3)):
            at, end = sorted(random_.randrange(len(text) + 1) for _ in range(2))
            move = random_.randrange(4)
            if move == 0:
                text = text[:at] + text[min(end, at + 8) :]
            elif move == 1:
                text = text[:at] + random_.choice(pieces) + text[at:]
            elif move == 2:
                text = text[:at]
            else:
                text = text[:at] + text[at:end] * 2 + text[end:]
        value, reason = grammar.parse(text, SCHEMA)
        assert (value is None) == bool(reason)
        if value is not None:
            accepted += 1
            Answer.model_validate(value, strict=True)
            assert json.loads(text) == value
    assert 0 < accepted < 1500


@settings(max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_parsed_or_refused(value):
    assert grammar.parse(json.dumps(value), SCHEMA).reason


def test_reasoning_comes_first_and_is_stripped():
    schema = grammar.with_reasoning(SCHEMA, tokens=50)
    assert list(schema["properties"]) == ["reasoning", "interests"]
    assert schema["properties"]["reasoning"]["maxLength"] == 200
    assert grammar.reasoning_tokens(schema) == 50
    assert grammar.reasoning_tokens(SCHEMA) == grammar.reasoning_tokens(None) == 0
    text = '{"reasoning": "bakes often", ' + GOOD[1:]
    assert grammar.parse(text, schema).value == json.loads(GOOD)
    assert grammar.parse(GOOD, schema).reason.startswith("schema")
    assert "reasoning" in grammar.to_gbnf(schema)
    with pytest.raises(SchemaError, match="already"):
        grammar.with_reasoning(schema, tokens=5)
