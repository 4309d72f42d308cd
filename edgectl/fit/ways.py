"""The ways in which a candidate can sit on a device, and the largest context for each. PURE. Sizes are bytes.

A larger context takes no less memory and is no faster, so that the largest one that will do is found by halving.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from agent_daemon.contract import fit as fits
from agent_daemon.contract.fit import FitReport, Room
from agent_daemon.contract.need import Split, need
from edgectl.fit import spreads
from edgectl.fit.curves import Curve
from edgectl.fit.device_memory import DeviceMemory, GpuMemory
from edgectl.fit.speed import read_per_token, tokens_per_second

Stage = Literal["gpu", "gpus", "split", "ram"]
"""On one GPU, over several, in part in RAM, in RAM."""
Kind = Literal["whole", "split", "ram"] | int
"""How a candidate may sit: whole on one GPU or several, with as many layers on GPUs as fit, in RAM, or with exactly
so many layers on one GPU."""
Splits = Sequence[tuple[tuple[GpuMemory, ...], Split | None]]
"""Splits to try, each over its GPUs; None or empty where nothing fits there."""


@dataclass(frozen=True, slots=True)
class Space:
    """A device's memory as it is searched: GPUs with the most room first. `several` are the sets over which a model may
    be split, the fewest GPUs first and always those with the most room, the roomiest last, where the output layer
    goes. `host` is RAM for what a model on GPUs takes there besides, `ram` for a model that is there as a whole; None:
    not known."""

    gpus: tuple[GpuMemory, ...]
    rooms: tuple[Room, ...]
    several: tuple[tuple[GpuMemory, ...], ...]
    host: Room | None
    ram: Room | None
    ram_bandwidth: int | None

    @classmethod
    def of(cls, memory: DeviceMemory) -> "Space":
        free, kept, gpus = memory.ram_free, memory.ram_reserve, memory.by_room
        return cls(
            gpus,
            rooms_of(gpus),
            _sets(gpus) if len(gpus) > 1 else (),
            None if free is None else Room(free, kept),
            None if free is None else Room(free, kept + memory.ram_margin),
            memory.ram_bandwidth,
        )


def rooms_of(gpus: Sequence[GpuMemory]) -> tuple[Room, ...]:
    """What of their memory may be used."""
    return tuple(Room(gpu.free, gpu.reserve) for gpu in gpus)


def _sets(gpus: Sequence[GpuMemory]) -> tuple[tuple[GpuMemory, ...], ...]:
    """A GPU without a uuid cannot be named in a split."""
    named = [gpu for gpu in gpus if gpu.uuid is not None]
    return tuple(tuple(reversed(named[:count])) for count in range(2, len(named) + 1))


@dataclass(frozen=True, slots=True)
class Found:
    """A candidate at a context, in a split over these GPUs (without any: in RAM), and its estimated speed."""

    curve: Curve
    stage: Stage
    place: int
    gpus: tuple[GpuMemory, ...]
    split: Split
    tokens_per_second: float | None

    @property
    def context(self) -> int:
        return self.curve.context(self.place)

    def report(self, space: Space) -> FitReport:
        """The arithmetic, on a device with this space."""
        return report(self.curve, self.place, self.gpus, self.split, space)

    def beside(self, memory: DeviceMemory) -> DeviceMemory:
        """What is left of a device's memory beside it."""
        wanted = need(self.curve.facts, self.curve.options(self.place), self.split)
        if not self.split:
            return memory.less(vram={}, ram=wanted.host.total + wanted.margin, in_ram=True)
        shared = -(-wanted.margin // len(self.split))
        vram = {gpu.key: part.total + shared for gpu, part in zip(self.gpus, wanted.gpus, strict=True)}
        return memory.less(vram=vram, ram=wanted.host.total)


def report(curve: Curve, place: int, gpus: Sequence[GpuMemory], split: Split, space: Space) -> FitReport:
    """The arithmetic of any split, whether it fits or not."""
    options = curve.options(place)
    if not split:
        return fits.fit(curve.facts, options, ram=space.ram)
    return fits.fit(curve.facts, options, split, gpus=rooms_of(gpus), ram=space.host)


def estimate(curve: Curve, place: int, gpus: Sequence[GpuMemory], split: Split, space: Space) -> float | None:
    """Tokens a second of one answer, in any split; None where it is not known."""
    if len(split) == 1:
        taken = curve.on_gpu(place, split[0])
        return tokens_per_second(((taken.read_host, space.ram_bandwidth), (taken.read, gpus[0].bandwidth)))
    host, parts = read_per_token(curve.facts, curve.options(place), split)
    reads = [(part, gpu.bandwidth) for part, gpu in zip(parts, gpus, strict=True)]
    return tokens_per_second([(host, space.ram_bandwidth), *reads])


def find(
    curve: Curve, kind: Kind, space: Space, floor: float = 0.0, span: tuple[int, int] | None = None
) -> Found | None:
    """The candidate at the largest context that fits in this way and is estimated at `floor` tokens a second or more
    (or at nothing, where a bandwidth is not known); None where not even the least does. `span` bounds the places of
    contexts, both included. Of several ways that have the same context the one on fewer GPUs is taken, and of single
    GPUs the one with more room."""
    bounds = (0, curve.top) if span is None else span
    if kind == "ram":
        return _in_ram(curve, space, floor, bounds)
    if kind == "split":
        return _split(curve, space, floor, bounds)
    if kind == "whole":
        return _whole(curve, space, floor, bounds)
    return _exactly(curve, kind, space, floor, bounds)


def _in_ram(curve: Curve, space: Space, floor: float, bounds: tuple[int, int]) -> Found | None:
    if space.ram is None:
        return None
    budget = space.ram.budget

    def speed(place: int) -> float | None:
        return tokens_per_second(((curve.in_ram(place).read, space.ram_bandwidth),))

    place = _largest(
        bounds,
        lambda place: curve.in_ram(place).ram <= budget and (not floor or _reaches(speed(place), floor)),
    )
    return None if place is None else Found(curve, "ram", place, (), (), speed(place))


def _whole(curve: Curve, space: Space, floor: float, bounds: tuple[int, int]) -> Found | None:
    best: Found | None = None
    host = None if space.host is None else space.host.budget
    for gpu, room in zip(space.gpus, space.rooms, strict=True):
        found = _on_one(curve, gpu, room.budget, host, floor, bounds)
        if found is not None and (best is None or found.place > best.place):
            best = found
        if not floor or (best is not None and best.place == bounds[1]):
            break  # where only memory decides, less room never holds more
    if best is not None and best.place == bounds[1]:
        return best
    for gpus in space.several:
        found = _over(curve, gpus, space, floor, (bounds[0] if best is None else best.place + 1, bounds[1]))
        if found is not None:
            best = found
            if best.place == bounds[1]:
                break
    return best


def _on_one(
    curve: Curve, gpu: GpuMemory, budget: int, host: int | None, floor: float, bounds: tuple[int, int]
) -> Found | None:
    def speed(place: int) -> float | None:
        return tokens_per_second(((curve.on_gpu(place, curve.layers).read, gpu.bandwidth),))

    def fitting(place: int) -> bool:
        taken = curve.on_gpu(place, curve.layers)
        return (
            taken.gpu <= budget
            and (host is None or taken.host <= host)
            and (not floor or _reaches(speed(place), floor))
        )

    place = _largest(bounds, fitting)
    return None if place is None else Found(curve, "gpu", place, (gpu,), (curve.layers,), speed(place))


def _over(
    curve: Curve, gpus: tuple[GpuMemory, ...], space: Space, floor: float, bounds: tuple[int, int]
) -> Found | None:
    rooms = rooms_of(gpus)
    found = _spread(
        curve, "gpus", lambda place: ((gpus, spreads.whole(curve, place, rooms)),), space, floor, bounds
    )
    if found is None or found.report(space).fits:
        return found
    return _spread(
        curve,
        "gpus",
        lambda place: ((gpus, fits.whole(curve.facts, curve.options(place), rooms)),),
        space,
        floor,
        bounds,
    )


def _split(curve: Curve, space: Space, floor: float, bounds: tuple[int, int]) -> Found | None:
    """On as few GPUs as hold the most layers that any number of them holds."""
    sets = [(gpus, rooms_of(gpus)) for gpus in (space.gpus[:1], *space.several)]

    def splits(place: int) -> Splits:
        found = [(gpus, spreads.most_layers(curve, place, rooms)) for gpus, rooms in sets]
        return (max(found, key=lambda each: sum(each[1])),)

    return _spread(curve, "split", splits, space, floor, bounds)


def _exactly(curve: Curve, count: int, space: Space, floor: float, bounds: tuple[int, int]) -> Found | None:
    def splits(place: int) -> Splits:
        taken = curve.on_gpu(place, count).gpu
        return [((gpu,), (count,) if taken <= gpu.budget else None) for gpu in space.gpus]

    return _spread(curve, "split", splits, space, floor, bounds)


def _spread(
    curve: Curve,
    stage: Stage,
    splits: Callable[[int], Splits],
    space: Space,
    floor: float,
    bounds: tuple[int, int],
) -> Found | None:
    """The largest context at which one of its splits, the preferred one first, leaves enough RAM and is fast
    enough."""
    if bounds[0] > bounds[1]:
        return None
    chosen: dict[int, tuple[tuple[GpuMemory, ...], Split]] = {}

    def fitting(place: int) -> bool:
        for gpus, split in splits(place):
            if not split or not _leaves_enough(curve, place, split, space):
                continue
            if not floor or _reaches(estimate(curve, place, gpus, split, space), floor):
                chosen[place] = gpus, split
                return True
        return False

    place = _largest(bounds, fitting)
    if place is None:
        return None
    gpus, split = chosen[place]
    return Found(curve, stage, place, gpus, split, estimate(curve, place, gpus, split, space))


def _leaves_enough(curve: Curve, place: int, split: Split, space: Space) -> bool:
    """Whether RAM has room for what such a split takes of it: over several GPUs no more than on one."""
    if space.host is None:
        return True
    return curve.on_gpu(place, sum(split)).host <= space.host.budget


def _reaches(speed: float | None, floor: float) -> bool:
    return speed is None or speed >= floor


def _largest(bounds: tuple[int, int], fitting: Callable[[int], bool]) -> int | None:
    """The largest place within bounds that is fitting, as are all below one that is."""
    low, high = bounds
    if fitting(high):
        return high
    if low == high or not fitting(low):
        return None
    best, low, high = low, low + 1, high - 1
    while low <= high:
        middle = (low + high) // 2
        if fitting(middle):
            best, low = middle, middle + 1
        else:
            high = middle - 1
    return best
