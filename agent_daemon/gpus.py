"""Graphics processors: NVIDIA through NVML (the only importer of pynvml), AMD through sysfs.

NVML is opened and closed for each question. An open one keeps the driver from being reloaded and a laptop's
GPU from sleeping, and goes stale over a suspend; this way the next question always starts afresh.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from agent_daemon.contract.wire import GpuFacts

_AMD_VENDOR = "0x1002"
_CARD = re.compile(r"card(\d+)")
SYSFS = Path("/sys")

T = TypeVar("T")


def detect_gpus(sysfs_root: Path = SYSFS) -> tuple[tuple[GpuFacts, ...], str | None]:
    """Every GPU of this machine, and why something about them is unknown, if it is.

    A fact that cannot be read is None. A GPU that does not answer stays in the list without facts, so that
    positions agree with `free_vram`. Memory in bytes. `index` counts from 0 over the whole list, NVIDIA first
    (there it is NVML's own index). A machine without NVML has no NVIDIA GPUs and no error. Raises nothing.
    """
    problems: list[str] = []
    nvidia = _nvidia_gpus(problems)
    amd = _amd_gpus(sysfs_root, len(nvidia), problems)
    return (*nvidia, *amd), "; ".join(problems) or None


def free_vram(sysfs_root: Path = SYSFS) -> tuple[int | None, ...]:
    """Free bytes of each GPU in the order of `detect_gpus`; None where unknown. Raises nothing."""
    unheard: list[str] = []
    free: list[int | None] = []
    with _nvml(unheard) as nvml:
        for _, handle in _nvidia_handles(nvml, unheard):
            free.append(_nvidia_memory(nvml, handle, "", unheard)[1])
    free += [_amd_memory(device, "", unheard)[1] for device in _amd_devices(sysfs_root)]
    return tuple(free)


def process_vram(pid: int) -> int | None:
    """Bytes of NVIDIA memory that a process holds on all GPUs together.

    None when unknown: no NVML, a GPU that did not answer, a driver that does not count per process, or a
    process that it does not list (which is also how it looks from inside a container). Raises nothing.
    """
    problems: list[str] = []
    held: list[int | None] = []
    with _nvml(problems) as nvml:
        for index, handle in _nvidia_handles(nvml, problems):
            if handle is None:
                return None
            listed = _read(problems, f"GPU {index}", nvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
            if listed is None:
                return None
            held += [process.usedGpuMemory for process in listed if process.pid == pid]
    known = [size for size in held if size is not None]
    return sum(known) if known and len(known) == len(held) and not problems else None


# -- NVIDIA ----------------------------------------------------------------------------------------------


@contextmanager
def _nvml(problems: list[str]) -> Iterator[Any]:
    """The initialised pynvml, or None where there is none to ask."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        yield None
        return
    except pynvml.NVMLError as error:
        problems.append(f"NVIDIA GPUs: the driver does not answer ({error})")
        yield None
        return
    try:
        yield pynvml
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _read(problems: list[str], what: str, call: Callable[..., T], *arguments: object) -> T | None:
    """One answer of NVML. `Not Supported` is a plain unknown; any other failure is worth telling."""
    import pynvml

    try:
        return call(*arguments)
    except pynvml.NVMLError_NotSupported:
        return None
    except (pynvml.NVMLError, UnicodeDecodeError) as error:
        problems.append(f"{what}: {error}")
        return None


def _nvidia_handles(nvml: Any, problems: list[str]) -> Iterator[tuple[int, Any]]:
    """Index and handle of each GPU; the handle is None for one that does not answer."""
    count = _read(problems, "NVIDIA GPUs", nvml.nvmlDeviceGetCount) if nvml else 0
    for index in range(count or 0):
        yield index, _read(problems, f"GPU {index}", nvml.nvmlDeviceGetHandleByIndex, index)


def _nvidia_gpus(problems: list[str]) -> list[GpuFacts]:
    with _nvml(problems) as nvml:
        if nvml is None:
            return []
        driver = _read(problems, "NVIDIA driver version", nvml.nvmlSystemGetDriverVersion)
        return [
            _nvidia_gpu(nvml, index, handle, driver, problems)
            for index, handle in _nvidia_handles(nvml, problems)
        ]


def _nvidia_gpu(nvml: Any, index: int, handle: Any, driver: str | None, problems: list[str]) -> GpuFacts:
    if handle is None:
        return GpuFacts(index=index, vendor="nvidia", driver=driver)
    label = f"GPU {index}"
    total, free = _nvidia_memory(nvml, handle, f"{label} memory", problems)
    capability = _read(
        problems, f"{label} compute capability", nvml.nvmlDeviceGetCudaComputeCapability, handle
    )
    return GpuFacts(
        index=index,
        uuid=_read(problems, f"{label} UUID", nvml.nvmlDeviceGetUUID, handle),
        vendor="nvidia",
        name=_read(problems, f"{label} name", nvml.nvmlDeviceGetName, handle),
        vram_total=total,
        vram_free=free,
        driver=driver,
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
    )


def _nvidia_memory(nvml: Any, handle: Any, what: str, problems: list[str]) -> tuple[int | None, int | None]:
    """Total and free bytes."""
    if handle is None:
        return None, None
    memory = _read(problems, what, nvml.nvmlDeviceGetMemoryInfo, handle)
    return (memory.total, min(memory.free, memory.total)) if memory else (None, None)


# -- AMD: files of the amdgpu kernel driver, https://docs.kernel.org/gpu/amdgpu/driver-misc.html ------------


def _amd_devices(sysfs_root: Path) -> list[Path]:
    """The device folders of AMD cards in the kernel's order (connectors such as card0-DP-1 are not cards)."""
    cards: list[tuple[int, Path]] = []
    with suppress(OSError):
        for entry in (sysfs_root / "class/drm").iterdir():
            match = _CARD.fullmatch(entry.name)
            if match and _sysfs_text(entry / "device/vendor") == _AMD_VENDOR:
                cards.append((int(match[1]), entry / "device"))
    return [device for _, device in sorted(cards)]


def _amd_gpus(sysfs_root: Path, first: int, problems: list[str]) -> list[GpuFacts]:
    found = []
    for index, device in enumerate(_amd_devices(sysfs_root), start=first):
        total, free = _amd_memory(device, f"GPU {index} memory", problems)
        unique = _sysfs_text(device / "unique_id")
        found.append(
            GpuFacts(
                index=index,
                # The spelling by which ROCm's own tools and variables name a GPU.
                uuid=f"GPU-{unique}" if unique else None,
                vendor="amd",
                name=_sysfs_text(device / "product_name"),
                vram_total=total,
                vram_free=free,
                driver=_amd_driver(sysfs_root, device),
            )
        )
    return found


def _amd_driver(sysfs_root: Path, device: Path) -> str | None:
    """`amdgpu`, with a version where it has one of its own (the in-tree driver has the kernel's)."""
    try:
        name = (device / "driver").readlink().name
    except OSError:
        return None
    version = _sysfs_text(sysfs_root / "module" / name / "version")
    return f"{name} {version}" if version else name


def _amd_memory(device: Path, what: str, problems: list[str]) -> tuple[int | None, int | None]:
    """Total and free bytes."""
    total = _sysfs_number(device / "mem_info_vram_total", what, problems)
    used = _sysfs_number(device / "mem_info_vram_used", what, problems)
    free = None if total is None or used is None else max(total - used, 0)
    return total, free


def _sysfs_text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


def _sysfs_number(path: Path, what: str, problems: list[str]) -> int | None:
    """A file that the driver does not have is a plain unknown; one that cannot be read is worth telling."""
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a number"
        problems.append(f"{what}: {path.name} cannot be read ({reason})")
        return None
