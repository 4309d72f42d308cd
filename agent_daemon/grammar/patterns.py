"""Regular expressions of JSON Schema's `pattern`, as GBNF for the inside of a JSON string. PURE.

Python's own parser reads them, so what a pattern means is decided by it. What is not regular (look-around, back
references) or depends on more than one character (word boundaries) is refused.
"""

import importlib
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from agent_daemon.grammar.gbnf import literal, member

_parser: Any = importlib.import_module("re._parser")
"""The standard library's, by a name that Python has kept since 3.11. It has no public door."""
_UNBOUNDED = _parser.MAXREPEAT
_SPECIAL = '"\\'
_PLAIN = r"\"\\\x00-\x1F\x7F"
_CLASSES = {
    "CATEGORY_DIGIT": "0-9",
    "CATEGORY_WORD": "A-Za-z0-9_",
    "CATEGORY_SPACE": " ",
}
_OPPOSITES = {
    "CATEGORY_NOT_DIGIT": "0-9",
    "CATEGORY_NOT_SPACE": r" \x85\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000\uFEFF",
}
Repeat = Callable[[str, int, int | None], str]


class PatternError(Exception):
    """The pattern is not one, or more than a grammar can follow; the message says what."""


def pattern_grammar(pattern: str, repeat: Repeat) -> tuple[str, int, int | None]:
    """The characters of a string that matches `pattern`, and the least and the most of them (None: unbounded).

    `repeat(item, least, most)` writes a repetition. Where the pattern is not anchored, anything may stand before
    or behind. Raises PatternError.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = _parser.parse(pattern)
    except (Exception, RecursionError) as error:
        raise PatternError(f"it is not a regular expression: {error}") from error
    if tree.state.flags & ~re.UNICODE:
        raise PatternError("it sets flags, which a grammar cannot follow")
    branches = [list(branch) for branch in _branches(list(tree))]
    widths = [_width(tree, branch) for branch in branches]
    text = " | ".join(_anchored(branch, repeat) for branch in branches)
    unbounded = any(most is None for _least, most in widths)
    most = None if unbounded else max(most or 0 for _least, most in widths)
    return f"({text})", min(least for least, _most in widths), most


def _branches(items: list[Any]) -> Iterable[list[Any]]:
    if len(items) == 1 and str(items[0][0]) == "BRANCH":
        return [list(branch) for branch in items[0][1][1]]
    return [items]


def _edges(items: list[Any]) -> tuple[bool, bool]:
    ends = [str(items[at][1]) if items and str(items[at][0]) == "AT" else "" for at in (0, -1)]
    return ends[0] == "AT_BEGINNING", ends[1] == "AT_END"


def _width(tree: Any, items: list[Any]) -> tuple[int, int | None]:
    least, most = _parser.SubPattern(tree.state, items).getwidth()
    closed = all(_edges(items)) and most < min(_UNBOUNDED, 2**31)
    return int(least), int(most) if closed else None


def _anchored(items: list[Any], repeat: Repeat) -> str:
    begins, ends = _edges(items)
    inside = items[begins : len(items) - ends]
    parts = ["" if begins else "char*", _sequence(inside, repeat), "" if ends else "char*"]
    return " ".join(part for part in parts if part) or '""'


def _sequence(items: Iterable[Any], repeat: Repeat) -> str:
    return " ".join(_item(str(kind), value, repeat) for kind, value in items) or '""'


def _item(kind: str, value: Any, repeat: Repeat) -> str:
    match kind:
        case "LITERAL":
            return literal(_in_json(chr(value)))
        case "NOT_LITERAL":
            return f"[^{member(chr(value))}{_PLAIN}]"
        case "ANY":
            return f"[^{_PLAIN}]"
        case "IN":
            return _set(value)
        case "SUBPATTERN" if not (value[1] or value[2]):
            return f"({_sequence(value[3], repeat)})"
        case "BRANCH":
            return f"({' | '.join(_sequence(branch, repeat) for branch in value[1])})"
        case "MAX_REPEAT" | "MIN_REPEAT":
            least, most, inside = value
            return repeat(_sequence(inside, repeat), least, None if most == _UNBOUNDED else most)
    raise PatternError(f"it uses {kind.lower().replace('_', ' ')}, which a grammar cannot follow")


def _set(members: list[Any]) -> str:
    if len(members) == 1 and str(members[0][1]) in _OPPOSITES:
        return f"[^{_OPPOSITES[str(members[0][1])]}{_PLAIN}]"
    negated = str(members[0][0]) == "NEGATE"
    inside, special = "", set()
    for kind, value in members[negated:]:
        match str(kind):
            case "LITERAL":
                low = high = value
            case "RANGE":
                low, high = value
            case "CATEGORY" if str(value) in _CLASSES:
                inside += _CLASSES[str(value)]
                continue
            case _:
                raise PatternError(f"it uses {str(value).lower()} in a set, which a grammar cannot follow")
        special |= {char for char in _SPECIAL if low <= ord(char) <= high}
        inside += "".join(_plain_ranges(low, high))
    if negated:
        # Quotes and backslashes are left out altogether: in JSON they take two characters.
        return f"[^{inside}{_PLAIN}]"
    choices = [*([f"[{inside}]"] if inside else []), *(literal(_in_json(char)) for char in sorted(special))]
    if not choices:
        raise PatternError("one of its sets has no printable character")
    return f"({' | '.join(choices)})"


def _plain_ranges(low: int, high: int) -> Iterable[str]:
    """The range without control characters, quotes and backslashes."""
    low = max(low, 0x20)
    for end in (*(ord(char) for char in sorted(_SPECIAL) if low <= ord(char) <= high), high + 1):
        if low < end:
            yield member(chr(low)) + (f"-{member(chr(end - 1))}" if low < end - 1 else "")
        low = end + 1


def _in_json(char: str) -> str:
    if char in _SPECIAL:
        return f"\\{char}"
    return char if char >= " " else f"\\u{ord(char):04X}"
