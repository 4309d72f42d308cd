"""What happens while a rollout is carried out, as values: the same for people, for `-o json` and for decisions. PURE."""

from dataclasses import dataclass

from agent_daemon.contract.health import Health
from agent_daemon.contract.wire import Outcome


@dataclass(frozen=True)
class Moved:
    """`done` of `total` bytes of one file have arrived on the device."""

    device: str
    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Noted:
    """Something that the device said on its way: a new state, or a word about it."""

    device: str
    text: str


@dataclass(frozen=True)
class Heard:
    """The device answers, and there is nothing new."""

    device: str


@dataclass(frozen=True)
class Lost:
    """The device cannot be reached at the moment; it is tried again."""

    device: str
    reason: str


@dataclass(frozen=True)
class Looked:
    """How a device that has its release is doing now."""

    device: str
    health: Health
    reason: str | None = None


@dataclass(frozen=True)
class Result:
    """How it ended on one device. `seconds` is a duration; `number` that of the release it was about.
    `returned`: this is the end of a return to the release before, because the rollout was halted."""

    device: str
    outcome: Outcome
    reason: str | None = None
    bytes_moved: int = 0
    seconds: float = 0.0
    number: int | None = None
    returned: bool = False


@dataclass(frozen=True)
class WaveEnded:
    """All devices of a wave have ended. Waves are numbered from 0."""

    wave: int
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Paused:
    """No further wave begins until somebody says so."""

    reason: str


@dataclass(frozen=True)
class Halted:
    """No further wave begins; `devices` were not touched."""

    reason: str
    devices: tuple[str, ...]


DeviceEvent = Moved | Noted | Heard | Lost | Looked | Result
Event = DeviceEvent | WaveEnded | Paused | Halted
