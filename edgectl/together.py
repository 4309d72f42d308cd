"""Several models on one device: which are in memory all the time, and which take turns. PURE.

The choice of a candidate comes before company: a model is not given a lesser rung of its ladder so that another
may stay in memory beside it. Whoever wants two models side by side lists rungs that fit side by side, or says
less context.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgectl.device_memory import DeviceMemory
from edgectl.placement import Candidate, ModelRequest, Placed, Refusal, place

Wanted = tuple[ModelRequest, Sequence[Candidate]]


@dataclass(frozen=True, slots=True)
class _Worker:
    """One model in memory, for all who ask for it in the same way: `members` are their places in the list."""

    request: ModelRequest
    candidates: tuple[Candidate, ...]
    members: tuple[int, ...]
    names: tuple[str, ...]


def place_all(wanted: Sequence[Wanted], memory: DeviceMemory) -> tuple[Placed | Refusal, ...]:
    """A result for each of `wanted`, in that order.

    Pinned models are placed first, then the others in their order, each in what the ones before it leave. If
    that does not work out for all, the models that are not pinned take turns: each has to fit alone beside the
    pinned ones, and is placed on demand. Names that ask for the same model in the same way share its worker."""
    workers = _workers(wanted)
    pinned = [worker for worker in workers if worker.request.pinned]
    others = [worker for worker in workers if not worker.request.pinned]
    fixed, left = _one_after_another(pinned, memory)
    rest, _ = _one_after_another(others, left)
    if any(isinstance(result, Refusal) for result in rest):
        rest = _by_turns(others, left, [name for worker in pinned for name in worker.names])
    results = {
        member: replace(result, model=wanted[member][0].name)
        for worker, result in zip((*pinned, *others), (*fixed, *rest), strict=True)
        for member in worker.members
    }
    return tuple(results[member] for member in range(len(wanted)))


def _workers(wanted: Sequence[Wanted]) -> list[_Worker]:
    """In the order of their first members. A worker that one of its members wants pinned is pinned."""
    alike: list[tuple[ModelRequest, tuple[Candidate, ...], list[int]]] = []
    for place_in_list, (request, candidates) in enumerate(wanted):
        asked, offered = replace(request, name="", pinned=False), tuple(candidates)
        members = next((members for *known, members in alike if known == [asked, offered]), None)
        if members is None:
            alike.append((asked, offered, [place_in_list]))
        else:
            members.append(place_in_list)
    workers = []
    for asked, offered, members in alike:
        names = tuple(wanted[member][0].name for member in members)
        pinned = any(wanted[member][0].pinned for member in members)
        workers.append(_Worker(replace(asked, name=names[0], pinned=pinned), offered, tuple(members), names))
    return workers


def _one_after_another(
    workers: Sequence[_Worker], memory: DeviceMemory
) -> tuple[list[Placed | Refusal], DeviceMemory]:
    """The results, and what is left beside all that were placed."""
    results: list[Placed | Refusal] = []
    for worker in workers:
        result = place(worker.request, worker.candidates, memory)
        results.append(result)
        if isinstance(result, Placed):
            memory = _beside(result, memory)
    return results, memory


def _beside(placed: Placed, memory: DeviceMemory) -> DeviceMemory:
    on_gpu = placed.report.memory == "vram"
    return memory.less(
        gpu_uuid=placed.placement.gpu_uuid,
        vram=placed.report.total if on_gpu else 0,
        ram=placed.report.host if on_gpu else placed.report.total,
    )


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
            uuid = result.placement.gpu_uuid
            taken[uuid] = taken.get(uuid, 0) + result.report.total
            results.append(replace(result, notes=(*result.notes, note), on_demand=True))
        else:
            results.append(replace(result, reason=result.reason + beside))
    return results


def _spread(worker: _Worker, memory: DeviceMemory, taken: dict[str | None, int]) -> Placed | Refusal:
    """Alone on the device, but of several GPUs that would do as well the one that the fewest others want: models
    on different GPUs need not take turns."""
    best = place(worker.request, worker.candidates, memory)
    if isinstance(best, Refusal) or best.placement.memory == "ram":
        return best
    as_good = [best]
    for gpu in memory.gpus:
        other = place(worker.request, worker.candidates, replace(memory, gpus=(gpu,)))
        if isinstance(other, Placed) and _same_but_for_the_gpu(other, best):
            as_good.append(other)
    return min(as_good, key=lambda placed: taken.get(placed.placement.gpu_uuid, 0))


def _same_but_for_the_gpu(one: Placed, other: Placed) -> bool:
    moved = one.placement.model_copy(update={"gpu_uuid": other.placement.gpu_uuid})
    return one.candidate == other.candidate and moved == other.placement


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
