"""Graphics processors: NVIDIA through NVML (the only importer of pynvml), AMD through sysfs.

NVML is opened and closed for each question. An open one keeps the driver from being reloaded and a laptop's
GPU from sleeping, and goes stale over a suspend; this way the next question always starts afresh.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from agent_daemon.contract.wire import GpuFacts

_AMD_VENDOR = "0x1002"
_CARD = re.compile(r"card(\d+)")
_PCI = re.compile(r"(?:[0-9a-f]{4})?([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])")
SYSFS = Path("/sys")
_NOBODY: Mapping[str, frozenset[int]] = MappingProxyType({})

T = TypeVar("T")


def detect_gpus(
    sysfs_root: Path = SYSFS, holders: Mapping[str, frozenset[int]] = _NOBODY
) -> tuple[tuple[GpuFacts, ...], str | None]:
    """Every GPU of this machine, and why something about them is unknown, if it is. `holders` are the processes of
    this agent that hold memory of a GPU, by its uuid: what is in use besides is that of others.

    A fact that cannot be read is None. A GPU that does not answer stays in the list without facts, so that
    positions agree with `free_vram`. Memory in bytes. `index` counts from 0 over the whole list, NVIDIA first
    (there it is NVML's own index). A machine without NVML has no NVIDIA GPUs and no error. Raises nothing.
    """
    problems: list[str] = []
    nvidia = _nvidia_gpus(problems, holders)
    amd = _amd_gpus(sysfs_root, len(nvidia), problems, holders)
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


def process_vram(pid: int) -> dict[str, int] | None:
    """Bytes of NVIDIA memory that a process holds on each GPU, by its uuid (`#0` for the first if it has none).

    None when unknown: no NVML, a GPU that did not answer, a driver that does not count per process, or a
    process that it does not list (which is also how it looks from inside a container). Raises nothing.
    """
    problems: list[str] = []
    held: dict[str, int] = {}
    with _nvml(problems) as nvml:
        for index, handle in _nvidia_handles(nvml, problems):
            if handle is None:
                return None
            used = _used_by(nvml, handle, frozenset({pid}), f"GPU {index}", problems)
            if used is None:
                return None
            if pid in used:
                uuid = _read(problems, f"GPU {index} UUID", nvml.nvmlDeviceGetUUID, handle)
                held[uuid or f"#{index}"] = used[pid]
    return held if held and not problems else None


def pci_addresses(sysfs_root: Path = SYSFS) -> tuple[str | None, ...]:
    """PCI address of each GPU such as `0000:c1:00.0`, in the order of `detect_gpus`; None where unknown. Raises
    nothing."""
    unheard: list[str] = []
    found: list[str | None] = []
    with _nvml(unheard) as nvml:
        for _, handle in _nvidia_handles(nvml, unheard):
            info = None if handle is None else _read(unheard, "", nvml.nvmlDeviceGetPciInfo, handle)
            found.append(None if info is None else _pci_address(info.busId))
    found += [_pci_address(_resolved(device).name) for device in _amd_devices(sysfs_root)]
    return tuple(found)


def _pci_address(text: str | bytes) -> str | None:
    """As the kernel spells it; NVML's domain has eight digits."""
    spelled = text.decode(errors="replace") if isinstance(text, bytes) else text
    match = _PCI.fullmatch(spelled.lower())
    return match[1] if match else None


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


def _nvidia_gpus(problems: list[str], holders: Mapping[str, frozenset[int]]) -> list[GpuFacts]:
    with _nvml(problems) as nvml:
        if nvml is None:
            return []
        driver = _read(problems, "NVIDIA driver version", nvml.nvmlSystemGetDriverVersion)
        return [
            _nvidia_gpu(nvml, index, handle, driver, problems, holders)
            for index, handle in _nvidia_handles(nvml, problems)
        ]


def _nvidia_gpu(
    nvml: Any,
    index: int,
    handle: Any,
    driver: str | None,
    problems: list[str],
    holders: Mapping[str, frozenset[int]],
) -> GpuFacts:
    if handle is None:
        return GpuFacts(index=index, vendor="nvidia", driver=driver)
    label = f"GPU {index}"
    total, free = _nvidia_memory(nvml, handle, f"{label} memory", problems)
    uuid = _read(problems, f"{label} UUID", nvml.nvmlDeviceGetUUID, handle)
    ours = holders.get(uuid or "", frozenset())
    listed = _used_by(nvml, handle, ours, f"{label} processes", problems) if ours else {}
    capability = _read(
        problems, f"{label} compute capability", nvml.nvmlDeviceGetCudaComputeCapability, handle
    )
    return GpuFacts(
        index=index,
        uuid=uuid,
        vendor="nvidia",
        name=_read(problems, f"{label} name", nvml.nvmlDeviceGetName, handle),
        vram_total=total,
        vram_free=free,
        driver=driver,
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
        vram_others=_others(total, free, ours, listed),
    )


def _used_by(
    nvml: Any, handle: Any, pids: frozenset[int], what: str, problems: list[str]
) -> dict[int, int] | None:
    """Bytes on one GPU of those of the processes that are listed there; None where the driver does not say."""
    listed = _read(problems, what, nvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    if listed is None:
        return None
    ours = [process for process in listed if process.pid in pids]
    if any(process.usedGpuMemory is None for process in ours):
        return None
    return {process.pid: process.usedGpuMemory for process in ours}


def _others(
    total: int | None, free: int | None, ours: frozenset[int], listed: Mapping[int, int] | None
) -> int | None:
    """Bytes in use by anybody else. Where not all of our own processes are listed, nobody knows."""
    if total is None or free is None or listed is None or ours - listed.keys():
        return None
    return max(0, total - free - sum(listed.values()))


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


def _amd_gpus(
    sysfs_root: Path, first: int, problems: list[str], holders: Mapping[str, frozenset[int]]
) -> list[GpuFacts]:
    found = []
    for index, device in enumerate(_amd_devices(sysfs_root), start=first):
        total, free = _amd_memory(device, f"GPU {index} memory", problems)
        unique = _sysfs_text(device / "unique_id")
        # The spelling by which ROCm's own tools and variables name a GPU.
        uuid = f"GPU-{unique}" if unique else None
        found.append(
            GpuFacts(
                index=index,
                uuid=uuid,
                vendor="amd",
                name=_sysfs_text(device / "product_name"),
                vram_total=total,
                vram_free=free,
                driver=_amd_driver(sysfs_root, device),
                vram_others=_others(total, free, holders.get(uuid or "", frozenset()), {}),
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
    free = None if total is None or used is None else min(max(total - used, 0), total)
    return total, free


def _resolved(device: Path) -> Path:
    try:
        return device.resolve()
    except OSError:
        return device


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
