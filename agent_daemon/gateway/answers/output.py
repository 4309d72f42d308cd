"""The items that a response's output consists of. PURE."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from agent_daemon.gateway.answers.answer import Call

Status = Literal["in_progress", "completed", "incomplete"]


@dataclass
class MessageItem:
    """Text. What the worker wrote itself is `written`, what was written here is in `parts`."""

    identity: str
    index: int
    parts: list[str] = field(default_factory=list)
    written: list[bytes] = field(default_factory=list)
    status: Status = "in_progress"

    @property
    def text(self) -> str:
        """All of it: events are read back only here, once, at the end."""
        return "".join([*texts(b"".join(self.written)), *self.parts])

    def close(self, status: Status) -> None:
        """Nothing more comes."""
        self.parts, self.written = [self.text], []
        self.status = status

    def place(self) -> dict[str, Any]:
        """Where the text is, as every event about it says."""
        return {"item_id": self.identity, "output_index": self.index, "content_index": 0}

    def part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def body(self) -> dict[str, Any]:
        content = [] if self.status == "in_progress" else [self.part(self.text)]
        fields = {"id": self.identity, "type": "message", "status": self.status}
        return {**fields, "role": "assistant", "content": content}


@dataclass
class CallItem:
    """A call of a function."""

    identity: str
    index: int
    call: Call
    status: Status = "in_progress"

    def close(self, status: Status) -> None:
        """Nothing more comes."""
        self.status = status

    def body(self) -> dict[str, Any]:
        fields = {"id": self.identity, "type": "function_call", "status": self.status}
        called = {"call_id": self.call.identity, "name": self.call.name, "arguments": self.call.arguments}
        return {**fields, **called}


def texts(data: bytes) -> list[str]:
    """The pieces of text in the events that a worker wrote by a frame."""
    lines = (line for line in data.split(b"\n") if line.startswith(b"data: "))
    return [json.loads(line[len(b"data: ") :])["delta"] for line in lines]
