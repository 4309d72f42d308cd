"""What the hub answers to a device that says what it has: the release that waits for it, when it is its turn.

Called from several threads. Whose turn it is is forgotten when the hub stops: then it begins anew, with devices that go
on from the bytes they hold.
"""

import threading
import time
from collections.abc import Callable

from agent_daemon.contract.check_in import Desired, Has
from edgectl.hub.journal import Journal
from edgectl.inventory.repository import Repository
from edgectl.rollouts.late import nothing_to_bring, turns
from edgectl.rollouts.undertaking import Undertaking


class Offers:
    """`interval`: seconds from one check-in of a device to the next. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        repository: Repository,
        interval: float,
        journal: Journal,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._interval = interval
        self._journal = journal
        self._clock = clock
        self._lock = threading.Lock()
        self._turns: dict[int, dict[str, float]] = {}
        """By rollout: the devices that are getting its release, and when each was heard of last."""

    def desired(self, device: str, has: Has) -> Desired | None:
        """What the device is to serve; None when nothing waits for it, or others have their turn. Raises
        InventoryError."""
        pending = self._repository.pending(device)
        if pending is None:
            self._leave(device)
            return None
        rollout_id, release = pending
        rollout = self._repository.rollout(rollout_id)
        asked = Undertaking.from_json(rollout.policy)
        ended = nothing_to_bring(release.digest(), rollout_id, asked.retry, has)
        if ended is not None:
            outcome, why = ended
            self._leave(device)
            if self._repository.end_pending(rollout_id, device, outcome, why):
                self._journal.settled(device, rollout_id, outcome)
            return None
        most = turns(asked.policy, self._repository.rollout_size(rollout_id))
        silence = max(asked.policy.progress_deadline, 3 * self._interval)
        if not self._take_turn(device, rollout_id, most, silence):
            return None
        rate = int(asked.limit_rate) if asked.limit_rate else None
        return Desired(
            rollout=rollout_id, release=release, retry=asked.retry, limit_rate=rate, prune=asked.prune
        )

    def _take_turn(self, device: str, rollout: int, most: int, silence: float) -> bool:
        """A device that was not heard of for `silence` seconds has lost its turn."""
        now = self._clock()
        with self._lock:
            self._forget(device, but=rollout)
            going = self._turns.setdefault(rollout, {})
            for other, heard in list(going.items()):
                if now - heard > silence:
                    del going[other]
            if device not in going:
                if len(going) >= most:
                    return False
                self._journal.offered(device, rollout)
            going[device] = now
            return True

    def _leave(self, device: str) -> None:
        with self._lock:
            self._forget(device)

    def _forget(self, device: str, but: int | None = None) -> None:
        for rollout, going in list(self._turns.items()):
            if rollout != but:
                going.pop(device, None)
                if not going:
                    del self._turns[rollout]
