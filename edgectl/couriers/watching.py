"""How a device that has its release is doing: one look, as its own account says. Effects: asks the device."""

from agent_daemon.contract.health import Health
from agent_daemon.contract.wire import WorkerState
from edgectl.agent_client import AgentClient
from edgectl.errors import DeviceError, Unreachable
from edgectl.rollouts.events import Looked

_WELL = frozenset({WorkerState.READY, WorkerState.UNLOADED})
_COMING = frozenset({WorkerState.STARTING, WorkerState.DRAINING})


def look(device: str, digest: str, client: AgentClient) -> Looked:
    """GOOD when the device serves the release of that digest and every worker that should be in memory is ready;
    UNKNOWN when it cannot be asked or is busy, which says nothing about the release."""
    try:
        state = client.state()
    except (Unreachable, DeviceError) as error:
        return Looked(device, Health.UNKNOWN, error.message)
    if state.active != digest:
        return Looked(device, Health.BAD, "it serves another release")
    for worker in state.workers:
        name = ", ".join(worker.models)
        if worker.state in _COMING:
            return Looked(device, Health.UNKNOWN, f"{name}: {worker.state}")
        if worker.state not in _WELL:
            return Looked(device, Health.BAD, f"{name}: {worker.error or worker.state}")
    return Looked(device, Health.GOOD)
