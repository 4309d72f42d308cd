"""Asks devices what they are and what they serve, many at a time, and remembers what came of it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_daemon.contract.wire import DeviceState, Facts, Hello
from edgectl.agent_client import AgentClient
from edgectl.errors import DeviceError, EdgectlError, Unreachable
from edgectl.inventory.values import Device
from edgectl.transport import Transports

if TYPE_CHECKING:
    from edgectl.inventory.repository import Repository

_AT_ONCE = 32
_ANOTHER_AGENT = "another_agent"


@dataclass(frozen=True)
class Sighting:
    """One device as it answered just now, or why it did not."""

    device: Device
    facts: Facts | None = None
    state: DeviceState | None = None
    error: EdgectlError | None = None
    """Unreachable when there was no answer; any other when the answer was of no use. Its hint says what to do."""

    @property
    def problem(self) -> str | None:
        return self.error.message if self.error is not None else None


Look = Callable[[Sequence[Device]], tuple[Sighting, ...]]
"""Asks devices: one sighting for each, in the same order. Raises nothing."""


def observe(devices: Sequence[Device], transports: Transports) -> tuple[Sighting, ...]:
    """One sighting for each device, in the same order. Raises nothing: a silent device is a sighting too."""
    if not devices:
        return ()
    with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(devices)), thread_name_prefix="observe") as pool:
        return tuple(pool.map(lambda device: sight(device, transports), devices))


def sight(device: Device, transports: Transports) -> Sighting:
    """Asks one device."""
    try:
        with AgentClient(transports.open(device.transport)) as client:
            return sight_with(device, client)
    except EdgectlError as error:
        return Sighting(device, error=error)


def sight_with(device: Device, client: AgentClient) -> Sighting:
    """Asks one device through a client that stays open."""
    try:
        check_identity(device, client.hello())
        return Sighting(device, client.facts(), client.state())
    except EdgectlError as error:
        return Sighting(device, error=error)


def check_identity(device: Device, hello: Hello) -> None:
    """Raises DeviceError when the agent that answers is not the one that the inventory knows."""
    if device.agent_id not in (None, hello.agent_id):
        raise DeviceError(
            f"another agent answers there ({hello.agent_id}, expected {device.agent_id}): was its state lost?"
            " Remove the device and add it again",
            code=_ANOTHER_AGENT,
        )


def record(repository: "Repository", sightings: Sequence[Sighting]) -> None:
    """Brings what was seen into the inventory: facts, and who could not be reached. Raises InventoryError."""
    seen = {each.device.name: each.facts for each in sightings if each.facts is not None}
    repository.save_all_facts(seen)
    for sighting in sightings:
        if sighting.facts is None and sighting.error is not None:
            record_error(repository, sighting.device.name, sighting.error)


def record_error(repository: "Repository", name: str, error: EdgectlError) -> None:
    """Brings into the inventory what an error says of a device: that it cannot be reached, or that it could and
    said no. Raises InventoryError."""
    if isinstance(error, Unreachable):
        repository.mark_unreachable(name, error.message)
    elif isinstance(error, DeviceError) and error.code != _ANOTHER_AGENT:
        repository.heard_from(name)
