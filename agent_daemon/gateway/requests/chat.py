"""`/v1/chat/completions`. PURE."""

from functools import cached_property
from typing import Annotated

from pydantic import Field, field_validator

from agent_daemon.contract.release import ServedModel
from agent_daemon.gateway.errors import invalid
from agent_daemon.gateway.requests import answer_format
from agent_daemon.gateway.requests.answer_format import ResponseFormat
from agent_daemon.gateway.requests.body import Json, never, refuse
from agent_daemon.gateway.requests.messages import Message
from agent_daemon.gateway.requests.sampling_fields import GenerationFields
from agent_daemon.gateway.requests.tools import ChatChoice, ChatTools, Mode, Tools, choose, not_both
from agent_daemon.manner import with_manner
from agent_daemon.worker_messages import Constraint, Generate

_OF_THE_GATEWAY = frozenset({"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"})

_Replaced = Annotated[None, never("it was replaced by tools and tool_choice; use those")]


class ChatBody(GenerationFields):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: ChatTools | None = None
    tool_choice: Mode | ChatChoice | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: Json | None = None
    functions: _Replaced = None
    function_call: _Replaced = None

    @field_validator("chat_template_kwargs")
    @classmethod
    def _free_names(cls, value: Json | None) -> Json | None:
        if taken := sorted(_OF_THE_GATEWAY & (value or {}).keys()):
            refuse(f"{taken[0]} cannot be set there")
        return value

    def check(self) -> None:
        if self.top_logprobs and not self.logprobs:
            raise invalid("top_logprobs: logprobs has to be true for it", "top_logprobs")
        not_both(self.called, self.constraint, "response_format" if self.grammar is None else "grammar")

    @cached_property
    def called(self) -> Tools:
        return choose(self.tools, self.tool_choice)

    @cached_property
    def constraint(self) -> Constraint | None:
        return answer_format.of_chat(self.response_format, self.grammar)

    def generate(self, model: ServedModel) -> Generate:
        """The worker's request, with the manifest's system prompt where the client sent none."""
        return Generate(
            id=0,
            messages=with_manner((message.plain() for message in self.messages), model.system_prompt),
            tools=self.called.tools,
            tool_choice=self.called.choice,
            parallel_tool_calls=self.parallel_tool_calls is not False,
            template_arguments=self.chat_template_kwargs or {},
            constraint=self.constraint,
            sampling=self.sampling(model.sampling),
            logit_bias=self.bias(),
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            max_tokens=self.max_completion_tokens or self.max_tokens or model.sampling.max_tokens,
            stop=self.stops(),
        )
