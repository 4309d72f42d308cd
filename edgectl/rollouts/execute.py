"""Carries out what a rollout's control decides, through the Effects protocol, and tells everything that happens.

One thread: what goes on with devices goes on elsewhere, and arrives here as events.
"""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Literal, Protocol

from agent_daemon.contract.wire import Outcome
from edgectl.rollout import Control
from edgectl.rollouts import decisions as to
from edgectl.rollouts.events import (
    DeviceEvent,
    Event,
    Halted,
    Heard,
    Looked,
    Lost,
    Moved,
    Noted,
    Paused,
    Result,
    WaveEnded,
)

_TICK = 1.0
"""Seconds between two looks at the clock when nothing happens."""


class Effects(Protocol):
    """What can be done about devices. Nothing here waits: `next` is where things happen."""

    def deliver(self, device: str) -> None:
        """Begins to bring the device its release; a Result is the last of its events."""
        ...

    def revert(self, device: str) -> None:
        """Begins to return the device to what it served before; a Result is the last of its events."""
        ...

    def watch(self, device: str) -> None:
        """Begins to look at it every few seconds."""
        ...

    def unwatch(self, device: str) -> None: ...

    def cancel(self, device: str, reason: str) -> None:
        """Ends what was begun there; its Result follows."""
        ...

    def next(self, seconds: float) -> DeviceEvent | None:
        """What happened next, or None when nothing did for so long."""
        ...


class Run:
    """One run of a rollout, from its begin to its end, a pause or a halt. `stopped` says which it was: `finished`,
    `paused` or `halted`."""

    def __init__(
        self,
        control: Control,
        effects: Effects,
        check: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`check` is called at least once a second, and ends the run by raising."""
        self._control = control
        self._effects = effects
        self._check = check
        self._clock = clock
        self._returning: set[str] = set()
        self._over = False
        self.stopped: Literal["finished", "paused", "halted"] = "finished"

    def events(self) -> Generator[Event, None, None]:
        """Everything that happens, as it happens."""
        yield from self._do(self._control.begin(self._clock()))
        while not self._over:
            self._check()
            event = self._effects.next(_TICK)
            if isinstance(event, Result) and event.device in self._returning:
                event = _returned(event)
            if event is not None:
                yield event
            yield from self._do(self._control.on(_happening(event), self._clock()))

    def _do(self, decided: tuple[to.Decision, ...]) -> Iterator[Event]:
        for decision in decided:
            match decision:
                case to.Start(device):
                    self._effects.deliver(device)
                case to.Watch(device):
                    self._effects.watch(device)
                case to.Watched(device, reason):
                    self._effects.unwatch(device)
                    if reason is not None:
                        yield Noted(device, reason)
                case to.Cancel(device, reason):
                    self._effects.cancel(device, reason)
                case to.Revert(device):
                    self._returning.add(device)
                    self._effects.revert(device)
                case to.Waved(number, devices):
                    yield WaveEnded(number, devices)
                case to.Paused(reason):
                    self.stopped, self._over = "paused", True
                    yield Paused(reason)
                case to.Halted(reason, devices):
                    self.stopped = "halted"
                    yield Halted(reason, devices)
                case to.Finished():
                    self._over = True


def _returned(result: Result) -> Result:
    """The end of a return, as the outcome of the rollout on that device."""
    back = result.outcome in (Outcome.SUCCEEDED, Outcome.UNCHANGED)
    why = f"returned to r{result.number}" if result.number else "returned"
    reason = f"{why} because the rollout was halted" if back else f"it was to return: {result.reason}"
    return replace(
        result, outcome=Outcome.REVERTED if back else Outcome.REVERT_FAILED, reason=reason, returned=True
    )


def _happening(event: DeviceEvent | None) -> to.Happening:
    match event:
        case Moved() | Noted():
            return to.Progressed(event.device)
        case Heard():
            return to.Heard(event.device)
        case Lost():
            return to.Lost(event.device)
        case Looked():
            return to.Probed(event.device, event.health)
        case Result():
            return to.Ended(event.device, event.outcome)
        case None:
            return to.Tick()
