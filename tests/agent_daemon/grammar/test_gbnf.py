"""Grammars that clients send: what llama.cpp can follow passes, what would harm it is refused with a reason."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_daemon.grammar import gbnf
from tests.support.grammars import Reader, accepts

GOOD = (
    'root ::= "a"',
    'root ::= "yes" | "no" # one of two\n',
    'root ::= item ("," ws item)*\nitem ::= [a-z_]+ | "\\"" [^"]* "\\""\nws ::= [ \\t\\n]*',
    'root ::= (\n  "a"\n  | "b"\n)\n\n\nother ::=\n  "x" |\n  "y"\n',
    "root ::= [\\]\\[\\-\\\\^] .{0,3} [\\x41-\\u005A\\U0001F600]",
    'root ::= "a"{2,} "b"{3} [0-9]? ""',
    'root ::= "x" root | "x"',
    'root ::= expr\nexpr ::= term ("+" term)*\nterm ::= [0-9]+ | "(" expr ")"',
    'root ::= a? b? c?\r\na ::= "a"\r\nb ::= "b"\r\nc ::= "c"',
)
BAD = (
    ("", "the grammar has no rule `root`"),
    ('answer ::= "a"', "the grammar has no rule `root`"),
    ("root ::= item", "line 1: there is no rule `item`"),
    ('root ::= "a', "line 1: '\"a' is not GBNF"),
    ('root ::= "a"\nroot ::= "b"', "line 2: the rule `root` is there twice"),
    ('root ::= "a"\n  | "b"', "line 2: a rule's name and `::=` was expected, found '|'"),
    ('root ::= ("a"', "line 1: `)` was expected, found the end"),
    ('root ::= "a")', "line 1: the end of the line was expected, found ')'"),
    ("root ::= *", "line 1: something to repeat was expected, found '*'"),
    ('root ::= ""{2}', "line 1: something to repeat was expected, found '{2}'"),
    ('root ::= "a" "\\q"', "line 1: '\"\\\\q\"' is not GBNF"),
    ("root ::= []", "line 1: '[]' is not GBNF"),
    ("root ::= [^]", "line 1: '[^]' is not GBNF"),
    ("root ::= [z-a]", "line 1: the range z-a ends before it begins"),
    ("root ::= <think>", "line 1: '<think>' is not GBNF"),
    ('root ::= "\x00"', "line 1: '\"\\x00\"' is not GBNF"),
    ('root ::= root "a" | "b"', "the rule `root` begins with itself"),
    ('root ::= a\na ::= b "x"\nb ::= a | "y"', "the rule `a` begins with itself"),
    ('root ::= e e root "a" | "b"\ne ::= f\nf ::= ""', "the rule `root` begins with itself"),
    ('root ::= "a" root', "no text can ever complete the grammar's root"),
    ('root ::= ("a"?)*', "line 1: something that may be empty is repeated"),
    ('root ::= ws{2,9} "a"\nws ::= [ ]*', "line 1: something that may be empty is repeated"),
    ('root ::= "a"{2001}', "line 1: 2000 repetitions are the most"),
    ('root ::= "a"{0,2001}', "line 1: 2000 repetitions are the most"),
    ('root ::= "a"{' + "9" * 5000 + "}", "line 1: 2000 repetitions are the most"),
    ('root ::= (("a"{100} "b"){100}){100}', "line 1: 2000 repetitions are the most"),
    ("root ::= " + "(" * 50 + '"a"' + ")" * 50, "line 1: parentheses are nested too deep"),
    ("root ::= " + ('"' + "a" * 100 + '"{2000} ') * 5, "the grammar is too large with its repetitions written out"),
    (
        "root ::= r0\n" + "".join(f"r{n} ::= r{n + 1}\n" for n in range(400)) + 'r400 ::= "a"',
        "the grammar's rules are nested too deep",
    ),
    (
        "root ::= r0\n" + "".join(f"r{n} ::= r{n + 1} | r{n + 1}\n" for n in range(60)) + 'r60 ::= "a"',
        "the grammar has too many ways to begin one rule",
    ),
    (
        'root ::= "a" root x | "a" root y | "a"\nx ::= "x"\ny ::= "y"',
        "the grammar leaves too many readings of one text open",
    ),
    (
        "root ::= r0\n"
        + "".join(f'r{n} ::= [a-c] r{n + 1} "x" | [b-d] r{n + 1} "y"\n' for n in range(30))
        + 'r30 ::= "e"',
        "the grammar leaves too many readings of one text open",
    ),
    ("root ::= " + '"a" ' * 40_000, "the grammar has 160009 characters; 131072 are the most"),
)  # fmt: skip


@pytest.mark.engine
@pytest.mark.parametrize("grammar", GOOD)
def test_what_llama_cpp_follows_passes(grammar: str) -> None:
    gbnf.check(grammar)
    reader = Reader(grammar)
    assert reader.parsed
    reader.close()


@pytest.mark.parametrize(("grammar", "reason"), BAD, ids=lambda text: repr(text)[:40])
def test_what_it_cannot_follow_is_refused_with_the_reason(grammar: str, reason: str) -> None:
    with pytest.raises(gbnf.GrammarError) as refused:
        gbnf.check(grammar)
    assert str(refused.value) == reason


PIECES = (
    *('"a"', '"\\n"', '""', "[a-z]", '[^"]', "[\\]]", ".", "x", "y", "root", "(", ")", "|", "*", "+", "?"),
    *(
        "{2}",
        "{0,3}",
        "{2,}",
        "{3000}",
        "\n",
        "\r\n",
        " ",
        "#c\n",
        "x ::= ",
        "y ::= ",
        "::=",
        '"',
        "[",
        "\\",
        "!",
    ),
)


@pytest.mark.engine
@given(st.lists(st.sampled_from(PIECES), max_size=10))
@settings(max_examples=1500, deadline=None)
def test_whatever_passes_llama_cpp_takes(pieces: list[str]) -> None:
    grammar = f"root ::= {' '.join(pieces)}\nx ::= [0-9]\ny ::= x x?"
    try:
        gbnf.check(grammar)
    except gbnf.GrammarError:
        return
    reader = Reader(grammar)
    assert reader.parsed
    reader.allows(50)
    reader.close()


@pytest.mark.engine
@pytest.mark.parametrize("text", ['say "hi"\\n\n\t\r', "äß€😀\u2028\x7f", "^-[]", "\x01"])
def test_literals_and_members_stand_for_themselves(text: str) -> None:
    assert accepts(f"root ::= {gbnf.literal(text)}", text)
    members = "".join(map(gbnf.member, text))
    assert accepts(f"root ::= [{members}]{{{len(text)}}}", text)
    assert not accepts(f"root ::= [^{members}]+", text)


@pytest.mark.engine
def test_a_reader_of_tests_tells_right_from_wrong() -> None:
    cases: list[tuple[Any, bool]] = [({"a": 1}, True), ({"a": 2}, False), ({}, False)]
    for value, right in cases:
        assert accepts('root ::= "{\\"a\\": 1}"', json.dumps(value)) is right
