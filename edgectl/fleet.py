"""Adding devices and asking single ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgectl.agent_client import AgentClient
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import Device
from edgectl.transport import Transports
from edgectl.transport.local import LocalTransport


def add_local_device(repository: Repository, name: str, state_dir: Path, labels: Mapping[str, str]) -> Device:
    """Registers this machine under a name. Raises Unreachable when no agent runs with that state directory, and
    InventoryError when the name or the agent is registered already."""
    transport = LocalTransport(state_dir)
    with AgentClient(transport) as client:
        client.hello()
        facts = client.facts()
    return repository.add_device(name, transport.spec(), labels, facts)


def account(repository: Repository, name: str, transports: Transports) -> dict[str, Any]:
    """A device's own account at this moment. Raises Unreachable and InventoryError."""
    device = repository.device(name)
    with AgentClient(transports.open(device.transport)) as client:
        client.hello()
        facts, state = client.facts(), client.state()
    repository.save_facts(name, facts)
    return {
        "name": device.name,
        "labels": dict(device.labels),
        "facts": facts.model_dump(mode="json"),
        "state": state.model_dump(mode="json"),
    }


def worker_logs(repository: Repository, name: str, lines: int, transports: Transports) -> str:
    """The last lines that the device's workers wrote. Raises Unreachable and InventoryError."""
    with AgentClient(transports.open(repository.device(name).transport)) as client:
        return client.logs(lines)
