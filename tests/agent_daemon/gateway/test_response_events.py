"""The events of a streamed response: their order, their numbers, and that they add up to the whole."""

import json
from typing import Any

import pytest

from agent_daemon.gateway.answers.answer import Said
from agent_daemon.gateway.answers.heading import Heading
from agent_daemon.gateway.answers.responses import ResponsesAnswer
from agent_daemon.gateway.errors import unavailable
from agent_daemon.worker_messages import Done, FinishReason, Frame, Text, ToolCall

HEADING = Heading("assistant", "r3-abc", identity="1f", created=1700000000)
ECHO = {"instructions": "Be brief.", "store": False}
CREATED = ["response.created", "response.in_progress"]
OPENED = ["response.output_item.added", "response.content_part.added"]
DELTA = "response.output_text.delta"
CLOSED = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
CALLING = ["response.output_item.added", "response.function_call_arguments.delta"]
CALLED = ["response.function_call_arguments.done", "response.output_item.done"]
CALL = (
    ToolCall(id=1, index=0, call="c0", name="clock"),
    ToolCall(id=1, index=0, arguments="{}"),
)


def answer() -> ResponsesAnswer:
    return ResponsesAnswer(HEADING, ECHO)


def done(reason: FinishReason = "stop") -> Done:
    return Done(
        id=1, finish_reason=reason, prompt_tokens=20, completion_tokens=3, cached_tokens=16, seconds=0.5
    )


class Writing:
    """The worker's side of a stream: numbers its events on, whatever else is sent in between."""

    def __init__(self, frame: Frame) -> None:
        assert frame.number is not None
        self.frame, self.number = frame, frame.number

    def write(self, text: str) -> bytes:
        quoted = json.dumps(text, ensure_ascii=False)
        written = f"{self.frame.head}{self.number}{self.frame.middle}{quoted}{self.frame.tail}"
        self.number += 1
        return written.encode()


def stream(*pieces: str | ToolCall, reason: FinishReason = "stop") -> list[dict[str, Any]]:
    """Every event of a stream in which the worker says these pieces. Each is checked to name itself."""
    said, events = answer(), []
    worker = Writing(said.frame)
    sent = said.begin()
    for piece in pieces:
        sent += said.chunk(worker.write(piece)) if isinstance(piece, str) else said.more(piece)
    sent += said.end(done(reason))
    for block in sent.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def whole(*pieces: str | ToolCall, reason: FinishReason = "stop") -> dict[str, Any]:
    said = Said()
    for piece in pieces:
        said.add(Text(id=1, text=piece, tokens=1) if isinstance(piece, str) else piece)
    return answer().whole(said, done(reason))


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


# -- a text ----------------------------------------------------------------------------------------------


def test_a_text_is_streamed_in_openais_order() -> None:
    events = stream("Hé", ' "llo"\n\ndata: x')
    assert types(events) == [*CREATED, *OPENED, DELTA, DELTA, *CLOSED, "response.completed"]
    assert [event["delta"] for event in events[4:6]] == ["Hé", ' "llo"\n\ndata: x']
    place = {"item_id": "msg_1f00", "output_index": 0, "content_index": 0}
    assert all(event.items() >= place.items() for event in events[3:8])
    assert events[6]["text"] == 'Hé "llo"\n\ndata: x'
    assert events[2]["item"] == {
        "id": "msg_1f00",
        "type": "message",
        "status": "in_progress",
        "role": "assistant",
        "content": [],
    }


def test_a_whole_response() -> None:
    assert whole("Hé", "llo") == {
        "id": "resp_1f",
        "object": "response",
        "created_at": 1700000000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "assistant",
        "output": [
            {
                "id": "msg_1f00",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Héllo", "annotations": [], "logprobs": []}],
            }
        ],
        "instructions": "Be brief.",
        "store": False,
        "usage": {
            "input_tokens": 20,
            "input_tokens_details": {"cached_tokens": 16},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 23,
        },
    }


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        ("a",),
        ("a", "b"),
        CALL,
        ("a", *CALL),
        (*CALL, ToolCall(id=1, index=1, call="c1", name="weather", arguments='{"a":1}')),
    ],
)
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_stream_counts_from_zero_without_a_gap_and_ends_with_the_whole(
    pieces: tuple[str | ToolCall, ...], reason: FinishReason
) -> None:
    events = stream(*pieces, reason=reason)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["response"] == whole(*pieces, reason=reason)
    finished = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert finished == events[-1]["response"]["output"]


def test_an_answer_that_was_cut_is_incomplete() -> None:
    events = stream("a", reason="length")
    assert events[-1]["type"] == "response.incomplete"
    response = events[-1]["response"]
    assert (response["status"], response["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )
    assert response["output"][0]["status"] == "incomplete"


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    events = stream()
    assert types(events) == [*CREATED, *OPENED, *CLOSED, "response.completed"]
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == ""


# -- calls -----------------------------------------------------------------------------------------------


def test_a_call_needs_no_message() -> None:
    events = stream(*CALL, reason="tool_calls")
    assert types(events) == [*CREATED, *CALLING, *CALLED, "response.completed"]
    assert events[2]["item"] == {
        "id": "fc_1f00",
        "type": "function_call",
        "status": "in_progress",
        "call_id": "c0",
        "name": "clock",
        "arguments": "",
    }
    assert (events[3]["item_id"], events[3]["delta"]) == ("fc_1f00", "{}")
    assert (events[4]["name"], events[4]["arguments"]) == ("clock", "{}")


def test_text_before_and_behind_a_call_are_two_messages_numbered_on() -> None:
    events = stream("a", *CALL, "b", "c")
    assert types(events) == [
        *(*CREATED, *OPENED, DELTA, *CLOSED),
        *(*CALLING, *CALLED),
        *(*OPENED, DELTA, DELTA, *CLOSED, "response.completed"),
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    deltas = [event for event in events if event["type"] == DELTA]
    assert [(each["delta"], each["output_index"], each["item_id"]) for each in deltas] == [
        ("a", 0, "msg_1f00"),
        ("b", 2, "msg_1f02"),
        ("c", 2, "msg_1f02"),
    ]
    texts = [item["content"][0]["text"] for item in events[-1]["response"]["output"] if "content" in item]
    assert texts == ["a", "bc"]


def test_a_stream_that_cannot_go_on_fails_with_what_it_had() -> None:
    said = answer()
    said.begin()
    said.chunk(Writing(said.frame).write("Hal"))
    name, data = said.failed(unavailable("assistant", "it ended")).decode().strip().split("\n")
    event = json.loads(data.removeprefix("data: "))
    assert (name, event["sequence_number"]) == ("event: response.failed", 5)
    response = event["response"]
    assert response["status"] == "failed"
    assert response["error"] == {
        "code": "server_error",
        "message": "assistant cannot answer at this moment: it ended",
    }
    assert response["output"][0]["content"][0]["text"] == "Hal"
