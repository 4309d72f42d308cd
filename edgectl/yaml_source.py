"""YAML text -> plain values that remember their lines, within bounds that hold for any input.

The parser's event stream is folded with an explicit stack, so nesting costs a counter and never the
interpreter's recursion limit; an alias adds the size of what it repeats before anything is expanded. Plain
scalars follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema): `on`, `12:30` and
`2026-01-01` are text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from edgectl.errors import ManifestError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 20_000

Path = tuple[str | int, ...]

_UNPRINTABLE = re.compile(
    r"[^\x09\x0A\x0D\x20-\x7E\x85\xA0-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]",
)
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_BASED = re.compile(r"0x[0-9a-fA-F]{1,15}|0o[0-7]{1,20}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,3})?")
_TAGS = (None, "!", *(f"tag:yaml.org,2002:{kind}" for kind in ("str", "map", "seq")))
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# libyaml parses a megabyte in a fraction of a second where the Python parser takes several.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Document:
    """`value` is made of dict, list, str, int, float, bool and None; lines count from 1."""

    value: Any
    lines: dict[Path, int]

    def line_of(self, path: Path) -> int:
        """The line of the value at `path`, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


@dataclass
class _Node:
    """A value under construction. `size` and `height` count what aliases below it repeat."""

    line: int
    kind: str
    scalar: Any = None
    text: str = ""
    items: list["_Node"] = field(default_factory=list)
    entries: dict[str, tuple[int, "_Node"]] = field(default_factory=dict)
    pending: "_Node | None" = None
    merges: list["_Node"] = field(default_factory=list)
    size: int = 1
    height: int = 1
    anchor: str | None = None


def read(text: str, name: str) -> Document:
    """Parse one YAML document. `name` stands for the file in messages.

    Raises ManifestError, with `name` and the line, for anything that is not one bounded YAML document: broken
    syntax, tabs for indentation, duplicate keys, tags, recursive or exploding aliases, more than `MAX_BYTES`
    bytes, `MAX_DEPTH` levels or `MAX_VALUES` values.
    """
    text = text.removeprefix("\ufeff")
    _check_text(text, name)
    try:
        root = _fold(yaml.parse(text, Loader=_LOADER), name)
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, name) from None
    lines: dict[Path, int] = {(): root.line}
    return Document(_plain(root, (), lines), lines)


def decode(data: bytes, name: str) -> str:
    """The text of a file's bytes. Raises ManifestError when they are too many or not UTF-8 text."""
    if len(data) > MAX_BYTES:
        raise ManifestError(f"{name}: expected a manifest of at most 1 MiB, found more")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"0x{data[error.start]:02x}"
        raise ManifestError(f"{name}:{line}: expected UTF-8 text, found the byte {byte}") from None


def _check_text(text: str, name: str) -> None:
    if len(text) > MAX_BYTES:
        raise ManifestError(f"{name}: expected a manifest of at most 1 MiB, found more")
    if not text.strip():
        raise ManifestError(
            f"{name}:1: expected a manifest that starts with `version: 1`, found an empty file"
        )
    if odd := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, odd.start()) + 1
        raise ManifestError(f"{name}:{line}: expected text, found the control character U+{ord(odd[0]):04X}")


def _syntax_error(error: yaml.YAMLError, text: str, name: str) -> ManifestError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return ManifestError(f"{name}:1: expected YAML, found text that no YAML parser reads")
    lines = text.splitlines()
    # At the end of the text the mark lies one past the last line.
    number = min(mark.line, max(len(lines) - 1, 0))
    if re.match(r" *\t", lines[number]):
        return ManifestError(f"{name}:{number + 1}: expected spaces for indentation, found a tab")
    problem = getattr(error, "problem", None) or "it cannot be read"
    return ManifestError(f"{name}:{number + 1}: expected YAML, but {problem} (column {mark.column + 1})")


def _fold(events: Iterator[Any], name: str) -> _Node:
    stack: list[_Node] = []
    anchors: dict[str, _Node] = {}
    root: _Node | None = None
    for event in events:
        line = event.start_mark.line + 1
        done: _Node | None = None
        if isinstance(event, yaml.DocumentStartEvent) and root is not None:
            raise ManifestError(f"{name}:{line}: expected one YAML document, found a second one")
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            _check_tag(event, line, name)
            if len(stack) >= MAX_DEPTH:
                raise _too_deep(name, line)
            kind = "mapping" if isinstance(event, yaml.MappingStartEvent) else "list"
            stack.append(_Node(line, kind, anchor=event.anchor))
            if event.anchor is not None:
                anchors.pop(event.anchor, None)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            done = stack.pop()
            _merge(done)
            if done.anchor is not None:
                anchors[done.anchor] = done
        elif isinstance(event, yaml.ScalarEvent):
            _check_tag(event, line, name)
            done = _Node(line, "scalar", _scalar(event), event.value)
            if event.anchor is not None:
                anchors[event.anchor] = done
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                inside = any(node.anchor == event.anchor for node in stack)
                what = "itself" if inside else "no anchor before it"
                raise ManifestError(f"{name}:{line}: the alias *{event.anchor} refers to {what}")
            done = anchors[event.anchor]
        if done is not None:
            if stack:
                _attach(stack, done, line, name)
            else:
                root = done
    if root is None:
        raise ManifestError(f"{name}:1: expected a manifest, found only comments")
    return root


def _attach(stack: list[_Node], child: _Node, line: int, name: str) -> None:
    parent = stack[-1]
    if parent.kind == "mapping" and parent.pending is None:
        if child.kind != "scalar":
            raise ManifestError(f"{name}:{line}: expected a name as key, found a {child.kind}")
        parent.pending = _Node(line, "scalar", child.scalar, child.text)
        return
    parent.size += child.size
    parent.height = max(parent.height, child.height + 1)
    if len(stack) + child.height > MAX_DEPTH:
        raise _too_deep(name, line)
    if sum(node.size for node in stack) > MAX_VALUES:
        limit = f"{MAX_VALUES} values, aliases included"
        raise ManifestError(f"{name}:{line}: expected at most {limit}, found more")
    if parent.kind == "list":
        parent.items.append(child)
        return
    key, parent.pending = parent.pending, None
    assert key is not None
    if key.text == "<<":
        maps = child.items if child.kind == "list" else [child]
        if any(node.kind != "mapping" for node in maps):
            raise ManifestError(f"{name}:{line}: expected a mapping to merge after <<, found something else")
        parent.merges.extend(maps)
    elif key.text in parent.entries:
        first = parent.entries[key.text][0]
        again = f"the key {key.text[:60]!r} is here and on line {first}; keep one"
        raise ManifestError(f"{name}:{key.line}: {again}")
    else:
        parent.entries[key.text] = (key.line, child)


def _merge(node: _Node) -> None:
    """What a mapping says itself wins over what it merges, and the first merged mapping over the next."""
    for merged in node.merges:
        for key, entry in merged.entries.items():
            node.entries.setdefault(key, entry)
    node.merges = []


def _check_tag(event: Any, line: int, name: str) -> None:
    if event.tag not in _TAGS:
        raise ManifestError(f"{name}:{line}: expected a plain value, found the tag {event.tag[:60]}")


def _too_deep(name: str, line: int) -> ManifestError:
    return ManifestError(f"{name}:{line}: expected at most {MAX_DEPTH} levels of nesting, found more")


def _scalar(event: Any) -> Any:
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        value = float(text)
        return value if abs(value) != float("inf") else text
    return text


def _plain(node: _Node, path: Path, lines: dict[Path, int]) -> Any:
    """Expand a folded tree. Recursion is bounded by `MAX_DEPTH`, output by `MAX_VALUES`."""
    if node.kind == "list":
        for index, item in enumerate(node.items):
            lines[(*path, index)] = item.line
        return [_plain(item, (*path, index), lines) for index, item in enumerate(node.items)]
    if node.kind == "mapping":
        for key, (line, _) in node.entries.items():
            lines[(*path, key)] = line
        return {key: _plain(child, (*path, key), lines) for key, (_, child) in node.entries.items()}
    return node.scalar
