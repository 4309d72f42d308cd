"""The engine: what control decides is done, what happens is told, and the end of a return is the rollout's outcome."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest

from agent_daemon.contract.health import Health
from agent_daemon.contract.wire import Outcome
from edgectl.rollout import Control, parts
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
from edgectl.rollouts.execute import Run
from edgectl.rollouts.policy import Amount, OnHalt, Policy

SUCCEEDED, REVERTED = Outcome.SUCCEEDED, Outcome.REVERTED


@dataclass
class Script:
    """Effects that end each delivery with the outcome that is written down for it, and move a clock by each event."""

    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    health: Mapping[str, list[Health]] = field(default_factory=dict)
    back: Outcome = SUCCEEDED
    done: list[str] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.queue: deque[DeviceEvent] = deque()
        self.watched: dict[str, deque[Health]] = {}

    def deliver(self, device: str) -> None:
        self.done.append(f"deliver {device}")
        self.queue.append(Moved(device, "m.gguf", 1, 2))
        if device in self.outcomes or device not in self.health:
            self.queue.append(Result(device, self.outcomes.get(device, SUCCEEDED), number=2))
        elif self.health[device]:
            self.queue.append(Result(device, SUCCEEDED, number=2))

    def revert(self, device: str) -> None:
        self.done.append(f"revert {device}")
        self.queue.append(Result(device, self.back, "why not", number=1))

    def watch(self, device: str) -> None:
        self.done.append(f"watch {device}")
        self.watched[device] = deque(self.health.get(device, []))

    def unwatch(self, device: str) -> None:
        self.done.append(f"unwatch {device}")
        self.watched.pop(device, None)

    def cancel(self, device: str, reason: str) -> None:
        self.done.append(f"cancel {device}")
        self.queue.append(Result(device, Outcome.DEFERRED, reason))

    def next(self, seconds: float) -> DeviceEvent | None:
        self.now += seconds
        if self.queue:
            return self.queue.popleft()
        for device, looks in self.watched.items():
            if looks:
                return Looked(device, looks.popleft())
        return None


def carried(
    names: str, policy: Policy, script: Script, check: Callable[[], None] = lambda: None
) -> tuple[Run, list[Event]]:
    places = tuple(replace(part, previous=1) for part in parts([(name, {}) for name in names], policy))
    control = Control(places, policy)
    run = Run(control, script, check, lambda: script.now)
    return run, list(run.events())


def outcomes(events: list[Event]) -> dict[str, Outcome]:
    return {event.device: event.outcome for event in events if isinstance(event, Result)}


def test_waves_go_one_after_the_other_and_everything_is_told() -> None:
    script = Script()
    run, events = carried("abc", Policy(max_unavailable=Amount(count=2)), script)
    assert script.done == ["deliver a", "deliver b", "deliver c"]
    assert run.stopped == "finished"
    assert outcomes(events) == dict.fromkeys("abc", SUCCEEDED)
    ended = [event for event in events if isinstance(event, WaveEnded)]
    assert [(each.wave, set(each.devices)) for each in ended] == [(0, {"a", "b"}), (1, {"c"})]
    assert events.index(ended[0]) < events.index(Moved("c", "m.gguf", 1, 2))


def test_a_failure_halts_it_and_names_who_was_left() -> None:
    script = Script({"a": Outcome.FAILED_UNCHANGED})
    run, events = carried("abc", Policy(max_unavailable=Amount(count=1)), script)
    assert (run.stopped, script.done) == ("halted", ["deliver a"])
    (halted,) = [event for event in events if isinstance(event, Halted)]
    assert halted.devices == ("b", "c")


def test_those_that_have_it_return_when_that_is_asked_for() -> None:
    script = Script({"b": REVERTED})
    policy = Policy(max_unavailable=Amount(count=2), on_halt=OnHalt.REVERT_ALL)
    run, events = carried("abc", policy, script)
    assert (run.stopped, script.done) == ("halted", ["deliver a", "deliver b", "revert a"])
    last = [event for event in events if isinstance(event, Result)][-1]
    assert last == Result(
        "a", REVERTED, "returned to r1 because the rollout was halted", number=1, returned=True
    )


def test_a_return_that_fails_says_so() -> None:
    script = Script({"b": REVERTED}, back=Outcome.UNREACHABLE)
    policy = Policy(max_unavailable=Amount(count=2), on_halt=OnHalt.REVERT_ALL)
    _, events = carried("ab", policy, script)
    last = [event for event in events if isinstance(event, Result)][-1]
    assert (last.outcome, last.reason) == (Outcome.REVERT_FAILED, "it was to return: why not")


def test_after_the_canary_it_pauses() -> None:
    script = Script()
    policy = Policy(canary=Amount(count=1), pause_after_canary=True)
    run, events = carried("abc", policy, script)
    assert (run.stopped, script.done) == ("paused", ["deliver a"])
    assert isinstance(events[-1], Paused)


def test_a_device_is_watched_until_it_has_been_well_for_long_enough() -> None:
    good, bad, unknown = Health.GOOD, Health.BAD, Health.UNKNOWN
    script = Script(health={"a": [good, bad, good, unknown, good, good, good, good]})
    run, events = carried("a", Policy(min_healthy=2.0), script)
    assert (run.stopped, script.done) == ("finished", ["deliver a", "watch a", "unwatch a"])
    looked = [event.health for event in events if isinstance(event, Looked)]
    # Two seconds in a row of good ones: the bad one began it again, the unknown one did not count.
    assert looked == [good, bad, good, unknown, good, good, good]


def test_a_device_that_says_nothing_new_is_given_up() -> None:
    class Silent(Script):
        def deliver(self, device: str) -> None:
            self.done.append(f"deliver {device}")

        def next(self, seconds: float) -> DeviceEvent | None:
            self.now += seconds
            return self.queue.popleft() if self.queue else Heard("a")

    script = Silent()
    run, events = carried("a", Policy(progress_deadline=30.0), script)
    assert script.done == ["deliver a", "cancel a"]
    assert 30 <= script.now < 35
    (result,) = [event for event in events if isinstance(event, Result)]
    assert "30 s" in str(result.reason)
    assert run.stopped in ("finished", "halted")


def test_one_that_cannot_be_reached_for_long_is_not_given_up_for_that() -> None:
    class Asleep(Script):
        def deliver(self, device: str) -> None:
            self.done.append(f"deliver {device}")

        def next(self, seconds: float) -> DeviceEvent | None:
            self.now += seconds
            if self.now > 10_000:
                return Result("a", SUCCEEDED)
            return Lost("a", "its lid is closed") if self.now < 9_999 else Noted("a", "staged")

    script = Asleep()
    run, _ = carried("a", Policy(progress_deadline=30.0), script)
    assert (run.stopped, script.done) == ("finished", ["deliver a"])


def test_whoever_leads_it_no_longer_stops() -> None:
    class TakenOver(Exception):
        pass

    def check() -> None:
        raise TakenOver

    with pytest.raises(TakenOver):
        carried("a", Policy(), Script(), check)
