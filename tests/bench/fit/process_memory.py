"""What the kernel counts of a process, in bytes. Linux only."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Counted:
    """`resident` is Rss. `private` are pages of no file (Anonymous): buffers, heaps, stacks; only swap takes them
    away. Of the `mapped` pages of one file, `used` were read or written since `forget` (Referenced): the others are
    resident because nobody needed their room yet."""

    resident: int
    private: int
    mapped: int
    used: int


def count(file: str, pid: str = "self") -> Counted:
    """Of a process; `file` is the name of what it maps. Raises OSError when the process is gone or another's."""
    sums = {"Rss": 0, "Anonymous": 0}
    of_file = {"Rss": 0, "Referenced": 0}
    is_file = False
    for line in Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            is_file = line.endswith(f"/{file}")
            continue
        key = first[:-1]
        if key in sums:
            sums[key] += int(rest[0]) * 1024
        if is_file and key in of_file:
            of_file[key] += int(rest[0]) * 1024
    return Counted(sums["Rss"], sums["Anonymous"], of_file["Rss"], of_file["Referenced"])


def forget(pid: str = "self") -> None:
    """Lets the kernel forget which pages were used, so that `count` says which are used from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("1")
