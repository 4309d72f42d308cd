"""What is wrong with a manifest, all of it, as sentences with a line and a path."""

import json
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from edgectl.manifest_form import ManifestForm, known_keys
from edgectl.yaml_source import Document, Path

_LIMIT = 100
_MISSING = object()

# What each rule of pydantic's expects, in our words
# (https://docs.pydantic.dev/latest/errors/validation_errors/).
_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "greater_than": "a value of more than {gt}",
    "greater_than_equal": "a value of at least {ge}",
    "less_than": "a value of less than {lt}",
    "less_than_equal": "a value of at most {le}",
    "enum": "{expected}",
    "literal_error": "{expected}",
    "string_too_short": "text of at least {min_length} characters",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
    "finite_number": "a number",
}

# Keys of earlier versions, and what says the same now.
_RENAMED: dict[Path, str] = {
    ("rollout", "max_parallel"): "this key has a new name; write max_unavailable",
    (
        "rollout",
        "max_failures",
    ): "this key has gone; write budgets, such as budgets: {reverted: 0, failed_unchanged: 0}",
}

_NAMES = {
    "model": "a model name: up to 128 letters, digits and . _ : / -, a letter or digit first",
    "adapter": "an adapter name: up to 64 letters, digits and . _ -, a letter or digit first",
}


@dataclass(frozen=True)
class Problem:
    path: Path
    text: str


def problems_of(value: Any) -> tuple[list[Problem], ManifestForm | None]:
    """Check a whole document's value: everything that is wrong, or no problem and the form."""
    if not isinstance(value, dict):
        found = _found(value, ())
        return [Problem((), f"expected a mapping that starts with `version: 1`, found {found}")], None
    value = {key: item for key, item in value.items() if not key.startswith("x-")}
    problems = _between_keys(value)
    try:
        # JSON mode is what lets strict types take lists for tuples and text for enumerations.
        form = ManifestForm.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        problems += [_problem(details, value) for details in error.errors(include_url=False)]
        return problems, None
    return (problems, None) if problems else ([], form)


def render(problems: list[Problem], document: Document, name: str) -> str:
    """One line per problem, in the order of the file: `office.yaml:14: models.a.context.min: expected …`."""
    found = sorted({(document.line_of(each.path), dotted(each.path), each.text) for each in problems})
    lines = [_one_line(": ".join(filter(None, (f"{name}:{line}", path, text)))) for line, path, text in found]
    if len(lines) > _LIMIT:
        lines = [*lines[:_LIMIT], f"{name}: and {len(lines) - _LIMIT} more problems"]
    return "\n".join(lines)


def _one_line(text: str) -> str:
    """What a document holds cannot begin a line of its own, or steer a terminal."""
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def dotted(path: Path) -> str:
    """`models.assistant.candidates[1].source`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part[:80]}" if text else part[:80]
    return text


def _between_keys(value: dict[str, Any]) -> list[Problem]:
    """Rules about several keys at once, checked beside the form so that neither hides the other."""
    problems = []
    written = value.get("models")
    models = written if isinstance(written, dict) else {}
    for name, model in models.items():
        if not isinstance(model, dict):
            continue
        path: Path = ("models", name)
        named = [key for key in ("source", "candidates") if model.get(key) is not None]
        if len(named) != 1:
            found = "both" if named else "neither"
            problems.append(Problem(path, f"expected either source or candidates, found {found}"))
        context = model.get("context")
        if isinstance(context, dict):
            low, high = context.get("min"), context.get("want")
            if isinstance(low, int) and isinstance(high, int) and low > high:
                text = f"expected at most context.want, which is {high}, found {low}"
                problems.append(Problem((*path, "context", "min"), text))
        problems += _about_residency(path, model) + _about_adapters(path, model, models)
        problems += _about_speed(path, model)
        rungs = model.get("candidates")
        seen: dict[str, int] = {}
        for index, rung in enumerate(rungs if isinstance(rungs, list) else ()):
            source = rung.get("source") if isinstance(rung, dict) else rung
            if not isinstance(source, str):
                continue
            if source in seen:
                text = f"expected each candidate once, found candidates[{seen[source]}] again"
                problems.append(Problem((*path, "candidates", index), text))
            seen.setdefault(source, index)
    return problems


def _about_residency(path: Path, model: dict[str, Any]) -> list[Problem]:
    if model.get("pinned") is not True or model.get("idle_ttl") is None:
        return []
    text = "expected no idle_ttl: a pinned model stays in memory when nobody asks it"
    return [Problem((*path, "idle_ttl"), text)]


def _about_speed(path: Path, model: dict[str, Any]) -> list[Problem]:
    if model.get("task") != "embeddings" or model.get("min_tokens_per_second") is None:
        return []
    text = "expected no min_tokens_per_second: a model that embeds generates nothing"
    return [Problem((*path, "min_tokens_per_second"), text)]


def _about_adapters(path: Path, model: dict[str, Any], models: dict[str, Any]) -> list[Problem]:
    adapters = model.get("adapters")
    if not isinstance(adapters, dict):
        return []
    if adapters and model.get("task") == "embeddings":
        text = "expected no adapters: a model that embeds is served without"
        return [Problem((*path, "adapters"), text)]
    problems = []
    for name in adapters:
        served = f"{path[-1]}:{name}"
        if served in models:
            text = f"it would be asked for as {served}, which is the name of another model"
            problems.append(Problem((*path, "adapters", name), text))
    return problems


def _problem(details: ErrorDetails, value: Any) -> Problem:
    kind = details["type"]
    context = {
        key: f"{limit:g}" if isinstance(limit, float) else limit
        for key, limit in details.get("ctx", {}).items()
    }
    path = _existing(details["loc"], value)
    if kind == "missing":
        return Problem(path[:-1], f"expected the key {path[-1]!r}, which is not there")
    if kind == "extra_forbidden":
        return Problem(path, _unknown_key(path))
    if details["loc"] and details["loc"][-1] == "[key]":
        return Problem(path, f"expected {_NAMES['adapter' if path[2:3] == ('adapters',) else 'model']}")
    if kind == "stated":
        return Problem(path, str(context["what"]))
    if kind == "expected":
        what = str(context["what"])
    elif kind == "string_pattern_mismatch" and path[:2] == ("access", "key_hashes"):
        what = "the hash of a key, sha256: and 64 hex digits"
    elif kind in _EXPECTED:
        what = _EXPECTED[kind].format(**context)
    else:
        what = details["msg"]
    if kind in ("too_short", "too_long"):
        # pydantic does not count a mapping that is too long to the end
        return Problem(path, f"expected {what} entries, found {len(_at(path, value))}")
    return Problem(path, f"expected {what}, found {_found(_at(path, value), path)}")


def _existing(loc: tuple[str | int, ...], value: Any) -> Path:
    """The parts of a location of pydantic's that lead into the document, without what unions and keys add."""
    path: list[str | int] = []
    for index, part in enumerate(loc):
        # A missing key is not in the document and still belongs to its path.
        absent = index == len(loc) - 1 and part != "[key]"
        if isinstance(value, dict) and isinstance(part, str) and (part in value or absent):
            path.append(part)
            value = value.get(part, _MISSING)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            path.append(part)
            value = value[part]
    return tuple(path)


def _at(path: Path, value: Any) -> Any:
    for part in path:
        value = value[part]
    return value


def _unknown_key(path: Path) -> str:
    if path in _RENAMED:
        return _RENAMED[path]
    known = known_keys(path[:-1])
    near = get_close_matches(str(path[-1]), known, n=1, cutoff=0.6)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    return f"unknown key; expected one of {', '.join(known)}" if known else "unknown key"


def _found(value: Any, path: Path) -> str:
    # A key pasted where its hash belongs must not be printed.
    if path[:1] == ("access",):
        return "something else"
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:56]}…{text[-1]}"
