"""What devices hold for nothing, and having them delete it: many at a time, each by its own account."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from agent_daemon.contract.wire import Disk, Prunable
from edgectl.agent_client import AgentClient
from edgectl.errors import DeviceError, EdgectlError, Unreachable
from edgectl.inventory.values import Device
from edgectl.observe import check_identity
from edgectl.transport import Transports

_AT_ONCE = 16
_FEATURE = "prune"


@dataclass(frozen=True)
class Tidied:
    """One device. `gone` is what was deleted, or would be; without it, `error` says why."""

    device: str
    gone: Prunable | None = None
    disk: Disk | None = None
    """As it is afterwards."""
    error: EdgectlError | None = None


def tidy(devices: Sequence[Device], transports: Transports, *, dry_run: bool) -> tuple[Tidied, ...]:
    """One answer for each device, in the same order. Raises nothing."""
    if not devices:
        return ()
    with ThreadPoolExecutor(min(_AT_ONCE, len(devices)), thread_name_prefix="prune") as pool:
        return tuple(pool.map(_one(transports, dry_run), devices))


def exit_code(tidied: Sequence[Tidied]) -> int:
    """0: all well; 1: some devices said no; 3: some could not be reached, and none said no."""
    if any(each.error is not None and not isinstance(each.error, Unreachable) for each in tidied):
        return 1
    return 3 if any(each.error is not None for each in tidied) else 0


def _one(transports: Transports, dry_run: bool) -> Callable[[Device], Tidied]:
    def one(device: Device) -> Tidied:
        try:
            with AgentClient(transports.open(device.transport)) as client:
                hello = client.hello()
                check_identity(device, hello)
                if _FEATURE not in hello.features:
                    raise DeviceError(
                        f"its agent {hello.agent_version} is too old to prune",
                        f"upgrade it: edgectl device bootstrap {device.name}",
                        code="version",
                    )
                pruned = client.prune(dry_run=dry_run)
        except EdgectlError as error:
            return Tidied(device.name, error=error)
        return Tidied(device.name, pruned.gone, pruned.disk)

    return one
