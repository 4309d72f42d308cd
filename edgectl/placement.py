"""Which candidate a device gets, where and with how much context, or why none. PURE.

Sizes are bytes, contexts are tokens of one sequence. A model sits on one GPU, or in RAM, or, where that is
allowed, in part on one GPU and in part in RAM.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from agent_daemon.contract import fit as fits
from agent_daemon.contract.fit import VRAM_RESERVE, FitReport, Room, ServeOptions
from agent_daemon.contract.gguf import GgufFacts
from agent_daemon.contract.release import Adapter, Artifact, KvType, Placement, Task
from agent_daemon.contract.sequences import padded
from edgectl.device_memory import DeviceMemory, GpuMemory, device_memory
from edgectl.quality import rank
from edgectl.sizes import format_size

__all__ = [
    "AttachedAdapter",
    "Candidate",
    "DeviceMemory",
    "GpuMemory",
    "ModelRequest",
    "Placed",
    "Refusal",
    "device_memory",
    "place",
]

GpuLayers = Literal["auto", "all", "partial"] | int
CONTEXT_STEP = 256
UBATCH = 512


@dataclass(frozen=True, slots=True)
class Candidate:
    """One artifact of a ladder; `position` is its place in the manifest."""

    artifact: Artifact
    facts: GgufFacts
    position: int = 0

    @property
    def label(self) -> str:
        """The name that people know it by: its first file."""
        return self.artifact.files[0].name


@dataclass(frozen=True, slots=True)
class AttachedAdapter:
    """An adapter that a model is served with, and what its header says."""

    adapter: Adapter
    facts: GgufFacts


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What the manifest wants for one served name. Its adapters belong to every candidate that is offered for
    it, and are in memory with it; `pinned` says that it never makes room for another model.

    `gpu_layers`: `auto` is a whole model on a GPU or else in RAM, `all` never falls back to RAM, `partial`
    splits a model before it falls back, a number is exactly so many layers (0: RAM)."""

    name: str
    context_want: int
    context_min: int = CONTEXT_STEP
    task: Task = "chat"
    parallel: int = 1
    cache: int | None = None
    """Tokens of the cache that the answers share; None: the whole context for each."""
    kv_type: KvType = "f16"
    gpu_layers: GpuLayers = "auto"
    order: Literal["quality", "listed"] = "quality"
    adapters: tuple[AttachedAdapter, ...] = ()
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """The choice; `notes` say what a person should know about it. `on_demand`: in memory only while it is asked
    for, in turn with other models."""

    model: str
    candidate: Candidate
    placement: Placement
    report: FitReport
    notes: tuple[str, ...] = ()
    on_demand: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """`reason` is the arithmetic of the candidate that came closest, `attempts` has one line a candidate."""

    model: str
    reason: str
    attempts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Try:
    """One way to serve a candidate: where, and how many layers of it (None: as many as fit)."""

    gpu: GpuMemory | None
    layers: int | None


Stage = Callable[[GgufFacts], _Try]


def place(request: ModelRequest, candidates: Sequence[Candidate], memory: DeviceMemory) -> Placed | Refusal:
    """The first candidate, in the order of quality or of the manifest, that fits; all of them are tried whole
    on the GPU with the most free memory before any is split, and split before any is put into RAM."""
    if not candidates:
        return Refusal(request.name, "it has no candidates")
    stages = _stages(request.gpu_layers, memory)
    if not stages:
        return Refusal(
            request.name, "gpu_layers asks for a GPU, and this device has none that its runtime can use"
        )
    ordered = _ordered(request, candidates)
    for stage in stages:
        for candidate in ordered:
            if _impossible(request, candidate.facts) is not None:
                continue
            found = _largest_context(request, candidate.facts, stage(candidate.facts), memory)
            if found is not None:
                return _placed(request, candidate, *found, memory)
    return _refusal(request, ordered, stages, memory)


def _stages(gpu_layers: GpuLayers, memory: DeviceMemory) -> list[Stage]:
    """The ways to try all candidates, the preferred one first."""
    gpu = memory.roomiest

    def on_gpu(layers: Callable[[GgufFacts], int | None]) -> list[Stage]:
        return [] if gpu is None else [lambda facts: _Try(gpu, layers(facts))]

    in_ram: list[Stage] = [lambda _facts: _Try(None, 0)]
    whole = on_gpu(lambda facts: facts.n_layers + 1)
    if gpu_layers == "all":
        return whole
    if gpu_layers == "auto":
        return whole + in_ram
    if gpu_layers == "partial":
        return whole + on_gpu(lambda _facts: None) + in_ram
    exactly = gpu_layers
    return on_gpu(lambda facts: min(exactly, facts.n_layers + 1)) if exactly else in_ram


def _ordered(request: ModelRequest, candidates: Sequence[Candidate]) -> list[Candidate]:
    if request.order == "listed":
        return sorted(candidates, key=lambda candidate: candidate.position)
    return sorted(candidates, key=lambda candidate: (rank(candidate.facts), candidate.position))


def _options(request: ModelRequest, context: int) -> ServeOptions:
    # pooling looks at one physical batch, so that has to hold the longest text
    ubatch = max(UBATCH, padded(context)) if request.task == "embeddings" else UBATCH
    return ServeOptions(
        context,
        request.parallel,
        request.kv_type,
        ubatch,
        request.task,
        adapters=tuple(attached.facts for attached in request.adapters),
        shared=request.cache,
    )


def _impossible(request: ModelRequest, facts: GgufFacts) -> str | None:
    """Why no amount of memory would help, or None."""
    if facts.context_length is not None and facts.context_length < request.context_min:
        return f"it was trained on {facts.context_length} tokens, fewer than the least context, {request.context_min}"
    return fits.unsupported(facts, _options(request, request.context_min))


def _report(
    request: ModelRequest, facts: GgufFacts, context: int, attempt: _Try, memory: DeviceMemory
) -> FitReport:
    options = _options(request, context)
    ram = None if memory.ram_free is None else Room(memory.ram_free, memory.ram_reserve)
    if attempt.gpu is None:
        return fits.fit(facts, options, ram=ram)
    gpus = (Room(attempt.gpu.free, VRAM_RESERVE),)
    split = fits.most_layers(facts, options, gpus) if attempt.layers is None else (attempt.layers,)
    return fits.fit(facts, options, split, gpus=gpus if split else (), ram=ram)


def _largest_context(
    request: ModelRequest, facts: GgufFacts, attempt: _Try, memory: DeviceMemory
) -> tuple[FitReport, int, GpuMemory | None] | None:
    """The report at the largest context that fits, that context and the GPU, or None when not even the least
    does."""

    def at(context: int) -> FitReport | None:
        report = _report(request, facts, context, attempt, memory)
        # a split that puts nothing on the GPU is the next stage's business
        return report if report.fits and (attempt.gpu is None or report.memory == "vram") else None

    most = (
        request.context_want
        if facts.context_length is None
        else min(request.context_want, facts.context_length)
    )
    top = most // CONTEXT_STEP * CONTEXT_STEP
    if top < request.context_min:
        top = most
    if (best := at(top)) is not None:
        return best, top, attempt.gpu
    if (best := at(request.context_min)) is None:
        return None
    context = request.context_min
    low, high = -(-request.context_min // CONTEXT_STEP), top // CONTEXT_STEP - 1
    while low <= high:
        middle = (low + high) // 2
        if (report := at(middle * CONTEXT_STEP)) is None:
            high = middle - 1
        else:
            best, context, low = report, middle * CONTEXT_STEP, middle + 1
    return best, context, attempt.gpu


def _placed(
    request: ModelRequest,
    candidate: Candidate,
    report: FitReport,
    context: int,
    gpu: GpuMemory | None,
    memory: DeviceMemory,
) -> Placed:
    placement = Placement(
        memory=report.memory,
        gpu_uuid=gpu.uuid if gpu is not None else None,
        gpu_layers=report.gpu_layers,
        layers=report.layers,
        context=context,
        parallel=request.parallel,
        cells=request.cache,
        kv_type=request.kv_type,
        predicted=report.predicted(),
    )
    notes = []
    trained = candidate.facts.context_length
    if trained is not None and trained < request.context_want:
        notes.append(
            f"context {context}: the model was trained on {trained} tokens, {request.context_want} were wanted"
        )
    elif context < request.context_want // CONTEXT_STEP * CONTEXT_STEP:
        notes.append(f"context {context} of the {request.context_want} wanted: more does not fit")
    if missing := candidate.facts.truncated_by(candidate.artifact.size):
        notes.append(f"{candidate.label} is incomplete: {format_size(missing)} of its tensors are not in it")
    if report.memory == "ram" and memory.gpus:
        notes.append("in RAM, although the device has a GPU: no candidate fits into its free memory")
    return Placed(request.name, candidate, placement, report, tuple(notes))


def _refusal(
    request: ModelRequest, ordered: Sequence[Candidate], stages: Sequence[Stage], memory: DeviceMemory
) -> Refusal:
    attempts: list[str] = []
    closest: tuple[int, str] | None = None
    for candidate in ordered:
        if (why := _impossible(request, candidate.facts)) is not None:
            attempts.append(f"{candidate.label}: {why}")
            continue
        shortest, where = min(
            (
                (_report(request, candidate.facts, request.context_min, attempt, memory), attempt)
                for attempt in (stage(candidate.facts) for stage in stages)
            ),
            key=lambda tried: tried[0].short,
        )
        place_name = _where(shortest, where, memory)
        line = f"{candidate.label} at context {request.context_min}: {shortest.arithmetic()} ({place_name})"
        attempts.append(line)
        if closest is None or shortest.short < closest[0]:
            closest = shortest.short, line
    return Refusal(request.name, attempts[0] if closest is None else closest[1], tuple(attempts))


def _where(report: FitReport, attempt: _Try, memory: DeviceMemory) -> str:
    if report.memory == "vram" and attempt.gpu is not None:
        return attempt.gpu.label
    return "RAM" if memory.ram_free is not None else "RAM, of which the free part is not known"
