"""What an agent and its worker say to each other: one JSON object a line, over an inherited socket.

Both ends import this module, so that the supervisor never has to import the worker (and with it llama_cpp).
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from agent_daemon.contract.release import KvType, Sampling, Task


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def line(self) -> bytes:
        """This message as the bytes of one line."""
        return self.model_dump_json().encode() + b"\n"


# -- to the worker ---------------------------------------------------------------------------------------


class Load(_Message):
    """The first message: which model to hold, and how. A worker holds one model for its whole life."""

    op: Literal["load"] = "load"
    path: str
    task: Task
    context: int
    parallel: int
    kv_type: KvType
    gpu_layers: int
    threads: int


class Generate(_Message):
    """One completion. Exactly one of `messages` (chat, rendered by the model's own template) and `prompt`."""

    op: Literal["generate"] = "generate"
    id: int
    messages: tuple[dict[str, Any], ...] | None = None
    prompt: str | None = None
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    stop: tuple[str, ...] = ()


class Embed(_Message):
    op: Literal["embed"] = "embed"
    id: int
    inputs: tuple[str, ...]


class Cancel(_Message):
    """Ends a request at the next step; the worker answers with `Done(finish_reason="cancelled")`."""

    op: Literal["cancel"] = "cancel"
    id: int


Command = Annotated[Load | Generate | Embed | Cancel, Field(discriminator="op")]


# -- from the worker -------------------------------------------------------------------------------------


class Ready(_Message):
    """The model is loaded. `offloaded_layers` is what llama.cpp said that it did, never what it was asked."""

    ev: Literal["ready"] = "ready"
    offloaded_layers: int
    simulated_offload: bool = False
    ram_bytes: int
    ram_private_bytes: int


class Failed(_Message):
    """The model could not be loaded; the worker ends after this."""

    ev: Literal["failed"] = "failed"
    message: str


class Started(_Message):
    """The request has been tokenized and holds a sequence."""

    ev: Literal["started"] = "started"
    id: int
    prompt_tokens: int


class Text(_Message):
    """More of the answer. `tokens` counts all generated so far, those still held back included."""

    ev: Literal["text"] = "text"
    id: int
    text: str
    tokens: int


class Done(_Message):
    ev: Literal["done"] = "done"
    id: int
    finish_reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    """Time in which tokens were generated, the prompt's own time not included."""


class Vectors(_Message):
    ev: Literal["vectors"] = "vectors"
    id: int
    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int


class Refused(_Message):
    """A request that this worker cannot do, with the reason for the client. Nothing else is affected."""

    ev: Literal["refused"] = "refused"
    id: int
    code: Literal["context_length_exceeded", "invalid_prompt", "wrong_task", "engine"]
    message: str


Event = Annotated[Ready | Failed | Started | Text | Done | Vectors | Refused, Field(discriminator="ev")]

_commands: TypeAdapter[Command] = TypeAdapter(Command)
_events: TypeAdapter[Event] = TypeAdapter(Event)


def parse_command(line: bytes) -> Command:
    """The command on one line. Raises pydantic.ValidationError (a ValueError) when it is not one."""
    return _commands.validate_json(line)


def parse_event(line: bytes) -> Event:
    """The event on one line. Raises pydantic.ValidationError (a ValueError) when it is not one."""
    return _events.validate_json(line)
