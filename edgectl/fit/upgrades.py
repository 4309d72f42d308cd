"""What a device that is refused a model would need to have it: less context, a smaller quantization, or more memory. PURE.

Each is tried by the same placing that refused it, in the company of the manifest's other models. Sizes are bytes,
contexts are tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from agent_daemon.contract import digest as digests
from agent_daemon.contract.gguf_facts import GgufFacts
from edgectl.fit.device_memory import DeviceMemory
from edgectl.fit.placement import Candidate, Placed, Refusal
from edgectl.fit.quality import divergence
from edgectl.fit.together import Wanted, place_all
from edgectl.fit.wanted import CONTEXT_STEP

BITS: dict[str, float] = {
    "Q8_0": 8.50,
    "Q6_K": 6.56,
    "Q5_K_M": 5.70,
    "Q5_K_S": 5.57,
    "Q4_K_M": 4.89,
    "Q4_K_S": 4.67,
    "IQ4_XS": 4.46,
    "Q3_K_M": 4.00,
    "IQ3_M": 3.76,
    "Q3_K_S": 3.64,
    "IQ3_XXS": 3.25,
    "Q2_K": 3.16,
    "IQ2_M": 2.93,
    "IQ2_XXS": 2.38,
}
"""Bits a weight of Llama 3.1 8B in the file types that people publish (llama.cpp, tools/quantize). Another model's file
has others; between two types it goes by the same ratio."""


@dataclass(frozen=True, slots=True)
class LessContext:
    """The largest context that any candidate fits with; it is below the manifest's least."""

    candidate: str
    context: int


@dataclass(frozen=True, slots=True)
class SmallerQuantization:
    """At the manifest's least context the model of `candidate` would fit in files of `file_type`, of about so many
    bits a weight, whose expected KL divergence is `divergence`."""

    candidate: str
    file_type: str
    bits_per_weight: float
    divergence: float


@dataclass(frozen=True, slots=True)
class Missing:
    """Bytes that the candidate that came closest lacks, and of which memory."""

    candidate: str
    size: int
    memory: Literal["vram", "ram"]


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Each alone is enough; None where it cannot help."""

    context: LessContext | None = None
    quantization: SmallerQuantization | None = None
    missing: Missing | None = None

    def as_dict(self) -> dict[str, Any]:
        """As it is printed for programs."""
        less, smaller, missing = self.context, self.quantization, self.missing
        return {
            "context": less and {"candidate": less.candidate, "context": less.context},
            "quantization": smaller
            and {
                "candidate": smaller.candidate,
                "file_type": smaller.file_type,
                "bits_per_weight": round(smaller.bits_per_weight, 2),
                "divergence": smaller.divergence,
            },
            "missing": missing
            and {"candidate": missing.candidate, "bytes": missing.size, "memory": missing.memory},
        }


NOTHING_HELPS = Upgrade()


def upgrade_for(wanted: Sequence[Wanted], refused: int, refusal: Refusal, memory: DeviceMemory) -> Upgrade:
    """For the model at place `refused` of `wanted`, on a device with this memory."""
    return Upgrade(
        _less_context(wanted, refused, memory), _smaller(wanted, refused, memory), _missing(refusal)
    )


def _less_context(wanted: Sequence[Wanted], refused: int, memory: DeviceMemory) -> LessContext | None:
    request, candidates = wanted[refused]
    if request.context_min <= CONTEXT_STEP:
        return None
    asked = replace(request, context_min=CONTEXT_STEP, context_want=request.context_min)
    # one by one: a ladder would rather have the best file with next to no context
    found = [_placed(wanted, refused, (asked, (candidate,)), memory) for candidate in candidates]
    fitting = [each for each in found if each is not None]
    best = max(fitting, key=lambda each: each.placement.context, default=None)
    return None if best is None else LessContext(best.candidate.label, best.placement.context)


def _smaller(wanted: Sequence[Wanted], refused: int, memory: DeviceMemory) -> SmallerQuantization | None:
    request, candidates = wanted[refused]
    offered = _requantized(tuple(candidates))
    asked = replace(request, order="quality", context_want=request.context_min)
    found = _placed(wanted, refused, (asked, offered), memory) if offered else None
    if found is None:
        return None
    facts = found.candidate.facts
    return SmallerQuantization(
        found.candidate.label, facts.file_type or "", facts.bits_per_weight, divergence(facts)
    )


def _placed(wanted: Sequence[Wanted], place: int, instead: Wanted, memory: DeviceMemory) -> Placed | None:
    result = place_all((*wanted[:place], instead, *wanted[place + 1 :]), memory)[place]
    return result if isinstance(result, Placed) else None


def _missing(refusal: Refusal) -> Missing | None:
    short = [
        Missing(rung.candidate, rung.report.short, rung.report.memory)
        for rung in refusal.rungs
        if rung.report is not None and rung.report.short
    ]
    return min(short, key=lambda each: each.size, default=None)


@lru_cache(maxsize=64)
def _requantized(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """The smallest file of each size of model as it would be in every smaller type."""
    smallest: dict[int, Candidate] = {}
    for candidate in candidates:
        known = smallest.get(candidate.facts.block_parameters)
        if known is None or candidate.facts.tensor_bytes < known.facts.tensor_bytes:
            smallest[candidate.facts.block_parameters] = candidate
    offered: list[Candidate] = []
    for candidate in smallest.values():
        own = BITS.get(candidate.facts.file_type or "", candidate.facts.bits_per_weight)
        for name, bits in BITS.items():
            if bits < own:
                facts = _scaled(candidate.facts, bits / own, name)
                digest = digests.of_bytes(f"{candidate.artifact.digest} as {name}".encode())
                artifact = candidate.artifact.model_copy(update={"digest": digest})
                offered.append(Candidate(artifact, facts, len(offered)))
    return tuple(offered)


def _scaled(facts: GgufFacts, ratio: float, file_type: str) -> GgufFacts:
    """The same model with every tensor at `ratio` of its bytes. Vectors keep theirs in truth, and are next to nothing."""
    fields = ("tensor_bytes", "token_embd_bytes", "input_bytes", "output_bytes", "other_bytes", "data_end")
    return facts.model_copy(
        update={field: int(getattr(facts, field) * ratio) for field in fields}
        | {
            "layer_bytes": tuple(int(size * ratio) for size in facts.layer_bytes),
            "file_type": file_type,
        }
    )
