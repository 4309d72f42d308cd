"""RAM that a process of this agent could take: the least of what the system and every limit on it leave.

A limit is seen from the process that it binds: a container's and a systemd unit's as control groups, of which every
level up counts, and a process's own (RLIMIT_AS, RLIMIT_DATA), which its workers inherit. Bytes throughout; what cannot
be read limits nothing.

Like the kernel's MemAvailable, a control group's room takes weights that are mapped from a file for available, in use
or not: whoever wants to know what is left beside running workers takes off what they have mapped.
"""

import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent_daemon import telemetry

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
Bound = Literal["system", "cgroup", "rlimit"]
_SYSTEM: Bound = "system"
_CGROUP: Bound = "cgroup"
_RLIMIT: Bound = "rlimit"
_UNLIMITED = 1 << 60
"""What cgroup v1 writes where there is no limit is a little less than 2^63."""


@dataclass(frozen=True)
class FreeRam:
    """`free` bytes, and what leaves no more; None: not known. It is the lesser of two: what all processes together
    may still take (`shared`), and what one process may by its own limits, whatever the others hold (`each`; None: as
    much as there is)."""

    free: int | None
    bound_by: Bound | None
    shared: int | None
    each: int | None


def free_ram(proc: Path = PROC, cgroups: Path = CGROUPS) -> FreeRam:
    """What is free at this moment. Raises nothing."""
    system, cgroup, each = telemetry.ram_available(), cgroup_room(proc, cgroups), rlimit_room(proc)
    shared = min((size for size in (system, cgroup) if size is not None), default=None)
    # Of equals the first: what binds everything on the machine is named before what binds one process.
    bounds = [
        FreeRam(size, name, shared, each)
        for size, name in ((system, _SYSTEM), (cgroup, _CGROUP), (each, _RLIMIT))
        if size is not None
    ]
    return min(bounds, key=lambda bound: bound.free or 0, default=FreeRam(None, None, shared, each))


def cgroup_room(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Bytes that the tightest control group of this process leaves, of all levels up to the root; None where none
    has a limit."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return None
    rooms: list[int] = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            for root in (cgroups, cgroups / "unified"):
                rooms += [room for folder in _levels(root, path) if (room := _room_v2(folder)) is not None]
        elif "memory" in controllers.split(","):
            root = cgroups / "memory"
            rooms += [room for folder in _levels(root, path) if (room := _room_v1(folder)) is not None]
    return min(rooms, default=None)


def _levels(root: Path, path: str) -> Iterator[Path]:
    """The group's folder and those above it. Inside a container a group's path may be that of the host, which is not
    to be found there: the root then is the container's own group."""
    parts = [part for part in path.split("/") if part]
    # A process moved out of its namespace's root has a path that begins above it.
    while parts and parts[0] == "..":
        parts.pop(0)
    for count in range(len(parts), -1, -1):
        yield root.joinpath(*parts[:count])


def _room_v2(folder: Path) -> int | None:
    limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
    if limit is None or used is None:
        return None
    stat = _table(folder / "memory.stat")
    return _left(
        limit, used, stat.get("inactive_file", 0), stat.get("active_file", 0), stat.get("file_mapped", 0)
    )


def _room_v1(folder: Path) -> int | None:
    limit, used = _number(folder / "memory.limit_in_bytes"), _number(folder / "memory.usage_in_bytes")
    if limit is None or used is None or limit >= _UNLIMITED:
        return None
    stat = _table(folder / "memory.stat")
    names = ("total_inactive_file", "total_active_file", "total_mapped_file")
    return _left(limit, used, *(stat.get(name, 0) for name in names))


def _left(limit: int, used: int, inactive: int, active: int, mapped: int) -> int:
    """What a limit leaves. Pages of files that nobody has used lately are given up without being missed, and mapped
    ones count as such here (see above); a page may be both, so no more than there are."""
    reclaimable = inactive if mapped == 0 else min(inactive + mapped, inactive + active)
    return max(0, limit - max(0, used - reclaimable))


def rlimit_room(proc: Path = PROC) -> int | None:
    """Bytes that one more process like this one could map by its own limits; None where it has none."""
    page = resource.getpagesize()
    try:
        statm = [int(word) * page for word in (proc / "self/statm").read_text().split()]
        whole, data = statm[0], statm[5]
    except (OSError, ValueError, IndexError):
        whole = data = 0
    limits = ((resource.RLIMIT_AS, whole), (resource.RLIMIT_DATA, data))
    rooms = [
        max(0, soft - mapped)
        for name, mapped in limits
        if (soft := resource.getrlimit(name)[0]) != resource.RLIM_INFINITY
    ]
    return min(rooms, default=None)


def _number(path: Path) -> int | None:
    """None for a file that is not there, and for `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _table(path: Path) -> dict[str, int]:
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
        return {words[0]: int(words[1]) for words in lines if len(words) == 2}
    except (OSError, ValueError):
        return {}
