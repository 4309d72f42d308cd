"""Bootstraps devices side by side: all of them come to an end, whatever becomes of one."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from edgectl.bootstrap import Installed, Progress, Wanted, bootstrap
from edgectl.errors import EdgectlError, Unreachable
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import Device
from edgectl.transport import Transports

AT_ONCE = 8


@dataclass(frozen=True)
class Ended:
    """One device: what was installed, or why not."""

    device: str
    installed: Installed | None = None
    problem: EdgectlError | None = None


def bootstrap_all(
    repository: Repository,
    devices: Sequence[Device],
    wanted: Wanted,
    transports: Transports,
    progress: Progress,
) -> Iterator[Ended]:
    """As they end. Raises nothing but KeyboardInterrupt."""

    def one(device: Device) -> Ended:
        try:
            return Ended(device.name, bootstrap(repository, device, wanted, transports, progress))
        except EdgectlError as error:
            return Ended(device.name, problem=error)

    with ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="bootstrap") as pool:
        futures = [pool.submit(one, device) for device in devices]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def exit_code(ended: Sequence[Ended]) -> int:
    """0: all have an agent that answers; 1: some could not have it; 3: some were unreachable, none refused."""
    problems = [each.problem for each in ended if each.problem is not None]
    if any(not isinstance(problem, Unreachable) for problem in problems):
        return 1
    return 3 if problems else 0
