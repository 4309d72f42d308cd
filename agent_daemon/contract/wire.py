"""The messages between an agent and whoever controls it, over a Unix socket or to a hub.

Sizes are bytes, times are seconds since the epoch (UTC, float) unless a name says otherwise. A fact that
could not be determined is None, never a guess.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from agent_daemon.contract import histogram
from agent_daemon.contract.check_in import Ack as Ack
from agent_daemon.contract.check_in import CheckIn as CheckIn
from agent_daemon.contract.check_in import CheckInReply as CheckInReply
from agent_daemon.contract.check_in import Desired as Desired
from agent_daemon.contract.check_in import Has as Has
from agent_daemon.contract.check_in import Record as Record
from agent_daemon.contract.check_in import RecordKind as RecordKind
from agent_daemon.contract.device_facts import Facts as Facts
from agent_daemon.contract.device_facts import GpuFacts as GpuFacts
from agent_daemon.contract.device_facts import Message
from agent_daemon.contract.device_facts import RuntimeFacts as RuntimeFacts
from agent_daemon.contract.drift import Drift as Drift
from agent_daemon.contract.release import DigestText, Lean, Strategy
from agent_daemon.contract.versions import OLDEST_SCHEMA, SCHEMA_VERSION

# -- how it is doing -------------------------------------------------------------------------------------


class WorkerState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    BACKOFF = "backoff"
    DRAINING = "draining"
    STOPPED = "stopped"
    UNLOADED = "unloaded"
    """Served, but not in memory: the next request loads it."""


class WorkerStatus(Message):
    """One worker process, as its supervisor sees it."""

    models: tuple[str, ...]
    engine_key: DigestText
    state: WorkerState
    on_demand: bool = False
    """Whether it is loaded only when a request asks for it."""
    pid: int | None = None
    restarts: int = 0
    memory: Literal["vram", "ram"] = "ram"
    gpu_uuid: str | None = None
    gpu_layers: int = 0
    gpu_vram: dict[str, int] = Field(default_factory=dict)
    """Bytes on each GPU by uuid, where they are known; `vram_bytes` is their sum."""
    offloaded_layers: int | None = None
    simulated_offload: bool = False
    predicted_bytes: int = 0
    ram_bytes: int | None = None
    """Resident memory that loading added to the process, mapped weights included."""
    ram_private_bytes: int | None = None
    """The part of it that the kernel cannot take back: what a restart would free."""
    ram_repacked_bytes: int = 0
    """Weights that are resident twice: laid out anew, and in pages of the file that nobody reads any more."""
    vram_bytes: int | None = None
    tokens_per_second: float | None = None
    active_requests: int = 0
    error: str | None = None


class Outcome(StrEnum):
    """The terminal word for one device in one rollout."""

    SUCCEEDED = "succeeded"
    UNCHANGED = "unchanged"
    FAILED_UNCHANGED = "failed_unchanged"
    REVERTED = "reverted"
    REVERT_FAILED = "revert_failed"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    DEFERRED = "deferred"
    SUPERSEDED = "superseded"


class ActivationState(StrEnum):
    STAGING = "staging"
    STAGED = "staged"
    ACTIVATING = "activating"
    PROBING = "probing"
    COMMITTED = "committed"
    REVERTING = "reverting"
    REVERTED = "reverted"
    REVERT_FAILED = "revert_failed"


TERMINAL_STATES = frozenset(
    {ActivationState.COMMITTED, ActivationState.REVERTED, ActivationState.REVERT_FAILED}
)


class Operation(Message):
    """One release on its way onto the device. `reason` says why it did not stay, in one sentence."""

    id: int
    release: DigestText
    number: int
    previous: DigestText | None = None
    state: ActivationState
    strategy: Strategy = Strategy.AUTO
    reason: str | None = None
    at: float
    attempts: int = 0


class Quarantined(Message):
    release: DigestText
    number: int
    reason: str
    at: float


class HubStatus(Message):
    """How an agent that reports by itself gets on with its hub. `problem` is why the last attempt failed."""

    url: str
    reported_at: float | None = None
    problem: str | None = None
    next_at: float | None = None
    delivery: str | None = None
    """What comes from the hub at this moment, or why it does not."""


class Disk(Message):
    """The file system that a device's blobs are on. Bytes."""

    path: str
    free: int
    """For the agent's user."""
    reserve: int
    """Of `free`, what blobs leave to everything else."""
    prunable: int
    """What a prune would free."""
    superseded: int = 0
    """What it would free besides once another release is staged, because what is staged now is then of no use."""
    spare: tuple[DigestText, ...] = ()
    """The blobs, whole or in part, that these two count."""

    @property
    def usable(self) -> int:
        """Most bytes of blobs that could be added without a prune."""
        return max(self.free - self.reserve, 0)


class DeviceState(Message):
    """The device's own account of itself."""

    agent_id: str
    active: DigestText | None = None
    active_number: int | None = None
    operation: Operation | None = None
    """The latest operation, finished or not."""
    quarantine: tuple[Quarantined, ...] = ()
    held: tuple[DigestText, ...] = ()
    """Releases that can be activated without moving a byte."""
    blobs: tuple[DigestText, ...] = ()
    """Every blob that is complete on the device."""
    arrived: dict[DigestText, int] = Field(default_factory=dict)
    """Bytes held of blobs that are not complete."""
    damaged: tuple[DigestText, ...] = ()
    """Blobs that have changed since they were verified: they are not in `blobs`, and are sent again when they are staged."""
    disk: Disk | None = None
    """None from an agent that does not tell."""
    workers: tuple[WorkerStatus, ...] = ()
    hub: HubStatus | None = None
    """None when no hub was set: reports wait until they are collected."""
    drift: tuple[Drift, ...] = ()
    """What is otherwise than it should be, as far as the device can see."""
    features: tuple[str, ...] = ()
    """Which later fields of a release it understands, see `contract.needs_agent`; an older agent says none."""


# -- reports ---------------------------------------------------------------------------------------------


class Heartbeat(Message):
    """Telemetry: only the newest unsent one is kept."""

    uptime: float
    ram_available: int | None = None
    gpu_free: tuple[int | None, ...] = ()
    active: DigestText | None = None
    active_number: int | None = None
    state: ActivationState | None = None
    workers: tuple[WorkerStatus, ...] = ()
    drift: tuple[Drift, ...] = ()
    spool_dropped: int = 0
    """Reports that this spool had to drop since it began, because nobody collected them."""


class ActivationEvent(Message):
    """One transition, or one thing worth telling within a state."""

    operation: int
    release: DigestText
    number: int
    state: ActivationState
    detail: str | None = None
    outcome: Outcome | None = None
    """Set on the last event of an operation only."""


class WorkerEvent(Message):
    model: str
    what: Literal["started", "ready", "crashed", "stopped"]
    detail: str | None = None


class Fitted(Message):
    """A model's memory, predicted and then measured, once it was loaded. Bytes, of the memory that it was placed in
    (`memory`), unless they say otherwise."""

    model: str
    engine_key: DigestText
    memory: Literal["vram", "ram"]
    device_class: str
    """What such figures are learned for, see `fit_margin.device_class`."""
    context: int
    parallel: int
    kv_type: str
    gpu_layers: int
    gpus: int = 1
    """How many GPUs it is split over, if it is on any."""
    predicted: int
    planned: int | None = None
    """By llama.cpp itself, before loading and without the weights; None when it could not be asked."""
    measured: int | None = None
    """Of the loaded worker; None when the system does not say."""
    loaded_in: float | None = None
    """Seconds."""


Count = Annotated[int, Field(ge=0)]
Buckets = Annotated[tuple[Count, ...], Field(min_length=histogram.SIZE, max_length=histogram.SIZE)]
"""The counts of a `histogram.Histogram`."""

USAGE_KEY = ("minute", "model", "adapter", "key", "release", "number")
USAGE_SUMS = (
    *("requests", "failures", "prompt_tokens", "cached_tokens", "completion_tokens"),
    *("ttft_ms", "duration_ms", "queue_ms"),
    *("finish_stop", "finish_length", "finish_tool_calls", "finish_cancelled", "finish_error"),
)
USAGE_HISTOGRAMS = ("ttft_histogram", "inter_token_histogram", "queue_histogram")


class Usage(Message):
    """What was asked of one model (or one adapter of it) with one key under one release in one minute, or a part
    of that: rows of a minute add up. `requests` and all that follows add, the histograms bucket by bucket.

    An older agent's rows lack what it did not count: how requests finished, and the histograms.
    """

    minute: int
    """Start of the minute, seconds since the epoch."""
    model: str
    adapter: str = ""
    """Empty: none."""
    key: str = ""
    """Id of the API key, and never the key; empty where none was needed."""
    release: DigestText
    number: int
    requests: int
    failures: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Those of the prompt tokens that did not have to be computed."""
    completion_tokens: int = 0
    ttft_ms: int = 0
    """Sum over requests of the milliseconds to the first token (to the end, where there was none)."""
    duration_ms: int = 0
    queue_ms: int = 0
    """Sum over requests of the milliseconds until a sequence took them."""
    finish_stop: int = 0
    finish_length: int = 0
    finish_tool_calls: int = 0
    finish_cancelled: int = 0
    finish_error: int = 0
    ttft_histogram: Buckets = histogram.EMPTY.counts
    """Requests by their time to the first token; those without a token are not in it."""
    inter_token_histogram: Buckets = histogram.EMPTY.counts
    """Requests by their mean time from token to token; those with fewer than two are not in it."""
    queue_histogram: Buckets = histogram.EMPTY.counts


class Check(Message):
    """One finding of a doctor. `ok` None means: nothing wrong, but worth knowing."""

    name: str
    ok: bool | None
    finding: str
    remedy: str | None = None


class Checks(Message):
    """What a doctor found, in the order in which to mend it."""

    checks: tuple[Check, ...]


# -- the control API -------------------------------------------------------------------------------------


class Hello(Message):
    schema_version: int = SCHEMA_VERSION
    oldest_schema: int = OLDEST_SCHEMA
    agent_version: str
    agent_id: str
    features: tuple[str, ...] = ()
    """See `contract.features`; an agent from before it says none."""


class MissingBlob(Message):
    digest: DigestText
    size: int
    offset: int
    """Bytes that the device holds already: the sender goes on from here."""


class Staged(Message):
    """Answer to a release handed over: what must still be sent before it can be activated."""

    operation: Operation | None = None
    missing: tuple[MissingBlob, ...] = ()


class StageRequest(Message):
    release: Lean
    retry: bool = False
    prune: bool = False
    """Whether to delete, where the missing bytes do not fit otherwise, as much as is needed of what nothing refers to."""


class Prunable(Message):
    """What a device holds that no release refers to which it would keep. Digests but for the last."""

    releases: tuple[DigestText, ...] = ()
    """Releases that could not be activated any more without sending something."""
    blobs: tuple[DigestText, ...] = ()
    partials: tuple[DigestText, ...] = ()
    bytes: int = 0


class PruneRequest(Message):
    dry_run: bool = False


class Pruned(Message):
    """`gone` is what was deleted, or would be; `disk` is what it is like afterwards."""

    gone: Prunable
    disk: Disk


class ActivateRequest(Message):
    release: DigestText
    retry: bool = False


class EventPage(Message):
    """Events of one operation after a cursor; `done` when its last event is among those sent so far."""

    events: tuple[ActivationEvent, ...] = ()
    next: int = 0
    done: bool = False


class Problem(Message):
    """The body of every answer that is not a success."""

    code: Annotated[str, Field(pattern=r"^[a-z_]+$")]
    message: str
    hint: str | None = None
