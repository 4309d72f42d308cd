"""What an agent and a hub say to each other: reports one way, what to serve the other."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from agent_daemon.contract.device_facts import Message
from agent_daemon.contract.release import DigestText, Lean
from agent_daemon.contract.versions import SCHEMA_VERSION


class RecordKind(StrEnum):
    FACTS = "facts"
    HEARTBEAT = "heartbeat"
    ACTIVATION = "activation"
    WORKER = "worker"
    USAGE = "usage"
    FITTED = "fitted"


KindName = Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,31}$")]


class Record(Message):
    """One thing to report. `seq` rises by at least one and is never used twice within an epoch."""

    seq: int
    at: float
    kind: Annotated[RecordKind | KindName, Field(union_mode="left_to_right")]
    """A text for what only a newer agent reports: it is set aside, and holds up nothing behind it."""
    body: dict[str, Any]


class Has(Message):
    """What a device that takes releases from its hub has already, so that it is offered only what is of use."""

    active: DigestText | None = None
    quarantine: tuple[DigestText, ...] = ()
    """Releases that it does not take unless a person says so."""
    unread: int | None = None
    """The rollout whose release this agent is too old to understand."""
    over: int | None = None
    """The rollout whose release this device has done with: it has told how that ended, and does not try it again."""


class CheckIn(Message):
    """Everything that waits in the spool, oldest first. Taking one twice has the effect of taking it once:
    the receiver remembers the highest `seq` that it has stored for this agent and epoch."""

    schema_version: int = SCHEMA_VERSION
    agent_id: str
    epoch: str
    """Identity of the spool: a new one begins when a device lost its state."""
    sent_at: float
    records: tuple[Record, ...] = ()
    more: bool = False
    has: Has | None = None
    """None from an agent that takes nothing from a hub, and while more records follow."""


class Ack(Message):
    """Everything up to and including `seq` is stored; the device may forget it."""

    epoch: str
    seq: int


class Desired(Message):
    """What a device is to serve, from the rollout in which its turn came while it was off."""

    rollout: int
    release: Lean
    retry: bool = False
    """Whether it is to be tried although it was reverted on this device before."""
    limit_rate: Annotated[int, Field(ge=1)] | None = None
    """Bytes a second at which the device may fetch; None: no bound."""
    prune: bool = False
    """Whether the device may delete blobs that nothing refers to when room is short."""


class CheckInReply(Message):
    """A hub's answer to a check-in: what is stored, and in how many seconds to come again."""

    ack: Ack
    next_in: float
    desired: Annotated[Desired | dict[str, Any] | None, Field(union_mode="left_to_right")] = None
    """Asked for anew with every check-in. A mapping for what only a newer agent understands: reports go on."""
