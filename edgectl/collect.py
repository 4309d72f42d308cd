"""Brings devices' reports into the inventory: what a hub will do by itself, done on request."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from agent_daemon.contract.wire import CheckIn
from edgectl.agent_client import AgentClient
from edgectl.errors import EdgectlError
from edgectl.inventory.repository import Repository
from edgectl.settings import Settings
from edgectl.transport import open_transport

_PAGE = 1000
_AT_ONCE = 16


def refresh(settings: Settings, names: Sequence[str]) -> dict[str, str]:
    """Collects from each device, side by side, and returns the problems by device. A device that does not answer
    keeps what was known of it."""
    with Repository(settings.database) as repository:
        return collect(repository, names)


def collect(repository: Repository, names: Sequence[str]) -> dict[str, str]:
    """The same with an open repository."""
    if not names:
        return {}
    problems: dict[str, str] = {}

    def one(name: str) -> None:
        try:
            _collect(repository, name)
        except EdgectlError as error:
            problems[name] = error.message

    with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(names)), thread_name_prefix="collect") as pool:
        list(pool.map(one, names))
    return {name: problems[name] for name in names if name in problems}


def _collect(repository: Repository, name: str) -> None:
    device = repository.device(name)
    with AgentClient(open_transport(device.transport)) as client:
        client.hello()
        while True:
            check_in: CheckIn = client.reports(_PAGE)
            if not check_in.records:
                return
            # Stored first, acknowledged after: between the two the device repeats itself, which is harmless.
            client.acknowledge(repository.ingest(name, check_in))
            if not check_in.more:
                return
