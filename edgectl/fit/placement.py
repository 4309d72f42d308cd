"""Which candidate a device gets, where and with how much context, or why none. PURE.

Sizes are bytes, contexts are tokens of one sequence. A model sits on one GPU, over several, in RAM, or, where that is
allowed, in part on GPUs and in part in RAM. The order in which that is tried is `steps`', the search for the largest
context `ways`'.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from agent_daemon.contract.fit import FitReport
from agent_daemon.contract.release import GpuLayers, Placement
from edgectl.fit.device_memory import DeviceMemory, GpuMemory, device_memory
from edgectl.fit.rungs import Rung, Walk, attempts
from edgectl.fit.speed import SOFT_FLOOR
from edgectl.fit.steps import Requirements, Walked, floor_of, requirements, walk
from edgectl.fit.wanted import CONTEXT_STEP, AttachedAdapter, Candidate, ModelRequest
from edgectl.fit.ways import Found, Space
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
    "placed",
    "refused",
]


@dataclass(frozen=True)
class Placed:
    """The choice; `notes` say what a person should know about it. `on_demand`: in memory only while it is asked
    for, in turn with other models. `tokens_per_second` is an estimate for one answer, None where a bandwidth is
    not known."""

    model: str
    candidate: Candidate
    placement: Placement
    report: FitReport
    notes: tuple[str, ...] = ()
    on_demand: bool = False
    tokens_per_second: float | None = None
    walk: Walk | None = field(default=None, compare=False, repr=False)

    @cached_property
    def rungs(self) -> tuple[Rung, ...]:
        """Every rung that was tried before it and itself, in order, and each candidate that was not tried."""
        return () if self.walk is None else self.walk.rungs()


@dataclass(frozen=True)
class Refusal:
    """Why a device gets none. `told` is a reason that has no arithmetic, `beside` what is said after one."""

    model: str
    told: str = ""
    walk: Walk | None = field(default=None, compare=False, repr=False)
    beside: str = ""

    @cached_property
    def rungs(self) -> tuple[Rung, ...]:
        """Every rung, in order."""
        return () if self.walk is None else self.walk.rungs()

    @cached_property
    def reason(self) -> str:
        """The arithmetic of the candidate that came closest."""
        return (self.told or min(self._attempts, key=lambda each: each[0])[1]) + self.beside

    @property
    def attempts(self) -> tuple[str, ...]:
        """One line a candidate."""
        return tuple(line for _, line in self._attempts)

    @cached_property
    def _attempts(self) -> list[tuple[tuple[int, float], str]]:
        several = self.walk is not None and len(self.walk.wanted.request.kv_types) > 1
        return attempts(self.rungs, several)


def place(request: ModelRequest, candidates: Sequence[Candidate], memory: DeviceMemory) -> Placed | Refusal:
    """The first rung of the ladder that fits, in the order that `steps` describes, and that is estimated to be fast
    enough. What a ladder needs is worked out once for all devices (`steps.requirements`)."""
    return place_on(requirements(request, tuple(candidates)), memory)


def place_on(wanted: Requirements, memory: DeviceMemory) -> Placed | Refusal:
    """The same for a ladder that is worked out already."""
    space = Space.of(memory)
    walked = walk(wanted, space)
    if walked.found is None:
        return refused(wanted, memory, walked)
    return placed(wanted, memory, walked)


def refused(wanted: Requirements, memory: DeviceMemory, walked: Walked) -> Refusal:
    """Costs no words until it is asked for them."""
    name = wanted.request.name
    if not wanted.sizes:
        return Refusal(name, "it has no candidates")
    if not memory.gpus and not any(kind == "ram" for _, kind in wanted.every):
        return Refusal(name, "gpu_layers asks for a GPU, and this device has none that its runtime can use")
    return Refusal(name, walk=Walk(wanted, memory, walked))


def placed(wanted: Requirements, memory: DeviceMemory, walked: Walked, beside: str = "") -> Placed:
    """What a walk found, as a placement on a device with this memory. It has to have found something. `beside` is
    said where something does not fit: what takes the rest of the memory."""
    found, request = walked.found, wanted.request
    assert found is not None
    report = found.report(Space.of(memory))
    placement = Placement(
        memory=report.memory,
        gpu_uuid=found.gpus[0].uuid if found.gpus else None,
        gpu_layers=report.gpu_layers,
        layers=report.layers,
        context=found.context,
        parallel=request.parallel,
        cells=request.cache,
        kv_type=found.curve.kv_type,
        predicted=report.predicted(),
        gpus=_gpus(found),
    )
    return Placed(
        request.name,
        found.curve.candidate,
        placement,
        report,
        tuple(_notes(wanted, memory, walked, report, beside)),
        tokens_per_second=found.tokens_per_second,
        walk=Walk(wanted, memory, walked),
    )


def _gpus(found: Found) -> tuple[GpuLayers, ...]:
    if len(found.gpus) < 2:
        return ()
    return tuple(
        GpuLayers(uuid=gpu.uuid or "", layers=count)
        for gpu, count in zip(found.gpus, found.split, strict=True)
    )


def _notes(
    wanted: Requirements, memory: DeviceMemory, walked: Walked, report: FitReport, beside: str
) -> list[str]:
    found, slow, request = walked.found, walked.slow, wanted.request
    assert found is not None
    candidate, context, cache = found.curve.candidate, found.context, found.curve.kv_type
    notes = []
    trained = candidate.facts.context_length
    faster = slow is not None and slow is not found
    if trained is not None and trained < request.context_want:
        notes.append(
            f"context {context}: the model was trained on {trained} tokens, {request.context_want} were wanted"
        )
    elif context < request.context_want // CONTEXT_STEP * CONTEXT_STEP:
        same = faster and slow is not None and walked.slow_step == walked.step
        why = f"is slower than {floor_of(request):g} tokens/s" if same else f"does not fit{beside}"
        notes.append(f"context {context} of the {request.context_want} wanted: more {why}")
    if missing := candidate.facts.truncated_by(candidate.artifact.size):
        notes.append(f"{candidate.label} is incomplete: {format_size(missing)} of its tensors are not in it")
    if cache != request.kv_types[0]:
        slower = faster and slow is not None and slow.curve.candidate is candidate
        why = f"is slower than {floor_of(request):g} tokens/s" if slower else f"does not fit{beside}"
        notes.append(
            f"KV cache of {cache}: with {request.kv_types[0]} even context {request.context_min} {why}"
        )
    elif found.curve.harmed:
        notes.append(
            f"KV cache of {cache}, as kv_type says: {candidate.facts.architecture} is known to answer badly with it"
        )
    on_gpu = any(kind != "ram" for _, kind in wanted.every) and not (slow is not None and slow.gpus)
    if report.memory == "ram" and memory.gpus and on_gpu:
        notes.append(f"in RAM, although the device has a GPU: no candidate fits into its free memory{beside}")
    if report.uncertain:
        notes.append(
            f"{candidate.label}: what it takes is uncertain ({report.uncertain}); {format_size(report.margin)} more "
            "is left free for it"
        )
    notes += _speed_notes(wanted, walked)
    return notes


def _speed_notes(wanted: Requirements, walked: Walked) -> list[str]:
    found, slow, least = walked.found, walked.slow, wanted.request.min_tokens_per_second
    assert found is not None
    if found.tokens_per_second is None and least is not None and wanted.request.task != "embeddings":
        return [f"min_tokens_per_second {least:g} was not judged: a bandwidth of the device is not known"]
    if slow is None or slow.tokens_per_second is None:
        return []
    speed = f"about {slow.tokens_per_second:.1f} tokens/s"
    if slow is found:
        return [f"{speed}: no candidate that fits here reaches {SOFT_FLOOR:g}"]
    if walked.slow_step != walked.step:
        where = {"split": " in part on the GPU", "ram": " in RAM"}.get(slow.stage, "")
        label = slow.curve.candidate.label
        return [f"{label}{where} was passed over: {speed}, fewer than {floor_of(wanted.request):g}"]
    return []
