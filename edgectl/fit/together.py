"""Several models on one device: which are in memory all the time, and which take turns. PURE.

Models are placed together, see `company`; pinned ones first, and the others in what these leave. A model is not given
a smaller size so that another may stay in memory beside it, unless both are pinned: before that, those that are not
pinned take turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from edgectl.fit.company import Seat, beside_each_other
from edgectl.fit.device_memory import DeviceMemory
from edgectl.fit.placement import Candidate, ModelRequest, Placed, Refusal, place_on, placed
from edgectl.fit.steps import Requirements, requirements

Wanted = tuple[ModelRequest, Sequence[Candidate]]


@dataclass(frozen=True, slots=True)
class _Worker:
    """One model in memory, for all who ask for it in the same way: `members` are their places in the list."""

    wanted: Requirements
    pinned: bool
    members: tuple[int, ...]
    names: tuple[str, ...]


def place_all(wanted: Sequence[Wanted], memory: DeviceMemory) -> tuple[Placed | Refusal, ...]:
    """A result for each of `wanted`, in that order.

    Pinned models are placed first, then the others in what these leave. If those do not fit beside each other, they
    take turns: each has to fit alone beside the pinned ones, and is placed on demand. Names that ask for the same
    model in the same way share its worker. What the ladders need is worked out once for all devices."""
    workers = _workers(tuple((request, tuple(candidates)) for request, candidates in wanted))
    pinned = [worker for worker in workers if worker.pinned]
    others = [worker for worker in workers if not worker.pinned]
    fixed, left = _always_there(pinned, memory)
    rest = _beside_each_other(others, left, keep_sizes=True)
    if rest is None:
        rest = _by_turns(others, left, [name for worker in pinned for name in worker.names])
    results = {
        member: replace(result, model=wanted[member][0].name)
        for worker, result in zip((*pinned, *others), (*fixed, *rest), strict=True)
        for member in worker.members
    }
    return tuple(results[member] for member in range(len(wanted)))


@lru_cache(maxsize=64)
def _workers(wanted: tuple[tuple[ModelRequest, tuple[Candidate, ...]], ...]) -> tuple[_Worker, ...]:
    """In the order of their first members. A worker that one of its members wants pinned is pinned."""
    alike: list[tuple[ModelRequest, tuple[Candidate, ...], list[int]]] = []
    for place_in_list, (request, candidates) in enumerate(wanted):
        asked = replace(request, name="", pinned=False)
        members = next((members for *known, members in alike if known == [asked, candidates]), None)
        if members is None:
            alike.append((asked, candidates, [place_in_list]))
        else:
            members.append(place_in_list)
    workers = []
    for asked, offered, members in alike:
        names = tuple(wanted[member][0].name for member in members)
        pinned = any(wanted[member][0].pinned for member in members)
        workers.append(_Worker(requirements(asked, offered), pinned, tuple(members), names))
    return tuple(workers)


def _always_there(
    workers: Sequence[_Worker], memory: DeviceMemory
) -> tuple[Sequence[Placed | Refusal], DeviceMemory]:
    """The results, and what is left beside all that were placed: together, or where that is not possible for all,
    one after another."""
    results = _beside_each_other(workers, memory, keep_sizes=False)
    if results is not None:
        for result in results:
            memory = _beside(result, memory)
        return results, memory
    each: list[Placed | Refusal] = []
    for worker in workers:
        each.append(place_on(worker.wanted, memory))
        memory = _beside(each[-1], memory)
    return each, memory


def _beside_each_other(
    workers: Sequence[_Worker], memory: DeviceMemory, *, keep_sizes: bool
) -> Sequence[Placed | Refusal] | None:
    if not workers:
        return ()
    if len(workers) == 1:
        result = place_on(workers[0].wanted, memory)
        return None if isinstance(result, Refusal) else (result,)
    seats = beside_each_other([worker.wanted for worker in workers], memory, keep_sizes=keep_sizes)
    if seats is None:
        return None
    return [_seated(seat, workers, number) for number, seat in enumerate(seats)]


def _seated(seat: Seat, workers: Sequence[_Worker], number: int) -> Placed:
    """With what it would have had without the others, where that is more."""
    if not seat.yields:
        return placed(seat.wanted, seat.memory, seat.walked)
    others = [name for place, worker in enumerate(workers) if place != number for name in worker.names]
    beside = f" beside {_listed(others)}"
    result = placed(seat.wanted, seat.memory, seat.walked, beside)
    alone = None if seat.alone.found is None else seat.alone.found.curve.candidate
    if alone is None or alone == result.candidate:
        return result
    return replace(result, notes=(*result.notes, f"{alone.label} would fit alone, and does not{beside}"))


def _beside(result: Placed | Refusal, memory: DeviceMemory) -> DeviceMemory:
    found = result.walk.walked.found if result.walk else None
    return memory if found is None else found.beside(memory)


def _by_turns(
    workers: Sequence[_Worker], memory: DeviceMemory, pinned: Sequence[str]
) -> list[Placed | Refusal]:
    beside = f" beside the pinned {_listed(pinned)}" if pinned else ""
    names = [name for worker in workers for name in worker.names]
    note = f"loaded on demand: {_listed(names)} do not fit together{beside}"
    taken: dict[str | None, int] = {}
    results: list[Placed | Refusal] = []
    for worker in workers:
        result = _spread(worker, memory, taken)
        if isinstance(result, Placed):
            for uuid, size in _by_gpu(result).items():
                taken[uuid] = taken.get(uuid, 0) + size
            results.append(replace(result, notes=(*result.notes, note), on_demand=True))
        else:
            results.append(replace(result, beside=beside))
    return results


def _spread(worker: _Worker, memory: DeviceMemory, taken: dict[str | None, int]) -> Placed | Refusal:
    """Alone on the device, but of several GPUs that would do as well the one that the fewest others want: models
    on different GPUs need not take turns."""
    best = place_on(worker.wanted, memory)
    if isinstance(best, Refusal) or best.placement.memory == "ram":
        return best
    as_good = [best]
    for gpu in memory.gpus:
        other = place_on(worker.wanted, replace(memory, gpus=(gpu,)))
        if isinstance(other, Placed) and _same_but_for_the_gpu(other, best):
            as_good.append(other)
    return min(as_good, key=lambda each: sum(taken.get(uuid, 0) for uuid in _by_gpu(each)))


def _by_gpu(result: Placed) -> dict[str | None, int]:
    """Bytes on each GPU, by uuid; in RAM as if that were one."""
    if not result.placement.gpus:
        return {result.placement.gpu_uuid: result.report.total}
    return {gpu.uuid: part for gpu, part in zip(result.placement.gpus, result.report.parts, strict=True)}


def _same_but_for_the_gpu(one: Placed, other: Placed) -> bool:
    moved = one.placement.model_copy(update={"gpu_uuid": other.placement.gpu_uuid})
    return one.candidate == other.candidate and moved == other.placement


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
