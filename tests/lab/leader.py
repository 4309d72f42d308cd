"""Finding a container's first process from outside."""

from contextlib import suppress
from pathlib import Path


def leader_below(ancestor: int) -> int | None:
    """The descendant of a process that is PID 1 of a process namespace of its own; None when there is none."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for child in map(int, Path(f"/proc/{ancestor}/task/{ancestor}/children").read_text().split()):
            if _status(child, "NSpid")[1:] == ["1"]:
                return child
            if found := leader_below(child):
                return found
    return None


def parent(pid: int) -> int:
    """Raises FileNotFoundError when the process is gone."""
    return int(_status(pid, "PPid")[0])


def _status(pid: int, key: str) -> list[str]:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.split()
    return []
