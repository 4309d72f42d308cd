"""How much memory of a device a new release may use. PURE. Sizes are bytes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent_daemon.contract.fit import VRAM_RESERVE, WORKER_RESERVE, ram_reserve
from agent_daemon.contract.wire import Facts, GpuFacts, WorkerState, WorkerStatus
from edgectl.sizes import format_size

_WITHOUT_MEMORY = frozenset({WorkerState.UNLOADED, WorkerState.BACKOFF, WorkerState.STOPPED})
"""A worker in one of these states has no process, and holds nothing that a new release could have."""


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """One GPU that the device's runtime can use."""

    index: int
    uuid: str | None
    name: str | None
    free: int

    @property
    def label(self) -> str:
        return f"GPU {self.index}" + (f", {self.name}" if self.name else "")


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What models may use. `ram_free` None: not known. `limited`: the owner set a limit, so that each worker
    process has to find its own place within it (`ram_reserve`). `notes` say which memory is not used, and
    why."""

    gpus: tuple[GpuMemory, ...] = ()
    ram_free: int | None = None
    ram_reserve: int = 0
    offloads: bool = False
    limited: bool = False
    notes: tuple[str, ...] = ()

    @property
    def roomiest(self) -> GpuMemory | None:
        """The GPU with the most free memory."""
        return max(self.gpus, key=lambda gpu: (gpu.free, -gpu.index), default=None)

    def less(self, *, gpu_uuid: str | None, vram: int, ram: int) -> "DeviceMemory":
        """What is left beside a worker that takes `vram` of the GPU `gpu_uuid` and `ram`. The context that
        each worker opens on a GPU, and the process within a limit, are used up with it."""
        used_ram = ram + (self.ram_reserve if self.limited else 0)
        return replace(
            self,
            gpus=tuple(
                replace(gpu, free=max(0, gpu.free - vram - VRAM_RESERVE))
                if vram and gpu.uuid == gpu_uuid
                else gpu
                for gpu in self.gpus
            ),
            ram_free=None if self.ram_free is None else max(0, self.ram_free - used_ram),
        )


def device_memory(facts: Facts, workers: Sequence[WorkerStatus] = ()) -> DeviceMemory:
    """The memory of a device, with what its own workers hold counted as free: a new release replaces them."""
    holding = [worker for worker in workers if worker.state not in _WITHOUT_MEMORY]
    notes: list[str] = []
    gpus = []
    for gpu in facts.gpus:
        reason = _unused(gpu, facts)
        if reason is None:
            gpus.append(GpuMemory(gpu.index, gpu.uuid, gpu.name, _free(gpu, holding)))
        else:
            notes.append(f"{_described(gpu)} is not used: {reason}")
    if facts.gpu_error:
        notes.append(f"the list of GPUs may be incomplete: {facts.gpu_error}")
    ram = facts.ram_available
    if ram is None:
        notes.append("RAM is not used: how much is free is not known")
    else:
        ram += sum(worker.ram_private_bytes or 0 for worker in holding)
        ram = min(limit for limit in (ram, facts.ram_total, facts.ram_limit) if limit is not None)
    limited = facts.ram_limit is not None
    return DeviceMemory(
        gpus=tuple(gpus),
        ram_free=ram,
        ram_reserve=WORKER_RESERVE if limited else ram_reserve(facts.ram_total),
        offloads=facts.runtime.offloads,
        limited=limited,
        notes=tuple(notes),
    )


def _unused(gpu: GpuFacts, facts: Facts) -> str | None:
    if not facts.runtime.offloads:
        if not facts.runtime.backends:
            return f"this device's llama-cpp-python does not load ({facts.runtime.error or 'no reason was given'})"
        return f"this device's llama-cpp-python was built for {', '.join(facts.runtime.backends)} only"
    if gpu.vram_free is None:
        return "how much of its memory is free is not known"
    return None


def _described(gpu: GpuFacts) -> str:
    known = [gpu.name, None if gpu.vram_total is None else format_size(gpu.vram_total)]
    details = ", ".join(text for text in known if text)
    return f"GPU {gpu.index}" + (f" ({details})" if details else "")


def _free(gpu: GpuFacts, workers: Sequence[WorkerStatus]) -> int:
    free = gpu.vram_free or 0
    for worker in workers:
        if worker.memory == "vram" and worker.gpu_uuid == gpu.uuid and not worker.simulated_offload:
            free += worker.predicted_bytes if worker.vram_bytes is None else worker.vram_bytes
    return free if gpu.vram_total is None else min(free, gpu.vram_total)
