"""The order in which the rungs of a ladder are tried, and the walk down them. PURE.

Sizes first, the largest one at the top; within a size its quantizations, by their divergence; for each of these every
type of cache, and for each of those the contexts from the wanted one down. What is whole on GPUs comes first, what is
split between GPUs and RAM after the whole ones of its size, and what is in RAM last. Files below 3.5 bits a weight come
after the good ones of every size, unless the manifest's own order counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from edgectl.fit.curves import Curve
from edgectl.fit.quality import good, rank
from edgectl.fit.speed import SOFT_FLOOR
from edgectl.fit.wanted import Candidate, ModelRequest
from edgectl.fit.ways import Found, Kind, Space, find

Step = tuple[Curve, Kind]


@dataclass(frozen=True, eq=False)
class Requirements:
    """What one model asks of any device, worked out once. `sizes` are its candidates in their order, those of one
    size together, each with a curve for each type of cache. `every` has all rungs in the order of the walk, `steps`
    those of them that may be chosen."""

    request: ModelRequest
    sizes: tuple[tuple[tuple[Curve, ...], ...], ...]
    every: tuple[Step, ...]
    steps: tuple[Step, ...]

    @property
    def candidates(self) -> tuple[tuple[Curve, ...], ...]:
        """The curves of each candidate, in order."""
        return tuple(curves for size in self.sizes for curves in size)


@lru_cache(maxsize=512)
def requirements(request: ModelRequest, candidates: tuple[Candidate, ...]) -> Requirements:
    """Cached, so that all devices of a fleet share what is counted."""
    if request.order == "listed":
        ordered = sorted(candidates, key=lambda candidate: candidate.position)
    else:
        ordered = sorted(candidates, key=lambda candidate: (rank(candidate.facts), candidate.position))
    sizes = tuple(
        tuple(
            tuple(Curve(request, candidate, kv_type) for kv_type in request.kv_types) for candidate in of_size
        )
        for _, of_size in groupby(ordered, key=lambda candidate: _size(request, candidate))
    )
    every = tuple(_steps(sizes, _kinds(request)))
    return Requirements(request, sizes, every, tuple(step for step in every if step[0].refused is None))


def _size(request: ModelRequest, candidate: Candidate) -> tuple[bool, int]:
    return request.order == "listed" or good(candidate.facts), candidate.facts.block_parameters


def _kinds(request: ModelRequest) -> tuple[Kind, ...]:
    if request.gpu_layers == "auto":
        return "whole", "ram"
    if request.gpu_layers == "all":
        return ("whole",)
    if request.gpu_layers == "partial":
        return "whole", "split", "ram"
    return (request.gpu_layers,) if request.gpu_layers else ("ram",)


def _steps(sizes: Sequence[Sequence[Sequence[Curve]]], kinds: Sequence[Kind]) -> Iterator[Step]:
    on_gpus: list[Kind] = [kind for kind in kinds if kind != "ram"]
    in_ram: list[Kind] = [kind for kind in kinds if kind == "ram"]
    for order in (on_gpus, in_ram):
        for size in sizes:
            for kind in order:
                yield from ((curve, _on(curve, kind)) for curves in size for curve in curves)


def _on(curve: Curve, kind: Kind) -> Kind:
    """As many layers as there are, or more, are the whole model."""
    return "whole" if isinstance(kind, int) and kind >= curve.layers else kind


@dataclass(frozen=True, slots=True)
class Walked:
    """Where a walk ended, and at which step; None: nowhere. `slow` is the first rung that fits but is slower than it
    should be, at `slow_step`; it is `found` itself where nothing faster fits and no speed was asked for."""

    found: Found | None
    step: Step | None = None
    slow: Found | None = None
    slow_step: Step | None = None


def walk(wanted: Requirements, space: Space) -> Walked:
    """Down to the first rung that fits and is fast enough. Where none is, the first one that fits is taken all the
    same, unless the request names a speed."""
    steps = possible(wanted.steps, space)
    number, found = _first(steps, space, 0.0, 0)
    if found is None:
        return Walked(None)
    floor = floor_of(wanted.request)
    if found.tokens_per_second is None or found.tokens_per_second >= floor:
        return Walked(found, steps[number])
    # nothing before it fits at all, so that only what follows can be faster
    faster_number, faster = _first(steps, space, floor, number)
    if faster is not None:
        return Walked(faster, steps[faster_number], found, steps[number])
    if wanted.request.min_tokens_per_second is None:
        return Walked(found, steps[number], found, steps[number])
    return Walked(None, None, found, steps[number])


def floor_of(request: ModelRequest) -> float:
    """Tokens a second."""
    return SOFT_FLOOR if request.min_tokens_per_second is None else request.min_tokens_per_second


def _first(steps: Sequence[Step], space: Space, floor: float, start: int) -> tuple[int, Found | None]:
    for number in range(start, len(steps)):
        curve, kind = steps[number]
        found = find(curve, kind, space, floor)
        if found is not None:
            return number, found
    return -1, None


def possible(steps: tuple[Step, ...], space: Space) -> tuple[Step, ...]:
    """Those that a device can take at all: without GPUs, what is in RAM."""
    return steps if space.gpus else tuple(step for step in steps if step[1] == "ram")
