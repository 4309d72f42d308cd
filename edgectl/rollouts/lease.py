"""Keeps a rollout's lease for as long as this process leads it, and gives it back however the process ends.

    with Lease(repository, rollout.id, owner) as lease:
        …
        lease.check()                 # raises LeaseLost once somebody else took the rollout, or ended it
        lease.end("finished")

Left without `end`, by an error, Ctrl-C, SIGTERM or SIGHUP, the rollout stands as interrupted. A process that is killed
cannot say so: its lease is free at once on this machine, where it can be seen to be gone, and elsewhere after a minute.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from edgectl.errors import EdgectlError, InventoryError, LeaseLost
from edgectl.inventory.values import LEASE_SECONDS, RolloutState
from edgectl.rollouts.owner import Owner

if TYPE_CHECKING:
    from edgectl.inventory.repository import Repository

LOOK_EVERY = 1.0
"""Seconds after which at the latest one who lost the lease knows it. Looking does not write."""

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """This process was told to end. It unwinds as it does for Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.name = signal.Signals(number).name
        self.exit_code = 128 + number


class Lease:
    def __init__(
        self,
        repository: "Repository",
        rollout_id: int,
        owner: Owner,
        *,
        ttl: float = LEASE_SECONDS,
        on_lost: Callable[[LeaseLost], None] | None = None,
    ) -> None:
        """The rollout runs already, led by `owner`. A sign of life is given every third of `ttl` seconds; `on_lost` is
        called once, from a thread of its own."""
        self._repository = repository
        self._rollout_id = rollout_id
        self._owner = owner
        self._every = ttl / 3
        self._on_lost = on_lost
        self._lost: LeaseLost | None = None
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._handlers: dict[signal.Signals, Any] = {}

    @property
    def lost(self) -> LeaseLost | None:
        """What was told when the lease was found to be gone; None while it is held."""
        return self._lost

    def check(self) -> None:
        """Raises LeaseLost when the lease was found to be gone. Costs nothing."""
        if self._lost is not None:
            raise self._lost

    def end(self, state: RolloutState, reason: str | None = None) -> None:
        """Say how the rollout stands at the end of this process, and give its devices back. Raises LeaseLost when it is
        no longer ours to say."""
        self._stop()
        self._repository.set_state(self._rollout_id, state, reason, owner=self._owner)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING:
                # What is ignored, as under nohup, stays ignored.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, _terminate)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            # However often it is said, and whoever says it: giving back is not disturbed.
            before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, *_ENDING)}
        try:
            self._stop()
            # Where `end` was called, the rollout does not run any more, and this is refused.
            with contextlib.suppress(LeaseLost):
                self._repository.set_state(self._rollout_id, "interrupted", _why(error), owner=self._owner)
        except InventoryError:
            if error is None:
                raise
        finally:
            for number, handler in (before | self._handlers).items():
                signal.signal(number, handler or signal.SIG_DFL)

    def _stop(self) -> None:
        self._leave.set()
        self._thread.join()

    def _keep(self) -> None:
        renewed = time.time()
        while not self._leave.wait(min(LOOK_EVERY, self._every)):
            try:
                # By the wall clock: the others count a night asleep, the monotonic one does not.
                if abs(time.time() - renewed) >= self._every:
                    self._repository.renew(self._rollout_id, self._owner)
                    renewed = time.time()
                else:
                    self._repository.check_lease(self._rollout_id, self._owner)
            except LeaseLost as lost:
                self._lost = lost
                if self._on_lost is not None:
                    self._on_lost(lost)
                return
            except InventoryError:
                # A full disk, a long writer: the next time, or nobody else can write there either.
                continue


def _terminate(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    # Once: whoever says it again would disturb the unwinding.
    for each in _ENDING:
        if signal.getsignal(each) is _terminate:
            signal.signal(each, signal.SIG_IGN)
    raise Terminated(number)


def _why(error: BaseException | None) -> str:
    if isinstance(error, Terminated):
        return f"its process was told to end ({error.name})"
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted (Ctrl-C)"
    if isinstance(error, EdgectlError):
        return error.message
    return "its process ended before it" if error is None else f"internal error: {type(error).__name__}"
