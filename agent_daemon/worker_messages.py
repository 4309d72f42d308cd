"""What an agent and its worker say to each other: frames over an inherited socket.

A frame is a head of nine bytes (kind, request, length; little-endian `<BII`) and its body. `MESSAGE` frames
carry one message as JSON. `CHUNK` frames carry bytes of an answer that go to the client as they are: the worker
writes a stream's events itself, by the `Frame` that came with the request, so that the agent neither parses nor
encodes tokens.

Both ends import this module, so that the supervisor never has to import the worker (and with it llama_cpp).
"""

import struct
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from agent_daemon.contract.release import KvType, Sampling, Task

HEAD = struct.Struct("<BII")
MESSAGE, CHUNK = 0, 1


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def frame(self) -> bytes:
        """This message as the bytes of one frame."""
        body = self.model_dump_json().encode()
        return HEAD.pack(MESSAGE, getattr(self, "id", 0), len(body)) + body


class Chunk(NamedTuple):
    """Bytes of a streamed answer, ready to be sent on."""

    id: int
    data: bytes

    def frame(self) -> bytes:
        """This chunk as the bytes of one frame."""
        return HEAD.pack(CHUNK, self.id, len(self.data)) + self.data


# -- to the worker ---------------------------------------------------------------------------------------


class AdapterFile(_Message):
    name: str
    path: str
    scale: float = 1.0


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
    split: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Over several GPUs: how many of the `gpu_layers` each of them holds, in order. Else empty."""
    cells: int | None = None
    """Tokens of the cache that all sequences share; None: the whole context for each of them."""
    adapters: tuple[AdapterFile, ...] = ()


class Frame(_Message):
    """How to write one piece of text as a stream's event: `head`, the text as a JSON string, `tail`. With
    `number` set, events count on from it: `head`, the number, `middle`, the text, `tail`."""

    head: str
    tail: str
    number: int | None = None
    middle: str = ""


class Tool(_Message):
    """A function that the model may call. `schema_` is the JSON Schema of its arguments; `raw` is the
    definition as the client sent it, which the chat template renders."""

    name: str
    schema_: dict[str, Any]
    raw: dict[str, Any]


class Constraint(_Message):
    """What an answer has to look like: any JSON object, JSON by a schema, or text by a grammar (GBNF)."""

    kind: Literal["json_object", "json_schema", "grammar"]
    json_schema: dict[str, Any] | bool | None = None
    grammar: str | None = None


class Generate(_Message):
    """One completion. Exactly one of `messages` (chat, rendered by the model's own template) and `prompt` (text,
    or token ids)."""

    op: Literal["generate"] = "generate"
    id: int
    client: str = ""
    """Who asks: turns are shared fairly between clients. The id of an API key, or empty."""
    adapter: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    prompt: str | tuple[int, ...] | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["none", "auto", "required"] = "auto"
    """`required` also when one tool was named: `tools` then holds only that one."""
    parallel_tool_calls: bool = True
    template_arguments: dict[str, Any] = {}
    """More variables for the chat template, such as `enable_thinking`."""
    constraint: Constraint | None = None
    sampling: Sampling = Sampling()
    logit_bias: dict[int, float] = {}
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """How many alternatives to report for each token (0: the chosen one only); None: no logprobs."""
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stream: Frame | None = None
    """With it, text leaves as `Chunk` (without logprobs; with them as `Text`, to be encoded by the receiver)."""


class Embed(_Message):
    op: Literal["embed"] = "embed"
    id: int
    inputs: tuple[str | tuple[int, ...], ...]


class Tokenize(_Message):
    """Token ids of a text, or of a chat as its template renders it."""

    op: Literal["tokenize"] = "tokenize"
    id: int
    text: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    tools: tuple[Tool, ...] = ()
    add_special: bool = True


class Inspect(_Message):
    """Asks for `Stats`."""

    op: Literal["inspect"] = "inspect"
    id: int


class Cancel(_Message):
    """Ends a request at the next step; the worker answers with `Done(finish_reason="cancelled")`."""

    op: Literal["cancel"] = "cancel"
    id: int


Request = Generate | Embed | Tokenize | Inspect
Command = Annotated[Load | Request | Cancel, Field(discriminator="op")]


# -- from the worker -------------------------------------------------------------------------------------


class Ready(_Message):
    """The model is loaded. `offloaded_layers` is what llama.cpp said that it did, never what it was asked."""

    ev: Literal["ready"] = "ready"
    offloaded_layers: int
    simulated_offload: bool = False
    ram_bytes: int
    ram_private_bytes: int
    ram_repacked_bytes: int = 0
    """Weights that llama.cpp laid out anew for the CPU: private memory, beside their pages of the mapped file."""
    tools: bool = False
    """Whether the model's chat template declares tools."""


class Failed(_Message):
    """The model could not be loaded; the worker ends after this."""

    ev: Literal["failed"] = "failed"
    message: str


class Share(_Message):
    """Bytes of one memory that a model would take. In RAM `compute` includes the buffer of outputs."""

    weights: int = 0
    kv_cache: int = 0
    compute: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.compute


class Measured(_Message):
    """What the model of a `Load` would take, by llama.cpp's own account and without its weights being loaded: of
    RAM, and of each GPU in the order of the split."""

    ev: Literal["measured"] = "measured"
    host: Share
    gpus: tuple[Share, ...] = ()


class Unmeasured(_Message):
    """Why this build of llama.cpp or this machine cannot say; it says nothing about the model."""

    ev: Literal["unmeasured"] = "unmeasured"
    message: str


class Started(_Message):
    """The request has been tokenized and holds a sequence. `cached_tokens` of the prompt were not computed anew.
    Sent once, before anything else of an answer."""

    ev: Literal["started"] = "started"
    id: int
    prompt_tokens: int
    cached_tokens: int = 0


class TokenLogprob(_Message):
    """`bytes_` are the token's own: possibly a part of one character."""

    token: str
    bytes_: tuple[int, ...]
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


class Text(_Message):
    """More of the answer. `tokens` counts all generated so far, those still held back included."""

    ev: Literal["text"] = "text"
    id: int
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


class ToolCall(_Message):
    """More of a call: the first of an `index` has `call` and `name`, all may add to `arguments` (JSON text)."""

    ev: Literal["tool_call"] = "tool_call"
    id: int
    index: int
    call: str | None = None
    name: str | None = None
    arguments: str = ""


FinishReason = Literal["stop", "length", "tool_calls", "cancelled", "error"]


class Done(_Message):
    """The end of an answer. Times are seconds and by the worker's clock: `queued` until a sequence was free,
    `first` until the first token (both from the request's arrival at the worker), `seconds` from the first token
    to the last. `error` says why, when that is the reason; the tokens before it were sent."""

    ev: Literal["done"] = "done"
    id: int
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    seconds: float
    queued: float = 0.0
    first: float | None = None
    error: str | None = None


class Vectors(_Message):
    ev: Literal["vectors"] = "vectors"
    id: int
    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int


class Tokens(_Message):
    ev: Literal["tokens"] = "tokens"
    id: int
    tokens: tuple[int, ...]
    pieces: tuple[str, ...]


class Stats(_Message):
    """The engine seen from inside. Cells are tokens of the unified KV cache; `held` are those that only the
    prefix cache keeps. Counters run since the worker started."""

    ev: Literal["stats"] = "stats"
    id: int
    cells: int
    cells_used: int
    cells_held: int
    sequences: int
    sequences_running: int
    sequences_held: int
    waiting: int
    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    preemptions: int = 0
    evictions: int = 0


class Refused(_Message):
    """A request that this worker cannot do, with the reason for the client. Nothing else is affected."""

    ev: Literal["refused"] = "refused"
    id: int
    code: Literal["context_length_exceeded", "invalid_prompt", "invalid_request", "wrong_task", "engine"]
    message: str
    param: str | None = None


Event = Annotated[
    Ready | Failed | Started | Text | ToolCall | Done | Vectors | Tokens | Stats | Refused,
    Field(discriminator="ev"),
]


class Bandwidth(_Message):
    """How fast one device reads weights from its memory: RAM, or a GPU whose PCI address is `pci`, if it is known."""

    name: str
    ram: bool
    pci: str | None = None
    bytes_per_second: int


class Bandwidths(_Message):
    """What `python -m agent_daemon.worker --probe-bandwidth` prints: the devices that could be measured."""

    devices: tuple[Bandwidth, ...] = ()


Measurement = Annotated[Measured | Unmeasured | Failed, Field(discriminator="ev")]
"""What `python -m agent_daemon.worker --measure` prints."""

_measurements: TypeAdapter[Measurement] = TypeAdapter(Measurement)
_commands: TypeAdapter[Command] = TypeAdapter(Command)
_events: TypeAdapter[Event] = TypeAdapter(Event)


def parse_command(body: bytes) -> Command:
    """The command in one frame's body. Raises pydantic.ValidationError (a ValueError) when it is not one."""
    return _commands.validate_json(body)


def parse_event(body: bytes) -> Event:
    """The event in one frame's body. Raises pydantic.ValidationError (a ValueError) when it is not one."""
    return _events.validate_json(body)


def parse_measurement(text: str) -> Measurement:
    """What a measuring process printed. Raises pydantic.ValidationError (a ValueError) when it is not that."""
    return _measurements.validate_json(text)
