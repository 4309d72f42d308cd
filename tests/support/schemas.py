"""Schemas by chance, from a seed: every kind that a grammar can follow, with short strings and small arrays."""

import random
from typing import Any

_NAMES = ("name", "age", "city", "tags", "score", "kind", "note", "id")
_WORDS = ("red", "green", "blue", "small", "large", "ok", 'a "b"', "é")
_PATTERNS = ("^[A-Z]{2}[0-9]{2}$", "^(yes|no)$", "^[a-c]{1,4}$", r"^\d{3}-\d{2}$", "^#[0-9a-f]{6}$")
_FORMATS = ("date", "time", "date-time", "uuid")


def schema(seed: int, depth: int = 2) -> dict[str, Any]:
    """An object with one to three properties, at most `depth` levels of containers below it."""
    return _object(random.Random(seed), depth)


def _any(chance: random.Random, depth: int) -> dict[str, Any]:
    kinds = [_string, _string, _integer, _number, _enum, _simple, _pattern, _format]
    if depth:
        kinds += [_object, _array, _tuple, _union, _tagged, _merged]
    return chance.choice(kinds)(chance, depth - 1)


def _object(chance: random.Random, depth: int) -> dict[str, Any]:
    names = chance.sample(_NAMES, chance.randint(1, 3))
    return {
        "type": "object",
        "properties": {name: _any(chance, depth) for name in names},
        "required": [name for name in names if chance.random() < 0.7],
        **({"additionalProperties": False} if chance.random() < 0.5 else {}),
    }


def _array(chance: random.Random, depth: int) -> dict[str, Any]:
    least = chance.randint(0, 1)
    return {"type": "array", "items": _any(chance, depth), "minItems": least, "maxItems": least + 1}


def _tuple(chance: random.Random, depth: int) -> dict[str, Any]:
    return {"type": "array", "prefixItems": [_any(chance, depth) for _ in range(2)], "items": False}


def _union(chance: random.Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [_any(chance, depth), {"type": "null"}]}


def _tagged(chance: random.Random, depth: int) -> dict[str, Any]:
    branches = []
    for word in chance.sample(_WORDS, 2):
        branch = _object(chance, max(depth, 0))
        branch["properties"] = {"tag": {"const": word}, **branch["properties"]}
        branch["required"] = ["tag", *branch["required"]]
        branches.append(branch)
    return {"oneOf": branches}


def _merged(chance: random.Random, depth: int) -> dict[str, Any]:
    low = chance.randint(-50, 50)
    part = {"properties": {"n": {"type": "integer", "minimum": low}}, "required": ["n"]}
    return {
        "type": "object",
        "allOf": [part, {"properties": {"n": {"maximum": low + chance.randint(0, 30)}}}],
    }


def _string(chance: random.Random, _depth: int) -> dict[str, Any]:
    least = chance.randint(0, 3)
    return {"type": "string", "minLength": least, "maxLength": least + chance.randint(0, 6)}


def _integer(chance: random.Random, _depth: int) -> dict[str, Any]:
    low = chance.randint(-2000, 2000)
    keys = chance.choice((("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")))
    return {"type": "integer", keys[0]: low, keys[1]: low + chance.choice((2, 9, 17, 500, 100_000))}


def _number(chance: random.Random, _depth: int) -> dict[str, Any]:
    low = round(chance.uniform(-20, 20), chance.randint(0, 3))
    bounds: dict[str, Any] = {"maximum": round(low + chance.choice((0.5, 1.25, 30)), 3)}
    bounds[chance.choice(("minimum", "exclusiveMinimum"))] = low
    return {"type": "number", **bounds}


def _enum(chance: random.Random, _depth: int) -> dict[str, Any]:
    values: list[Any] = [*_WORDS, 1, 2.5, None, True, {"a": [1]}]
    return {"enum": chance.sample(values, chance.randint(1, 4))}


def _simple(chance: random.Random, _depth: int) -> dict[str, Any]:
    return {"type": chance.choice(("boolean", "null", ["boolean", "null"]))}


def _pattern(chance: random.Random, _depth: int) -> dict[str, Any]:
    return {"type": "string", "pattern": chance.choice(_PATTERNS)}


def _format(chance: random.Random, _depth: int) -> dict[str, Any]:
    return {"type": "string", "format": chance.choice(_FORMATS)}
