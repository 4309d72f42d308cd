"""JSON Schema to grammars: what llama.cpp lets through by them, and what is refused with which sentence."""

import contextlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_daemon.grammar import gbnf
from agent_daemon.grammar.json_text import RuleSet
from agent_daemon.grammar.keywords import SchemaError
from agent_daemon.grammar.schema import SchemaRules
from tests.support.grammars import accepts
from tests.support.schemas import schema as schema_by_chance
from tests.support.sentences import Sentences

FOLDER = Path(__file__).parent.parent.parent / "cases"
CASES = [case for path in sorted((FOLDER / "schema").glob("*.json")) for case in json.loads(path.read_text())]
REFUSED = json.loads((FOLDER / "schema_refused" / "refused.json").read_text())


def grammar(schema: Any, strict: bool = True) -> str:
    rules = RuleSet()
    text = rules.text(SchemaRules(schema, rules, strict).symbol())
    gbnf.check(text)
    return text


def is_instance(text: str, schema: Any) -> bool:
    try:
        # Python reads NaN, which is no JSON.
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return False
    return jsonschema.Draft202012Validator(_modern(schema)).is_valid(value)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _modern(schema: Any) -> Any:
    """Lists of `items` are of an older draft than the validator's."""
    if isinstance(schema, dict) and isinstance(schema.get("items"), list):
        return {"prefixItems": schema["items"], "items": schema["additionalItems"]}
    return schema


@pytest.mark.engine
@pytest.mark.parametrize("case", CASES, ids=lambda case: json.dumps(case["schema"], ensure_ascii=True)[:60])
def test_the_grammar_lets_instances_through_and_nothing_else(case: dict[str, Any]) -> None:
    text = grammar(case["schema"])
    assert [each for each in case["accepts"] if not is_instance(each, case["schema"])] == []
    assert [each for each in case["rejects"] if is_instance(each, case["schema"])] == []
    assert [each for each in case["accepts"] if not accepts(text, each)] == []
    assert [each for each in case["rejects"] if accepts(text, each)] == []
    # Instances that no answer is, on purpose.
    assert [each for each in case.get("narrower", ()) if accepts(text, each)] == []


@pytest.mark.parametrize("seed", range(300))
def test_every_sentence_of_a_grammar_is_an_instance(seed: int) -> None:
    schema = schema_by_chance(seed)
    sentences = Sentences(grammar(schema), seed)
    validator = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    for _ in range(30):
        validator.validate(json.loads(sentences.draw()))


@given(
    st.one_of(st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6), st.floats(-2, 2)),
    st.one_of(st.floats(0, 3), st.integers(0, 5000)),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["integer", "number"]),
)
@settings(max_examples=300, deadline=None)
def test_numbers_stay_within_any_bounds(
    low: float, width: float, open1: bool, open2: bool, kind: str
) -> None:
    high = low + width
    names = ("exclusiveMinimum" if open1 else "minimum", "exclusiveMaximum" if open2 else "maximum")
    with contextlib.suppress(SchemaError):  # nothing may be left between the two
        sentences = Sentences(grammar({"type": kind, names[0]: low, names[1]: high}), 1)
        for _ in range(20):
            number = json.loads(sentences.draw())
            assert low < number if open1 else low <= number
            assert number < high if open2 else number <= high


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: json.dumps(case["schema"])[:60])
def test_what_a_grammar_cannot_follow_is_refused_by_name_and_place(case: dict[str, Any]) -> None:
    with pytest.raises(SchemaError) as refused:
        grammar(case["schema"])
    assert str(refused.value) == case["message"]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}},
        {
            "$ref": "#/$defs/a",
            "$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/a"}}, "required": ["b"]}},
        },
    ],
)
def test_a_schema_that_leads_back_to_itself_without_a_way_out_is_refused(schema: Any) -> None:
    with pytest.raises((SchemaError, gbnf.GrammarError)):
        grammar(schema)


def test_schemas_that_grow_without_end_are_refused() -> None:
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    wide = {"properties": {f"p{n}": {"type": "string", "maxLength": n} for n in range(3000)}}
    doubling = {
        "$ref": "#/$defs/d0",
        "$defs": {f"d{n}": {"anyOf": [{"allOf": [{"$ref": f"#/$defs/d{n + 1}"}]}] * 2} for n in range(40)}
        | {"d40": {"type": "null"}},
    }
    for schema in (deep, wide, doubling):
        with pytest.raises(SchemaError, match="too large, or refers to itself without end"):
            grammar(schema)


def test_where_the_answer_need_not_be_right_what_cannot_be_followed_is_left_out() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}},
        "required": ["a"],
        "not": {"properties": {"a": {"const": [1]}}},
    }
    assert Sentences(grammar(schema, strict=False), 3).draw().startswith("{")
    assert grammar({"type": "string", "pattern": "(?=a)"}, strict=False) == grammar({"type": "string"})


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)
KEYWORDS = st.sampled_from(
    (
        *("type", "properties", "items", "prefixItems", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"),
        *("minimum", "maximum", "minLength", "maxLength", "pattern", "required", "additionalProperties"),
        *("minItems", "maxItems", "not", "format", "exclusiveMinimum", "nullable", "uniqueItems", "$defs"),
    )
)
HOSTILE = st.recursive(
    JUNK | st.sampled_from(("object", "string", "integer", "#", "#/$defs", "^a*$", "[", True, 10**30)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYWORDS, inner, max_size=5),
    max_leaves=25,
)


@given(st.dictionaries(KEYWORDS, HOSTILE, max_size=6), st.booleans())
@settings(max_examples=400, deadline=None)
def test_whatever_is_sent_becomes_a_grammar_or_one_sentence(schema: Any, strict: bool) -> None:
    with contextlib.suppress(SchemaError, gbnf.GrammarError):
        assert grammar(schema, strict).startswith("root ::= ")
