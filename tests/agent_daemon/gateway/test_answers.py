"""From what a worker says to the bodies that clients read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent_daemon.contract.release import Adapter
from agent_daemon.gateway.answers.answer import Answer, Said
from agent_daemon.gateway.answers.chat import ChatAnswer
from agent_daemon.gateway.answers.completions import CompletionAnswer
from agent_daemon.gateway.answers.embeddings import embeddings
from agent_daemon.gateway.answers.heading import Heading
from agent_daemon.gateway.answers.listing import models, tokens
from agent_daemon.gateway.errors import unavailable
from agent_daemon.worker_messages import Done, Frame, Text, TokenLogprob, Tokens, ToolCall, Vectors
from tests.support.inventory_messages import device_release

HEADING = Heading("assistant:legal", "r3-abc", identity="1f", created=1700000000)
DONE = Done(
    id=1,
    finish_reason="stop",
    prompt_tokens=20,
    completion_tokens=3,
    cached_tokens=16,
    seconds=0.5,
    first=0.1,
)
USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 3,
    "total_tokens": 23,
    "prompt_tokens_details": {"cached_tokens": 16},
}
TOKEN = TokenLogprob(
    token="é",
    bytes_=(195, 169),
    logprob=-0.5,
    top=(
        TokenLogprob(token="é", bytes_=(195, 169), logprob=-0.5),
        TokenLogprob(token="�", bytes_=(195,), logprob=-20000),
    ),
)
CALLS = (
    ToolCall(id=1, index=0, call="c0", name="weather"),
    ToolCall(id=1, index=0, arguments='{"city":'),
    ToolCall(id=1, index=0, arguments='"Rome"}'),
    ToolCall(id=1, index=1, call="c1", name="clock", arguments="{}"),
)


def chat(**more: bool) -> ChatAnswer:
    return ChatAnswer(HEADING, **{"likely": False, "wants_usage": False, **more})


def completion(**more: bool) -> CompletionAnswer:
    return CompletionAnswer(HEADING, **{"likely": False, "wants_usage": False, **more})


def said(*events: Text | ToolCall) -> Said:
    all_of_it = Said()
    for event in events:
        all_of_it.add(event)
    return all_of_it


def text(content: str, *logprobs: TokenLogprob) -> Text:
    return Text(id=1, text=content, tokens=1, logprobs=logprobs)


def bodies(stream: bytes) -> list[Any]:
    """The data of every event; `[DONE]` as it is."""
    blocks = stream.decode().split("\n\n")
    assert blocks.pop() == ""
    data = [block.removeprefix("data: ") for block in blocks]
    return [each if each == "[DONE]" else json.loads(each) for each in data]


def written(frame: Frame, content: str) -> bytes:
    """What a worker makes of a piece of text."""
    return f"{frame.head}{json.dumps(content, ensure_ascii=False)}{frame.tail}".encode()


# -- chats -----------------------------------------------------------------------------------------------


def test_a_whole_chat() -> None:
    assert chat().whole(said(text("Hé"), text("llo")), DONE) == {
        "id": "chatcmpl-1f",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "assistant:legal",
        "system_fingerprint": "r3-abc",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Héllo", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


def test_a_whole_chat_with_calls() -> None:
    done = replace(DONE, finish_reason="tool_calls")
    (choice,) = chat().whole(said(*CALLS), done)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            {"id": "c0", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
            {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}},
        ],
    }
    spoken = chat().whole(said(text("Let me see."), *CALLS), done)["choices"][0]["message"]
    assert spoken["content"] == "Let me see."


def test_logprobs_of_a_chat() -> None:
    token = {"token": "é", "logprob": -0.5, "bytes": [195, 169]}
    expected = {
        "content": [{**token, "top_logprobs": [token, {"token": "�", "logprob": -9999.0, "bytes": [195]}]}],
        "refusal": None,
    }
    whole = chat(likely=True).whole(said(text("é", TOKEN)), DONE)
    assert whole["choices"][0]["logprobs"] == expected
    (chunk,) = bodies(chat(likely=True).more(text("é", TOKEN)))
    assert chunk["choices"][0] == {
        "index": 0,
        "delta": {"content": "é"},
        "logprobs": expected,
        "finish_reason": None,
    }


def test_a_streamed_chat_with_calls_and_usage() -> None:
    answer = chat(wants_usage=True)
    stream = answer.begin() + b"".join(answer.more(each) for each in (text("Hm"), text(""), *CALLS))
    *chunks, usage, end = bodies(stream + answer.end(replace(DONE, finish_reason="tool_calls")))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "Hm"},
        {
            "tool_calls": [
                {
                    "index": 0,
                    "id": "c0",
                    "type": "function",
                    "function": {"name": "weather", "arguments": ""},
                }
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Rome"}'}}]},
        {
            "tool_calls": [
                {"index": 1, "id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
            ]
        },
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 6 + ["tool_calls"]
    assert {chunk["usage"] for chunk in chunks} == {None}
    assert (usage["choices"], usage["usage"], end) == ([], USAGE, "[DONE]")


def test_a_stream_that_did_not_ask_for_usage_says_nothing_of_it() -> None:
    for answer in (chat(), completion()):
        finish, end = bodies(answer.end(DONE))
        assert "usage" not in finish
        assert (finish["choices"][0]["finish_reason"], end) == ("stop", "[DONE]")


@pytest.mark.parametrize(
    "answer", [chat(), completion(), chat(wants_usage=True), completion(wants_usage=True)]
)
@given(content=st.text(min_size=1))
def test_what_a_worker_writes_is_what_would_be_written_here(answer: Answer, content: str) -> None:
    stream = written(answer.frame, content)
    assert answer.chunk(stream) == stream
    assert bodies(stream) == bodies(answer.more(text(content)))


def test_a_stream_that_cannot_go_on_ends_with_an_error_in_openais_shape() -> None:
    error = unavailable("m", "it ended")
    for answer in (chat(), completion()):
        assert bodies(answer.failed(error)) == [error.body]


# -- completions -----------------------------------------------------------------------------------------


def test_a_whole_completion_with_the_old_shape_of_logprobs() -> None:
    events = (text("é", TOKEN), text("é", TOKEN))
    whole = completion(likely=True).whole(said(*events), DONE)
    assert (whole["id"], whole["object"], whole["usage"]) == ("cmpl-1f", "text_completion", USAGE)
    top = {"é": -0.5, "�": -9999.0}
    logprobs = {
        "tokens": ["é", "é"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [top, top],
        "text_offset": [0, 1],
    }
    assert whole["choices"] == [{"index": 0, "text": "éé", "logprobs": logprobs, "finish_reason": "stop"}]
    streamed = completion(likely=True)
    chunks = [bodies(streamed.more(each))[0]["choices"][0] for each in events]
    assert [chunk["logprobs"]["text_offset"] for chunk in chunks] == [[0], [1]]
    assert completion().begin() == b""


# -- the rest --------------------------------------------------------------------------------------------


def test_vectors_as_numbers_and_as_base64() -> None:
    answer = Vectors(id=1, vectors=((1.0, -0.5), (0.0, 2.0)), prompt_tokens=7)
    listed = embeddings("vectors", answer, "float")
    assert listed["data"][1] == {"object": "embedding", "index": 1, "embedding": [0.0, 2.0]}
    assert listed["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    packed = embeddings("vectors", answer, "base64")["data"]
    assert [each["embedding"] for each in packed] == ["AACAPwAAAL8=", "AAAAAAAAAEA="]


def test_tokens_with_and_without_their_pieces() -> None:
    answer = Tokens(id=1, tokens=(5, 9), pieces=("He", "y"))
    assert tokens(answer, with_pieces=False) == {"tokens": [5, 9]}
    assert tokens(answer, with_pieces=True) == {"tokens": [{"id": 5, "piece": "He"}, {"id": 9, "piece": "y"}]}


def test_adapters_are_listed_behind_their_model() -> None:
    model = device_release().models[0]
    legal = Adapter(name="legal", artifact=model.artifact)
    served = model.model_copy(update={"name": "assistant", "adapters": (legal,)})
    both = {"object": "model", "created": 5, "owned_by": "edgectl", "root": "assistant"}
    assert models([served], 5) == [
        {"id": "assistant", **both, "parent": None},
        {"id": "assistant:legal", **both, "parent": "assistant"},
    ]
