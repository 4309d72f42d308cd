"""How long a device has been heard of without anything new. PURE; times are monotonic seconds."""

POLL = 10.0
"""Seconds between two looks at a device that is at work: it is told of at least as often."""
LONGEST_GAP = 3 * POLL


class ProgressClock:
    """Counts time in which the device was heard of and nothing was new. A longer silence than `longest_gap` is not
    counted: one of the two sides was suspended, and that says nothing about the work."""

    __slots__ = ("_gap", "_heard_at", "counted")

    def __init__(self, longest_gap: float = LONGEST_GAP) -> None:
        self._gap = longest_gap
        self._heard_at: float | None = None
        self.counted = 0.0

    def heard(self, now: float) -> None:
        """It answers, with nothing new."""
        if self._heard_at is not None and now - self._heard_at <= self._gap:
            self.counted += max(0.0, now - self._heard_at)
        self._heard_at = now

    def progressed(self, now: float) -> None:
        """Something is new: the count starts again."""
        self.counted = 0.0
        self._heard_at = now

    def lost(self) -> None:
        """It does not answer: the count stands still until it does."""
        self._heard_at = None
