"""Brings devices' reports into the inventory on request: what a device with a hub does by itself, and in the same
words. Taking part in both loses nothing and counts nothing twice."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from agent_daemon.contract.wire import CheckIn
from edgectl.agent_client import AgentClient
from edgectl.errors import EdgectlError
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import Device
from edgectl.observe import check_identity, record_error
from edgectl.transport import Transports

_PAGE = 1000
_AT_ONCE = 16


def collect(repository: Repository, names: Sequence[str], transports: Transports) -> dict[str, EdgectlError]:
    """Collects from each device, side by side, and returns the problems by device. A device that does not answer
    (its problem is Unreachable) keeps what was known of it, and the inventory remembers since when."""
    if not names:
        return {}
    problems: dict[str, EdgectlError] = {}

    def one(name: str) -> None:
        try:
            device = repository.device(name)
            try:
                _collect(repository, device, transports)
            except EdgectlError as error:
                problems[name] = error
                record_error(repository, name, error)
        except EdgectlError as error:
            problems.setdefault(name, error)

    with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(names)), thread_name_prefix="collect") as pool:
        list(pool.map(one, names))
    return {name: problems[name] for name in names if name in problems}


def _collect(repository: Repository, device: Device, transports: Transports) -> None:
    with AgentClient(transports.open(device.transport)) as client:
        check_identity(device, client.hello())
        while True:
            check_in: CheckIn = client.reports(_PAGE)
            if not check_in.records:
                repository.heard_from(device.name)
                return
            # Stored first, acknowledged after: between the two the device repeats itself, which is harmless.
            client.acknowledge(repository.ingest(device.name, check_in))
            if not check_in.more:
                return
