"""What this process holds of memory. A worker needs no more of psutil, which takes a tenth of its start."""

import os
from typing import NamedTuple


class OwnMemory(NamedTuple):
    """Bytes. `shared` is the part of `resident` that pages of files and of shared memory are."""

    address_space: int
    resident: int
    shared: int

    @property
    def private(self) -> int:
        return self.resident - self.shared


def own_memory() -> OwnMemory:
    """By proc_pid_statm(5). Raises OSError where there is no /proc."""
    with open("/proc/self/statm") as pages:
        whole, resident, shared, *_ = (int(word) for word in pages.read().split())
    page = os.sysconf("SC_PAGESIZE")
    return OwnMemory(whole * page, resident * page, shared * page)
