"""How many threads a model's computation gets: one for each physical core that this process may run on."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

_TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cores(allowed: Callable[[], Iterable[int]] | None = None, topology: Path = _TOPOLOGY) -> int:
    """Physical cores among the processors that the scheduler gives this process (`allowed`; a container's or a unit's
    set of processors is part of that). More threads than these wait for one another at every step of the graph, each
    spinning on a processor that another one needs: two threads on one core are slower by a multiple, not by half.
    Where the topology is not told, each allowed processor counts as a core. At least 1; raises nothing."""
    processors = _allowed() if allowed is None else set(allowed())
    if not processors:
        return psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return len({_core(topology / f"cpu{number}" / "topology") or number for number in processors})


def _allowed() -> set[int]:
    """Empty where the system does not tell."""
    try:
        return os.sched_getaffinity(0)
    except (AttributeError, OSError):
        return set()


def _core(folder: Path) -> tuple[str, str] | None:
    try:
        package = (folder / "physical_package_id").read_text().strip()
        return package, (folder / "core_id").read_text().strip()
    except OSError:
        return None
