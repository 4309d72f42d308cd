"""How much memory of a device a new release may use. PURE. Sizes are bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from agent_daemon.contract.fit import MIB, VRAM_RESERVE, WORKER_RESERVE, ram_reserve
from agent_daemon.contract.fit_margin import device_class
from agent_daemon.contract.release import Strategy
from agent_daemon.contract.wire import Facts, GpuFacts, WorkerState, WorkerStatus
from edgectl.fit.margins import Margin, margin
from edgectl.sizes import format_size

_WITHOUT_MEMORY = frozenset({WorkerState.UNLOADED, WorkerState.BACKOFF, WorkerState.STOPPED})
"""A worker in one of these states has no process, and holds nothing that a new release could have."""
_CONSIDERABLE = 256 * MIB
"""What others use of a GPU is told from here on."""


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """One GPU that the device's runtime can use. `reserve` of its free bytes are kept for what each worker takes
    besides what is counted; `bandwidth` is in bytes a second, None where it was not measured."""

    index: int
    uuid: str | None
    name: str | None
    free: int
    reserve: int = VRAM_RESERVE
    bandwidth: int | None = None

    @property
    def label(self) -> str:
        return f"GPU {self.index}" + (f", {self.name}" if self.name else "")

    @property
    def key(self) -> str:
        """What tells it from the device's other GPUs."""
        return self.uuid or f"#{self.index}"

    @property
    def budget(self) -> int:
        """What a model may take."""
        return max(0, self.free - self.reserve)


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What models may use. `ram_free` None: not known. `limited`: the owner set a limit, so that each worker
    process has to find its own place within it (`ram_reserve`). `ram_margin` is kept for each model in RAM, for what
    such models were measured to take beyond what is counted. `notes` say which memory is not used, and why."""

    gpus: tuple[GpuMemory, ...] = ()
    ram_free: int | None = None
    ram_reserve: int = 0
    offloads: bool = False
    limited: bool = False
    notes: tuple[str, ...] = ()
    ram_bandwidth: int | None = None
    ram_margin: int = 0

    @property
    def by_room(self) -> tuple[GpuMemory, ...]:
        """The GPUs, the one with the most memory for a model first."""
        if len(self.gpus) < 2:
            return self.gpus
        return tuple(sorted(self.gpus, key=lambda gpu: (-gpu.budget, gpu.index)))

    def less(self, *, vram: Mapping[str, int], ram: int, in_ram: bool = False) -> "DeviceMemory":
        """What is left beside a worker that takes `vram` of GPUs, by their keys, and `ram`; `in_ram` says that it is
        placed there. What is kept for each worker, on a GPU, in RAM or within a limit, is used up with it."""
        used_ram = ram + (self.ram_reserve if self.limited else 0) + (self.ram_margin if in_ram else 0)
        return replace(
            self,
            gpus=tuple(
                replace(gpu, free=max(0, gpu.free - vram[gpu.key] - gpu.reserve)) if gpu.key in vram else gpu
                for gpu in self.gpus
            ),
            ram_free=None if self.ram_free is None else max(0, self.ram_free - used_ram),
        )


def device_memory(
    facts: Facts,
    workers: Sequence[WorkerStatus] = (),
    *,
    strategy: Strategy = Strategy.AUTO,
    margins: Mapping[str, Margin] = MappingProxyType({}),
) -> DeviceMemory:
    """The memory of a device. What its own workers hold counts as free where a new release may replace them before
    it is loaded; under `handover` they stay beside it until it answers. `margins`: what was learned of classes of
    devices, by `fit_margin.device_class`."""
    holding = [worker for worker in workers if worker.state not in _WITHOUT_MEMORY]
    freed, staying = ([], holding) if strategy is Strategy.HANDOVER else (holding, [])
    notes: list[str] = []
    gpus = []
    for gpu in facts.gpus:
        reason = _unused(gpu, facts)
        if reason is None:
            reserve = margin_of(gpu, facts, margins).bytes
            gpus.append(
                GpuMemory(gpu.index, gpu.uuid, gpu.name, _free(gpu, freed), reserve, bandwidth=gpu.bandwidth)
            )
            if (gpu.vram_others or 0) >= _CONSIDERABLE:
                notes.append(
                    f"{_described(gpu)}: {format_size(gpu.vram_others or 0)} of its memory are in use by others"
                )
        else:
            notes.append(f"{_described(gpu)} is not used: {reason}")
    if facts.gpu_error:
        notes.append(f"the list of GPUs may be incomplete: {facts.gpu_error}")
    ram = _ram(facts, freed, staying)
    if ram is None:
        notes.append("RAM is not used: how much is free is not known")
    elif facts.ram_bound_by in _LIMITS:
        notes.append(f"RAM: {format_size(ram)} may be used, {_LIMITS[facts.ram_bound_by]}")
    if staying:
        notes.append("strategy handover: what is served now stays in memory until the new release answers")
    limited = facts.ram_limit is not None
    return DeviceMemory(
        gpus=tuple(gpus),
        ram_free=ram,
        ram_reserve=WORKER_RESERVE if limited else ram_reserve(facts.ram_total),
        offloads=facts.runtime.offloads,
        limited=limited,
        notes=tuple(notes),
        ram_bandwidth=facts.ram_bandwidth,
        ram_margin=margin_of(None, facts, margins).bytes,
    )


def class_of(gpu: GpuFacts | None, facts: Facts) -> str | None:
    """The class that loads on this GPU of a device, or (None) in its RAM, are learned for; a GPU without a name has
    none."""
    if gpu is not None and gpu.name is None:
        return None
    return device_class(
        gpu=None if gpu is None else gpu.name, backends=facts.runtime.backends, arch=facts.arch
    )


def margin_of(gpu: GpuFacts | None, facts: Facts, margins: Mapping[str, Margin]) -> Margin:
    """What is kept free on this GPU of a device, or (None) in its RAM, besides what is counted."""
    kind = class_of(gpu, facts)
    known = None if kind is None else margins.get(kind)
    if gpu is not None:
        return known or margin("vram")
    if known is None or facts.ram_total is None:
        return known or margin("ram")
    # the class takes in large machines and small ones: a small one must not lose its memory to what a large one saw
    return replace(known, bytes=min(known.bytes, facts.ram_total // 10))


_LIMITS = {
    "cgroup": "which is what the cgroup of the agent leaves (MemoryMax, or a container's limit)",
    "rlimit": "which is what the process limits of the agent leave (RLIMIT_AS, RLIMIT_DATA)",
}


def _ram(facts: Facts, freed: Sequence[WorkerStatus], staying: Sequence[WorkerStatus]) -> int | None:
    if facts.ram_available is None:
        return None
    # a limit on each process leaves none of them more when another one ends
    returned = 0 if facts.ram_bound_by == "rlimit" else sum(worker.ram_private_bytes or 0 for worker in freed)
    limit = facts.ram_limit
    if limit is not None:
        limit = max(0, limit - sum(worker.ram_bytes or 0 for worker in staying))
    bounds = (facts.ram_available + returned, facts.ram_total, limit)
    return min(bound for bound in bounds if bound is not None)


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
    free = (gpu.vram_free or 0) + sum(_held(worker, gpu) for worker in workers)
    return free if gpu.vram_total is None else min(free, gpu.vram_total)


def _held(worker: WorkerStatus, gpu: GpuFacts) -> int:
    """Bytes that a worker gives back on a GPU when it ends, as far as is known."""
    if worker.memory != "vram" or worker.simulated_offload:
        return 0
    if worker.gpu_vram:
        return worker.gpu_vram.get(gpu.uuid or "", 0)
    if worker.gpu_uuid != gpu.uuid:
        return 0
    return worker.predicted_bytes if worker.vram_bytes is None else worker.vram_bytes
