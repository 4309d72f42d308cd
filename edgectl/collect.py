"""Brings devices' reports into the inventory on request: what a device with a hub does by itself, and in the same
words. Taking part in both loses nothing and counts nothing twice."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

from agent_daemon.contract.wire import Ack, CheckIn
from edgectl.agent_client import AgentClient
from edgectl.errors import EdgectlError
from edgectl.inventory.values import Device
from edgectl.observe import check_identity, record_error
from edgectl.transport import Transports

if TYPE_CHECKING:
    from edgectl.inventory.repository import Repository

_PAGE = 1000
_AT_ONCE = 16


class Reporters(Protocol):
    """Who asks devices for their reports. Both raise EdgectlError; another agent than the known one is an error too."""

    def reports(self, device: Device, limit: int) -> CheckIn: ...

    def acknowledge(self, device: Device, ack: Ack) -> None: ...


class Directly:
    """Reporters of this process itself; a context, which keeps a connection to each device."""

    def __init__(self, transports: Transports) -> None:
        self._transports = transports
        self._clients: dict[str, AgentClient] = {}

    def reports(self, device: Device, limit: int) -> CheckIn:
        if device.name not in self._clients:
            client = AgentClient(self._transports.open(device.transport))
            self._clients[device.name] = client
            check_identity(device, client.hello())
        return self._clients[device.name].reports(limit)

    def acknowledge(self, device: Device, ack: Ack) -> None:
        self._clients[device.name].acknowledge(ack)

    def __enter__(self) -> "Directly":
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()


def collect(
    repository: "Repository", devices: Sequence[Device], reporters: Reporters
) -> dict[str, EdgectlError]:
    """Collects from each device, side by side, and returns the problems by its name. A device that does not answer
    (its problem is Unreachable) keeps what was known of it, and the inventory remembers since when."""
    if not devices:
        return {}
    problems: dict[str, EdgectlError] = {}

    def one(device: Device) -> None:
        try:
            try:
                _collect(repository, device, reporters)
            except EdgectlError as error:
                problems[device.name] = error
                record_error(repository, device.name, error)
        except EdgectlError as error:
            problems.setdefault(device.name, error)

    with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(devices)), thread_name_prefix="collect") as pool:
        list(pool.map(one, devices))
    return {device.name: problems[device.name] for device in devices if device.name in problems}


def _collect(repository: "Repository", device: Device, reporters: Reporters) -> None:
    while True:
        check_in = reporters.reports(device, _PAGE)
        if not check_in.records:
            repository.heard_from(device.name)
            return
        # Stored first, acknowledged after: between the two the device repeats itself, which is harmless.
        reporters.acknowledge(device, repository.ingest(device.name, check_in))
        if not check_in.more:
            return
