"""Control groups of a lab: whatever a lab starts lives in one tree, so that one write ends all of it.

A process cannot leave the tree by forking or by losing its parent, which makes it a better record of what a
lab owns than process ids are: those are given out again.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests.lab.host import LabError

_ENTER = 'for group in $1; do echo $$ > "$group/cgroup.procs" || exit 1; done; shift; exec "$@"'


@cache
def _hierarchies() -> tuple[Path, ...]:
    """cgroup2 first, then systemd's own where the machine has both (nspawn makes groups in each)."""
    found = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found["unified"] = Path(place)
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            found["named"] = Path(place)
    if "unified" not in found:
        raise LabError("the lab needs cgroup2, and none is mounted on this machine")
    return tuple(found[kind] for kind in ("unified", "named") if kind in found)


def entering(group: str, argv: Sequence[str]) -> list[str]:
    """`argv`, run so that it and all its descendants are in `group` (a path such as `lab-1/dev1`)."""
    folders = [hierarchy / group for hierarchy in _hierarchies()]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return ["sh", "-c", _ENTER, "enter", " ".join(map(str, folders)), *argv]


def kill(group: str, seconds: float = 20) -> None:
    """SIGKILL to every process in `group` and below, all at once; returns when none is left."""
    top = _hierarchies()[0] / group
    deadline = time.monotonic() + seconds
    while _populated(top):
        # The file appeared in Linux 5.14; before that, one by one until nobody is left to fork.
        if (top / "cgroup.kill").exists():
            (top / "cgroup.kill").write_text("1")
        else:
            for pid in processes(group):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise LabError(f"processes of {group} outlive SIGKILL: {processes(group)}")
        time.sleep(0.01)


def freeze(group: str, seconds: float = 20) -> None:
    """Stops every process in `group` and below at the same moment, as a closed lid does; `thaw` lets them go on.
    Returns when all of them stand still."""
    _set_frozen(group, frozen=True, seconds=seconds)


def thaw(group: str, seconds: float = 20) -> None:
    _set_frozen(group, frozen=False, seconds=seconds)


def _set_frozen(group: str, *, frozen: bool, seconds: float) -> None:
    top = _hierarchies()[0] / group
    (top / "cgroup.freeze").write_text(f"{frozen:d}")
    deadline = time.monotonic() + seconds
    while f"frozen {frozen:d}" not in (top / "cgroup.events").read_text():
        if time.monotonic() > deadline:
            raise LabError(f"{group} was not {'frozen' if frozen else 'thawed'} within {seconds:g} s")
        time.sleep(0.01)


def processes(group: str) -> list[int]:
    """Ids of all processes in `group` and below, as this machine numbers them."""
    return [
        int(pid)
        for folder in _tree(_hierarchies()[0] / group)
        for pid in (folder / "cgroup.procs").read_text().split()
    ]


def remove(group: str) -> None:
    """Kills what is in `group` and takes the group away, in every hierarchy."""
    kill(group)
    for hierarchy in _hierarchies():
        for folder in _tree(hierarchy / group):
            # A group is busy for a moment after its last process has died.
            for _ in range(200):
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)


def _populated(folder: Path) -> bool:
    with suppress(FileNotFoundError):
        return "populated 1" in (folder / "cgroup.events").read_text()
    return False


def _tree(folder: Path) -> Iterator[Path]:
    """A group's folders, the deepest first."""
    for inner, _, _ in os.walk(folder, topdown=False):
        yield Path(inner)
