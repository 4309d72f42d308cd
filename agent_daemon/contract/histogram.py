"""How many durations fell into which bucket: counts that add up exactly, over requests, minutes and devices. PURE.

The buckets are the same at both ends and for ever: counts of other buckets could not be added to those that are
stored already. Other buckets would be another field of `wire.Usage`, beside these.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

BOUNDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 300.0)
"""Upper ends of the buckets, in seconds; a duration of exactly a bound belongs below it."""

SIZE = len(BOUNDS) + 1
"""Counts of a histogram: one for each bound, and one for whatever took longer than all of them."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of durations by bucket. Raises ValueError when there are not `SIZE` counts, or one is negative."""

    counts: tuple[int, ...] = (0,) * SIZE

    def __post_init__(self) -> None:
        if len(self.counts) != SIZE or min(self.counts) < 0:
            raise ValueError(f"a histogram has {SIZE} counts of 0 or more, one for each bucket")

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Self:
        """The histogram of some durations."""
        counts = [0] * SIZE
        for each in seconds:
            counts[bisect_left(BOUNDS, each)] += 1
        return cls(tuple(counts))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The histogram that `text()` wrote. Raises ValueError for anything else."""
        counts = json.loads(text)
        if not isinstance(counts, list) or not all(type(count) is int for count in counts):
            raise ValueError("a histogram is a JSON array of counts")
        return cls(tuple(counts))

    def text(self) -> str:
        """As JSON: an array of the counts."""
        return json.dumps(self.counts, separators=(",", ":"))

    def __add__(self, other: "Histogram") -> "Histogram":
        return Histogram(tuple(one + two for one, two in zip(self.counts, other.counts, strict=True)))

    def __mul__(self, times: int) -> "Histogram":
        return Histogram(tuple(count * times for count in self.counts))

    @property
    def total(self) -> int:
        """How many durations were counted."""
        return sum(self.counts)

    def quantile(self, part: float) -> float | None:
        """The seconds that `part` (0 to 1) of the durations did not exceed; None without any.

        An estimate: within the bucket where it falls, durations are taken to be spread evenly. Of those past the
        last bound nothing more is known, so that bound is the most that this says.
        """
        wanted, below = part * self.total, 0
        if not self.total:
            return None
        for count, (start, end) in zip(self.counts, pairwise((0.0, *BOUNDS)), strict=False):
            if count and below + count >= wanted:
                return start + (end - start) * max(0.0, wanted - below) / count
            below += count
        return BOUNDS[-1]


EMPTY = Histogram()
