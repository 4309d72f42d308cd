"""When something that is probed counts as healthy: continuously good for long enough. PURE; times are monotonic."""

from enum import StrEnum
from math import inf


class Health(StrEnum):
    """What one probe says. A device that is too busy (429) or cannot be reached is unknown, not bad."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"


class HealthClock:
    """Counts the seconds for which every probe was good. A bad one starts it again; an unknown one stops it until the
    next good one. Nothing is known of a time between two probes that are more than `longest_gap` seconds apart (the
    prober or the probed was suspended), so it is not counted."""

    __slots__ = ("_gap", "_good_at", "_needed", "counted")

    def __init__(self, needed: float, longest_gap: float = inf) -> None:
        self._needed = needed
        self._gap = longest_gap
        self._good_at: float | None = None
        self.counted = 0.0

    def probed(self, health: Health, now: float) -> bool:
        """Takes one probe's result; whether it has been good for long enough."""
        if health is not Health.GOOD:
            self._good_at = None
            if health is Health.BAD:
                self.counted = 0.0
            return False
        if self._good_at is not None and now - self._good_at <= self._gap:
            self.counted += max(0.0, now - self._good_at)
        self._good_at = now
        return self.counted >= self._needed
