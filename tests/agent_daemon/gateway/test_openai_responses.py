"""`/v1/responses` through the official client, against a real agent."""

import json
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage

pytestmark = pytest.mark.engine

MANNER = "Answer in English."
"""With it the model is sure of what it says: two ways of computing the same sum may differ in its last digits."""
PLACE = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Now.",
    "parameters": PLACE,
    "strict": True,
}
CALLING: dict[str, Any] = {
    "model": "tools",
    "input": "What is the weather in Rome?",
    "tools": [WEATHER],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "max_output_tokens": 100,
    "temperature": 0,
}


def test_a_response_is_what_a_chat_would_have_answered(tools_client: OpenAI) -> None:
    response = tools_client.responses.create(
        model="tools",
        instructions=MANNER,
        input="What is the capital of France?",
        max_output_tokens=8,
        temperature=0,
    )
    messages: list[Any] = [
        {"role": "system", "content": MANNER},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    chat = tools_client.chat.completions.create(model="tools", messages=messages, max_tokens=8, temperature=0)
    assert response.output_text == chat.choices[0].message.content
    assert (response.object, response.model, response.instructions) == (
        "response",
        "tools",
        MANNER,
    )
    assert response.usage is not None
    assert chat.usage is not None
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    assert response.usage.output_tokens == chat.usage.completion_tokens
    # The chat came second, with the same prompt.
    assert chat.usage.prompt_tokens_details is not None
    assert chat.usage.prompt_tokens_details.cached_tokens == chat.usage.prompt_tokens - 1


def test_a_response_that_was_cut_says_so(tools_client: OpenAI) -> None:
    response = tools_client.responses.create(
        model="tools", input="Count to one hundred.", max_output_tokens=3, temperature=0
    )
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


def test_a_streamed_response_is_the_same_in_pieces(tools_client: OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "tools",
        "input": "What is the capital of France?",
        "max_output_tokens": 8,
        "temperature": 0,
    }
    whole = tools_client.responses.create(**asked)
    events = list(tools_client.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    types = [event.type for event in events]
    middle = len(deltas)
    assert middle > 2
    assert types[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(types[4 : 4 + middle]) == {"response.output_text.delta"}
    assert types[4 + middle : -1] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
    ]
    assert "".join(event.delta for event in deltas) == whole.output_text
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    assert last.response.output_text == whole.output_text
    assert last.response.status == whole.status


def test_the_clients_own_accumulation_of_a_stream_agrees(tools_client: OpenAI) -> None:
    # It takes no response as final that was cut: this one ends by itself.
    place: Any = {"format": {"type": "json_schema", "name": "place", "schema": PLACE, "strict": True}}
    with tools_client.responses.stream(
        model="tools", input="Where to?", text=place, max_output_tokens=60, temperature=0
    ) as stream:
        said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert final.output_text == said
    assert json.loads(said)["city"] in ("Rome", "Oslo")


def test_a_call_is_made_and_its_result_answered(tools_client: OpenAI) -> None:
    first = tools_client.responses.create(**CALLING)
    (call,) = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, call.status) == ("weather", "completed")
    assert json.loads(call.arguments)["city"] in ("Rome", "Oslo")
    history: list[Any] = [
        {"role": "user", "content": CALLING["input"]},
        call.model_dump(),
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
    ]
    second = tools_client.responses.create(**{**CALLING, "input": history, "tool_choice": "none"})
    assert all(isinstance(item, ResponseOutputMessage) for item in second.output)
    assert second.output_text


def test_a_streamed_call_has_its_arguments_in_pieces(tools_client: OpenAI) -> None:
    whole = tools_client.responses.create(**CALLING).output[0]
    assert isinstance(whole, ResponseFunctionToolCall)
    events = list(tools_client.responses.create(**CALLING, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert len(pieces) > 1
    assert "".join(pieces) == whole.arguments
    types = [event.type for event in events]
    assert types[2] == "response.output_item.added"
    assert types[-3:] == [
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_a_response_follows_a_schema(tools_client: OpenAI) -> None:
    response = tools_client.responses.create(
        model="tools",
        input="Where to?",
        text={"format": {"type": "json_schema", "name": "place", "schema": PLACE, "strict": True}},
        max_output_tokens=60,
    )
    assert json.loads(response.output_text)["city"] in ("Rome", "Oslo")


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"input": "word " * 3000}, "input"),
    ],
)
def test_what_cannot_be_done_is_named(tools_client: OpenAI, wrong: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        tools_client.responses.create(**{"model": "tools", "input": "Hi", **wrong})
    assert caught.value.param == param
