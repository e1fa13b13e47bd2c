"""Output types: one pydantic model gives the JSON schema, the grammar that forces it and the parser that distrusts it.

The subset is small on purpose, because a grammar that llama.cpp dislikes kills its process: objects with all properties
required and in order, strings with `maxLength` below 2,000, enums of strings, integers with both bounds, booleans,
arrays with `maxItems`; at most `MAX_DEPTH` deep; no patterns, no references, no unions.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from recgpt.errors import SchemaError

MAX_STRING = 1999
"""llama.cpp #25746: a repetition of 2,000 or more is refused or worse."""
MAX_DEPTH = 4
MAX_TEXT = 100_000
"""Longest answer that is parsed, in characters."""

_KEYWORDS = {
    "object": {"type", "properties", "required", "additionalProperties"},
    "string": {"type", "minLength", "maxLength"},
    "integer": {"type", "minimum", "maximum"},
    "boolean": {"type"},
    "array": {"type", "items", "minItems", "maxItems"},
}
_REASONING = "x-reasoning"
_NOTES = {"title", "description", "default", "examples", _REASONING}


class Parsed(NamedTuple):
    """What came of an answer: a value, or why there is none (`parse: ...` or `schema: ...`)."""

    value: Any
    reason: str


def from_model(model: type[BaseModel]) -> dict[str, Any]:
    """Derive the JSON schema of a pydantic model. Every field is required, in the order of the class.

    Raises:
        SchemaError: naming the field that lies outside the subset.
    """
    raw = model.model_json_schema()
    schema = _simplify(raw, raw.get("$defs", {}), model.__name__, 0)
    check(schema)
    return schema


def with_reasoning(schema: Mapping[str, Any], *, tokens: int) -> dict[str, Any]:
    """Put a free text `reasoning` before the other fields; `parse` strips it.

    Engines add `tokens` to a request's `max_tokens`, so thinking takes nothing from the answer's own room: its text is
    at most `4 * tokens` characters, the usual length of English tokens, and `llama_cpp` ends it after `tokens`.
    """
    if "reasoning" in schema.get("properties", {}):
        raise SchemaError("the schema already has a field `reasoning`; rename it")
    if tokens < 1:
        raise SchemaError(f"reasoning needs at least 1 token, not {tokens}")
    properties = {"reasoning": {"type": "string", "maxLength": min(4 * tokens, MAX_STRING)}, **schema["properties"]}
    return {**schema, "properties": properties, "required": list(properties), _REASONING: tokens}


def reasoning_tokens(schema: Mapping[str, Any] | None) -> int:
    """Return the allowance of the schema's reasoning field; 0 without one."""
    return int(schema.get(_REASONING, 0)) if schema else 0


def _simplify(node: Mapping[str, Any], definitions: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
    """Resolve references and drop notes; anything unknown stays, for `check` to name."""
    if depth > 2 * MAX_DEPTH:
        raise SchemaError(f"`{where}` refers to itself; a grammar needs a finite depth")
    if "$ref" in node:
        return _simplify(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions, where, depth + 1)
    node = {str(key): value for key, value in node.items() if key not in _NOTES and key != "$defs"}
    if "const" in node:
        return {"enum": [node["const"]]}
    if "enum" in node:
        return {"enum": node["enum"]}
    if node.get("type") == "integer":
        if "exclusiveMinimum" in node:
            node["minimum"] = node.pop("exclusiveMinimum") + 1
        if "exclusiveMaximum" in node:
            node["maximum"] = node.pop("exclusiveMaximum") - 1
    if node.get("type") == "array" and isinstance(node.get("items"), dict):
        node["items"] = _simplify(node["items"], definitions, f"{where}[]", depth + 1)
    if node.get("type") == "object" and "properties" in node:
        node["properties"] = {
            name: _simplify(child, definitions, f"{where}.{name}", depth + 1)
            for name, child in node["properties"].items()
        }
        node["required"] = list(node["properties"])
        node["additionalProperties"] = False
    return node


def check(schema: Mapping[str, Any], where: str = "schema", depth: int = 0) -> None:
    """Check that a schema lies in the subset.

    Raises:
        SchemaError: naming the place and what was expected there.
    """

    def need(holds: bool, expected: str) -> None:
        if not holds:
            raise SchemaError(f"`{where}`: {expected}, but it is {json.dumps(schema, default=str)[:200]}")

    need(isinstance(schema, Mapping), "an object was expected")
    need(depth <= MAX_DEPTH, f"at most {MAX_DEPTH} levels were expected")
    if "enum" in schema:
        values = schema["enum"]
        strings = isinstance(values, list) and all(isinstance(value, str) and len(value) < 200 for value in values)
        need(strings and 0 < len(values) <= 1000, "an enum of 1 to 1,000 strings was expected")
        need(not any(map(_has_control, values)), "enum values without control characters were expected")
        return
    kind = str(schema.get("type"))
    need(kind in _KEYWORDS, "one of object, string, integer, boolean, array or an enum was expected")
    unknown = schema.keys() - _KEYWORDS[kind] - _NOTES
    need(not unknown, f"only {', '.join(sorted(_KEYWORDS[kind]))} are supported")
    if kind == "object":
        need(bool(schema.get("properties")), "properties were expected")
        need(schema.get("required") == list(schema["properties"]), "all properties required, in order, were expected")
        for name, child in schema["properties"].items():
            need(bool(re.fullmatch(r"\w{1,64}", name, re.ASCII)), "plain property names were expected")
            check(child, f"{where}.{name}", depth + 1)
    elif kind == "string":
        low, high = schema.get("minLength", 0), schema.get("maxLength")
        need(isinstance(high, int) and 0 <= low <= high <= MAX_STRING, f"maxLength up to {MAX_STRING} was expected")
    elif kind == "integer":
        low, high = schema.get("minimum"), schema.get("maximum")
        bounded = isinstance(low, int) and isinstance(high, int) and -(10**15) <= low <= high <= 10**15
        need(bounded, "minimum and maximum within 10^15 were expected")
    elif kind == "array":
        low, high = schema.get("minItems", 0), schema.get("maxItems")
        need(isinstance(high, int) and 0 <= low <= high <= 200 and high > 0, "maxItems from 1 to 200 was expected")
        check(schema.get("items") or {}, f"{where}[]", depth + 1)


def to_gbnf(schema: Mapping[str, Any]) -> str:
    """Write the grammar of a schema in llama.cpp's GBNF, rule `root` first.

    Strings hold no control characters, neither raw nor escaped, and stay within their length.

    Raises:
        SchemaError: the schema lies outside the subset.
    """
    check(schema)
    rules: dict[str, str] = {}

    def rule(node: Mapping[str, Any], name: str) -> str:
        if "enum" in node:
            body = " | ".join(_literal(json.dumps(value, ensure_ascii=False)) for value in node["enum"])
        elif node["type"] == "object":
            parts = [
                f"{_literal(('{' if at == 0 else ',') + json.dumps(key) + ':')} space {rule(child, f'{name}-{at}')}"
                for at, (key, child) in enumerate(node["properties"].items())
            ]
            body = " ".join(parts) + ' "}"'
        elif node["type"] == "string":
            body = f'"\\"" char{{{node.get("minLength", 0)},{node["maxLength"]}}} "\\""'
        elif node["type"] == "integer":
            body = " | ".join(_integers(node["minimum"], node["maximum"]))
        elif node["type"] == "boolean":
            body = '"true" | "false"'
        else:
            item = rule(node["items"], f"{name}-item")
            low, high = node.get("minItems", 0), node["maxItems"]
            more = f' ("," space {item}){{{max(low - 1, 0)},{high - 1}}}' if high > 1 else ""
            body = f'"[" {item}{more} "]"' if low else f'"[" ({item}{more})? "]"'
        rules[name] = body
        return name

    rule(schema, "root")
    ordered = {"root": rules.pop("root"), **rules}
    ordered["space"] = '" "?'
    # No \n, \t or \u: each would smuggle a control character past the length and into a page or a log.
    ordered["char"] = r'[^"\\\x00-\x1F\x7F-\x9F] | "\\" ["\\]'
    text = "".join(f"{name} ::= {body}\n" for name, body in ordered.items())
    validate(text)
    return text


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _integers(low: int, high: int) -> list[str]:
    """Return alternatives that together match exactly the integers from `low` to `high`."""
    if low < 0:
        negative = [f'"-" {part}' for part in _integers(max(1, -high), -low)]
        return negative + (_integers(0, high) if high >= 0 else [])
    parts = []
    while low <= high:
        # The largest block of the form prefix + any digits that begins at `low` and stays within `high`.
        zeros = 0
        while low and low % 10 ** (zeros + 1) == 0 and low + 10 ** (zeros + 1) - 1 <= high:
            zeros += 1
        digit, prefix = low // 10**zeros % 10, str(low // 10**zeros)[:-1]
        last = digit
        while last < 9 and (last + 2 - digit) * 10**zeros + low - 1 <= high:
            last += 1
        parts.append(
            (f'"{prefix}" ' if prefix else "")
            + (f"[{digit}-{last}]" if last > digit else f'"{digit}"')
            + (f" [0-9]{{{zeros},{zeros}}}" if zeros else "")
        )
        low += (last - digit + 1) * 10**zeros
    return parts


_GBNF = re.compile(
    r"""(?P<skip>\ )|(?P<literal>"(?:[^"\\\n]|\\["\\])+")|(?P<set>\[(?:[^\]\\\n]|\\["\\\]]|\\x[0-9A-F]{2})+\])"""
    r"""|(?P<name>[a-z][a-z0-9-]*)|(?P<open>\()|(?P<close>\))|(?P<or>\|)|(?P<many>\{(\d+),(\d+)\}|\?)""",
    re.VERBOSE,
)


def validate(text: str) -> None:
    """Check a grammar of the kind that `to_gbnf` writes: llama.cpp kills its process over what it cannot parse.

    Raises:
        SchemaError: naming the rule.
    """
    defined, used = set(), {"root"}
    for line in text.splitlines():
        name, mark, body = line.partition(" ::= ")
        if not mark or not re.fullmatch(r"[a-z][a-z0-9-]*", name) or name in defined:
            raise SchemaError(f"grammar: `name ::= body` with a new name was expected, not {line[:80]!r}")
        defined.add(name)
        at, depth, atom = 0, 0, False
        while at < len(body):
            match = _GBNF.match(body, at)
            if match is None:
                raise SchemaError(f"grammar rule {name}: not understood at {body[at : at + 40]!r}")
            at, kind = match.end(), match.lastgroup
            if kind == "skip":
                continue
            depth += (kind == "open") - (kind == "close")
            if (kind in ("many", "or", "close") and not atom) or depth < 0:
                raise SchemaError(f"grammar rule {name}: an element is missing before {match[0]!r}")
            if match[0].startswith("{"):
                low, high = map(int, match[0][1:-1].split(","))
                if low > high or high > MAX_STRING:
                    raise SchemaError(f"grammar rule {name}: repetition {match[0]} is not within {MAX_STRING}")
            if kind == "name":
                used.add(match[0])
            atom = kind not in ("or", "open")
        if depth or not atom:
            raise SchemaError(f"grammar rule {name} ends early")
    if used - defined:
        raise SchemaError(f"grammar: rules are missing: {', '.join(sorted(used - defined))}")


class _Refused(ValueError):
    """The JSON text is legal Python JSON but not one of ours."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("a key occurs twice")
    return found


def _constant(name: str) -> Any:
    raise _Refused(f"{name} is not JSON")


def parse(text: str, schema: Mapping[str, Any], model: type[BaseModel] | None = None) -> Parsed:
    """Parse an answer strictly; nothing is repaired, and no text makes this raise.

    Returns:
        The value (an instance of `model` when one is given) without its reasoning field, or the reason why not.
    """
    if len(text) > MAX_TEXT:
        return Parsed(None, f"parse: {len(text)} characters, more than {MAX_TEXT}")
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant)
    except RecursionError:
        return Parsed(None, "parse: nested too deep")
    except ValueError as error:
        return Parsed(None, f"parse: {error}"[:200])
    wrong = _mismatch(value, schema, "answer")
    if wrong:
        return Parsed(None, f"schema: {wrong}")
    if _REASONING in schema:
        del value["reasoning"]
    if model is not None:
        try:
            return Parsed(model.model_validate(value, strict=True), "")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return Parsed(None, f"schema: {'.'.join(map(str, first['loc']))}: {first['msg']}"[:200])
    return Parsed(value, "")


_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
"""Classes of characters that turn the direction of what follows."""


def _has_control(text: str) -> bool:
    return any(
        unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in _TURNS
        for character in text
    )


def _mismatch(value: Any, schema: Mapping[str, Any], where: str) -> str:
    """Return what is wrong with a value, or nothing."""
    if "enum" in schema:
        return "" if isinstance(value, str) and value in schema["enum"] else f"{where} is none of the listed values"
    kind = schema["type"]
    if kind == "object":
        if not isinstance(value, dict) or list(value) != list(schema["properties"]):
            return f"{where} must be an object with {', '.join(schema['properties'])}"
        wrong = (_mismatch(value[name], child, f"{where}.{name}") for name, child in schema["properties"].items())
        return next(filter(None, wrong), "")
    if kind == "array":
        low, high = schema.get("minItems", 0), schema["maxItems"]
        if not isinstance(value, list) or not low <= len(value) <= high:
            return f"{where} must be a list of {low} to {high}"
        return next(filter(None, (_mismatch(v, schema["items"], f"{where}[{i}]") for i, v in enumerate(value))), "")
    if kind == "string":
        low, high = schema.get("minLength", 0), schema["maxLength"]
        fits = isinstance(value, str) and low <= len(value) <= high and not _has_control(value)
        return "" if fits else f"{where} must be a text of {low} to {high} characters without control characters"
    if kind == "integer":
        fits = type(value) is int and schema["minimum"] <= value <= schema["maximum"]
        return "" if fits else f"{where} must be an integer from {schema['minimum']} to {schema['maximum']}"
    return "" if isinstance(value, bool) else f"{where} must be true or false"
