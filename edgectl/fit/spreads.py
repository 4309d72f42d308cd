"""Splits over several GPUs, found with few questions. PURE. Sizes are bytes.

`fit.whole` and `fit.most_layers` ask what a model needs for every split that they try. Weights and cache of layers that
follow each other are sums, though, and what comes on top does not depend on where a part begins as long as all blocks
are alike: it is counted once for each context, for the first, the last and the other GPUs. Where blocks differ, the
split that follows from that is counted to see whether it holds; where it does not, those functions decide.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence

from agent_daemon.contract import fit as fits
from agent_daemon.contract.fit import Room
from agent_daemon.contract.need import Need, Split, need
from edgectl.fit.curves import Curve, Role

_TRIES = 4
_USUAL = 4
"""Layers from which on a part takes the same besides, however many it has: the output layer alone, or with one block, is
another graph."""


def whole(curve: Curve, place: int, rooms: Sequence[Room]) -> Split | None:
    """All layers over these GPUs, as `fit.whole` finds it. Where all blocks are alike it is worked out and not counted,
    and whoever takes it has to see whether it holds."""
    return _found(curve, place, rooms, True, lambda: fits.whole(curve.facts, curve.options(place), rooms))


def most_layers(curve: Curve, place: int, rooms: Sequence[Room]) -> Split:
    """As many layers as fit on these GPUs, as `fit.most_layers` finds them; empty where not one does."""
    if len(rooms) == 1:
        return _most_on_one(curve, place, rooms[0].budget)

    def exactly() -> Split:
        return fits.most_layers(curve.facts, curve.options(place), rooms)

    return _found(curve, place, rooms, False, exactly) or ()


def _found(
    curve: Curve, place: int, rooms: Sequence[Room], every: bool, exactly: Callable[[], Split | None]
) -> Split | None:
    budgets = [room.budget for room in rooms]
    if _filled(curve, place, budgets, [0] * len(budgets), every) is None:
        return None  # not even weights and cache alone
    roles = [(number == 0, number == len(budgets) - 1) for number in range(len(budgets))]
    known = curve.extras(place, every)
    if every and curve.alike and curve.layers > _USUAL * len(roles):
        if any(role not in known for role in roles):
            # the same split whatever the device, so that contexts share what is drawn for it
            others = (_USUAL,) * (len(roles) - 1)
            _learn(
                known, roles, need(curve.facts, curve.options(place), (curve.layers - sum(others), *others))
            )
        likely = _filled(curve, place, budgets, [known[role] for role in roles], False)
        if likely is not None and min(likely) >= _USUAL:
            return likely if sum(likely) == curve.layers else None
    before: Split | None = None
    for _ in range(_TRIES):
        split = _filled(curve, place, budgets, [known.get(role, 0) for role in roles], every)
        if split is None:
            break
        wanted = need(curve.facts, curve.options(place), split)
        shared = -(-wanted.margin // len(split))
        if split == before and all(
            part.total + shared <= budget for part, budget in zip(wanted.gpus, budgets, strict=True)
        ):
            return split if every else _grown(curve, place, budgets, split)
        before = split
        _learn(known, roles, wanted)
    return exactly()


def _grown(curve: Curve, place: int, budgets: Sequence[int], split: Split) -> Split:
    """With a layer more on any GPU, the last one first, for as long as that fits: one that holds the output layer alone,
    or a first one without blocks in RAM before it, takes less besides than it was counted with."""
    for number in reversed(range(len(split))):
        while sum(split) < curve.layers:
            larger = (*split[:number], split[number] + 1, *split[number + 1 :])
            if not _fits(curve, place, budgets, larger):
                break
            split = larger
    return split


def _fits(curve: Curve, place: int, budgets: Sequence[int], split: Split) -> bool:
    wanted = need(curve.facts, curve.options(place), split)
    shared = -(-wanted.margin // len(split))
    return all(part.total + shared <= budget for part, budget in zip(wanted.gpus, budgets, strict=True))


def _learn(known: dict[Role, int], roles: Sequence[Role], wanted: Need) -> None:
    shared = -(-wanted.margin // len(roles))
    for role, part in zip(roles, wanted.gpus, strict=True):
        known[role] = part.compute + shared


def _filled(
    curve: Curve, place: int, budgets: Sequence[int], extras: Sequence[int], every: bool
) -> Split | None:
    """Each GPU as full as it gets, from the last one backwards, with a layer left for each before it."""
    held, split, taken = curve.held(place), [], 0
    for number in range(len(budgets) - 1, -1, -1):
        room = held[taken] + budgets[number] - extras[number]
        here = min(bisect_right(held, room) - 1, curve.layers - number) - taken
        if here < 1:
            return None
        split.append(here)
        taken += here
    return None if every and taken < curve.layers else tuple(reversed(split))


def _most_on_one(curve: Curve, place: int, budget: int) -> Split:
    low, high = 0, curve.layers
    last = curve.on_gpu(place, curve.layers)
    guess = bisect_right(curve.held(place), budget - (last.gpu - last.held)) - 1
    while low < high:
        middle = min(max(guess, low + 1), high)
        taken = curve.on_gpu(place, middle)
        if taken.gpu <= budget:
            low, guess = middle, middle + 1
        else:
            high = middle - 1
            guess = min(high, bisect_right(curve.held(place), budget - (taken.gpu - taken.held)) - 1)
    return (low,) if low else ()
