"""What a rollout is told of its devices, and what it decides about them. PURE values, in JSON and back."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from agent_daemon.contract.health import Health
from agent_daemon.contract.wire import Outcome


@dataclass(frozen=True, slots=True)
class Progressed:
    """New bytes have arrived, or the device is in a new state."""

    device: str


@dataclass(frozen=True, slots=True)
class Heard:
    """The device answers, with nothing new."""

    device: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The device cannot be reached right now."""

    device: str


@dataclass(frozen=True, slots=True)
class Ended:
    """It has ended on the device: what was started, or the return to its earlier release."""

    device: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Probed:
    """How a watched device is doing."""

    device: str
    health: Health


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed. Tell it about as often as devices are asked."""


@dataclass(frozen=True, slots=True)
class Start:
    """Bring the release to the device."""

    device: str


@dataclass(frozen=True, slots=True)
class Watch:
    """Ask for the device's health until it is said to be Watched."""

    device: str


@dataclass(frozen=True, slots=True)
class Watched:
    """Its health need not be asked for any longer; `reason` is None for a device that was healthy for long enough."""

    device: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop what was started there, and tell how it ended."""

    device: str
    reason: str


@dataclass(frozen=True, slots=True)
class Revert:
    """Return the device to the release that it served before, and tell how that ended."""

    device: str


@dataclass(frozen=True, slots=True)
class Waved:
    """A wave is done: its devices have ended, and those that took the release have been healthy for long enough."""

    number: int
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Paused:
    """Nothing further begins until somebody resumes."""

    reason: str


@dataclass(frozen=True, slots=True)
class Halted:
    """Nothing further begins; these devices were not touched."""

    reason: str
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """Everything that was to be decided is; after a halt, its reverts have ended."""


Happening = Progressed | Heard | Lost | Ended | Probed | Tick
Decision = Start | Watch | Watched | Cancel | Revert | Waved | Paused | Halted | Finished

_TYPES: dict[str, type[Happening] | type[Decision]] = {
    kind.__name__.lower(): kind
    for kind in (
        *(Progressed, Heard, Lost, Ended, Probed, Tick),
        *(Start, Watch, Watched, Cancel, Revert, Waved, Paused, Halted, Finished),
    )
}


def to_json(what: Happening | Decision) -> dict[str, Any]:
    """`{"kind": "ended", "device": "a", "outcome": "reverted"}`."""
    return {"kind": type(what).__name__.lower()} | {
        each.name: list(value) if isinstance(value := getattr(what, each.name), tuple) else value
        for each in fields(what)
    }


def from_json(value: Mapping[str, Any]) -> Happening | Decision:
    """Reads what `to_json` wrote. Raises ValueError for a kind that does not exist, TypeError for wrong fields."""
    given = {key: item for key, item in value.items() if key != "kind"}
    kind = _TYPES.get(value["kind"])
    if kind is None:
        raise ValueError(f"{value['kind']!r} is neither a happening nor a decision")
    if "outcome" in given:
        given["outcome"] = Outcome(given["outcome"])
    if "health" in given:
        given["health"] = Health(given["health"])
    if "devices" in given:
        given["devices"] = tuple(given["devices"])
    return kind(**given)
