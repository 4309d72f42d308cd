"""What an endpoint's answer has to be able to do, and what has been said of one so far. PURE."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent_daemon.gateway.errors import ApiError
from agent_daemon.worker_messages import Done, Event, Frame, Text, TokenLogprob, ToolCall


@dataclass
class Call:
    """A call that the model made: `arguments` is JSON text, as far as it has come."""

    identity: str
    name: str
    arguments: str = ""


@dataclass
class Said:
    """An answer as it is collected from a worker's events."""

    parts: list[str] = field(default_factory=list)
    calls: dict[int, Call] = field(default_factory=dict)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def add(self, event: Event) -> None:
        if isinstance(event, Text):
            self.parts.append(event.text)
            self.logprobs.extend(event.logprobs)
        elif isinstance(event, ToolCall):
            call = self.calls.setdefault(event.index, Call(event.call or "", event.name or ""))
            call.arguments += event.arguments

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def called(self) -> Iterable[Call]:
        """The calls in their order."""
        return (self.calls[index] for index in sorted(self.calls))


class Answer(Protocol):
    """One answer of one endpoint. A stream is `begin`, any number of `chunk` and `more`, then `end` or `failed`."""

    @property
    def frame(self) -> Frame:
        """How the worker writes a piece of text."""
        ...

    def begin(self) -> bytes: ...

    def chunk(self, data: bytes) -> bytes:
        """What to send for events that the worker wrote by `frame`."""
        ...

    def more(self, event: Text | ToolCall) -> bytes: ...

    def end(self, done: Done) -> bytes: ...

    def failed(self, error: ApiError) -> bytes:
        """The end of a stream that cannot go on."""
        ...

    def whole(self, said: Said, done: Done) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        ...
