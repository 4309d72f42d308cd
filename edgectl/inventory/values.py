"""What the inventory hands out: frozen values, never rows of the database. Times are seconds since 1970."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from agent_daemon.contract.wire import Facts, Outcome
from edgectl.rollouts.owner import Owner

RolloutKind = Literal["deploy", "rollback"]
RolloutState = Literal["running", "paused", "halted", "waiting", "finished", "interrupted", "aborted"]
"""`waiting`: all that could be reached have ended, some are to get it later. A `running` one whose owner is gone is
shown as interrupted."""

LEASE_SECONDS = 60.0
"""How long a rollout that gives no sign of life keeps its devices. views.sql has it too."""

PENDING = (Outcome.UNREACHABLE, Outcome.DEFERRED)
"""Outcomes after which a device gets its release later: by `rollout resume`, or from the hub."""


@dataclass(frozen=True)
class Device:
    """A registered device with the latest facts that it told (None before the first)."""

    name: str
    transport: Mapping[str, Any]
    """How to reach it: `{"kind": "local", "state_dir": …}`. Holds no secret."""
    labels: Mapping[str, str]
    added_at: float
    agent_id: str | None = None
    last_seen: float | None = None
    facts: Facts | None = None
    facts_at: float | None = None
    unreachable_since: float | None = None
    """When it first failed to answer, in the silence that goes on; None when it was heard of since."""
    unreachable_reason: str | None = None


@dataclass(frozen=True)
class TokenOwner:
    """The device that a token belongs to. `agent_id` is None until its agent was asked for the first time."""

    device: str
    agent_id: str | None


class TokenRefusal(StrEnum):
    """Why a token is no good."""

    UNKNOWN = "unknown"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Release:
    """A numbered release. `digest` is that of `content`: the manifest as resolved, without the number."""

    number: int
    manifest: str
    digest: str
    content: Mapping[str, Any]
    created_at: float

    @property
    def label(self) -> str:
        """The number as people write it: `r12`."""
        return f"r{self.number}"


@dataclass(frozen=True)
class Rollout:
    """One deploy or rollback, as it was recorded. `release_number` is None when its devices went to different
    releases; `finished_at` is when its last process stopped. `policy` is JSON, `owner` whoever leads it or last did
    (None: it was made before rollouts could be taken up)."""

    id: int
    kind: RolloutKind
    release_number: int | None
    state: RolloutState
    started_at: float
    finished_at: float | None
    state_reason: str | None = None
    manifest: str | None = None
    manifest_digest: str | None = None
    policy: str = "{}"
    owner: Owner | None = None
    heartbeat_at: float | None = None


@dataclass(frozen=True)
class RolloutPart:
    """One device's place in a rollout. `previous_number` is the release that it served before; without an outcome its
    turn has not come, or has not ended."""

    device: str
    wave: int
    release_number: int | None = None
    previous_number: int | None = None
    outcome: Outcome | None = None
    reason: str | None = None


@dataclass(frozen=True)
class DeviceOutcome:
    """How a rollout ended on one device. `seconds` is a duration."""

    device: str
    outcome: Outcome
    release_number: int | None
    reason: str | None
    bytes_moved: int
    seconds: float
    at: float


@dataclass(frozen=True)
class Fit:
    """One load of a model on a device: its memory as it was predicted, as llama.cpp planned it and as it was measured
    (None: not known). Bytes, of the memory that it was placed in; `loaded_in` is a duration."""

    model: str
    device_class: str
    memory: str
    context: int
    parallel: int
    kv_type: str
    gpu_layers: int
    gpus: int
    predicted: int
    planned: int | None
    measured: int | None
    loaded_in: float | None
    at: float
    received_at: float

    @property
    def error_percent(self) -> float | None:
        """The prediction against what was measured, in percent of that; negative: too little was predicted."""
        return round((self.predicted - self.measured) * 100 / self.measured, 2) if self.measured else None
