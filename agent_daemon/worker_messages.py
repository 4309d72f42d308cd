"""What an agent and its worker say to each other.

Both ends import this module, so that the supervisor never has to import the worker (and with it llama_cpp).
"""

from typing import Annotated, Any, Literal

import msgspec

from agent_daemon.contract.kinds import KvType, Task
from agent_daemon.worker_frames import CHUNK as CHUNK
from agent_daemon.worker_frames import HEAD as HEAD
from agent_daemon.worker_frames import MESSAGE as MESSAGE
from agent_daemon.worker_frames import Chunk as Chunk
from agent_daemon.worker_frames import Message, Part, decoded


class _Command(Message, frozen=True, tag_field="op"):
    """To the worker."""


class _Event(Message, frozen=True, tag_field="ev"):
    """From the worker."""


# -- to the worker ---------------------------------------------------------------------------------------


class AdapterFile(Part, frozen=True):
    name: str
    path: str
    scale: float = 1.0


class Load(_Command, frozen=True, tag="load"):
    """The first message: which model to hold, and how. A worker holds one model for its whole life."""

    path: str
    task: Task
    context: int
    parallel: int
    kv_type: KvType
    gpu_layers: int
    threads: int
    split: tuple[Annotated[int, msgspec.Meta(ge=1)], ...] = ()
    """Over several GPUs: how many of the `gpu_layers` each of them holds, in order. Else empty."""
    cells: int | None = None
    """Tokens of the cache that all sequences share; None: the whole context for each of them."""
    adapters: tuple[AdapterFile, ...] = ()


class Measure(_Command, frozen=True, tag="measure"):
    """May come before the first: what would this take? Answered by Measured or Unmeasured, or by Failed and the end of
    the worker."""

    load: Load


class Frame(Part, frozen=True):
    """How to write one piece of text as a stream's event: `head`, the text as a JSON string, `tail`. With
    `number` set, events count on from it: `head`, the number, `middle`, the text, `tail`."""

    head: str
    tail: str
    number: int | None = None
    middle: str = ""


class Tool(Part, frozen=True):
    """A function that the model may call. `schema_` is the JSON Schema of its arguments; `raw` is the
    definition as the client sent it, which the chat template renders."""

    name: str
    schema_: dict[str, Any]
    raw: dict[str, Any]


class Constraint(Part, frozen=True):
    """What an answer has to look like: any JSON object, JSON by a schema, or text by a grammar (GBNF)."""

    kind: Literal["json_object", "json_schema", "grammar"]
    json_schema: dict[str, Any] | bool | None = None
    grammar: str | None = None


class Choosing(Part, frozen=True):
    """How each token is chosen: the fields and defaults of `contract.sampling.Sampling`, which was checked before."""

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 40
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    max_tokens: int | None = None
    seed: int | None = None


class Generate(_Command, frozen=True, tag="generate"):
    """One completion. Exactly one of `messages` (chat, rendered by the model's own template) and `prompt` (text,
    or token ids)."""

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
    template_arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    """More variables for the chat template, such as `enable_thinking`."""
    constraint: Constraint | None = None
    sampling: Choosing = Choosing()
    logit_bias: dict[int, float] = msgspec.field(default_factory=dict)
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    """How many alternatives to report for each token (0: the chosen one only); None: no logprobs."""
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stream: Frame | None = None
    """With it, text leaves as `Chunk` (without logprobs; with them as `Text`, to be encoded by the receiver)."""


class Embed(_Command, frozen=True, tag="embed"):
    id: int
    inputs: tuple[str | tuple[int, ...], ...]


class Tokenize(_Command, frozen=True, tag="tokenize"):
    """Token ids of a text, or of a chat as its template renders it."""

    id: int
    text: str | None = None
    messages: tuple[dict[str, Any], ...] | None = None
    tools: tuple[Tool, ...] = ()
    add_special: bool = True


class Inspect(_Command, frozen=True, tag="inspect"):
    """Asks for `Stats`."""

    id: int


class Cancel(_Command, frozen=True, tag="cancel"):
    """Ends a request at the next step; the worker answers with `Done(finish_reason="cancelled")`."""

    id: int


Request = Generate | Embed | Tokenize | Inspect
Command = Load | Measure | Request | Cancel


# -- from the worker -------------------------------------------------------------------------------------


class Ready(_Event, frozen=True, tag="ready"):
    """The model is loaded. `offloaded_layers` is what llama.cpp said that it did, never what it was asked."""

    offloaded_layers: int
    ram_bytes: int
    ram_private_bytes: int
    simulated_offload: bool = False
    ram_repacked_bytes: int = 0
    """Weights that llama.cpp laid out anew for the CPU: private memory, beside their pages of the mapped file."""
    tools: bool = False
    """Whether the model's chat template declares tools."""


class Failed(_Event, frozen=True, tag="failed"):
    """The model could not be loaded; the worker ends after this."""

    message: str


class Share(Part, frozen=True):
    """Bytes of one memory that a model would take. In RAM `compute` includes the buffer of outputs."""

    weights: int = 0
    kv_cache: int = 0
    compute: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.compute


class Measured(_Event, frozen=True, tag="measured"):
    """What the model of a `Load` would take, by llama.cpp's own account and without its weights being loaded: of
    RAM, and of each GPU in the order of the split."""

    host: Share
    gpus: tuple[Share, ...] = ()


class Unmeasured(_Event, frozen=True, tag="unmeasured"):
    """Why this build of llama.cpp or this machine cannot say; it says nothing about the model."""

    message: str


class Started(_Event, frozen=True, tag="started"):
    """The request has been tokenized and holds a sequence. `cached_tokens` of the prompt were not computed anew.
    Sent once, before anything else of an answer."""

    id: int
    prompt_tokens: int
    cached_tokens: int = 0


class TokenLogprob(Part, frozen=True):
    """`bytes_` are the token's own: possibly a part of one character."""

    token: str
    bytes_: tuple[int, ...]
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


class Text(_Event, frozen=True, tag="text"):
    """More of the answer. `tokens` counts all generated so far, those still held back included."""

    id: int
    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


class ToolCall(_Event, frozen=True, tag="tool_call"):
    """More of a call: the first of an `index` has `call` and `name`, all may add to `arguments` (JSON text)."""

    id: int
    index: int
    call: str | None = None
    name: str | None = None
    arguments: str = ""


FinishReason = Literal["stop", "length", "tool_calls", "cancelled", "error"]


class Done(_Event, frozen=True, tag="done"):
    """The end of an answer. Times are seconds and by the worker's clock: `queued` until a sequence was free,
    `first` until the first token (both from the request's arrival at the worker), `seconds` from the first token
    to the last. `error` says why, when that is the reason; the tokens before it were sent."""

    id: int
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cached_tokens: int = 0
    queued: float = 0.0
    first: float | None = None
    error: str | None = None


class Vectors(_Event, frozen=True, tag="vectors"):
    id: int
    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int


class Tokens(_Event, frozen=True, tag="tokens"):
    id: int
    tokens: tuple[int, ...]
    pieces: tuple[str, ...]


class Stats(_Event, frozen=True, tag="stats"):
    """The engine seen from inside. Cells are tokens of the unified KV cache; `held` are those that only the
    prefix cache keeps. Counters run since the worker started."""

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


RefusalCode = Literal["context_length_exceeded", "invalid_prompt", "invalid_request", "wrong_task", "engine"]


class Refused(_Event, frozen=True, tag="refused"):
    """A request that this worker cannot do, with the reason for the client. Nothing else is affected."""

    id: int
    code: RefusalCode
    message: str
    param: str | None = None


Event = (
    Ready
    | Failed
    | Measured
    | Unmeasured
    | Started
    | Text
    | ToolCall
    | Done
    | Vectors
    | Tokens
    | Stats
    | Refused
)


class Bandwidth(Part, frozen=True):
    """How fast one device reads weights from its memory: RAM, or a GPU whose PCI address is `pci`, if it is known."""

    name: str
    ram: bool
    bytes_per_second: int
    pci: str | None = None


class Bandwidths(Message, frozen=True):
    """What `python -m agent_daemon.worker --probe-bandwidth` prints: the devices that could be measured."""

    devices: tuple[Bandwidth, ...] = ()


Measurement = Measured | Unmeasured | Failed
"""What `python -m agent_daemon.worker --measure` prints."""

_measurements: msgspec.json.Decoder[Measurement] = msgspec.json.Decoder(Measurement)
_commands: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command)
_events: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_bandwidths = msgspec.json.Decoder(Bandwidths)


def parse_command(body: bytes) -> Command:
    """The command in one frame's body. Raises ValueError when it is not one."""
    return decoded(_commands, body)


def parse_event(body: bytes) -> Event:
    """The event in one frame's body. Raises ValueError when it is not one."""
    return decoded(_events, body)


def parse_measurement(text: bytes | str) -> Measurement:
    """What a measuring process printed. Raises ValueError when it is not that."""
    return decoded(_measurements, text)


def parse_bandwidths(text: bytes | str) -> Bandwidths:
    """What a process that measured bandwidths printed. Raises ValueError when it is not that."""
    return decoded(_bandwidths, text)
