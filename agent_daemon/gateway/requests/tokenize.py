"""`/tokenize`: llama.cpp's shape, and chats as their template renders them. PURE."""

from functools import cached_property
from typing import Annotated

from pydantic import Field

from agent_daemon.contract.release import ServedModel
from agent_daemon.gateway.errors import invalid
from agent_daemon.gateway.requests.body import Form
from agent_daemon.gateway.requests.messages import Message
from agent_daemon.gateway.requests.tools import ChatTools, Tools, choose
from agent_daemon.manner import with_manner
from agent_daemon.worker_messages import Tokenize


class TokenizeBody(Form):
    """`model` may be left out where only one is served. Exactly one of `content` and `messages`."""

    model: Annotated[str, Field(max_length=256)] | None = None
    content: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    tools: ChatTools | None = None
    add_special: bool = False
    with_pieces: bool = False

    def check(self) -> None:
        if (self.content is None) == (self.messages is None):
            raise invalid("content: send either content or messages", "content")
        if self.tools and self.messages is None:
            raise invalid("tools: they belong to messages", "tools")
        _ = self.called

    @cached_property
    def called(self) -> Tools:
        return choose(self.tools, None)

    def tokenize(self, model: ServedModel) -> Tokenize:
        """The worker's request; a chat is counted as it would be answered."""
        if self.messages is None:
            return Tokenize(id=0, text=self.content, add_special=self.add_special)
        messages = with_manner((message.plain() for message in self.messages), model.system_prompt)
        return Tokenize(id=0, messages=messages, tools=self.called.tools)
