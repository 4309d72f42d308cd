"""How the device's memory is doing, live. Everything in bytes; None when unknown. Nothing here raises."""

from pathlib import Path
from typing import NamedTuple

from agent_daemon import gpus


class ProcessMemory(NamedTuple):
    """Resident memory of one process. `private` leaves out pages of files and shared memory."""

    rss: int
    private: int | None


def ram_available() -> int | None:
    """RAM that can be taken without swapping (the kernel's estimate, MemAvailable on Linux)."""
    import psutil

    try:
        return psutil.virtual_memory().available
    except (OSError, ValueError, RuntimeError, psutil.Error):
        return None


def gpu_free(sysfs_root: Path = gpus.SYSFS) -> tuple[int | None, ...]:
    """Free memory of each GPU, in the order of the facts' `gpus`."""
    return gpus.free_vram(sysfs_root)


def process_memory(pid: int) -> ProcessMemory | None:
    """What a process has in RAM, or None when it is gone or may not be looked at.

    `private` is resident minus shared (proc_pid_statm(5)), so weights mapped from a file are not in it. It is
    None on systems that do not count shared pages.
    """
    import psutil

    try:
        memory = psutil.Process(pid).memory_info()
    except (psutil.Error, OSError, ValueError):
        return None
    # A process that has ended but was not waited for still answers: with nothing.
    if memory.rss == 0:
        return None
    shared: int | None = getattr(memory, "shared", None)
    return ProcessMemory(memory.rss, None if shared is None else max(memory.rss - shared, 0))


def process_vram(pid: int) -> dict[str, int] | None:
    """What a process holds in the memory of NVIDIA GPUs, by their uuids; None when the driver does not say."""
    return gpus.process_vram(pid)
