"""What this device is: memory, processor, disk, GPUs. A fact that cannot be determined is None."""

import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from agent_daemon import __version__
from agent_daemon.contract.wire import Facts, RuntimeFacts
from agent_daemon.free_memory import free_ram
from agent_daemon.gpus import SYSFS, detect_gpus
from agent_daemon.installed import build

CPUINFO = Path("/proc/cpuinfo")

RELEVANT_FEATURES = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "avx_vnni"),
    *("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"),
    *("avx512_vbmi", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("neon", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
"""The features that llama.cpp has code for, in Linux's spelling (x86 first, then Arm)."""

T = TypeVar("T")


def detect_facts(
    *,
    agent_id: str,
    state_dir: Path,
    ram_limit: int | None = None,
    runtime: RuntimeFacts | None = None,
    gateway_url: str | None = None,
    sysfs_root: Path = SYSFS,
    cpuinfo: Path = CPUINFO,
    holders: Mapping[str, frozenset[int]] | None = None,
) -> Facts:
    """Asks this machine what it is; memory and disk in bytes, free disk that of `state_dir`'s file system.

    What others know is passed in: the most RAM that the owner allows, what the runtime can do, where the
    gateway listens, and which processes of this agent hold memory of which GPU (`holders`, by uuid). Takes
    milliseconds, more where a GPU has to wake. Raises nothing.
    """
    import psutil

    text = _attempt(cpuinfo.read_text) or ""
    memory = _attempt(psutil.virtual_memory)
    disk = _attempt(lambda: shutil.disk_usage(state_dir))
    free = free_ram()
    total = memory.total if memory else None
    gpus, gpu_error = detect_gpus(sysfs_root, holders or {})
    return Facts(
        agent_id=agent_id,
        agent_version=__version__,
        agent_build=build(),
        hostname=platform.node() or None,
        os=_os_name(),
        kernel=platform.release() or None,
        arch=platform.machine() or None,
        python=platform.python_version(),
        cpu_model=cpu_model(text),
        cpu_cores=_attempt(lambda: psutil.cpu_count(logical=False)),
        cpu_threads=_attempt(lambda: psutil.cpu_count(logical=True)),
        cpu_features=cpu_features(text),
        ram_total=total,
        ram_available=free.free if free.free is None or total is None else min(free.free, total),
        ram_bound_by=free.bound_by,
        ram_limit=ram_limit,
        disk_free=disk.free if disk else None,
        gpus=gpus,
        gpu_error=gpu_error,
        runtime=runtime or RuntimeFacts(),
        gateway_url=gateway_url,
    )


def cpu_model(cpuinfo: str) -> str | None:
    """The processor's name in the text of /proc/cpuinfo. Most Arm kernels give none: then None."""
    name = _first(cpuinfo, "model name")
    return None if name in (None, "", "unknown") else name


def cpu_features(cpuinfo: str) -> tuple[str, ...]:
    """The `RELEVANT_FEATURES` named in the text of /proc/cpuinfo, in their order.

    With processors of different kinds (big and little cores) only what all of them have: code runs on any.
    """
    lists = [set(value.split()) for key, value in _entries(cpuinfo) if key in ("flags", "Features")]
    shared = set.intersection(*lists) if lists else set()
    return tuple(name for name in RELEVANT_FEATURES if name in shared)


def _entries(cpuinfo: str) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in cpuinfo.splitlines())
    return [(key.strip(), value.strip()) for key, colon, value in pairs if colon]


def _first(cpuinfo: str, wanted: str) -> str | None:
    return next((value for key, value in _entries(cpuinfo) if key == wanted), None)


def _os_name() -> str | None:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system() or None


def _attempt(read: Callable[[], T]) -> T | None:
    """None instead of an error: /proc may be hidden, a disk gone, a question unknown to this system."""
    import psutil

    try:
        return read()
    except (OSError, ValueError, RuntimeError, psutil.Error):
        return None
