"""Answers of `/v1/responses`, whole and as the events of a stream. PURE."""

from functools import cached_property
from typing import Any

from agent_daemon.gateway.answers.answer import Call, Said
from agent_daemon.gateway.answers.events import event, framed, number_gap, text_gap
from agent_daemon.gateway.answers.heading import Heading
from agent_daemon.gateway.answers.output import CallItem, MessageItem, texts
from agent_daemon.gateway.errors import ApiError
from agent_daemon.worker_messages import Done, Frame, Text, ToolCall

_FIRST_DELTA = 4
"""Number of the first piece of text: created, in_progress, and what opens an item come before it."""


class ResponsesAnswer:
    """`echo` is what the answer repeats of its request.

    The worker numbers and writes the deltas of a message that comes first, which nearly all are; those of a text
    behind a call are written here. Items are kept, as their ends and the last event repeat them.
    """

    def __init__(self, heading: Heading, echo: dict[str, Any]) -> None:
        self._heading = heading
        self._echo = echo
        self._number = 0
        self._items: list[MessageItem | CallItem] = []
        self._open: MessageItem | CallItem | None = None

    @cached_property
    def frame(self) -> Frame:
        delta = self._delta(MessageItem(self._name("msg", 0), 0), text_gap(), number_gap())
        return framed(delta, delta["type"], _FIRST_DELTA)

    # -- a stream --------------------------------------------------------------------------------------

    def begin(self) -> bytes:
        response = self._response("in_progress", None)
        return self._say("response.created", response=response) + self._say(
            "response.in_progress", response=response
        )

    def chunk(self, data: bytes) -> bytes:
        message, opened = self._message()
        if message.index == 0:
            message.written.append(data)
            self._number += data.count(b"\n\n")
            return opened + data
        return opened + b"".join(self._text(message, each) for each in texts(data))

    def more(self, event_: Text | ToolCall) -> bytes:
        if isinstance(event_, ToolCall):
            return self._call(event_)
        if not event_.text:
            return b""
        message, opened = self._message()
        return opened + self._text(message, event_.text)

    def end(self, done: Done) -> bytes:
        opened = b"" if self._items else self._message()[1]
        closed = opened + self._finish(done.finish_reason)
        response = self._response(*_outcome(done), usage=_usage(done))
        return closed + self._say(f"response.{response['status']}", response=response)

    def failed(self, error: ApiError) -> bytes:
        if self._open is not None:
            self._open.close("incomplete")
        told = {"code": "server_error", "message": error.body["error"]["message"]}
        return self._say("response.failed", response=self._response("failed", None, error=told))

    def _message(self) -> tuple[MessageItem, bytes]:
        """The message that text belongs to, and the events that open it if it was not open."""
        if isinstance(self._open, MessageItem):
            return self._open, b""
        index = len(self._items)
        message = MessageItem(self._name("msg", index), index)
        return message, self._start(message)

    def _text(self, message: MessageItem, text: str) -> bytes:
        message.parts.append(text)
        delta = self._delta(message, text, self._number)
        self._number += 1
        return event(delta, delta["type"])

    def _call(self, more: ToolCall) -> bytes:
        said = b""
        if more.name is not None:
            index = len(self._items)
            said = self._start(CallItem(self._name("fc", index), index, Call(more.call or "", more.name)))
        call = self._open
        if not isinstance(call, CallItem) or not more.arguments:
            return said
        call.call.arguments += more.arguments
        return said + self._say(
            "response.function_call_arguments.delta",
            item_id=call.identity,
            output_index=call.index,
            delta=more.arguments,
        )

    def _start(self, item: MessageItem | CallItem) -> bytes:
        """Closes what is open and opens the next item."""
        said = self._finish("stop")
        self._items.append(item)
        self._open = item
        said += self._say("response.output_item.added", output_index=item.index, item=item.body())
        if isinstance(item, MessageItem):
            said += self._say("response.content_part.added", **item.place(), part=item.part(""))
        return said

    def _finish(self, reason: str) -> bytes:
        """The events that close the open item."""
        item, self._open = self._open, None
        if item is None:
            return b""
        item.close("incomplete" if reason == "length" else "completed")
        if isinstance(item, MessageItem):
            said = self._say("response.output_text.done", **item.place(), text=item.text, logprobs=[])
            said += self._say("response.content_part.done", **item.place(), part=item.part(item.text))
        else:
            said = self._say(
                "response.function_call_arguments.done",
                item_id=item.identity,
                output_index=item.index,
                name=item.call.name,
                arguments=item.call.arguments,
            )
        return said + self._say("response.output_item.done", output_index=item.index, item=item.body())

    def _say(self, type_: str, **fields: Any) -> bytes:
        said = event({"type": type_, "sequence_number": self._number, **fields}, type_)
        self._number += 1
        return said

    def _delta(self, message: MessageItem, text: str, number: int | str) -> dict[str, Any]:
        type_ = "response.output_text.delta"
        return {"type": type_, "sequence_number": number, **message.place(), "delta": text, "logprobs": []}

    # -- whole -----------------------------------------------------------------------------------------

    def whole(self, said: Said, done: Done) -> dict[str, Any]:
        calls = list(said.called())
        if said.text or not calls:
            self._items.append(MessageItem(self._name("msg", 0), 0, parts=[said.text]))
        for call in calls:
            self._items.append(CallItem(self._name("fc", len(self._items)), len(self._items), call))
        for item in self._items:
            cut = done.finish_reason == "length" and item is self._items[-1]
            item.close("incomplete" if cut else "completed")
        return self._response(*_outcome(done), usage=_usage(done))

    def _name(self, prefix: str, index: int) -> str:
        return f"{prefix}_{self._heading.identity}{index:02x}"

    def _response(
        self,
        status: str,
        incomplete: dict[str, str] | None,
        *,
        usage: dict[str, Any] | None = None,
        error: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        return {
            "id": f"resp_{self._heading.identity}",
            "object": "response",
            "created_at": self._heading.created,
            "status": status,
            "error": error,
            "incomplete_details": incomplete,
            "model": self._heading.model,
            "output": [item.body() for item in self._items],
            **self._echo,
            "usage": usage,
        }


def _outcome(done: Done) -> tuple[str, dict[str, str] | None]:
    if done.finish_reason == "length":
        return "incomplete", {"reason": "max_output_tokens"}
    return "completed", None


def _usage(done: Done) -> dict[str, Any]:
    return {
        "input_tokens": done.prompt_tokens,
        "input_tokens_details": {"cached_tokens": done.cached_tokens},
        "output_tokens": done.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": done.prompt_tokens + done.completion_tokens,
    }
