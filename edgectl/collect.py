"""Brings devices' reports into the inventory: what a hub will do by itself, done on request."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from agent_daemon.contract.wire import CheckIn
from edgectl.agent_client import AgentClient
from edgectl.errors import EdgectlError
from edgectl.inventory.repository import Repository
from edgectl.transport import Transports

_PAGE = 1000
_AT_ONCE = 16


def collect(repository: Repository, names: Sequence[str], transports: Transports) -> dict[str, EdgectlError]:
    """Collects from each device, side by side, and returns the problems by device. A device that does not answer
    keeps what was known of it."""
    if not names:
        return {}
    problems: dict[str, EdgectlError] = {}

    def one(name: str) -> None:
        try:
            _collect(repository, name, transports)
        except EdgectlError as error:
            problems[name] = error

    with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(names)), thread_name_prefix="collect") as pool:
        list(pool.map(one, names))
    return {name: problems[name] for name in names if name in problems}


def _collect(repository: Repository, name: str, transports: Transports) -> None:
    device = repository.device(name)
    with AgentClient(transports.open(device.transport)) as client:
        client.hello()
        while True:
            check_in: CheckIn = client.reports(_PAGE)
            if not check_in.records:
                return
            # Stored first, acknowledged after: between the two the device repeats itself, which is harmless.
            client.acknowledge(repository.ingest(name, check_in))
            if not check_in.more:
                return
