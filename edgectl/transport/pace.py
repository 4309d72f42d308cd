"""A bound on the bytes per second that leave this machine, shared by all who send."""

import threading
import time
from collections.abc import Callable

_BURST = 0.25
"""Seconds' worth that may go at once after a pause."""


class Pace:
    """`rate` in bytes a second; None is no bound. `pause` sleeps that many seconds, and may raise to end a transfer."""

    def __init__(
        self,
        rate: float | None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._due = clock()

    def piece(self, most: int) -> int:
        """Bytes to send at a time, `most` at the most: so few that a pause for them is short."""
        return most if self._rate is None else max(1024, min(most, int(self._rate * _BURST)))

    def take(self, size: int) -> None:
        """Returns when `size` bytes more may be sent. Who comes first goes first."""
        if self._rate is None:
            return
        with self._lock:
            now = self._clock()
            self._due = max(self._due, now - _BURST) + size / self._rate
            wait = self._due - now
        if wait > 0:
            self._pause(wait)
