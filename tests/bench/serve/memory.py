"""The memory of a server's processes while it works: sampled, and the highest sums kept."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_SECONDS = 0.5


def rollup(pid: int) -> dict[str, int]:
    """Bytes of one process: `rss`, `pss` (its share of what it has in common with others) and `anonymous` (not
    of any file: what a leak is made of)."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        found[name] = int(value.split()[0]) * 1024
    return {"rss": found["Rss"], "pss": found["Pss"], "anonymous": found["Anonymous"]}


def family(pid: int) -> list[int]:
    """The process and everything that it started."""
    try:
        return [pid, *(each.pid for each in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def together(pid: int) -> dict[str, int]:
    """Sums over the family, and `worker_pss`: of its largest process alone. Empty when nothing is there."""
    each = []
    for member in family(pid):
        try:
            each.append(rollup(member))
        except (OSError, KeyError, ValueError, IndexError):
            continue  # it ended meanwhile
    if not each:
        return {}
    sums = {name: sum(one[name] for one in each) for name in each[0]}
    return {**sums, "worker_pss": max(one["pss"] for one in each)}


class Peak:
    """Within its block: the highest of every figure, looked at twice a second and once at the end."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="memory", daemon=True)
        self.highest: dict[str, int] = {}

    def look(self) -> None:
        for name, value in together(self._pid).items():
            self.highest[name] = max(value, self.highest.get(name, 0))

    def _work(self) -> None:
        while not self._stop.wait(_SECONDS):
            self.look()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.look()
