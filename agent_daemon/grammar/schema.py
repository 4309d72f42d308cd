"""JSON Schema (draft 2020-12, and what older drafts write differently) to GBNF. PURE.

Every text that the grammar lets through is an instance of the schema; not every instance is let through. Objects that
name properties have no others unless the schema says `additionalProperties`, properties come in the order in which the
schema names them, and numbers have as many digits as a float keeps. Remarks (`title`, `default`, unknown formats) say
nothing about values. A keyword that forbids something and that a grammar cannot follow is refused by name and place
where the answer has to be right (`strict`), and else left out.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from agent_daemon.grammar.containers import array_body, object_body
from agent_daemon.grammar.json_text import FORMATS, RuleSet, constant, other_key
from agent_daemon.grammar.keywords import (
    ASSERTIONS,
    TYPES,
    UNSUPPORTED,
    Schema,
    SchemaError,
    check,
    extras,
    harmless,
    merge,
    modern,
    narrower,
    of_type,
    same,
    types,
)
from agent_daemon.grammar.patterns import PatternError, pattern_grammar
from agent_daemon.grammar.ranges import Range

_DEEPEST = 60
_LARGEST = 2_000
"""Schemas within one schema, those behind references counted once."""
_BRANCHES = 200


class SchemaRules:
    """Adds the rules for one schema to `rules`; `place` is what its root is called in messages."""

    def __init__(self, root: Any, rules: RuleSet, strict: bool, place: str = "schema") -> None:
        self._root = root
        self._rules = rules
        self._strict = strict
        self._place = place
        self._references: dict[str, str] = {}
        self._seen = 0

    def symbol(self) -> str:
        """The name of the rule for the whole schema. Raises SchemaError, also where no value can be an instance."""
        found = self._visit(self._root, (self._place,))
        if found is None:
            raise SchemaError(f"{self._place}: no value can be an instance of it")
        return found

    def _visit(self, schema: Any, path: tuple[str, ...]) -> str | None:
        """The name of a rule for `schema`, or None when nothing is an instance of it."""
        if isinstance(schema, Mapping) and schema.keys() & ASSERTIONS == {"$ref"}:
            return self._reference(schema["$ref"], path)
        flat = self._flat(schema, path)
        if flat is False:
            return None
        if not flat.keys() & ASSERTIONS:
            return "value"
        self._refuse(flat, path)
        for keyword in ("anyOf", "oneOf"):
            if keyword in flat:
                return self._branches(flat, keyword, path)
        if flat.get("nullable") is True:
            return self._union([self._visit({**flat, "nullable": False}, path), "null"])
        kinds = types(flat)
        if "enum" in flat:
            return self._enum(flat, kinds, path)
        symbols = [
            self._typed(kind, flat, path) for kind in TYPES if kind in kinds and not narrower(kind, kinds)
        ]
        return self._union(symbols)

    def _refuse(self, schema: Schema, path: tuple[str, ...]) -> None:
        if self._strict:
            for keyword in sorted(schema.keys() & UNSUPPORTED):
                if not harmless(keyword, schema):
                    raise SchemaError(f"{_at(path)}: `{keyword}` is not supported with these values")

    def _union(self, symbols: list[str | None]) -> str | None:
        found = list(dict.fromkeys(symbol for symbol in symbols if symbol is not None))
        return (found[0] if len(found) == 1 else self._rules.name(" | ".join(found))) if found else None

    # -- schemas that speak of others ----------------------------------------------------------------------

    def _reference(self, target: Any, path: tuple[str, ...]) -> str:
        if not isinstance(target, str) or target not in self._references:
            found = self._resolve(target, path)
            name = self._references[target] = self._rules.reserve()
            symbol = self._visit(found, (*path[:1], target))
            if symbol is None:
                raise SchemaError(f"{_at(path)}: no value can be an instance of `{target}`")
            self._rules.define(name, symbol)
        return self._references[target]

    def _resolve(self, target: Any, path: tuple[str, ...]) -> Any:
        """What a reference within this schema (`#`, `#/$defs/name`) points to."""
        if not isinstance(target, str) or (target != "#" and not target.startswith("#/")):
            raise SchemaError(f"{_at(path)}: `$ref` has to point into this schema, as `#/$defs/name` does")
        found = self._root
        for part in target[2:].split("/") if target != "#" else ():
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and part.isdecimal() and int(part[:9]) < len(found):
                found = found[int(part[:9])]
            elif isinstance(found, Mapping) and part in found:
                found = found[part]
            else:
                raise SchemaError(f"{_at(path)}: there is no `{target}`")
        return found

    def _flat(self, schema: Any, path: tuple[str, ...]) -> Any:
        """The same schema without `$ref`, `allOf` and `const` of its own, or False."""
        self._seen += 1
        if len(path) > _DEEPEST or self._seen > _LARGEST:
            raise SchemaError(f"{_at(path)}: the schema is too large, or refers to itself without end")
        if isinstance(schema, bool):
            return {} if schema else False
        if not isinstance(schema, Mapping):
            raise SchemaError(f"{_at(path)}: a schema has to be an object, true or false")
        check(schema, _at(path))
        flat: Any = {
            keyword: schema[keyword] for keyword in schema if keyword not in ("$ref", "allOf", "const")
        }
        if "const" in schema:
            flat = merge(flat, {"enum": [schema["const"]]}, _at(path))
        flat = modern(flat)
        parts = [(self._resolve(schema["$ref"], path), "$ref")] if "$ref" in schema else []
        parts += [(part, f"allOf/{number}") for number, part in enumerate(schema.get("allOf", ()))]
        for part, name in parts:
            other = self._flat(part, (*path, name))
            if other is False:
                return False
            flat = merge(flat, other, _at(path))
        return flat

    def _branches(self, schema: Schema, keyword: str, path: tuple[str, ...]) -> str | None:
        rest = {key: value for key, value in schema.items() if key != keyword}
        if len(schema[keyword]) > _BRANCHES:
            raise SchemaError(f"{_at(path)}: `{keyword}` has more than {_BRANCHES} branches")
        places = [(*path, f"{keyword}/{number}") for number in range(len(schema[keyword]))]
        branches = [{"allOf": [rest, each]} if rest.keys() & ASSERTIONS else each for each in schema[keyword]]
        if keyword == "oneOf" and self._strict:
            flats = [self._flat(branch, place) for branch, place in zip(branches, places, strict=True)]
            for at, one in enumerate(flats):
                for other in flats[:at]:
                    if not self._apart(one, other, places[at]):
                        raise SchemaError(
                            f"{_at(path)}: nothing tells the branches of `oneOf` apart, such as a property that is "
                            "another constant in each; `anyOf` needs no such thing"
                        )
        return self._union([self._visit(each, place) for each, place in zip(branches, places, strict=True)])

    def _apart(self, one: Any, other: Any, path: tuple[str, ...]) -> bool:
        """Whether surely no answer to one of two schemas is an instance of the other."""
        if one is False or other is False:
            return True
        kinds, others = types(one), types(other)
        if "enum" in one and "enum" in other:
            return not any(same(value, also) for value in one["enum"] for also in other["enum"])
        if "enum" in one or "enum" in other:
            values, kinds = (one["enum"], others) if "enum" in one else (other["enum"], kinds)
            return not any(of_type(value, kinds) for value in values)
        if not any(kind in others or narrower(kind, others) for kind in kinds) and not any(
            narrower(kind, kinds) for kind in others
        ):
            return True
        if kinds != {"object"} or others != {"object"} or {"anyOf", "oneOf"} & (one.keys() | other.keys()):
            return False
        if _misses(one, other) and _misses(other, one):
            return True
        needed = {*one.get("required", ()), *other.get("required", ())}
        for name in one.get("properties", {}):
            if name in needed and name in other.get("properties", {}):
                first, second = (self._flat(each["properties"][name], (*path, name)) for each in (one, other))
                if self._apart(first, second, path):
                    return True
        return False

    # -- values by their type ------------------------------------------------------------------------------

    def _enum(self, schema: Schema, kinds: set[str], path: tuple[str, ...]) -> str | None:
        beside = schema.keys() & ASSERTIONS - UNSUPPORTED - {"enum", "type", "nullable", "format"}
        if beside and self._strict:
            raise SchemaError(f"{_at(path)}: `enum` and `{min(beside)}` together are not supported")
        values = [self._constant(value, path) for value in schema["enum"] if of_type(value, kinds)]
        return self._rules.name(" | ".join(dict.fromkeys(values))) if values else None

    def _typed(self, kind: str, schema: Schema, path: tuple[str, ...]) -> str | None:
        match kind:
            case "object":
                return self._object(schema, path)
            case "array":
                return self._array(schema, path)
            case "string":
                return self._string(schema, path)
            case "number" | "integer":
                return self._number(kind, schema)
        return kind

    def _object(self, schema: Schema, path: tuple[str, ...]) -> str | None:
        properties, required = schema.get("properties", {}), schema.get("required", ())
        rest = extras(schema)
        if not properties and not required and rest is True:
            return "object"
        unnamed = schema.get("additionalProperties", schema.get("unevaluatedProperties", True))
        everything = {**properties, **{name: unnamed for name in required if name not in properties}}
        members: list[tuple[str, bool]] = []
        for name, each in everything.items():
            value = self._visit(each, (*path, name))
            if value is not None:
                pair = self._rules.name(f'{self._constant(name, path)} ":" ws {value}')
                members.append((pair, name in required))
            elif name in required:
                return None
        extra = self._visit(rest, (*path, "additionalProperties"))
        if extra is not None:
            extra = self._rules.name(f'{other_key(list(everything))} ":" ws {extra}')
        return self._rules.name(object_body(self._rules, members, extra))

    def _array(self, schema: Schema, path: tuple[str, ...]) -> str | None:
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        first = schema.get("prefixItems", [])[:most]
        heads: list[str] = []
        for at, each in enumerate(first):
            if (head := self._visit(each, (*path, f"prefixItems/{at}"))) is None:
                break
            heads.append(head)
        # What comes behind the named ones is free, but nobody asks for it who does not have to.
        items = schema.get("items", not first or least > len(first)) if len(heads) == len(first) else False
        more = self._visit(items, (*path, "items"))
        body = array_body(self._rules, heads, more, least, most)
        return None if body is None else self._rules.name(body)

    def _string(self, schema: Schema, path: tuple[str, ...]) -> str | None:
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        inside, shortest, longest = self._characters(schema, path)
        if inside is None and not least and most is None:
            return "string"
        if most is not None and most < least:
            return None
        if inside is not None:
            if shortest >= least and (most is None or (longest is not None and longest <= most)):
                return self._rules.name(rf'"\"" {inside} "\""')
            if self._strict:
                keyword = "pattern" if "pattern" in schema else "format"
                raise SchemaError(f"{_at(path)}: `{keyword}` with these lengths is not supported")
        return self._rules.name(rf'"\"" {self._rules.repeat("char", least, most)} "\""')

    def _characters(self, schema: Schema, path: tuple[str, ...]) -> tuple[str | None, int, int | None]:
        """What a pattern or format wants between the quotes, with the least and the most characters of it."""
        if "pattern" in schema:
            try:
                return pattern_grammar(schema["pattern"], self._rules.repeat)
            except PatternError as error:
                if self._strict:
                    raise SchemaError(f"{_at(path)}: `pattern` is not supported: {error}") from error
        return FORMATS.get(str(schema.get("format")), (None, 0, None))

    def _number(self, kind: str, schema: Schema) -> str | None:
        lows = [(schema[key], key != "minimum") for key in ("minimum", "exclusiveMinimum") if key in schema]
        highs = [(schema[key], key == "maximum") for key in ("maximum", "exclusiveMaximum") if key in schema]
        if not lows and not highs:
            return kind
        low, low_open = max(lows, default=(None, False))
        high, closed = min(highs, default=(None, True))
        body = Range(_decimal(low), _decimal(high), low_open, not closed).grammar(kind == "integer")
        return None if body is None else self._rules.name(body)

    def _constant(self, value: Any, path: tuple[str, ...]) -> str:
        try:
            return constant(value)
        except ValueError as error:
            raise SchemaError(f"{_at(path)}: it has a value that JSON cannot say") from error


def _decimal(number: float | None) -> Decimal | None:
    return None if number is None else Decimal(str(number))


def _misses(one: Schema, other: Schema) -> bool:
    """Whether an answer to `one` surely lacks a property that `other` requires."""
    return extras(one) is False and not set(other.get("required", ())) <= {
        *one.get("properties", {}),
        *one.get("required", ()),
    }


def _at(path: tuple[str, ...]) -> str:
    return "/".join(part[:40] for part in path[:12])
