"""`/v1/responses`: one turn, with everything before it in the request, as nothing is kept here. PURE."""

from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from agent_daemon.contract.release import ServedModel
from agent_daemon.gateway.requests import answer_format
from agent_daemon.gateway.requests.answer_format import TextFormat
from agent_daemon.gateway.requests.body import Form, never, refuse
from agent_daemon.gateway.requests.items import Item
from agent_daemon.gateway.requests.items import conversation as turns
from agent_daemon.gateway.requests.sampling_fields import SamplingFields, Switch
from agent_daemon.gateway.requests.tools import FlatChoice, FlatTools, Mode, Tools, choose, not_both
from agent_daemon.manner import with_manner
from agent_daemon.worker_messages import Constraint, Generate

_NothingKept = Annotated[None, never("nothing is kept on this device; send the whole conversation as input")]


def _now(background: Any) -> Any:
    if background:
        refuse("answers are not made in the background; leave it out, or stream")
    return background


class TextOptions(Form):
    format: TextFormat | None = None


class ResponsesBody(SamplingFields):
    """Input is a text or a list of items. What would need a memory of earlier responses is refused."""

    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = None
    tools: FlatTools | None = None
    tool_choice: Mode | FlatChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    stream: Switch = False
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    store: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None
    previous_response_id: _NothingKept = None
    conversation: _NothingKept = None
    prompt: _NothingKept = None
    background: Annotated[Literal[False] | None, BeforeValidator(_now)] = None
    top_logprobs: Literal[0] | None = None

    def check(self) -> None:
        not_both(self.called, self.constraint, "text.format")

    @cached_property
    def called(self) -> Tools:
        return choose([tool.wrapped() for tool in self.tools or ()], self.tool_choice)

    @cached_property
    def constraint(self) -> Constraint | None:
        return answer_format.of_response(self.text.format if self.text else None)

    def generate(self, model: ServedModel) -> Generate:
        """The worker's request. Instructions go ahead of everything, and stand for the manifest's prompt."""
        messages = turns(self.input)
        if self.instructions:
            messages = ({"role": "system", "content": self.instructions}, *messages)
        return Generate(
            id=0,
            messages=with_manner(messages, model.system_prompt),
            tools=self.called.tools,
            tool_choice=self.called.choice,
            parallel_tool_calls=self.parallel_tool_calls is not False,
            constraint=self.constraint,
            sampling=self.sampling(model.sampling),
            logit_bias=self.bias(),
            max_tokens=self.max_output_tokens or model.sampling.max_tokens,
        )

    def echo(self, model: ServedModel) -> dict[str, Any]:
        """What a response repeats of its request, with the settings that were in force."""
        sampling = self.sampling(model.sampling)
        choice = self.tool_choice or "auto"
        format_ = self.text.format if self.text and self.text.format else TextFormat()
        return {
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata or {},
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "background": False,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "text": {"format": format_.model_dump(by_alias=True, exclude_none=True)},
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": [
                {"parameters": None, "strict": None, **tool.model_dump(exclude_unset=True)}
                for tool in self.tools or ()
            ],
            "truncation": self.truncation or "disabled",
            "user": self.user,
        }
