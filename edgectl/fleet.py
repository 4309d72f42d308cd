"""Adding devices and asking single ones."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent_daemon.contract.wire import Facts
from edgectl.agent_client import AgentClient
from edgectl.collect import Directly, collect
from edgectl.errors import DeviceError, EdgectlError, Unreachable
from edgectl.fit.memory_account import memories
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import Device
from edgectl.observe import record, sight
from edgectl.transport import Spec, Transports
from edgectl.transport.local import LocalTransport

_AT_ONCE = 16


def add_local_device(repository: Repository, name: str, state_dir: Path, labels: Mapping[str, str]) -> Device:
    """Registers this machine under a name. Raises Unreachable when no agent runs with that state directory, and
    InventoryError when the name or the agent is registered already."""
    transport = LocalTransport(state_dir)
    with AgentClient(transport) as client:
        client.hello()
        facts = client.facts()
    return repository.add_device(name, transport.spec(), labels, facts)


@dataclass(frozen=True)
class Added:
    """A device that was added over SSH (`agent_id` None: no agent answers there yet), or why it was not."""

    name: str
    agent_id: str | None = None
    problem: EdgectlError | None = None


def add_ssh_devices(
    repository: Repository,
    specs: Mapping[str, Spec],
    labels: Mapping[str, str],
    transports: Transports,
    accept_new_host_key: bool,
) -> tuple[Added, ...]:
    """Registers devices, name -> transport, after logging in to each; side by side. Raises nothing."""

    def one(name: str) -> Added:
        try:
            spec = transports.ssh.learn(specs[name]) if accept_new_host_key else specs[name]
            transports.ssh.shell(spec)
            device = repository.add_device(name, spec, labels, _facts_if_any(spec, transports))
        except EdgectlError as error:
            return Added(name, problem=error)
        return Added(name, device.agent_id)

    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="add") as pool:
        return tuple(pool.map(one, specs))


def _facts_if_any(spec: Spec, transports: Transports) -> Facts | None:
    """None where no agent of ours answers: it may come with a bootstrap."""
    try:
        with AgentClient(transports.open(spec)) as client:
            client.hello()
            return client.facts()
    except (Unreachable, DeviceError):
        return None


def account(repository: Repository, name: str, transports: Transports) -> dict[str, Any]:
    """A device's own account at this moment: what it is and how it is doing, its `memories` with what is kept of
    each, and the newest `loads` that were measured on it. What it has to report is collected on the way. Raises
    Unreachable and InventoryError."""
    device = repository.device(name)
    sighting = sight(device, transports)
    record(repository, (sighting,))
    if sighting.facts is None or sighting.state is None:
        raise sighting.error or Unreachable(f"{name} did not answer")
    with Directly(transports) as reporters:
        problems = collect(repository, (repository.device(name),), reporters)
    if problems:
        raise problems[name]
    return {
        "name": device.name,
        "labels": dict(device.labels),
        "facts": sighting.facts.model_dump(mode="json"),
        "state": sighting.state.model_dump(mode="json"),
        "memories": memories(sighting.facts, repository.margins()),
        "loads": [asdict(fit) | {"error_percent": fit.error_percent} for fit in repository.fits(name)],
    }


def device_logs(repository: Repository, name: str, lines: int, transports: Transports) -> str:
    """The last lines that the device's agent and workers wrote. Raises Unreachable and InventoryError."""
    with AgentClient(transports.open(repository.device(name).transport)) as client:
        return client.logs(lines)


def follow_logs(repository: Repository, name: str, lines: int, transports: Transports) -> Iterator[str]:
    """The same, and then what they write, as they write it."""
    with AgentClient(transports.open(repository.device(name).transport)) as client:
        yield from client.follow_logs(lines)
