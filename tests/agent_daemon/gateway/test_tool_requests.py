"""Tools, forced formats and the conversations around them: from a body to what a worker is asked."""

import json
from typing import Any

import pytest

from agent_daemon.contract.release import ServedModel
from agent_daemon.gateway.errors import ApiError
from agent_daemon.gateway.requests.body import LEVELS, VALUES, parse
from agent_daemon.gateway.requests.chat import ChatBody
from agent_daemon.gateway.requests.responses import ResponsesBody
from agent_daemon.worker_messages import Constraint, Generate, Tool
from tests.support.inventory_messages import device_release

PLAIN = device_release().models[0]
USER = {"role": "user", "content": "Weather in Rome?"}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "Now.", "parameters": CITY, "strict": True}
CLOCK = {"name": "clock"}
CHAT_TOOLS = [{"type": "function", "function": each} for each in (WEATHER, CLOCK)]
FLAT_TOOLS = [{"type": "function", **each} for each in (WEATHER, CLOCK)]
TOLD = (
    Tool(name="weather", schema_=CITY, raw=CHAT_TOOLS[0]),
    Tool(name="clock", schema_={"type": "object", "properties": {}}, raw=CHAT_TOOLS[1]),
)


def chat(model: ServedModel = PLAIN, **more: Any) -> Generate:
    return parse(ChatBody, json.dumps({"model": "m", "messages": [USER], **more}).encode()).generate(model)


def response(model: ServedModel = PLAIN, **more: Any) -> Generate:
    return parse(ResponsesBody, json.dumps({"model": "m", "input": "Hi", **more}).encode()).generate(model)


def refusal(ask: Any, **body: Any) -> dict[str, Any]:
    with pytest.raises(ApiError) as caught:
        ask(**body)
    assert caught.value.status == 400
    error: dict[str, Any] = caught.value.body["error"]
    return error


# -- tools -----------------------------------------------------------------------------------------------


def test_tools_go_with_their_schema_and_as_they_were_sent() -> None:
    for said in (chat(tools=CHAT_TOOLS), response(tools=FLAT_TOOLS)):
        assert (said.tools, said.tool_choice, said.parallel_tool_calls) == (TOLD, "auto", True)
    assert chat(tools=[]).tools == chat(tools=None).tools == ()


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_a_choice_is_passed_on(mode: str) -> None:
    for said in (chat(tools=CHAT_TOOLS, tool_choice=mode), response(tools=FLAT_TOOLS, tool_choice=mode)):
        assert (said.tools, said.tool_choice) == (TOLD, mode)


def test_none_shows_the_model_no_tools() -> None:
    for said in (chat(tools=CHAT_TOOLS, tool_choice="none"), response(tools=FLAT_TOOLS, tool_choice="none")):
        assert (said.tools, said.tool_choice) == ((), "none")


def test_a_named_tool_is_the_only_one_and_has_to_be_called() -> None:
    named = {"type": "function", "function": {"name": "clock"}}
    for said in (
        chat(tools=CHAT_TOOLS, tool_choice=named),
        response(tools=FLAT_TOOLS, tool_choice={"type": "function", "name": "clock"}),
    ):
        assert (said.tools, said.tool_choice) == (TOLD[1:], "required")


def test_one_call_at_a_time_where_that_is_asked_for() -> None:
    assert chat(tools=CHAT_TOOLS, parallel_tool_calls=False).parallel_tool_calls is False
    assert response(tools=FLAT_TOOLS, parallel_tool_calls=False).parallel_tool_calls is False


@pytest.mark.parametrize(
    ("wrong", "param", "said"),
    [
        ({"tool_choice": "required"}, "tool_choice", "there are no tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "named 'f'"),
        ({"tool_choice": "must", "tools": CHAT_TOOLS}, "tool_choice", "'none', 'auto' or 'required'"),
        ({"tools": [CHAT_TOOLS[0]] * 2}, "tools", "the same name"),
        ({"tools": [{"type": "web_search"}]}, "tools.0", "another type than function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name", "match"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name", "required"),
        ({"tools": [{}]}, "tools.0.type", "required"),
        (
            {"tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(129)]},
            "tools",
            "128",
        ),
        ({"tools": CHAT_TOOLS, "response_format": {"type": "json_object"}}, "response_format", "with tools"),
        ({"tools": CHAT_TOOLS, "grammar": 'root ::= "x"'}, "grammar", "with tools"),
    ],
)
def test_tools_that_make_no_sense_are_refused(wrong: dict[str, Any], param: str, said: str) -> None:
    error = refusal(chat, **wrong)
    assert error["param"] == param
    assert said in error["message"]


def test_tools_that_may_not_be_called_leave_room_for_a_format() -> None:
    said = chat(tools=CHAT_TOOLS, tool_choice="none", response_format={"type": "json_object"})
    assert (said.tools, said.constraint) == ((), Constraint(kind="json_object"))


# -- formats ---------------------------------------------------------------------------------------------

SCHEMA = Constraint(kind="json_schema", json_schema=CITY)
GRAMMAR = Constraint(kind="grammar", grammar='root ::= "yes" | "no"')


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Constraint(kind="json_object")),
        ({"response_format": {"type": "json_object", "schema": CITY}}, SCHEMA),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": CITY}}}, SCHEMA),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": CITY, "strict": True}}},
            SCHEMA,
        ),
        ({"response_format": {"type": "grammar", "grammar": GRAMMAR.grammar}}, GRAMMAR),
        ({"grammar": GRAMMAR.grammar}, GRAMMAR),
        ({"grammar": GRAMMAR.grammar, "response_format": {"type": "text"}}, GRAMMAR),
    ],
)
def test_formats_of_a_chat(asked: dict[str, Any], expected: Constraint | None) -> None:
    assert chat(**asked).constraint == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, Constraint(kind="json_object")),
        ({"type": "json_schema", "name": "c", "schema": CITY, "strict": False}, SCHEMA),
    ],
)
def test_formats_of_a_response(asked: dict[str, Any], expected: Constraint | None) -> None:
    assert response(text={"format": asked, "verbosity": "low"}).constraint == expected


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"items": schema}
    return schema


WIDE = {"enum": ["x"] * VALUES}
PATH = "response_format.json_schema.schema"


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "c"}}}, PATH),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": []}}}, PATH),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": nested(LEVELS + 1)}}}, PATH),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": WIDE}}}, PATH),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"minimum": 2**63}}}}, PATH),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"a": float("nan")}}}}, PATH),
        ({"response_format": {"type": "grammar"}}, "response_format.grammar"),
        ({"grammar": ""}, "grammar"),
        ({"grammar": "x" * (256 * 1024 + 1)}, "grammar"),
        ({"grammar": "root ::= x", "response_format": {"type": "json_object"}}, "grammar"),
    ],
)
def test_formats_that_cannot_be_kept_are_refused(wrong: dict[str, Any], param: str) -> None:
    error = refusal(chat, **wrong)
    assert error["param"] == param
    assert error["message"].startswith(param)


def test_a_schema_as_deep_as_it_may_be_is_taken() -> None:
    schema = nested(LEVELS)
    said = chat(response_format={"type": "json_schema", "json_schema": {"schema": schema}})
    assert said.constraint == Constraint(kind="json_schema", json_schema=schema)


# -- conversations ---------------------------------------------------------------------------------------

RENDERED = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "weather", "arguments": {"city": "Rome"}},
            },
            {"id": "c2", "type": "function", "function": {"name": "clock", "arguments": "{oops"}},
        ],
    },
    {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
    {"role": "tool", "content": "noon", "tool_call_id": "c2"},
)


def test_a_chat_with_calls_is_rendered_with_arguments_as_objects_where_they_are_such() -> None:
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
        {"id": "c2", "type": "function", "function": {"name": "clock", "arguments": "{oops"}},
    ]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Wea"}, {"type": "text", "text": "ther?"}]},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "noon"}]},
    ]
    assert chat(messages=messages).messages == RENDERED


def test_the_items_of_a_response_are_the_same_chat() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Rome"}'},
        {"type": "function_call", "call_id": "c2", "name": "clock", "arguments": "{oops"},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "noon"}]},
    ]
    assert response(input=items, instructions="Be brief.").messages == RENDERED


def test_calls_belong_to_the_assistants_message_before_them() -> None:
    items = [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
        {"type": "function_call", "call_id": "c1", "name": "clock", "arguments": "{}"},
    ]
    (message,) = response(input=items).messages or ()
    assert message["content"] == "Let me see."
    assert [each["id"] for each in message["tool_calls"]] == ["c1"]


@pytest.mark.parametrize("arguments", ["[1]", '"x"', "", '{"a": NaN}', '{"a": "\\ud800"}', '{"a":' * 300])
def test_arguments_that_are_no_sound_object_stay_text(arguments: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    (message,) = chat(messages=[{"role": "assistant", "tool_calls": [call]}]).messages or ()
    assert message["tool_calls"][0]["function"]["arguments"] == arguments


def test_instructions_and_a_clients_system_message_stand_for_the_manifests_prompt() -> None:
    kind = PLAIN.model_copy(update={"system_prompt": "Be kind."})
    system = {"role": "system", "content": "Be kind."}
    assert response(kind).messages == (system, {"role": "user", "content": "Hi"})
    assert (response(kind, instructions="Rhyme.").messages or ())[0]["content"] == "Rhyme."
    developer = [{"role": "developer", "content": "Rhyme."}, USER]
    assert (response(kind, input=developer).messages or ())[0] == {"role": "system", "content": "Rhyme."}


def test_variables_for_the_template_are_passed_on() -> None:
    assert chat(chat_template_kwargs={"enable_thinking": False}).template_arguments == {
        "enable_thinking": False
    }


def test_a_response_has_its_own_names_for_limits_and_sampling() -> None:
    said = response(max_output_tokens=9, temperature=0, top_p=0.5, seed=4, metadata={"a": "b"}, store=True)
    assert said.max_tokens == 9
    assert (said.sampling.temperature, said.sampling.top_p, said.sampling.seed) == (0, 0.5, 4)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"previous_response_id": "resp_1"}, "nothing is kept"),
        ({"conversation": "conv_1"}, "nothing is kept"),
        ({"prompt": {"id": "p"}}, "nothing is kept"),
        ({"background": True}, "in the background"),
        ({"top_logprobs": 3}, "0"),
        ({"max_output_tokens": 0}, "greater than or equal to 1"),
        ({"input": []}, "at least 1"),
        ({"tools": FLAT_TOOLS, "text": {"format": {"type": "json_object"}}}, "with tools"),
        ({"text": {"format": {"type": "json_schema", "name": "c"}}}, "it is needed"),
        ({"tools": [{"type": "mcp"}]}, "another type than function"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "items of another type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "reads text only"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "required"),
    ],
)
def test_what_a_response_cannot_do_is_named(wrong: dict[str, Any], said: str) -> None:
    error = refusal(response, **wrong)
    assert said in error["message"]
    assert str(error["param"]).partition(".")[0] in wrong
