"""Answers of `/v1/chat/completions`. PURE."""

from functools import cached_property
from typing import Any

from agent_daemon.gateway.answers import logprobs
from agent_daemon.gateway.answers.answer import Call, Said
from agent_daemon.gateway.answers.events import END, event, framed, text_gap, usage
from agent_daemon.gateway.answers.heading import Heading
from agent_daemon.gateway.errors import ApiError
from agent_daemon.worker_messages import Done, Frame, Text, ToolCall


class ChatAnswer:
    """`likely`: whether its tokens' logprobs were asked for."""

    def __init__(self, heading: Heading, *, likely: bool, wants_usage: bool) -> None:
        self._whole = heading.fields("chatcmpl", "chat.completion")
        self._chunk = {**self._whole, "object": "chat.completion.chunk"}
        self._likely = likely
        self._wants_usage = wants_usage

    @cached_property
    def frame(self) -> Frame:
        return framed(self._body([_choice({"content": text_gap()})]))

    def begin(self) -> bytes:
        return event(self._body([_choice({"role": "assistant", "content": ""})]))

    def chunk(self, data: bytes) -> bytes:
        return data

    def more(self, event_: Text | ToolCall) -> bytes:
        if isinstance(event_, ToolCall):
            return event(self._body([_choice({"tool_calls": [_delta(event_)]})]))
        if not event_.text and not event_.logprobs:
            return b""
        choice = _choice({"content": event_.text})
        if self._likely:
            choice["logprobs"] = logprobs.of_chat(event_.logprobs)
        return event(self._body([choice]))

    def end(self, done: Done) -> bytes:
        last = event(self._body([_choice({}, done.finish_reason)]))
        if self._wants_usage:
            last += event({**self._chunk, "choices": [], "usage": usage(done)})
        return last + END

    def failed(self, error: ApiError) -> bytes:
        return event(error.body)

    def whole(self, said: Said, done: Done) -> dict[str, Any]:
        calls = [_call(each) for each in said.called()]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if calls and not said.text else said.text,
            "refusal": None,
        }
        if calls:
            message["tool_calls"] = calls
        choice = {
            "index": 0,
            "message": message,
            "logprobs": logprobs.of_chat(said.logprobs) if self._likely else None,
            "finish_reason": done.finish_reason,
        }
        return {**self._whole, "choices": [choice], "usage": usage(done)}

    def _body(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        # OpenAI sends null in every chunk of a stream that ends with usage.
        body = {**self._chunk, "choices": choices}
        return {**body, "usage": None} if self._wants_usage else body


def _choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.identity, "type": "function", "function": function}


def _delta(call: ToolCall) -> dict[str, Any]:
    if call.name is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    return {"index": call.index, **_call(Call(call.call or "", call.name, call.arguments))}
