"""What a JSON Schema may say: its keywords, the form of their values, and two schemas taken together. PURE."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from agent_daemon.grammar.json_text import FORMATS

Schema = Mapping[str, Any]
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_OF_TYPE = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength", "pattern"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
UNSUPPORTED = frozenset(
    (
        *("not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems", "multipleOf"),
        *("minProperties", "maxProperties", "patternProperties", "propertyNames", "dependentRequired"),
        *("dependentSchemas", "dependencies", "unevaluatedItems", "unevaluatedProperties"),
        *("$dynamicRef", "$recursiveRef"),
    )
)
"""Keywords that forbid values and that a grammar cannot follow."""
ASSERTIONS = UNSUPPORTED.union(
    ("type", "enum", "const", "format", "nullable", "allOf", "anyOf", "oneOf", "$ref"), *_OF_TYPE.values()
)
"""All keywords that forbid values. Every other one is a remark, or nothing to JSON Schema."""


class SchemaError(Exception):
    """The schema is not one, or asks for more than a grammar can hold; the message names keyword and place."""


def _is_schema(value: Any) -> bool:
    return isinstance(value, bool | Mapping)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0


def _all(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(one, kind) for one in value)


def _schemas(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_schema, value))


_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("anyOf", "oneOf", "allOf"), (_schemas, "a list of schemas")),
    "prefixItems": (
        lambda value: isinstance(value, list) and all(map(_is_schema, value)),
        "a list of schemas",
    ),
    "items": (lambda value: _is_schema(value) or _schemas(value), "a schema"),
    "additionalProperties": (_is_schema, "a schema"),
    "properties": (
        lambda value: isinstance(value, Mapping) and all(map(_is_schema, value.values())),
        "an object of schemas",
    ),
    "required": (_all(str), "a list of names"),
    "enum": (_all(object), "a list of values"),
    "type": (
        lambda value: (
            (_all(str)([value]) and value in TYPES) or (_all(str)(value) and set(value) <= set(TYPES))
        ),
        "one of " + ", ".join(TYPES) + ", or a list of them",
    ),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), (_is_count, "a whole number from 0")),
    **dict.fromkeys(("minimum", "maximum"), (_is_number, "a number")),
    **dict.fromkeys(
        ("exclusiveMinimum", "exclusiveMaximum"),
        (lambda value: _is_number(value) or isinstance(value, bool), "a number"),
    ),
    **dict.fromkeys(("pattern", "$ref"), (lambda value: isinstance(value, str), "a text")),
}


def check(schema: Schema, place: str) -> None:
    """Raises SchemaError when a keyword's value has the wrong form."""
    for keyword, (fits, form) in _FORMS.items():
        if keyword in schema and not fits(schema[keyword]):
            raise SchemaError(f"{place}: `{keyword}` has to be {form}")


def modern(schema: Schema) -> dict[str, Any]:
    """The same schema with what older drafts wrote differently as the current one writes it."""
    out = dict(schema)
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"
        if isinstance(out.get(exclusive), bool) and out.pop(exclusive) and bound in out:
            out[exclusive] = out.pop(bound)
    rest = out.pop("additionalItems", None)
    if isinstance(out.get("items"), list):
        out["prefixItems"] = out.pop("items")
        if rest is not None:
            out["items"] = rest
    return out


def harmless(keyword: str, schema: Schema) -> bool:
    """Whether an unsupported keyword forbids nothing that the rest of the schema lets through."""
    value = schema[keyword]
    match keyword:
        case "uniqueItems" | "minProperties" | "minContains" if not value:
            return True
        case "uniqueItems":
            return bool(schema.get("maxItems", 2) <= 1)
        case "minProperties":
            return _is_count(value) and value <= len(set(schema.get("required", ())))
        case "maxProperties":
            return _is_count(value) and len(schema.get("properties", {})) <= value and not extras(schema)
        case "multipleOf":
            return value == 1 and types(schema) == {"integer"}
        case "unevaluatedProperties":
            return value is True or not extras(schema)
        case "unevaluatedItems":
            return value is True or not schema.keys().isdisjoint(("items", "prefixItems"))
        case "then" | "else":
            return "if" not in schema
        case "if":
            return schema.keys().isdisjoint(("then", "else"))
    return value in ({}, [], True) and keyword not in ("not", "contains")


def extras(schema: Schema) -> Any:
    """What properties that are not named may be in an answer: a schema, or False. Where a schema that names
    properties says nothing, none: JSON Schema would let any through, and nobody means that."""
    named = "properties" in schema or schema.get("unevaluatedProperties") is False
    return schema.get("additionalProperties", not named)


def types(schema: Schema) -> set[str]:
    """The types that a value may have. Where none is named, those that the other keywords speak of, or all."""
    if "type" in schema:
        return {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])
    found = {kind for kind, keywords in _OF_TYPE.items() if not schema.keys().isdisjoint(keywords)}
    if not found and str(schema.get("format")) in FORMATS:
        found = {"string"}
    return found if found and "enum" not in schema else set(TYPES) - {"integer"}


def of_type(value: Any, kinds: set[str]) -> bool:
    """Whether a JSON value has one of these types."""
    match value:
        case None:
            return "null" in kinds
        case bool():
            return "boolean" in kinds
        case int() | float():
            return "number" in kinds or ("integer" in kinds and value == int(value))
        case str():
            return "string" in kinds
    return ("array" if isinstance(value, list) else "object") in kinds


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are written alike; for Python, True is 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def merge(one: Schema, other: Schema, place: str) -> Schema:
    """A schema for what fits both. Neither holds `$ref` or `allOf` itself. Raises SchemaError when no keyword says
    both at once."""
    out = dict(one)
    for keyword, value in other.items():
        if keyword not in out or keyword not in ASSERTIONS or same(out[keyword], value):
            out[keyword] = value
        elif keyword in _TOGETHER:
            out[keyword] = _TOGETHER[keyword](out[keyword], value)
        else:
            raise SchemaError(f"{place}: two different `{keyword}` cannot be combined")
    for own, others in ((one, other), (other, one)):
        # A property that one side does not name has to be what that side wants of all others.
        rest = own.get("additionalProperties", True)
        for name in others.get("properties", {}):
            if rest is not True and name not in own.get("properties", {}):
                out["properties"] = {**out["properties"], name: _both(rest, out["properties"][name])}
    return out


def _both(one: Any, other: Any) -> Any:
    return False if one is False or other is False else {"allOf": [one, other]}


def _properties(one: Schema, other: Schema) -> Schema:
    shared = {name: _both(one[name], other[name]) for name in one if name in other}
    return {**one, **other, **shared}


def _common_types(one: Any, other: Any) -> list[str]:
    first, second = (types({"type": each}) for each in (one, other))
    common = {kind for kind in TYPES if all(kind in each or narrower(kind, each) for each in (first, second))}
    return sorted(common - {"integer"} if "number" in common else common)


def narrower(kind: str, kinds: set[str]) -> bool:
    """Whether every value of type `kind` has one of the types `kinds`, if only under another name."""
    return kind == "integer" and "number" in kinds


_TOGETHER: dict[str, Callable[[Any, Any], Any]] = {
    "type": _common_types,
    "properties": _properties,
    "required": lambda one, other: [*one, *other],
    "enum": lambda one, other: [value for value in one if any(same(value, also) for also in other)],
    "items": _both,
    "additionalProperties": _both,
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
    "anyOf": lambda one, other: [_both(first, second) for first in one for second in other],
}
