"""Tools and forced formats through the official client, against a real agent. The model is too small to know what
it does: what it says is held by the grammar, and what is tested is that it arrives."""

import json
import re
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from tests.support.agent import AgentProcess

pytestmark = pytest.mark.engine

ASK: list[Any] = [{"role": "user", "content": "What is the weather in Rome?"}]
CLEAR: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
"""What the model is sure to answer: two ways of computing the same sum may differ in its last digits."""
PLACE = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "enum": ["Rome", "Oslo"]},
        "unit": {"type": "string", "enum": ["celsius"]},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "Now.", "parameters": PLACE},
}
CLOCK: Any = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
}
ASKED: dict[str, Any] = {
    "model": "tools",
    "messages": ASK,
    "tools": [WEATHER],
    "max_tokens": 100,
    "temperature": 0,
}


def place_of(arguments: str) -> dict[str, Any]:
    place: dict[str, Any] = json.loads(arguments)
    assert set(place) == {"city", "unit"}
    assert (place["city"] in ("Rome", "Oslo"), place["unit"]) == (True, "celsius")
    return place


def test_a_required_call_is_made_with_arguments_by_the_schema(tools_client: OpenAI) -> None:
    answer = tools_client.chat.completions.create(**ASKED, tool_choice="required", parallel_tool_calls=False)
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls or ()
    assert call.type == "function"
    assert call.function.name == "weather"
    assert call.id
    place_of(call.function.arguments)


def test_a_streamed_call_adds_up_to_the_whole_one(tools_client: OpenAI) -> None:
    asked = {**ASKED, "tool_choice": "required", "parallel_tool_calls": False}
    whole = tools_client.chat.completions.create(**asked).choices[0].message
    stream = tools_client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    chunks: list[ChatCompletionChunk] = list(stream)
    deltas = [call for chunk in chunks if chunk.choices for call in chunk.choices[0].delta.tool_calls or ()]
    first, *rest = deltas
    assert first.id
    assert first.function is not None
    assert (first.index, first.type, first.function.name) == (0, "function", "weather")
    assert all((each.index, each.id, each.type) == (0, None, None) for each in rest)
    assert len(rest) > 1
    arguments = "".join(each.function.arguments or "" for each in deltas if each.function)
    assert whole.tool_calls is not None
    assert arguments == whole.tool_calls[0].function.arguments
    assert chunks[-2].choices[0].finish_reason == "tool_calls"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 5


def test_a_named_tool_is_the_one_that_is_called(tools_client: OpenAI) -> None:
    answer = tools_client.chat.completions.create(
        **{**ASKED, "tools": [WEATHER, CLOCK]},
        tool_choice={"type": "function", "function": {"name": "clock"}},
        parallel_tool_calls=False,
    )
    (call,) = answer.choices[0].message.tool_calls or ()
    assert (call.function.name, json.loads(call.function.arguments)) == ("clock", {})


def test_a_result_goes_back_and_is_answered_in_text(tools_client: OpenAI) -> None:
    first = tools_client.chat.completions.create(**ASKED, tool_choice="required", parallel_tool_calls=False)
    message = first.choices[0].message
    assert message.tool_calls
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny, 25 degrees"}
    second = tools_client.chat.completions.create(
        **{**ASKED, "messages": [*ASK, message, result]}, tool_choice="none"
    )
    assert second.choices[0].message.tool_calls is None
    assert second.choices[0].message.content
    # The turn before is a prefix of this one: it is not computed anew.
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None


def test_tools_are_refused_by_a_model_whose_template_would_leave_them_out(served_agent: AgentProcess) -> None:
    status, answer = served_agent.chat(tools=[WEATHER])
    assert (status, answer["error"]["param"], answer["error"]["message"]) == (
        400,
        "tools",
        "tools: this model's chat template declares no tools",
    )
    assert served_agent.chat(tools=[WEATHER], tool_choice="none")[0] == 200


# -- formats ---------------------------------------------------------------------------------------------


class Trip(BaseModel):
    city: str
    nights: int


def test_an_answer_follows_a_schema_and_is_parsed_by_the_client(tools_client: OpenAI) -> None:
    schema = Trip.model_json_schema()
    schema["properties"]["city"]["maxLength"] = 20
    schema["properties"]["nights"].update(minimum=1, maximum=9)
    asked: dict[str, Any] = {
        "model": "tools",
        "messages": ASK,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "trip", "schema": schema, "strict": True},
        },
        "max_tokens": 100,
    }
    whole = tools_client.chat.completions.create(**asked).choices[0]
    assert whole.finish_reason == "stop"
    trip = Trip.model_validate_json(whole.message.content or "")
    assert 1 <= trip.nights <= 9
    chunks = tools_client.chat.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content


def test_an_answer_follows_a_grammar(tools_client: OpenAI) -> None:
    answer = tools_client.chat.completions.create(
        model="tools", messages=ASK, extra_body={"grammar": 'root ::= "yes" | "no"'}
    )
    assert answer.choices[0].message.content in ("yes", "no")
    text = tools_client.completions.create(
        model="tools", prompt="Is it?", extra_body={"grammar": "root ::= [0-9]{3}"}
    )
    assert re.fullmatch("[0-9]{3}", text.choices[0].text)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"extra_body": {"grammar": "root ::= ("}}, "grammar"),
        ({"extra_body": {"grammar": 'x ::= "a"'}}, "grammar"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "cow"}},
                }
            },
            "response_format",
        ),
    ],
)
def test_a_format_that_cannot_be_followed_is_refused(tools_client: OpenAI, wrong: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        tools_client.chat.completions.create(model="tools", messages=ASK, **wrong)
    assert (caught.value.param or "").startswith(param)


# -- what was likely -------------------------------------------------------------------------------------


def test_logprobs_of_a_chat_whole_and_streamed(tools_client: OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "tools",
        "messages": CLEAR,
        "max_tokens": 6,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 3,
    }
    whole = tools_client.chat.completions.create(**asked).choices[0]
    assert whole.logprobs is not None
    tokens = whole.logprobs.content or []
    assert len(tokens) == 6
    for token in tokens:
        assert bytes(token.bytes or []).decode(errors="replace") == token.token
        assert len(token.top_logprobs) == 3
        # At temperature 0 the chosen token is the likeliest.
        assert token.top_logprobs[0].token == token.token
        assert token.top_logprobs[0].logprob == token.logprob <= 0
    assert "".join(token.token for token in tokens) == whole.message.content
    chunks = list(tools_client.chat.completions.create(**asked, stream=True))
    streamed = [
        token.token
        for chunk in chunks
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content or []
    ]
    assert streamed == [token.token for token in tokens]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content


def test_logprobs_of_a_completion_have_the_old_shape(tools_client: OpenAI) -> None:
    answer = tools_client.completions.create(
        model="tools", prompt="1 2 3 4", max_tokens=4, temperature=0, logprobs=2
    )
    (choice,) = answer.choices
    assert choice.logprobs is not None
    assert "".join(choice.logprobs.tokens or []) == choice.text
    assert [len(top) for top in choice.logprobs.top_logprobs or []] == [2] * 4
    lengths = [len(token) for token in choice.logprobs.tokens or []]
    assert choice.logprobs.text_offset == [sum(lengths[:count]) for count in range(4)]


def test_a_bias_rules_tokens_out(tools_client: OpenAI, tools_agent: AgentProcess) -> None:
    asked: dict[str, Any] = {"model": "tools", "prompt": "1 2 3 4", "max_tokens": 1, "temperature": 0}
    first = tools_client.completions.create(**asked, logprobs=1).choices[0]
    status, answer = tools_agent.ask("/tokenize", {"model": "tools", "content": first.text})
    assert status == 200
    (token,) = answer["tokens"]
    other = tools_client.completions.create(**asked, logit_bias={str(token): -100}).choices[0]
    assert other.text != first.text


# -- names, tokens, metrics ------------------------------------------------------------------------------


def test_an_adapter_is_a_model_of_its_own(tools_client: OpenAI) -> None:
    listed = {model.id: model for model in tools_client.models.list().data}
    assert list(listed) == ["tools", "tools:legal", "hasty", "hasty:legal", "small", "vectors"]
    adapter = tools_client.models.retrieve("tools:legal")
    assert (adapter.id, adapter.model_extra) == ("tools:legal", {"root": "tools", "parent": "tools"})
    asked: dict[str, Any] = {"messages": CLEAR, "max_tokens": 8, "temperature": 0}
    plain = tools_client.chat.completions.create(model="tools", **asked)
    legal = tools_client.chat.completions.create(model="tools:legal", **asked)
    assert legal.model == "tools:legal"
    assert legal.choices[0].message.content != plain.choices[0].message.content


def test_tokens_are_those_that_prompts_are_made_of(tools_client: OpenAI, tools_agent: AgentProcess) -> None:
    status, answer = tools_agent.ask("/tokenize", {"model": "tools", "content": "Hi!", "with_pieces": True})
    assert status == 200
    assert "".join(each["piece"] for each in answer["tokens"]) == "Hi!"
    ids = [each["id"] for each in answer["tokens"]]
    assert tools_agent.ask("/v1/tokenize", {"model": "tools", "content": "Hi!"}) == (200, {"tokens": ids})
    _, chat = tools_agent.ask("/v1/tokenize", {"model": "tools", "messages": ASK, "tools": [WEATHER]})
    answered = tools_client.chat.completions.create(
        model="tools", messages=ASK, tools=[WEATHER], max_tokens=1, temperature=0
    )
    assert answered.usage is not None
    assert len(chat["tokens"]) == answered.usage.prompt_tokens
    by_ids = tools_client.completions.create(model="tools", prompt=ids, max_tokens=3, temperature=0)
    by_text = tools_client.completions.create(model="tools", prompt="Hi!", max_tokens=3, temperature=0)
    assert by_ids.choices[0].text == by_text.choices[0].text


def test_tokens_need_a_model_where_there_are_several(tools_agent: AgentProcess) -> None:
    status, answer = tools_agent.ask("/tokenize", {"content": "Hi!"})
    assert (status, answer["error"]["param"]) == (400, "model")


def test_vectors_of_token_ids_are_those_of_their_text(
    tools_client: OpenAI, tools_agent: AgentProcess
) -> None:
    body = {"model": "tools", "content": "A cat sleeps.", "add_special": True}
    ids = tools_agent.ask("/tokenize", body)[1]["tokens"]
    by_text = tools_client.embeddings.create(model="vectors", input="A cat sleeps.", dimensions=576)
    by_ids = tools_client.embeddings.create(model="vectors", input=[ids])
    assert by_ids.data[0].embedding == pytest.approx(by_text.data[0].embedding, abs=1e-4)
    with pytest.raises(openai.BadRequestError, match="this model's vectors have 576"):
        tools_client.embeddings.create(model="vectors", input="x", dimensions=64)


# -- time ------------------------------------------------------------------------------------------------

LONG: dict[str, Any] = {"model": "hasty", "prompt": "1 2 3 4 5 6 7 8", "max_tokens": 2000, "temperature": 0}


def test_a_request_that_takes_too_long_is_ended_and_its_client_told(tools_client: OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        tools_client.completions.create(**LONG)
    assert (caught.value.status_code, caught.value.code) == (504, "timeout")
    assert "hasty did not finish this request within 0.5 s" in caught.value.message
    with pytest.raises(openai.APIError) as streamed:
        list(tools_client.completions.create(**LONG, stream=True))
    assert streamed.value.code == "timeout"
    endless = {"logit_bias": {"0": -100, "2": -100}}
    *_, last = tools_client.responses.create(
        model="hasty", input="Count.", stream=True, max_output_tokens=2000, extra_body=endless
    )
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert "within 0.5 s" in last.response.error.message
