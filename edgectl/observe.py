"""Asks devices what they are and what they serve, many at a time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from agent_daemon.contract.wire import DeviceState, Facts
from edgectl.agent_client import AgentClient
from edgectl.errors import EdgectlError
from edgectl.inventory.values import Device
from edgectl.transport import Transports

_AT_ONCE = 32


@dataclass(frozen=True)
class Sighting:
    """One device as it answered just now, or why it did not."""

    device: Device
    facts: Facts | None = None
    state: DeviceState | None = None
    problem: str | None = None


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
            hello = client.hello()
            if device.agent_id is not None and hello.agent_id != device.agent_id:
                return Sighting(
                    device,
                    problem=f"another agent answers there ({hello.agent_id}, expected {device.agent_id}): was its"
                    " state lost? Remove the device and add it again",
                )
            return Sighting(device, client.facts(), client.state())
    except EdgectlError as error:
        return Sighting(device, problem=error.message)
