"""GBNF, the grammars that llama.cpp follows: writing one, and whether one may be handed over. PURE.

llama.cpp prints and returns NULL for most mistakes, but some grammars make it search without end or fill all
memory: rules that begin with themselves behind something empty, repetitions of what may be empty, and references
that multiply. `check` refuses those, and whatever llama.cpp would not parse.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from agent_daemon.grammar.ambiguity import ESCAPE, IN_SET, code, explodes

REPETITIONS = 2000
"""The most that llama.cpp repeats one thing. A higher maximum it silently takes for "any number"."""
LONGEST = 128 * 1024
"""Characters of one grammar."""
_ELEMENTS = 200_000
"""Characters, references and alternatives of a grammar, repetitions written out."""
_BEGINNINGS = 20_000
"""Rules that llama.cpp walks through to find out whether one begins with itself."""
_DEEPEST = 300
_NESTED = 40

_TOKENS = re.compile(
    "|".join(
        (
            r"(?P<space>[ \t]+|#[^\r\n]*)",
            r"(?P<line>\r?\n|\r)",
            r"(?P<defines>[A-Za-z0-9-]+[ \t]*::=)",
            r"(?P<name>[A-Za-z0-9-]+)",
            rf'(?P<text>"(?:[^"\\\x00]|{ESCAPE})*")',
            rf"(?P<set>\[(?:\^|(?!\^))(?:[^]\\\x00]|{ESCAPE})+\])",
            r"(?P<any>\.)",
            r"(?P<repeat>[*+?]|\{[ ]*[0-9]+[ ]*(?:,[ ]*[0-9]*[ ]*)?\})",
            r"(?P<open>\()",
            r"(?P<close>\))",
            r"(?P<or>\|)",
        )
    )
)
Rules = dict[str, list[list[str]]]
"""Alternatives by name. Symbols are names, and characters and sets as they are written."""


class GrammarError(Exception):
    """The text is no grammar, or none that an engine could follow; the message is one sentence without a full stop."""


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


class _Item(NamedTuple):
    symbol: str
    size: int
    """Elements that it takes in llama.cpp."""
    rules: int
    """Rules that repeating it would repeat, by llama.cpp's count."""


def literal(text: str) -> str:
    """`text` as a string of GBNF."""
    return '"' + "".join(_LITERAL.get(char) or _written(char) for char in text) + '"'


_LITERAL = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _written(char: str) -> str:
    return char if char.isprintable() else f"\\U{ord(char):08X}"


def member(char: str) -> str:
    """One character as a part of a set in brackets."""
    return f"\\{char}" if char in '\\"[]-' else f"\\U{ord(char):08X}" if char == "^" else _written(char)


def check(text: str) -> None:
    """Raises GrammarError when `text` is not a grammar with a rule `root` that llama.cpp can follow."""
    if len(text) > LONGEST:
        raise GrammarError(f"the grammar has {len(text)} characters; {LONGEST} are the most")
    reader = _Reader(text)
    rules = reader.rules()
    if "root" not in rules:
        raise GrammarError("the grammar has no rule `root`")
    for name, line in reader.used.items():
        if name not in rules:
            raise GrammarError(f"line {line}: there is no rule `{name}`")
    empty = _deriving(rules, terminals=False)
    for name, line in reader.repeated:
        if name in empty:
            raise GrammarError(f"line {line}: something that may be empty is repeated")
    if "root" not in _deriving(rules, terminals=True):
        raise GrammarError("no text can ever complete the grammar's root")
    _Beginnings(rules, empty).check()
    if explodes(rules):
        raise GrammarError("the grammar leaves too many readings of one text open")


def _deriving(rules: Rules, terminals: bool) -> set[str]:
    """Rules with an alternative of nothing but such rules (and characters, with `terminals`): without characters
    those that may be empty, with them those that come to an end."""
    users: dict[str, set[str]] = defaultdict(set)
    for name, alternatives in rules.items():
        for symbol in {symbol for alternative in alternatives for symbol in alternative}:
            users[symbol].add(name)
    found: set[str] = {symbol for symbol in users if _is_terminal(symbol)} if terminals else set()
    waiting = list(rules)
    while waiting:
        name = waiting.pop()
        if name not in found and any(found.issuperset(alternative) for alternative in rules[name]):
            found.add(name)
            waiting += users[name]
    return found


def _is_terminal(symbol: str) -> bool:
    return symbol[0] in '"[.'


class _Beginnings:
    """Follows what each rule may begin with, as llama.cpp does whenever it needs the next character."""

    def __init__(self, rules: Rules, empty: set[str]) -> None:
        self._rules = rules
        self._empty = empty
        self._counts: dict[str, int] = {}

    def check(self) -> None:
        for name in self._rules:
            self._count(name, ())

    def _count(self, name: str, path: tuple[str, ...]) -> int:
        if name in path:
            raise GrammarError(f"the rule `{name.partition(' ')[0]}` begins with itself")
        if len(path) > _DEEPEST:
            raise GrammarError("the grammar's rules are nested too deep")
        if name not in self._counts:
            path = (*path, name)
            count = 1 + sum(self._count(first, path) for first in self._firsts(name))
            if count > _BEGINNINGS:
                raise GrammarError("the grammar has too many ways to begin one rule")
            self._counts[name] = count
        return self._counts[name]

    def _firsts(self, name: str) -> Iterator[str]:
        for alternative in self._rules[name]:
            for symbol in alternative:
                if not _is_terminal(symbol):
                    yield symbol
                if symbol not in self._empty:
                    break


class _Reader:
    """Parses with llama.cpp's own rules: a line's end ends a rule, except in parentheses, after `|` and `::=`."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_split(text))
        self._at = 0
        self._rules: Rules = {}
        self._elements = 0
        self.used: dict[str, int] = {}
        """References and the line of the first."""
        self.repeated: list[tuple[str, int]] = []

    def rules(self) -> Rules:
        while self._lines().kind != "end":
            token = self._take("defines", "a rule's name and `::=`")
            name = token.text.removesuffix("::=").rstrip(" \t")
            if name in self._rules:
                raise GrammarError(f"line {token.line}: the rule `{name}` is there twice")
            self._lines()
            self._alternatives(name, name, nested=0)
            if self._next.kind not in ("line", "end"):
                raise self._unexpected("the end of the line")
        return self._rules

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _lines(self) -> _Token:
        while self._next.kind == "line":
            self._at += 1
        return self._next

    def _take(self, kind: str, what: str) -> _Token:
        if self._next.kind != kind:
            raise self._unexpected(what)
        self._at += 1
        return self._tokens[self._at - 1]

    def _unexpected(self, what: str) -> GrammarError:
        found = repr(self._next.text[:20]) if self._next.text.strip() else f"the {self._next.kind}"
        return GrammarError(f"line {self._next.line}: {what} was expected, found {found}")

    def _alternatives(self, name: str, base: str, nested: int) -> int:
        """Reads the alternatives of a rule; returns the number of rules written in them."""
        alternatives, rules = self._rules.setdefault(name, []), 1
        while True:
            items = self._sequence(base, nested)
            alternatives.append([item.symbol for item in items])
            rules += sum(item.rules for item in items)
            if self._next.kind != "or":
                return rules
            self._at += 1
            self._lines()

    def _sequence(self, base: str, nested: int) -> list[_Item]:
        items: list[_Item] = []
        while True:
            token = self._lines() if nested else self._next
            if token.kind in ("text", "set", "any"):
                empty = token.text == '""'
                symbol = self._fresh(base, [[]]) if empty else token.text
                items.append(_Item(symbol, 0 if empty else len(token.text), 1))
            elif token.kind == "name":
                self.used.setdefault(token.text, token.line)
                items.append(_Item(token.text, 1, 1))
            elif token.kind == "open":
                items.append(self._group(base, nested + 1))
            elif token.kind == "repeat" and items and items[-1].size:
                items += self._repeat(base, items.pop(), token)
            elif token.kind == "repeat":
                raise self._unexpected("something to repeat")
            else:
                return items
            self._at += 1
            self._elements += items[-1].size + 1
            if self._elements > _ELEMENTS:
                raise GrammarError("the grammar is too large with its repetitions written out")

    def _group(self, base: str, nested: int) -> _Item:
        if nested > _NESTED:
            raise GrammarError(f"line {self._next.line}: parentheses are nested too deep")
        self._at += 1
        self._lines()
        name = self._fresh(base, [])
        rules = self._alternatives(name, base, nested)
        if self._next.kind != "close":
            raise self._unexpected("`)`")
        return _Item(name, 1, rules)

    def _repeat(self, base: str, item: _Item, token: _Token) -> list[_Item]:
        least, most = _bounds(token.text)
        written = most or least or 1
        if max(least, most or 0) > REPETITIONS or written * item.rules > REPETITIONS:
            raise GrammarError(f"line {token.line}: {REPETITIONS} repetitions are the most")
        if most is None or most > 1:
            self.repeated.append((item.symbol, token.line))
        rest = self._fresh(base, [[item.symbol], []])
        if most is None:
            self._rules[rest][0].append(rest)
        size = (item.size + 3) * (max(least, written) + 1)
        return [*([item] if least else []), _Item(rest, size, item.rules * written)]

    def _fresh(self, base: str, alternatives: list[list[str]]) -> str:
        name = f"{base} {len(self._rules)}"
        self._rules[name] = alternatives
        return name


def _bounds(text: str) -> tuple[int, int | None]:
    """The least and the most repetitions; None is any number."""
    if text in "*+?":
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[text]
    least, comma, most = text[1:-1].replace(" ", "").partition(",")
    # A number of a thousand digits is too large whatever it says, and slow to read.
    numbers = [int(number[:9] or -1) for number in (least, most)]
    return numbers[0], numbers[0] if not comma else None if numbers[1] < 0 else numbers[1]


def _split(text: str) -> Iterator[_Token]:
    at, line = 0, 1
    while at < len(text):
        match = _TOKENS.match(text, at)
        if match is None:
            raise GrammarError(f"line {line}: {text[at : at + 20]!r} is not GBNF")
        kind = match.lastgroup or ""
        if kind == "set":
            _check_set(match.group(), line)
        if kind != "space":
            yield _Token(kind, match.group(), line)
        line += match.group().count("\n")
        at = match.end()
    yield _Token("end", "", line)


def _check_set(text: str, line: int) -> None:
    inside = text[2:-1] if text.startswith("[^") else text[1:-1]
    for low, high in IN_SET.findall(inside):
        if high and code(low) > code(high):
            raise GrammarError(f"line {line}: the range {low}-{high} ends before it begins")
