"""PURE. What a part of the bench has found: times side by side, and the bounds that they are held against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Row:
    """One program, or one stretch of it, as often as it was run: seconds of each run, by round. `cpu_seconds` is the
    median of its process with all that it started, `peak_bytes` the most that one of them had; None: not looked at."""

    what: str
    seconds: tuple[float, ...]
    cpu_seconds: float | None = None
    peak_bytes: int | None = None

    @property
    def median(self) -> float:
        return median(self.seconds)


@dataclass(frozen=True)
class Bound:
    """`measured` must not be above `most`; `unit` is what both are in."""

    what: str
    measured: float
    most: float
    unit: str = "x"

    @property
    def holds(self) -> bool:
        return self.measured <= self.most


@dataclass(frozen=True)
class Found:
    """A part's result. `more` is what else was seen, for the JSON."""

    rows: tuple[Row, ...] = ()
    bounds: tuple[Bound, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times the peer's time ours is: the median over rounds, each round against itself, because machines
    drift. Raises ValueError where the rounds are not the same."""
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} rounds of ours, {len(theirs)} of the peer's")
    return median(mine / other for mine, other in zip(ours, theirs, strict=True))


def beyond(ours: Sequence[float], allowed: Sequence[float]) -> float:
    """By how many seconds ours takes longer than what is allowed: the median over rounds, each against itself."""
    if not ours or len(ours) != len(allowed):
        raise ValueError(f"{len(ours)} rounds of ours, {len(allowed)} that are allowed")
    return median(mine - other for mine, other in zip(ours, allowed, strict=True))


def resent(received: int, undisturbed: int, size: int) -> float:
    """The part of a blob that was sent again, in percent: what a machine's interface took in, beyond what it takes in
    for the same blob over the same link when nothing happens. Never below 0."""
    return max(0.0, (received - undisturbed) * 100 / size)
