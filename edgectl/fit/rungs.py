"""Every rung of a ladder that was tried on a device, with its verdict and why. PURE.

Placing does not need this: it is worked out again, in words, when somebody asks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agent_daemon.contract import fit as fits
from agent_daemon.contract.fit import FitReport, Room
from agent_daemon.contract.need import Split
from agent_daemon.contract.release import KvType
from edgectl.fit.curves import Curve
from edgectl.fit.device_memory import DeviceMemory, GpuMemory
from edgectl.fit.steps import Requirements, Step, Walked, floor_of, possible
from edgectl.fit.ways import Kind, Space, Stage, estimate, report, rooms_of

NOT_NEEDED = "not needed: a better rung fits"
KEEPS_SIZE = "not tried: beside other models one keeps its size, or they take turns"


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung as it was tried. `report` is the arithmetic at `context`, None where memory was not the question.
    A rejected rung that does not fit is told at the least context, which comes closest."""

    candidate: str
    """The name of its first file."""
    digest: str
    file_type: str | None
    kv_type: KvType
    stage: Stage
    context: int
    gpu_layers: int
    verdict: Literal["chosen", "rejected"]
    reason: str
    report: FitReport | None = None
    tokens_per_second: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As it is printed for programs."""
        speed = self.tokens_per_second
        return {
            "candidate": self.candidate,
            "digest": self.digest,
            "file_type": self.file_type,
            "kv_type": self.kv_type,
            "stage": self.stage,
            "context": self.context,
            "gpu_layers": self.gpu_layers,
            "verdict": self.verdict,
            "reason": self.reason,
            "report": None if self.report is None else self.report.as_dict(),
            "tokens_per_second": None if speed is None else round(speed, 2),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """A walk down a ladder on one device, as it can be told."""

    wanted: Requirements
    memory: DeviceMemory
    walked: Walked

    def rungs(self) -> tuple[Rung, ...]:
        """What was tried, in order, up to the choice; then each candidate that was not."""
        space = Space.of(self.memory)
        every, allowed = possible(self.wanted.every, space), possible(self.wanted.steps, space)
        ended = self._ended()
        told: list[Rung] = []
        for step in every:
            told += self._told(step, allowed, space, told)
            if step == ended:
                break
        seen = {rung.digest for rung in told}
        for curves in self.wanted.candidates:
            if curves[0].candidate.artifact.digest not in seen:
                told.append(_plain(curves[0], _first_stage(every, curves[0]), NOT_NEEDED))
        return tuple(told)

    def _ended(self) -> Step | None:
        """The last step that was tried; None: all were."""
        return None if self.walked.found is self.walked.slow else self.walked.step

    def _told(
        self, step: Step, allowed: Sequence[Step], space: Space, told: Sequence[Rung]
    ) -> Iterator[Rung]:
        curve, kind = step
        found = self.walked.found
        if step not in allowed:
            known = any(
                (rung.digest, rung.kv_type) == (curve.candidate.artifact.digest, curve.kv_type)
                for rung in told
            )
            if not known:
                yield _plain(curve, _stage(kind), curve.refused or KEEPS_SIZE)
            return
        chosen = found if step == self.walked.step else None
        for stage, gpus, split in _nearest(curve, kind, space):
            if chosen is not None and chosen.stage == stage:
                break
            yield self._rejected(curve, stage, gpus, split, space)
        if chosen is not None:
            yield _rung(
                curve,
                chosen.stage,
                chosen.place,
                sum(chosen.split),
                "chosen",
                self._praise(space),
                chosen.report(space),
                chosen.tokens_per_second,
            )

    def _praise(self, space: Space) -> str:
        found = self.walked.found
        assert found is not None
        text = f"fits: {found.report(space).arithmetic()} ({_where(found.gpus, space)})"
        if found is self.walked.slow and found.tokens_per_second is not None:
            text += f"; about {found.tokens_per_second:.1f} tokens/s, and nothing is faster that fits"
        return text

    def _rejected(
        self, curve: Curve, stage: Stage, gpus: Sequence[GpuMemory], split: Split, space: Space
    ) -> Rung:
        sum_ = report(curve, 0, gpus, split, space)
        speed = estimate(curve, 0, gpus, split, space)
        where = _where(gpus, space)
        if not sum_.fits:
            reason = f"{sum_.arithmetic()} ({where})"
        elif speed is not None and speed < floor_of(self.wanted.request):
            reason = too_slow(speed, floor_of(self.wanted.request), where)
        else:
            reason = f"fits with less context only ({where})"
        return _rung(curve, stage, 0, sum(split), "rejected", reason, sum_, speed)


def too_slow(speed: float, floor: float, where: str) -> str:
    return f"about {speed:.1f} tokens/s ({where}), fewer than {floor:g}"


def attempts(rungs: Sequence[Rung], several_types: bool) -> list[tuple[tuple[int, float], str]]:
    """One line a candidate, for its rung that came closest, with how far it is from fitting: bytes that are missing,
    then the speed, negated. Candidates that memory would not help are as far as can be."""
    by_candidate: dict[str, list[Rung]] = {}
    for rung in rungs:
        by_candidate.setdefault(rung.digest, []).append(rung)
    return [_attempt(each, several_types) for each in by_candidate.values()]


def _attempt(rungs: Sequence[Rung], several_types: bool) -> tuple[tuple[int, float], str]:
    judged = [rung for rung in rungs if rung.report is not None]
    if not judged:
        return (2**63, 0.0), f"{rungs[0].candidate}: {rungs[0].reason}"
    closest = min(judged, key=_distance)
    cache = f", KV {closest.kv_type}" if several_types else ""
    return _distance(closest), f"{closest.candidate} at context {closest.context}{cache}: {closest.reason}"


def _distance(rung: Rung) -> tuple[int, float]:
    return (0 if rung.report is None else rung.report.short), -(rung.tokens_per_second or 0.0)


def _nearest(curve: Curve, kind: Kind, space: Space) -> Iterator[tuple[Stage, tuple[GpuMemory, ...], Split]]:
    """The splits that come closest to fitting in one kind of way, at the least context."""
    options = curve.options(0)
    if kind == "ram":
        yield "ram", (), ()
    elif kind == "whole":
        yield "gpu", space.gpus[:1], (curve.layers,)
        sets = [gpus for gpus in space.several if len(gpus) <= curve.layers]
        if gpus := next(reversed(sets), None):
            rooms = rooms_of(gpus)
            yield "gpus", gpus, fits.whole(curve.facts, options, rooms) or _shared_out(curve.layers, rooms)
    elif kind == "split":
        gpus = (space.several or (space.gpus[:1],))[-1]
        split = fits.most_layers(curve.facts, options, rooms_of(gpus))
        yield ("split", gpus, split) if split else ("split", space.gpus[:1], (1,))
    else:
        yield "split", space.gpus[:1], (kind,)


def _shared_out(layers: int, rooms: Sequence[Room]) -> Split:
    """One layer for each, and the others in proportion to the room."""
    together = sum(room.budget for room in rooms) or 1
    more = layers - len(rooms)
    split = [1 + more * room.budget // together for room in rooms[:-1]]
    return (*split, layers - sum(split))


def _where(gpus: Sequence[GpuMemory], space: Space) -> str:
    if gpus:
        return " and ".join(gpu.label for gpu in gpus)
    return "RAM" if space.ram is not None else "RAM, of which the free part is not known"


def _stage(kind: Kind) -> Stage:
    if kind == "ram":
        return "ram"
    return "gpu" if kind == "whole" else "split"


def _first_stage(every: Sequence[Step], curve: Curve) -> Stage:
    return next((_stage(kind) for each, kind in every if each is curve), "ram")


def _plain(curve: Curve, stage: Stage, reason: str) -> Rung:
    return _rung(curve, stage, 0, 0 if stage == "ram" else curve.layers, "rejected", reason, None, None)


def _rung(
    curve: Curve,
    stage: Stage,
    place: int,
    gpu_layers: int,
    verdict: Literal["chosen", "rejected"],
    reason: str,
    arithmetic: FitReport | None,
    speed: float | None,
) -> Rung:
    return Rung(
        candidate=curve.candidate.label,
        digest=curve.candidate.artifact.digest,
        file_type=curve.facts.file_type,
        kv_type=curve.kv_type,
        stage=stage,
        context=curve.context(place),
        gpu_layers=gpu_layers,
        verdict=verdict,
        reason=reason,
        report=arithmetic,
        tokens_per_second=speed,
    )
