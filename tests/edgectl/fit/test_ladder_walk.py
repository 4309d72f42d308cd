"""The choice of `place` against a walk that is slow and plain: every rung and every context, one by one, in the order
that the ladder promises. What it chooses fits, and what it refuses nothing would have made fit."""

from collections.abc import Iterator, Sequence
from itertools import groupby, product
from typing import Literal

import pytest

from agent_daemon.contract import fit as fits
from agent_daemon.contract.fit import Room
from agent_daemon.contract.need import Split, layers
from agent_daemon.contract.release import KvType
from agent_daemon.contract.serve_options import ServeOptions
from edgectl.fit.device_memory import DeviceMemory, GpuMemory
from edgectl.fit.placement import Candidate, ModelRequest, Placed, place
from edgectl.fit.quality import GOOD_KLD, divergence
from edgectl.fit.speed import SOFT_FLOOR, read_per_token, tokens_per_second
from tests.support.ladders import ladder

GIB = 2**30
Choice = tuple[str, KvType, int, Split, tuple[str | None, ...]]


def contexts(request: ModelRequest, candidate: Candidate) -> list[int]:
    """From the largest down."""
    trained = candidate.facts.context_length or request.context_want
    most = min(request.context_want, trained)
    steps = {context for context in range(256, most + 1, 256) if context >= request.context_min}
    return sorted(steps | {request.context_min} | (set() if steps else {most}), reverse=True)


def sizes(request: ModelRequest, candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    if request.order == "listed":
        ordered = list(candidates)
        return [list(of) for _, of in groupby(ordered, key=lambda each: each.facts.block_parameters)]
    found: list[list[Candidate]] = []
    for good in (True, False):
        tier = [each for each in candidates if (divergence(each.facts) <= GOOD_KLD) is good]
        for size in sorted({each.facts.block_parameters for each in tier}, reverse=True):
            of_size = [each for each in tier if each.facts.block_parameters == size]
            found.append(sorted(of_size, key=lambda each: divergence(each.facts)))
    return found


def layouts(
    kind: str | int, candidate: Candidate, options: ServeOptions, memory: DeviceMemory
) -> Iterator[tuple[tuple[GpuMemory, ...], Split]]:
    """The splits of one kind that may fit, in the order of preference."""
    gpus = sorted(memory.gpus, key=lambda gpu: (-(gpu.free - gpu.reserve), gpu.index))
    all_layers = layers(candidate.facts)
    several = [tuple(reversed(gpus[:count])) for count in range(2, len(gpus) + 1)]
    if kind == "ram":
        yield (), ()
    elif kind == "whole":
        yield from (((gpu,), (all_layers,)) for gpu in gpus)
        for some in several:
            split = fits.whole(candidate.facts, options, [Room(gpu.free, gpu.reserve) for gpu in some])
            if split:
                yield some, split
    elif kind == "split":
        sets = [(gpus[0],), *several]
        tried = [
            (some, fits.most_layers(candidate.facts, options, [Room(gpu.free, gpu.reserve) for gpu in some]))
            for some in sets
        ]
        yield max(tried, key=lambda each: sum(each[1]))
    else:
        assert isinstance(kind, int)
        yield from (((gpu,), (min(kind, all_layers),)) for gpu in gpus)


def walk(
    request: ModelRequest, candidates: Sequence[Candidate], memory: DeviceMemory, floor: float
) -> Choice | None:
    layers_wanted = request.gpu_layers
    on_gpus: list[str | int] = ["whole"] if isinstance(layers_wanted, str) else [layers_wanted]
    if layers_wanted == "partial":
        on_gpus.append("split")
    rungs = [
        (kind, candidate)
        for size in sizes(request, candidates)
        for kind in (on_gpus if memory.gpus and layers_wanted != 0 else [])
        for candidate in size
    ]
    if layers_wanted in ("auto", "partial", 0):
        rungs += [("ram", candidate) for size in sizes(request, candidates) for candidate in size]
    ram = None if memory.ram_free is None else Room(memory.ram_free, memory.ram_reserve)
    for kind, candidate in rungs:
        facts = candidate.facts
        if facts.context_length is not None and facts.context_length < request.context_min:
            continue
        for kv_type in request.kv_types:
            for context in contexts(request, candidate):
                options = ServeOptions(context, request.parallel, kv_type)
                if fits.unsupported(facts, options):
                    continue
                for gpus, split in layouts(kind, candidate, options, memory):
                    if gpus and not split:
                        continue
                    rooms = [Room(gpu.free, gpu.reserve) for gpu in gpus]
                    if not fits.fit(facts, options, split, gpus=rooms, ram=ram).fits:
                        continue
                    host, parts = read_per_token(facts, options, split)
                    speed = tokens_per_second(
                        [
                            (host, memory.ram_bandwidth),
                            *zip(parts, [gpu.bandwidth for gpu in gpus], strict=True),
                        ]
                    )
                    if speed is None or speed >= floor:
                        return candidate.label, kv_type, context, split, tuple(gpu.uuid for gpu in gpus)
    return None


def reference(request: ModelRequest, candidates: Sequence[Candidate], memory: DeviceMemory) -> Choice | None:
    if request.min_tokens_per_second is not None:
        return walk(request, candidates, memory, request.min_tokens_per_second)
    return walk(request, candidates, memory, SOFT_FLOOR) or walk(request, candidates, memory, 0.0)


def chosen(request: ModelRequest, candidates: Sequence[Candidate], memory: DeviceMemory) -> Choice | None:
    result = place(request, candidates, memory)
    if not isinstance(result, Placed):
        return None
    placement = result.placement
    if placement.gpus:
        split = tuple(gpu.layers for gpu in placement.gpus)
        uuids: tuple[str | None, ...] = tuple(gpu.uuid for gpu in placement.gpus)
        assert placement.gpu_uuid == uuids[0]
    else:
        split = (placement.gpu_layers,) if placement.memory == "vram" else ()
        uuids = (placement.gpu_uuid,) if placement.memory == "vram" else ()
    return result.candidate.label, placement.kv_type, placement.context, split, uuids


LADDERS = [
    ladder("llama-8b:Q2_K", "llama-1b:Q4_K_M", "llama-8b:Q8_0", "llama-8b:Q4_K_M", "llama-1b:Q8_0"),
    ladder("llama-8b:Q2_K", "llama-8b:Q4_K_M"),
]
GPUS = [(), (1.5,), (4,), (6.5,), (3, 3), (6.5, 3), (1.2, 5, 4.5)]
RAM = [None, 1.5, 3.5, 24]
KV_TYPES: list[tuple[KvType, ...]] = [("f16",), ("f16", "q8_0")]
SPEEDS = [(None, None), (30 * 10**9, 9 * 10**9), (300 * 10**9, 20 * 10**9)]
"""Of the first GPU's memory and of RAM, bytes a second; each further GPU is slower."""


def device(gpus: Sequence[float], ram: float | None, speeds: tuple[int | None, int | None]) -> DeviceMemory:
    """With so many GiB free."""
    return DeviceMemory(
        gpus=tuple(
            GpuMemory(
                index,
                f"GPU-{index}",
                "RTX",
                int(free * GIB),
                bandwidth=speeds[0] and speeds[0] // (index + 1),
            )
            for index, free in enumerate(gpus)
        ),
        ram_free=None if ram is None else int(ram * GIB),
        ram_reserve=GIB // 2,
        offloads=bool(gpus),
        ram_bandwidth=speeds[1],
    )


@pytest.mark.parametrize("order", ["quality", "listed"])
@pytest.mark.parametrize("gpu_layers", ["auto", "all", "partial", 0, 7])
def test_every_device_of_a_grid_gets_what_the_plain_walk_finds(
    gpu_layers: Literal["auto", "all", "partial"] | int, order: Literal["quality", "listed"]
) -> None:
    found = set()
    for candidates, (least, most), kv_types, gpus, ram, speeds, floor in product(
        LADDERS, [(2048, 3072), (500, 700)], KV_TYPES, GPUS, RAM, SPEEDS, [None, 20.0]
    ):
        request = ModelRequest(
            "m",
            most,
            least,
            kv_types=kv_types,
            gpu_layers=gpu_layers,
            order=order,
            min_tokens_per_second=floor,
        )
        memory = device(gpus, ram, speeds)
        choice = chosen(request, candidates, memory)
        assert choice == reference(request, candidates, memory), (request, memory)
        found.add(choice)
    assert len(found) > 5
    assert None in found
