"""What requests ask of their answers, as grammars that llama.cpp follows: constraints, tools, and both."""

import json
from typing import Any

import msgspec
import pytest

from agent_daemon.worker.chat import ChatTemplate
from agent_daemon.worker.form import Structure, StructureError
from agent_daemon.worker.structure import structure
from agent_daemon.worker_messages import Choosing, Constraint, Generate, Text, Tool, ToolCall
from tests.support import tool_templates
from tests.support.grammars import Reader, accepts

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def tool(name: str, schema: dict[str, Any], **more: Any) -> Tool:
    return Tool(name=name, schema_=schema, raw={"type": "function", "function": {"name": name, **more}})


TOOLS = (tool("weather", CITY), tool("now", {}))
CALL = '{"name": "weather", "arguments": {"city": "Köln"}}'


def asked(source: str | None = tool_templates.HERMES, **what: Any) -> Structure:
    what.setdefault("messages", ())
    return structure(Generate(id=1, **what), ChatTemplate(source, "", ""))


def takes(made: Structure, *pieces: str) -> tuple[bool, bool]:
    """Whether the grammar lets the pieces through, and whether the answer may end then."""
    reader = Reader(made.grammar or "", made.triggers)
    try:
        return all(reader.takes(piece) for piece in pieces), reader.may_end
    finally:
        reader.close()


# -- answers without tools -------------------------------------------------------------------------------


def test_a_plain_request_wants_nothing() -> None:
    assert asked() == Structure() == structure(Generate(id=1, prompt="x"), None)


@pytest.mark.engine
def test_json_object_is_any_object() -> None:
    grammar = asked(constraint=Constraint(kind="json_object")).grammar
    assert grammar is not None
    assert [each for each in ("{}", '{"a": [1, {"b": null}]}') if not accepts(grammar, each)] == []
    assert [each for each in ("[]", '"x"', "Sure: {}", '{"a": 1}\n') if accepts(grammar, each)] == []


@pytest.mark.engine
def test_a_schema_and_a_grammar_are_followed_also_without_a_chat() -> None:
    by_schema = Generate(id=1, prompt="x", constraint=Constraint(kind="json_schema", json_schema=CITY))
    made = structure(by_schema, None)
    assert (made.triggers, made.markers, made.parser) == ((), (), None)
    assert accepts(made.grammar or "", '{"city": "Rom"}')
    assert not accepts(made.grammar or "", "{}")
    own = asked(constraint=Constraint(kind="grammar", grammar='root ::= "yes" | "no"'))
    assert own == Structure('root ::= "yes" | "no"')


@pytest.mark.parametrize(
    ("constraint", "message", "param"),
    [
        ({"kind": "grammar", "grammar": "root ::= nothing"}, "line 1: there is no rule `nothing`", "grammar"),
        ({"kind": "grammar"}, "the grammar has no rule `root`", "grammar"),
        (
            {"kind": "json_schema", "json_schema": {"not": {}}},
            "schema: `not` is not supported with these values",
            "response_format",
        ),
        (
            {"kind": "json_schema"},
            "schema: a schema has to be an object, true or false",
            "response_format",
        ),
        (
            {"kind": "json_schema", "json_schema": {"$ref": "#"}},
            "no text can ever complete the grammar's root",
            "response_format",
        ),
    ],
)
def test_what_cannot_be_followed_names_the_clients_field(
    constraint: dict[str, Any], message: str, param: str
) -> None:
    with pytest.raises(StructureError) as refused:
        asked(constraint=msgspec.convert(constraint, Constraint))
    assert (str(refused.value), refused.value.param) == (message, param)


# -- tools -----------------------------------------------------------------------------------------------


@pytest.mark.engine
@pytest.mark.parametrize(
    ("source", "call", "other"),
    [
        (tool_templates.HERMES, f"<tool_call>\n{CALL}\n</tool_call>", "<tool_call>{}</tool_call>"),
        (tool_templates.LLAMA, CALL.replace("arguments", "parameters"), CALL),
        (tool_templates.LLAMA, "<|python_tag|>" + CALL.replace("arguments", "parameters"), "<|python_tag|>x"),
        (tool_templates.MISTRAL, f"[TOOL_CALLS][{CALL}]", f"[TOOL_CALLS]{CALL}"),
        (tool_templates.MISTRAL_NAMED, '[TOOL_CALLS]weather[ARGS]{"city": "Köln"}', "[TOOL_CALLS]other[ARGS]{}"),
        (tool_templates.GRANITE, f"<|tool_call|>[{CALL}]", f"<|tool_call|>{CALL}"),
    ],
)  # fmt: skip
def test_every_format_is_forced_as_its_reader_reads_it(source: str, call: str, other: str) -> None:
    required = asked(source, tools=TOOLS, tool_choice="required")
    assert required.triggers == ()
    assert takes(required, call) == (True, True)
    assert takes(required, "I will") == (False, False)
    assert takes(required, other)[0] is False
    free = asked(source, tools=TOOLS)
    assert takes(free, "Just talk, {of} anything.") == (True, True)
    assert takes(free, call) == (True, True)
    assert takes(free, call, "and on")[0] is False
    assert free.parser is not None
    parts = [part for part in free.parser.push(call) + free.parser.finish() if not isinstance(part, str)]
    assert parts[0].name == "weather"
    assert json.loads("".join(part.arguments for part in parts)) == {"city": "Köln"}


@pytest.mark.engine
def test_a_call_behind_text_is_forced_to_its_schema_once_it_begins() -> None:
    free = asked(tools=TOOLS)
    assert takes(free, "I look. ", f"<tool_call>\n{CALL}\n</tool_call>") == (True, True)
    assert takes(free, 'I look. <tool_call>\n{"name": "weather", "arguments": {"town"')[0] is False
    assert takes(free, 'I look. <tool_call>\n{"name": "walk"')[0] is False


@pytest.mark.engine
@pytest.mark.parametrize(
    "behind", ["\n\n\n", " x", "{}", '{"arguments": {}', "\t{", "\n  \n{", '{"name" :', "</tool_call>"]
)
def test_a_beginning_that_the_grammar_would_not_take_never_reaches_it(behind: str) -> None:
    """llama.cpp ends the process where it replays a text that the grammar does not let through."""
    import llama_cpp

    for source, opening in (
        (tool_templates.HERMES, "<tool_call>"),
        (tool_templates.GRANITE, "<|tool_call|>"),
        (tool_templates.LLAMA, "<|python_tag|>"),
        (tool_templates.LLAMA, "{"),
    ):
        made = asked(source, tools=TOOLS)
        for text in (opening + behind, "a " + opening + behind):
            # Tokens of any cut: whole, and character by character.
            for pieces in ([text], list(text)):
                reader = Reader(made.grammar or "", made.triggers)
                for piece in pieces:
                    reader.takes(piece)
                llama_cpp.llama_sampler_free(reader.sampler)


@pytest.mark.engine
def test_several_calls_only_where_they_are_wanted() -> None:
    call = f"<tool_call>\n{CALL}\n</tool_call>"
    now = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    assert takes(asked(tools=TOOLS, tool_choice="required"), f"{call}\n{now}") == (True, True)
    one = asked(tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    assert takes(one, call) == (True, True)
    assert takes(one, f"{call}\n{now}")[0] is False
    listed = asked(tool_templates.MISTRAL, tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    assert takes(listed, f"[TOOL_CALLS][{CALL}]") == (True, True)
    assert takes(listed, f"[TOOL_CALLS][{CALL}, ")[0] is False


@pytest.mark.engine
def test_with_an_answers_schema_there_are_calls_or_that_answer() -> None:
    both = asked(tools=TOOLS, constraint=Constraint(kind="json_schema", json_schema=CITY))
    assert both.triggers == ()
    assert takes(both, f"<tool_call>{CALL}</tool_call>") == (True, True)
    assert takes(both, '{"city": "Rom"}') == (True, True)
    assert takes(both, "Rom")[0] is False


def test_without_choice_there_are_no_tools() -> None:
    assert asked(tools=TOOLS, tool_choice="none") == Structure()


def test_tools_are_refused_where_they_cannot_be_used() -> None:
    with pytest.raises(StructureError, match="this model's chat template has no place for tools") as refused:
        asked(None, tools=TOOLS)
    assert refused.value.param == "tools"
    with pytest.raises(StructureError, match="a grammar of your own and tools do not go together"):
        asked(tools=TOOLS, constraint=Constraint(kind="grammar", grammar='root ::= "a"'))
    with pytest.raises(StructureError, match="the parameters of walk: `type` has to be one of") as refused:
        asked(tools=(tool("walk", {"type": "any"}),))
    assert refused.value.param == "tools"


@pytest.mark.engine
def test_what_a_tools_schema_wants_beyond_a_grammar_matters_only_if_it_is_strict() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "uniqueItems": True}},
        "required": ["a"],
    }
    loose = asked(tools=(tool("f", schema),), tool_choice="required")
    assert takes(loose, '<tool_call>{"name": "f", "arguments": {"a": [1, 1]}}</tool_call>') == (True, True)
    with pytest.raises(StructureError, match="the parameters of f/a: `uniqueItems` is not supported"):
        asked(tools=(tool("f", schema, strict=True),))


def test_the_same_tools_are_made_into_a_grammar_once() -> None:
    first, second = asked(tools=TOOLS), asked(tools=TOOLS)
    assert first.grammar is second.grammar
    assert first.parser is not second.parser


@pytest.mark.engine
def test_the_engine_makes_calls_of_what_the_model_writes(chat_model: Any) -> None:
    from agent_daemon.worker.engine import Engine

    said: list[Any] = []
    engine = Engine(chat_model, said.append)
    # The model's own template has no place for tools.
    engine.prompts.template = ChatTemplate(tool_templates.HERMES, "", "")
    age = tool(
        "age",
        {"properties": {"years": {"type": "integer", "minimum": 1, "maximum": 99}}, "required": ["years"]},
    )
    question = {"role": "user", "content": "How old is he?"}
    engine.submit(
        Generate(
            id=1,
            messages=(question,),
            tools=(age,),
            tool_choice="required",
            parallel_tool_calls=False,
            max_tokens=80,
            sampling=Choosing(temperature=0),
        )
    )
    while engine.busy:
        engine.step()
    engine.forget_held()
    calls = [event for event in said if isinstance(event, ToolCall)]
    assert [(call.index, call.name) for call in calls if call.name] == [(0, "age")]
    assert 1 <= json.loads("".join(call.arguments for call in calls))["years"] <= 99
    assert "".join(event.text for event in said if isinstance(event, Text)) == ""
    assert said[-1].finish_reason == "tool_calls"
