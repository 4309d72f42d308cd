"""What the hub says on stderr: the first report of each device, and each kind of refusal once in a while. A device
that knocks every second must not fill a disk, and nobody's token is ever written."""

import logging
import time
from collections.abc import Callable

from edgectl.hub.refusals import Refusal

_log = logging.getLogger(__name__)
_QUIET = 60.0
"""Seconds in which the same refusal of the same peer is not said again."""
_MOST = 1000


class Journal:
    """For one thread (the event loop's), but for `offered` and `settled`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reporting: set[str] = set()
        self._said: dict[tuple[str, str], float] = {}

    def reported(self, device: str, records: int) -> None:
        if device not in self._reporting:
            self._reporting.add(device)
            _log.info("%s reports (%d records)", device, records)

    def handing_out(self, device: str, name: str, offset: int) -> None:
        _log.info("%s fetches %s%s", device, name, f" from byte {offset} on" if offset else "")

    def offered(self, device: str, rollout: int) -> None:
        _log.info("%s has its turn in rollout %d", device, rollout)

    def settled(self, device: str, rollout: int, outcome: str) -> None:
        _log.info("%s has ended its part of rollout %d: %s", device, rollout, outcome)

    def refused(self, peer: str, refusal: Refusal) -> None:
        who = f"{refusal.device} ({peer})" if refusal.device else peer
        key, now = (who, refusal.problem.code), self._clock()
        if now - self._said.get(key, -_QUIET) < _QUIET:
            return
        if len(self._said) >= _MOST:
            self._said.clear()
        self._said[key] = now
        _log.warning("refused %s from %s: %s", refusal.asked, who, refusal.note or refusal.problem.message)
