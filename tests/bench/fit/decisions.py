"""Whether every decision is the one that the truth would make: rooms just too small and just large enough."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from agent_daemon.contract.fit import Room, fit
from agent_daemon.contract.need import layers
from edgectl.fit.device_memory import DeviceMemory, GpuMemory
from edgectl.fit.placement import Placed, place
from edgectl.fit.wanted import ModelRequest
from tests.bench.fit.grid import Pair
from tests.bench.fit.shapes import MODELS
from tests.support.ladders import candidate

MIB = 1024 * 1024
GRAIN, GRAIN_BYTES = 0.0025, MIB
"""How near to the truth a room may be before a decision is asked of it: the larger of both."""
STEPS = (1, 2, 4, 8, 16)
"""Rooms are this many grains above and below the truth."""


@dataclass(frozen=True)
class Decisions:
    """How many were made; which were wrong: chosen though it does not fit, refused though it would have fitted (by
    more than the margin that is kept for a model whose figures are said to be uncertain)."""

    made: int
    chosen_wrongly: tuple[str, ...]
    refused_wrongly: tuple[str, ...]

    def __str__(self) -> str:
        wrong = len(self.chosen_wrongly), len(self.refused_wrongly)
        return (
            f"{self.made} made; {wrong[0]} chosen that do not fit, {wrong[1]} refused that would have fitted"
        )


def run(seen: Sequence[Pair]) -> tuple[dict[str, object], list[str]]:
    """Every configuration of the grid in ten rooms, and what is wrong."""
    found = decide(seen)
    broken = [f"chosen, but does not fit: {each}" for each in found.chosen_wrongly[:5]]
    broken += [f"refused, but would have fitted: {each}" for each in found.refused_wrongly[:5]]
    return {"said": str(found)} | asdict(found), broken


def decide(seen: Sequence[Pair]) -> Decisions:
    """By the public placing code where it can be asked for a configuration, else by the fit that it stands on."""
    made = 0
    chosen: list[str] = []
    refused: list[str] = []
    for pair in seen:
        if pair.truth.refused is not None:
            continue
        for grains in (*(-step for step in STEPS), *STEPS):
            made += 1
            fits = _fits(pair, grains)
            name = f"{pair.model} {pair.setting} with {_said(pair, grains)}"
            if fits and grains < 0:
                chosen.append(name)
            if not fits and grains > 0 and grains * _grain(pair.truth.total) > pair.predicted.margin:
                refused.append(name)
    return Decisions(made, tuple(chosen), tuple(refused))


def _grain(true: int) -> int:
    return max(GRAIN_BYTES, int(GRAIN * true))


def _said(pair: Pair, grains: int) -> str:
    size = grains * _grain(pair.truth.total) / MIB
    return f"{abs(size):.1f} MiB too {'little' if grains < 0 else 'much'}"


def _fits(pair: Pair, grains: int) -> bool:
    """With a room for each memory that is the truth and so many grains of it. What a model on devices takes in RAM
    besides is always given: the decision is about the device."""
    truth = pair.truth
    if pair.setting.split:
        rooms = [Room(share.total + grains * _grain(share.total)) for share in truth.gpus]
        if pair.setting.split == (layers(pair.facts),):
            return _placed(
                pair, DeviceMemory((GpuMemory(0, "GPU-0", None, rooms[0].free, 0),), offloads=True)
            )
        options = pair.setting.options(embeds=MODELS[pair.model].embeds)
        return fit(pair.facts, options, pair.setting.split, gpus=rooms, ram=Room(2 * truth.host.total)).fits
    room = truth.host.total + grains * _grain(truth.host.total)
    trained = pair.facts.context_length or pair.setting.context
    usual = pair.setting.flash_attention and pair.setting.unified and pair.setting.context <= trained
    if usual and not MODELS[pair.model].embeds:
        return _placed(pair, DeviceMemory((), ram_free=room))
    return fit(pair.facts, pair.setting.options(embeds=MODELS[pair.model].embeds), ram=Room(room)).fits


def _placed(pair: Pair, memory: DeviceMemory) -> bool:
    setting = pair.setting
    request = ModelRequest(
        "grid",
        context_want=setting.context,
        context_min=setting.context,
        parallel=setting.parallel,
        kv_types=(setting.kv_type,),
        gpu_layers="all" if memory.gpus else 0,
    )
    offered = candidate(f"{pair.model}:{MODELS[pair.model].mix.file_type}", 0, pair.facts)
    return isinstance(place(request, [offered], memory), Placed)
