"""Carries out a plan: wave by wave, the devices of a wave side by side, everything that happens as events.

Through the `Effects` protocol only, so that the order of things can be tested without a device.
"""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from agent_daemon.contract.wire import Outcome
from edgectl.plan import Plan, Step
from edgectl.rollout import Policy, Verdict, verdict, waves


class Cancelled(Exception):
    """Raised inside a delivery when the person has interrupted the rollout."""


@dataclass(frozen=True)
class Moved:
    """`done` of `total` bytes of one file have arrived on the device."""

    device: str
    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Noted:
    """Something that the device said on its way."""

    device: str
    text: str


@dataclass(frozen=True)
class Result:
    """How it ended on one device. `seconds` is a duration; `number` that of the release it was about."""

    device: str
    outcome: Outcome
    reason: str | None = None
    bytes_moved: int = 0
    seconds: float = 0.0
    number: int | None = None


@dataclass(frozen=True)
class Halted:
    """No further wave begins; these devices were not touched."""

    devices: tuple[str, ...]


Event = Moved | Noted | Result | Halted
Emit = Callable[[Event], None]


class Effects(Protocol):
    def deliver(self, step: Step, emit: Emit, cancelled: threading.Event) -> Result:
        """Brings one device to its release and returns the device's own verdict. Raises Cancelled, nothing
        else: whatever goes wrong is an outcome."""
        ...


def run(plan: Plan, policy: Policy, effects: Effects) -> Generator[Event, None, None]:
    """Yields events as they happen, one Result for every step of the plan. Closing the iterator cancels: what is
    being sent stops, what a device has begun it finishes alone."""
    outcomes: list[Outcome] = []
    for step in plan.steps:
        if step.outcome is not None:
            yield Result(
                step.device, step.outcome, step.reason, number=step.release.number if step.release else None
            )
    remaining = list(waves(plan, policy))
    while remaining:
        for event in _wave(remaining.pop(0), effects):
            if isinstance(event, Result):
                outcomes.append(event.outcome)
            yield event
        if remaining and verdict(outcomes, policy) is Verdict.HALT:
            left = [step for wave in remaining for step in wave]
            yield Halted(tuple(step.device for step in left))
            for step in left:
                yield Result(step.device, Outcome.DEFERRED, "the rollout was halted before its turn")
            return


def _wave(steps: Sequence[Step], effects: Effects) -> Iterator[Event]:
    """All devices of a wave finish, whatever happens to one of them."""
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    cancelled = threading.Event()

    def work(step: Step) -> None:
        began = time.monotonic()
        try:
            events.put(effects.deliver(step, events.put, cancelled))
        except Cancelled:
            reason = "interrupted; what has arrived is kept"
            seconds = time.monotonic() - began
            events.put(Result(step.device, Outcome.DEFERRED, reason, seconds=seconds))
        finally:
            events.put(None)

    with ThreadPoolExecutor(max_workers=len(steps), thread_name_prefix="device") as pool:
        futures = [pool.submit(work, step) for step in steps]
        try:
            running = len(steps)
            while running:
                event = events.get()
                if event is None:
                    running -= 1
                else:
                    yield event
        finally:
            cancelled.set()
    for future in futures:
        future.result()
