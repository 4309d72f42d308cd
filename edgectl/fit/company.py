"""Rungs for several models that are in memory at the same time. PURE. Sizes are bytes.

All start at the rung that each would have alone. While they do not fit beside each other, the step that loses least is
taken: the same share of every model's context, between the least and what it would have alone; then the next type of
cache, where that frees most; then the next quantization that is good and of the same size, where that diverges least.
What is over in the end goes to whoever can still have a better rung beside the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgectl.fit.curves import Curve
from edgectl.fit.device_memory import DeviceMemory
from edgectl.fit.quality import divergence, good
from edgectl.fit.steps import Requirements, Walked, floor_of, possible, walk
from edgectl.fit.ways import Kind, Space, find


@dataclass(frozen=True, slots=True)
class Seat:
    """One model beside the others: where its walk ended, `wanted` with the rungs that it may have in this company, and
    the `memory` that the others leave it. `alone` is where its walk would end without them."""

    wanted: Requirements
    memory: DeviceMemory
    walked: Walked
    alone: Walked

    @property
    def yields(self) -> bool:
        """Whether it would have a better rung alone."""
        here, alone = self.walked.found, self.alone.found
        if here is None or alone is None:
            return True
        return (self.walked.step, here.place) != (self.alone.step, alone.place)


@dataclass(frozen=True, slots=True)
class _Member:
    """`ladder` has the curves of the candidates that it may step down to, first of the one that it would have alone;
    `kinds` are the ways in which they may sit. `rung` and `cache` say where it stands: a place in the ladder, and the
    last of the request's types of cache that it may have. `most` is the place of the largest context to try, where
    that is not the curve's own."""

    wanted: Requirements
    ladder: tuple[tuple[Curve, ...], ...]
    kinds: tuple[Kind, ...]
    floor: float
    cache: int
    most: int | None
    rung: int = 0

    @property
    def curve(self) -> Curve:
        curves, types = self.ladder[self.rung], self.wanted.request.kv_types
        return next((each for each in reversed(curves) if types.index(each.kv_type) <= self.cache), curves[0])

    @property
    def size(self) -> int:
        """What it takes at the least context."""
        return self.curve.in_ram(0).ram

    def at(self, share: int, of: int) -> int:
        """The place of its context at `share` of `of` parts of the largest."""
        return (self.curve.top if self.most is None else self.most) * share // of

    def with_next_cache(self) -> "_Member | None":
        if self.cache + 1 == len(self.wanted.request.kv_types):
            return None
        return replace(self, cache=self.cache + 1, most=None)

    def lower(self) -> "_Member | None":
        return None if self.rung + 1 == len(self.ladder) else replace(self, rung=self.rung + 1, most=None)

    def lowest(self) -> "_Member":
        last = len(self.wanted.request.kv_types) - 1
        return replace(self, rung=len(self.ladder) - 1, cache=last, most=None)


def beside_each_other(
    wanted: Sequence[Requirements], memory: DeviceMemory, *, keep_sizes: bool = True
) -> list[Seat] | None:
    """A seat for each, in that order, or None where they do not fit beside each other, or one of them not even
    alone. `keep_sizes` False lets them step down to smaller models when all else failed."""
    space = Space.of(memory)
    alone = [walk(each, space) for each in wanted]
    if any(walked.found is None for walked in alone):
        return None
    for anywhere in (False, True):
        members = [
            _member(each, walked, space, anywhere, keep_sizes)
            for each, walked in zip(wanted, alone, strict=True)
        ]
        if (found := _descended(members, memory)) is not None:
            return _settled(members, alone, found, memory)
    return None


def _member(wanted: Requirements, alone: Walked, space: Space, anywhere: bool, keep_sizes: bool) -> _Member:
    """`anywhere`: it may also sit where it would not have to alone."""
    assert alone.found is not None
    assert alone.step is not None
    curve, kind = alone.step
    kinds = tuple(dict.fromkeys(each for _, each in possible(wanted.steps, space)))
    if not anywhere:
        kinds = kinds[: kinds.index(kind) + 1]
    ladder = []
    for size in wanted.sizes:
        candidates = [usable for each in size if (usable := tuple(one for one in each if not one.refused))]
        at = next((number for number, each in enumerate(candidates) if curve in each), None)
        if at is not None:
            ladder = [
                each for number, each in enumerate(candidates[at:]) if not number or good(each[0].facts)
            ]
        elif ladder and not keep_sizes:
            ladder += candidates
    floor = 0.0 if alone.found is alone.slow else floor_of(wanted.request)
    cache = wanted.request.kv_types.index(curve.kv_type)
    return _Member(wanted, tuple(ladder), kinds, floor, cache, alone.found.place)


def _descended(members: Sequence[_Member], memory: DeviceMemory) -> list[Walked] | None:
    """The first step down at which all fit; None: not even the last one."""
    if _packed([member.lowest() for member in members], 0, 1, memory) is None:
        return None
    standing: list[_Member] | None = list(members)
    while standing is not None:
        if (found := _with_equal_shares(standing, memory)) is not None:
            return found
        standing = _stepped_down(standing)
    return None


def _with_equal_shares(members: Sequence[_Member], memory: DeviceMemory) -> list[Walked] | None:
    """All at the largest equal share of their contexts at which they fit."""
    if (found := _packed(members, 1, 1, memory)) is not None:
        return found
    best = _packed(members, 0, 1, memory)
    most = max(member.at(1, 1) for member in members)
    low, high = 1, most - 1
    while best is not None and low <= high:
        middle = (low + high) // 2
        found = _packed(members, middle, most, memory)
        if found is None:
            high = middle - 1
        else:
            best, low = found, middle + 1
    return best


def _packed(members: Sequence[_Member], share: int, of: int, memory: DeviceMemory) -> list[Walked] | None:
    """All at `share` of `of` parts of their contexts, one after another: in their order, or else the largest first,
    which leaves fewer gaps on several GPUs, or else first those that have the fewest ways to sit."""
    in_order = range(len(members))
    largest_first = sorted(in_order, key=lambda number: -members[number].size)
    choosiest_first = sorted(largest_first, key=lambda number: len(members[number].kinds))
    for order in dict.fromkeys((tuple(in_order), tuple(largest_first), tuple(choosiest_first))):
        seated: dict[int, Walked] = {}
        left = memory
        for number in order:
            walked = _seated(members[number], members[number].at(share, of), Space.of(left))
            if walked.found is None:
                break
            seated[number] = walked
            left = walked.found.beside(left)
        else:
            return [seated[number] for number in in_order]
    return None


def _seated(member: _Member, place: int, space: Space) -> Walked:
    for step in member.wanted.steps:
        curve, kind = step
        if curve is member.curve and kind in member.kinds:
            found = find(curve, kind, space, member.floor, (place, place))
            if found is not None:
                return Walked(found, step)
    return Walked(None)


def _stepped_down(members: Sequence[_Member]) -> list[_Member] | None:
    """The same members, one of them a step lower; None: all are at the end of their ladders."""
    caches = [(number, lower) for number, each in enumerate(members) if (lower := each.with_next_cache())]
    rungs = [(number, lower) for number, each in enumerate(members) if (lower := each.lower())]
    if caches:
        number, lower = max(caches, key=lambda each: members[each[0]].size - each[1].size)
    elif rungs:
        number, lower = min(rungs, key=lambda each: _loss(members[each[0]], each[1]))
    else:
        return None
    return [lower if place == number else each for place, each in enumerate(members)]


def _loss(member: _Member, lower: _Member) -> tuple[bool, float]:
    """Another quantization of a model before a smaller model, and of those the one that takes the most first."""
    before, after = member.curve.facts, lower.curve.facts
    if before.block_parameters != after.block_parameters:
        return True, -float(member.size)
    return False, divergence(after) - divergence(before)


def _settled(
    members: Sequence[_Member], alone: Sequence[Walked], seated: Sequence[Walked], memory: DeviceMemory
) -> list[Seat]:
    """Each at the best rung that the others leave it, one after another."""
    now = list(seated)
    allowed = [_allowed(member, walked) for member, walked in zip(members, alone, strict=True)]
    for number, wanted in enumerate(allowed):
        better = walk(wanted, Space.of(_left(now, number, memory)))
        if better.found is not None:
            now[number] = better
    return [
        Seat(wanted, _left(now, number, memory), walked, alone[number])
        for number, (wanted, walked) in enumerate(zip(allowed, now, strict=True))
    ]


def _allowed(member: _Member, alone: Walked) -> Requirements:
    """What it may have in company: nothing better than alone, and then its own ladder."""
    curves = frozenset(curve for curves in member.ladder for curve in curves)
    steps = member.wanted.steps
    last = next(number for number, step in enumerate(steps) if step == alone.step)
    kept = tuple(
        step
        for number, step in enumerate(steps)
        if number <= last or (step[0] in curves and step[1] in member.kinds)
    )
    return replace(member.wanted, steps=kept)


def _left(now: Sequence[Walked], number: int, memory: DeviceMemory) -> DeviceMemory:
    """What all others leave."""
    for other, walked in enumerate(now):
        if other != number and walked.found is not None:
            memory = walked.found.beside(memory)
    return memory
