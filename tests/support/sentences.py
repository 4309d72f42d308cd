"""Sentences of a grammar by chance, read from its text as the GBNF documentation has it: a second opinion."""

import random
import re
from typing import Any

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<set>\[\^?(?:[^]\\]|\\.)+\])|(?P<name>[\w-]+)
    |(?P<mark>[()|]|[*+?]|\{\d+(?:,\d*)?\}))""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x(..)|u(....)|U(.{8})|(.))", re.DOTALL)
_INTERESTING = [*map(chr, range(0x20, 0x7F)), *"äß€あ😀\u2028"]


class Sentences:
    """Draws from the rule `root`; deep down it prefers the shortest way out."""

    def __init__(self, grammar: str, seed: int) -> None:
        self._chance = random.Random(seed)
        lines = (line.partition(" ::= ") for line in grammar.splitlines() if line)
        self._rules = {name: _Parser(body).alternatives() for name, _, body in lines}

    def draw(self) -> str:
        return self._alternatives(self._rules["root"], 0)

    def _alternatives(self, alternatives: list[Any], depth: int) -> str:
        chosen = alternatives[-1] if depth > 60 else self._chance.choice(alternatives)
        return "".join(self._item(*item, depth) for item in chosen)

    def _item(self, kind: str, value: Any, least: int, most: int, depth: int) -> str:
        count = least if depth > 30 else self._chance.choice((least, most, self._chance.randint(least, most)))
        return "".join(self._once(kind, value, depth + 1) for _ in range(count))

    def _once(self, kind: str, value: Any, depth: int) -> str:
        if kind == "text":
            return str(value)
        if kind == "set":
            return self._chance.choice(value)
        return self._alternatives(self._rules[value] if kind == "name" else value, depth)


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = [(match.lastgroup, match.group().strip()) for match in _TOKEN.finditer(text)]
        self._at = 0

    def alternatives(self) -> list[Any]:
        found: list[Any] = [[]]
        while self._at < len(self._tokens):
            kind, text = self._tokens[self._at]
            self._at += 1
            if text == ")" and kind == "mark":
                break
            if text == "|" and kind == "mark":
                found.append([])
            elif text == "(" and kind == "mark":
                found[-1].append(["group", self.alternatives(), 1, 1])
            elif kind == "mark":
                found[-1][-1][2:] = _counts(text)
            else:
                value = {"text": lambda t: _plain(t[1:-1]), "set": _members, "name": str}[str(kind)](text)
                found[-1].append([kind, value, 1, 1])
        return found


def _counts(mark: str) -> tuple[int, int]:
    if mark in "*+?":
        return {"*": (0, 3), "+": (1, 3), "?": (0, 1)}[mark]
    least, comma, most = mark[1:-1].partition(",")
    return int(least), int(most or int(least) + 3) if comma else int(least)


def _plain(text: str) -> str:
    named = {"n": "\n", "r": "\r", "t": "\t"}
    return _ESCAPE.sub(lambda m: named.get(m[4], m[4]) if m[4] else chr(int(m[1] or m[2] or m[3], 16)), text)


def _members(text: str) -> list[str]:
    matcher = re.compile(re.sub(r"\\U(.{8})", r"\\U\1", text), re.DOTALL)
    pool = [*_INTERESTING, *map(chr, range(0x20)), "\x7f"]
    return [char for char in pool if matcher.fullmatch(char)]
