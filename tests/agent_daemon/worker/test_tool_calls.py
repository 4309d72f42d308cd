"""Calls of tools in the text of an answer: every family's way to write them, however the text is cut."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_daemon.worker.tool_calls import CallPart, ToolFormat, ToolParser, tool_format
from tests.support import tool_templates

HERMES = tool_format(tool_templates.HERMES)
LLAMA = tool_format(tool_templates.LLAMA)
MISTRAL = tool_format(tool_templates.MISTRAL)
NAMED = tool_format(tool_templates.MISTRAL_NAMED)
GRANITE = tool_format(tool_templates.GRANITE)
Read = tuple[str, list[tuple[str, str]]]


def read(form: ToolFormat, *pieces: str) -> Read:
    """All text, and all calls with their arguments' text."""
    parser = ToolParser(form, ("get", "put"))
    parts = [part for piece in pieces for part in parser.push(piece)] + parser.finish()
    calls: list[list[str]] = []
    for part in parts:
        if isinstance(part, CallPart):
            if part.name is not None:
                assert part.index == len(calls)
                calls.append([part.name, ""])
            calls[part.index][1] += part.arguments
    assert parser.called == bool(calls)
    return "".join(part for part in parts if isinstance(part, str)), [(name, text) for name, text in calls]


def test_the_format_is_the_one_that_the_template_shows() -> None:
    assert ToolFormat("<tool_call>", "</tool_call>") == HERMES
    assert ToolFormat("", "", arguments="parameters") == LLAMA
    assert ToolFormat("[TOOL_CALLS]", "", listed=True) == MISTRAL
    assert ToolFormat("[TOOL_CALLS]", "", named=True) == NAMED
    assert ToolFormat("<|tool_call|>", "", listed=True) == GRANITE
    assert tool_format("nothing of the kind") == HERMES


def test_markers_are_the_special_tokens_of_a_format() -> None:
    assert HERMES.markers == ("<tool_call>", "</tool_call>")
    assert LLAMA.markers == ("<|python_tag|>",)
    assert NAMED.markers == ("[TOOL_CALLS]", "[ARGS]")


TWO = [("get", '{"a": "}{\\"\\\\"}'), ("put", "{}")]
ANSWERS: list[tuple[ToolFormat, str, Read]] = [
    (
        HERMES,
        'Let me see.\n<tool_call>\n{"name": "get", "arguments": {"a": "}{\\"\\\\"}}\n</tool_call>\n'
        '<tool_call>{"name":"put","arguments":{}}</tool_call>',
        ("Let me see.\n", TWO),
    ),
    (HERMES, '<tool_call>{"name": "get", "arguments": {}}</tool_call> \n that was  it ', ("that was  it ", [("get", "{}")])),
    (HERMES, '<tool_call>{"arguments": {"q": [1]}, "name": "get"}</tool_call>', ("", [("get", '{"q": [1]}')])),
    (HERMES, '<tool_call>{"name": "get"}</tool_call>', ("", [("get", "{}")])),
    (HERMES, '<tool_call>{"name": "get", "arguments": {"a": [', ("", [("get", '{"a": [')])),
    (HERMES, '<tool_call>{"name": "get", "arguments": {}} and more', ("and more", [("get", "{}")])),
    (
        MISTRAL,
        '[TOOL_CALLS][{"name": "get", "arguments": {"a": "}{\\"\\\\"}, "id": "abcdefghi"}, {"name":"put","arguments":{}}]',
        ("", TWO),
    ),
    (GRANITE, 'So: <|tool_call|> [{"name": "get", "arguments": {"a": 1}}]', ("So: ", [("get", '{"a": 1}')])),
    (LLAMA, '{"name": "get", "parameters": {"x": "y"}}', ("", [("get", '{"x": "y"}')])),
    (LLAMA, '\n<|python_tag|>{"name": "get", "parameters": {"x": "y"}}', ("", [("get", '{"x": "y"}')])),
    (NAMED, 'ok[TOOL_CALLS]get[ARGS]{"a": 1}', ("ok", [("get", '{"a": 1}')])),
    (NAMED, "[TOOL_CALLS]get[ARGS]{}[TOOL_CALLS]put[CALL_ID]abc[ARGS]{}", ("", [("get", "{}"), ("put", "{}")])),
]  # fmt: skip
TEXTS: list[tuple[ToolFormat, str]] = [
    (HERMES, "a < b <tool_ca"),
    (HERMES, '{"name": "get", "arguments": {}}'),
    (HERMES, "<tool_call>\n<function=get>\n</tool_call>"),
    (HERMES, '<tool_call>{"name": "other", "arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "get", "arguments": [1]}</tool_call>'),
    (HERMES, '<tool_call>{"name": 3}'),
    (HERMES, '<tool_call>{"name": "ge'),
    (LLAMA, ' {"answer": {"name": "get", "parameters": {}}} and so on'),
    (LLAMA, 'I say {"name": "get", "parameters": {}}'),
    (LLAMA, '{"name": "Ann", "parameters": {}}'),
    (LLAMA, "<|python_tag|>print(1)"),
    (MISTRAL, "[TOOL_CALLS] nothing"),
    (NAMED, "[TOOL_CALLS]what is this"),
    (HERMES, "<tool_call>" + '{"a":' * 2000),
]


@pytest.mark.parametrize(("form", "answer", "expected"), ANSWERS)
def test_calls_are_told_from_text(form: ToolFormat, answer: str, expected: Read) -> None:
    assert read(form, answer) == expected
    assert read(form, *answer) == expected


@pytest.mark.parametrize(("form", "answer"), TEXTS)
def test_what_is_no_call_comes_out_as_text_and_nothing_is_lost(form: ToolFormat, answer: str) -> None:
    assert read(form, answer) == (answer, [])
    assert read(form, *answer) == (answer, [])


@given(
    st.sampled_from([each[:2] for each in ANSWERS] + TEXTS),
    st.lists(st.integers(1, 9), min_size=200, max_size=200),
)
@settings(max_examples=200, deadline=None)
def test_where_the_text_is_cut_changes_nothing(case: tuple[ToolFormat, str], sizes: list[int]) -> None:
    form, answer = case
    pieces, rest = [], answer
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert read(form, *pieces, rest) == read(form, answer)


ALPHABET = (
    *(
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "<|python_tag|>",
        "[ARGS]",
        '{"name": "get", "arguments": ',
    ),
    *(
        '{"name": "put", "parameters": {}}',
        '"name"',
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"',
        "\\",
        " ",
        "get",
        "x",
        "1",
    ),
)


@given(
    st.sampled_from((HERMES, LLAMA, MISTRAL, NAMED, GRANITE)),
    st.lists(st.sampled_from(ALPHABET), max_size=25),
)
@settings(max_examples=500, deadline=None)
def test_no_answer_confuses_the_reader(form: ToolFormat, pieces: list[str]) -> None:
    together = read(form, "".join(pieces))
    assert read(form, *pieces) == together
    assert read(form, *"".join(pieces)) == together
    if not together[1]:
        # Nothing is lost.
        assert together[0] == "".join(pieces)


def test_text_and_names_and_arguments_come_as_soon_as_they_are_clear() -> None:
    parser = ToolParser(HERMES, ("get",))

    def says(text: str) -> list[Any]:
        return parser.push(text)

    assert says("I look <") == ["I look "]
    assert says("3. <tool") == ["<3. "]
    assert says("_call>") == []
    assert says('\n{"name": "get') == []
    assert says('", "arguments": ') == []
    assert says('{"ci') == [CallPart(0, "get", ""), CallPart(0, None, '{"ci')]
    assert says('ty": "K') == [CallPart(0, None, 'ty": "K')]
    assert says('"}') == [CallPart(0, None, '"}')]
    assert says("}\n</tool_call>") == []
    assert says("Done") == ["Done"]
    assert says(". Now.") == [". Now."]
    assert parser.finish() == []


def test_an_answer_that_is_json_for_its_reader_is_not_held_back() -> None:
    parser = ToolParser(LLAMA, ("get",))
    assert parser.push(' {"na') == []
    assert parser.push('tion": ') == [' {"nation": ']


def test_arguments_are_the_models_own_text() -> None:
    _text, [(_name, arguments)] = read(
        HERMES, '<tool_call>{"name": "get", "arguments": { "a":1.0,"b" : "\\u00e9"}}</tool_call>'
    )
    assert arguments == '{ "a":1.0,"b" : "\\u00e9"}'
    assert json.loads(arguments) == {"a": 1.0, "b": "é"}
