"""What the main process and its couriers say to each other, pickled: both are the same program at the same time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agent_daemon.contract.release import Artifact, BlobRef
from edgectl.couriers.delivery import Terms
from edgectl.inventory.values import Device
from edgectl.plan import Step

# -- to a courier ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """Said once, first."""

    ssh_config: Path | None


@dataclass(frozen=True)
class Call:
    """One question to one device; answered by an Answer of the same `id`."""

    id: int
    device: Device
    what: Literal["sight", "reports", "acknowledge"]
    argument: Any = None


@dataclass(frozen=True)
class SiteOf:
    """The devices that fetch from one another: a number of their own, and how many they are."""

    number: int
    size: int


@dataclass(frozen=True)
class Deliver:
    """Brings a step to a device; its events follow, a Result is the last of them. `rate` in bytes a second, for all
    that this courier sends."""

    step: Step
    device: Device
    terms: Terms
    rate: float | None
    site: SiteOf | None = None


@dataclass(frozen=True)
class Watch:
    """Looks at a device again and again, until told to stop by a Cancel."""

    device: Device
    digest: str


@dataclass(frozen=True)
class Cancel:
    """Ends what goes on with a device, or with all of them (None)."""

    device: str | None
    reason: str


@dataclass(frozen=True)
class Reply:
    """The answer to an Asked or a Wanted: a value, or the error to raise there."""

    id: int
    value: Any = None
    error: BaseException | None = None


# -- from a courier --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """The answer to a Call: a value, or what went wrong."""

    id: int
    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True)
class Asked:
    """A question for the person, such as for a passphrase."""

    id: int
    question: str


@dataclass(frozen=True)
class Wanted:
    """A file of an artifact is wanted on this machine."""

    id: int
    artifact: Artifact
    blob: BlobRef


@dataclass(frozen=True)
class Happened:
    """An event of `edgectl.rollouts.events`."""

    event: Any
