"""The rules of JSON itself as GBNF, and a set of rules that grows while a schema is walked. PURE.

White space is bounded, because a small model that may go on with spaces does; strings hold no raw control character
and no half of a surrogate pair, which JSON would let through.
"""

import json
from typing import Any

from agent_daemon.grammar.gbnf import REPETITIONS, literal, member

_RULES = r"""
ws ::= (" " | "\n" [ \t]{0,20})?
hex ::= [0-9A-Fa-f]
char ::= [^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" ([0-9A-CE-Fa-ce-f] hex | [Dd] [0-7]) hex hex)
string ::= "\"" char* "\""
integer ::= "-"? ("0" | [1-9] [0-9]{0,14})
number ::= integer ("." [0-9]{1,15})? ([eE] [+-]? [0-9]{1,2})?
boolean ::= "true" | "false"
null ::= "null"
value ::= object | array | string | number | boolean | null
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)* ws)? "}"
array ::= "[" ws (value ("," ws value)* ws)? "]"
plain ::= [^"\\\x00-\x1F\x7F]
date ::= [1-2] [0-9] [0-9] [0-9] "-" (long | short | february)
long ::= ("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])
short ::= ("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30")
february ::= "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8])
clock ::= ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9]
time ::= clock ":" [0-5] [0-9] ("." [0-9]{1,6})? ("Z" | [+-] clock)
"""
FORMATS = {
    "date": ("date", 10, 10),
    "time": ("time", 9, 21),
    "date-time": ('date "T" time', 20, 32),
    "uuid": ('hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}', 36, 36),
}
"""Formats of strings that are followed: what is between the quotes, the least and the most characters of it."""
_BLOCK = 1000


class RuleSet:
    """Rules by their content: the same content gets the same name."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._bodies: dict[str, str] = {}

    def name(self, body: str) -> str:
        """The name of a rule with this body."""
        if body not in self._names:
            self._names[body] = self.reserve()
            self._bodies[self._names[body]] = body
        return self._names[body]

    def reserve(self) -> str:
        """A name for a rule that is not known yet, because it refers to itself."""
        name = f"r{len(self._bodies)}"
        self._bodies[name] = ""
        return name

    def define(self, name: str, body: str) -> None:
        self._bodies[name] = body

    def text(self, root: str) -> str:
        """The whole grammar."""
        lines = [f"{name} ::= {body}" for name, body in (("root", root), *self._bodies.items())]
        return "\n".join((*lines, _RULES.strip())) + "\n"

    def repeat(self, item: str, least: int, most: int | None) -> str:
        """`item` at least `least` and at most `most` times. Of a very high maximum a little is taken off: what
        llama.cpp can count, it counts in thousands and a rest."""
        name = self.name(item)
        if most is None:
            return f"{self._exactly(name, least)} {name}*".lstrip()
        more = most - least
        if more <= REPETITIONS:
            if least <= REPETITIONS and most <= REPETITIONS:
                return f"{name}{{{least},{most}}}"
            return f"{self._exactly(name, least)} {name}{{0,{more}}}".lstrip()
        blocks = min((more + 1) // _BLOCK - 1, REPETITIONS)
        block = self.name(f"{name}{{{_BLOCK}}}")
        return f"{self._exactly(name, least)} {block}{{0,{blocks}}} {name}{{0,{_BLOCK - 1}}}".lstrip()

    def _exactly(self, name: str, count: int) -> str:
        if count <= REPETITIONS:
            return f"{name}{{{count}}}" if count else ""
        block = self.name(f"{name}{{{_BLOCK}}}")
        rest = count % _BLOCK
        return f"{block}{{{count // _BLOCK}}}" + (f" {name}{{{rest}}}" if rest else "")


def constant(value: Any) -> str:
    """One JSON value and nothing else. Raises ValueError for what JSON cannot say."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, allow_nan=False)
    return literal(text)


def other_key(names: list[str]) -> str:
    """A key in quotes that is none of `names`, written without escapes so that it cannot be one in disguise."""
    return rf'"\"" {_differs(sorted({name for name in names if name}))} "\""'


def _differs(names: list[str]) -> str:
    """At least one character, and in all none of `names` (sorted, none empty)."""
    heads = sorted({name[0] for name in names})
    choices = [rf'[^{"".join(map(member, heads))}"\\\x00-\x1F\x7F] plain*']
    for head in heads:
        rests = [name[1:] for name in names if name[0] == head]
        ends = "" if "" in rests else "?"
        choices.append(f"{literal(head)} {_differs([rest for rest in rests if rest])}{ends}")
    return f"({' | '.join(choices)})"
