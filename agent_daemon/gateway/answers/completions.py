"""Answers of `/v1/completions`. PURE."""

from functools import cached_property
from typing import Any

from agent_daemon.gateway.answers import logprobs
from agent_daemon.gateway.answers.answer import Said
from agent_daemon.gateway.answers.events import END, event, framed, text_gap, usage
from agent_daemon.gateway.answers.heading import Heading
from agent_daemon.gateway.errors import ApiError
from agent_daemon.worker_messages import Done, Frame, Text, ToolCall


class CompletionAnswer:
    """`likely`: whether its tokens' logprobs were asked for."""

    def __init__(self, heading: Heading, *, likely: bool, wants_usage: bool) -> None:
        self._fields = heading.fields("cmpl", "text_completion")
        self._likely = likely
        self._wants_usage = wants_usage
        self._offset = 0

    @cached_property
    def frame(self) -> Frame:
        return framed(self._body([_choice(text_gap())]))

    def begin(self) -> bytes:
        return b""

    def chunk(self, data: bytes) -> bytes:
        return data

    def more(self, event_: Text | ToolCall) -> bytes:
        if isinstance(event_, ToolCall) or (not event_.text and not event_.logprobs):
            return b""
        choice = _choice(event_.text)
        if self._likely:
            choice["logprobs"] = logprobs.of_completion(event_.logprobs, self._offset)
            self._offset += sum(len(each.token) for each in event_.logprobs)
        return event(self._body([choice]))

    def end(self, done: Done) -> bytes:
        last = event(self._body([_choice("", done.finish_reason)]))
        if self._wants_usage:
            last += event({**self._fields, "choices": [], "usage": usage(done)})
        return last + END

    def failed(self, error: ApiError) -> bytes:
        return event(error.body)

    def whole(self, said: Said, done: Done) -> dict[str, Any]:
        choice = _choice(said.text, done.finish_reason)
        if self._likely:
            choice["logprobs"] = logprobs.of_completion(said.logprobs, 0)
        return {**self._fields, "choices": [choice], "usage": usage(done)}

    def _body(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        body = {**self._fields, "choices": choices}
        return {**body, "usage": None} if self._wants_usage else body


def _choice(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
