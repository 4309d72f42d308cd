"""How many readings of one text a grammar keeps open. PURE.

llama.cpp follows every reading side by side, and some grammars double their number with every character: a few tokens
later the engine stands still and its memory is full. Whether a grammar does cannot be decided for all texts, so this
walks a short way along the text that seems the worst.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

READINGS = 500
"""Side by side; llama.cpp slows down with each, and real grammars have some tens."""
_STEPS = 24
_TRIED = 3
"""Next characters that are tried out at every step."""

ESCAPE = r'\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[trn\\"\[\]-])'
_CHAR = re.compile(rf"{ESCAPE}|[^\\]", re.DOTALL)
IN_SET = re.compile(rf"({ESCAPE}|[^\\])(?:-({ESCAPE}|[^\\]))?", re.DOTALL)

Stack = tuple[str, ...]
"""What has to follow, the next one last: names of rules, sets, and characters behind a quote."""


def explodes(rules: Mapping[str, list[list[str]]]) -> bool:
    """Whether more than READINGS readings were found. Among the symbols of a rule, terminals are as GBNF writes them."""
    spelled = {
        name: [[piece for symbol in each for piece in _spelled(symbol)] for each in alternatives]
        for name, alternatives in rules.items()
    }
    stacks = _expanded([("root",)], spelled)
    for _ in range(_STEPS):
        if len(stacks) > READINGS:
            return True
        tops = [stack[-1] for stack in stacks if stack]
        chars = Counter(char for top in tops for char in _examples(top))
        next_ones = [
            _expanded([stack[:-1] for stack in stacks if stack and _fits(stack[-1], char)], spelled)
            for char, _count in chars.most_common(_TRIED)
        ]
        stacks = max(next_ones, key=len, default=set())
    return len(stacks) > READINGS


def _spelled(symbol: str) -> list[str]:
    if symbol.startswith('"'):
        return [f'"{chr(code(char))}' for char in _CHAR.findall(symbol[1:-1])]
    return [symbol]


def _expanded(stacks: Iterable[Stack], rules: Mapping[str, list[list[str]]]) -> set[Stack]:
    """The same readings with a character or a set next, as far as READINGS."""
    waiting, seen, found = list(stacks), set[Stack](), set[Stack]()
    while waiting and len(found) <= READINGS and len(seen) <= 20 * READINGS:
        stack = waiting.pop()
        if stack in seen:
            continue
        seen.add(stack)
        if stack and stack[-1] in rules:
            waiting += [(*stack[:-1], *reversed(each)) for each in rules[stack[-1]]]
        else:
            found.add(stack)
    return found


@lru_cache(maxsize=1024)
def _ranges(text: str) -> tuple[bool, tuple[tuple[int, int], ...]]:
    negated = text.startswith("[^")
    pairs = IN_SET.findall(text[2 if negated else 1 : -1])
    return negated, tuple((code(low), code(high or low)) for low, high in pairs)


def _fits(terminal: str, char: str) -> bool:
    if terminal == ".":
        return True
    if terminal.startswith('"'):
        return terminal[1:] == char
    negated, ranges = _ranges(terminal)
    return any(low <= ord(char) <= high for low, high in ranges) is not negated


@lru_cache(maxsize=1024)
def _examples(terminal: str) -> tuple[str, ...]:
    if terminal.startswith('"'):
        return (terminal[1:],)
    negated, ranges = _ranges(terminal) if terminal != "." else (True, ())
    chars = "a0 ,é" if negated else "".join(chr(low) for low, _high in ranges[:4])
    return tuple(char for char in chars if _fits(terminal, char))


def code(char: str) -> int:
    """The code point of one character as GBNF writes it, escaped or not."""
    if len(char) > 2:
        return int(char[2:], 16)
    return ord({"t": "\t", "r": "\r", "n": "\n"}.get(char[1], char[1]) if len(char) == 2 else char)
