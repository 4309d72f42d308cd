"""The order of things in a rollout, through the Effects protocol."""

import threading
from dataclasses import dataclass, field

from agent_daemon.contract.wire import Outcome
from edgectl.execute import Cancelled, Emit, Event, Halted, Noted, Result, run
from edgectl.plan import Action, Plan, Step
from edgectl.rollout import Policy, exit_code


@dataclass
class Told:
    """Outcomes by device name; `meet` makes that many devices wait for one another."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    meet: int = 1
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.meet, timeout=20)

    def deliver(self, step: Step, emit: Emit, cancelled: threading.Event) -> Result:
        self.seen.append(step.device)
        if self.meet > 1:
            self.barrier.wait()
        emit(Noted(step.device, "hello"))
        return Result(step.device, self.outcomes.get(step.device, Outcome.SUCCEEDED))


def plan(*steps: tuple[str, Action]) -> Plan:
    return Plan("m", tuple(Step(name, action, reason=f"why {name}") for name, action in steps))


def results(events: list[Event]) -> dict[str, Outcome]:
    return {event.device: event.outcome for event in events if isinstance(event, Result)}


def test_what_needs_no_doing_is_told_first_and_not_done() -> None:
    effects = Told()
    steps = plan(
        ("a", Action.DEPLOY), ("b", Action.REFUSE), ("c", Action.UNREACHABLE), ("d", Action.UNCHANGED)
    )
    events = list(run(steps, Policy(), effects))
    assert effects.seen == ["a"]
    assert [event.device for event in events] == ["b", "c", "d", "a", "a"]
    assert results(events) == {
        "b": Outcome.REFUSED,
        "c": Outcome.UNREACHABLE,
        "d": Outcome.UNCHANGED,
        "a": Outcome.SUCCEEDED,
    }
    assert next(event for event in events if isinstance(event, Result)).reason == "why b"


def test_the_devices_of_a_wave_go_side_by_side() -> None:
    effects = Told(meet=3)
    steps = plan(*((name, Action.DEPLOY) for name in "abc"))
    assert len(results(list(run(steps, Policy(max_parallel=3), effects)))) == 3


def test_a_failure_halts_before_the_next_wave_and_names_who_is_left() -> None:
    effects = Told({"b": Outcome.REVERTED})
    steps = plan(*((name, Action.DEPLOY) for name in "abcde"))
    events = list(run(steps, Policy(max_parallel=2), effects))
    assert sorted(effects.seen) == ["a", "b"]
    assert [event.devices for event in events if isinstance(event, Halted)] == [("c", "d", "e")]
    assert results(events) == {
        "a": Outcome.SUCCEEDED,
        "b": Outcome.REVERTED,
        **dict.fromkeys("cde", Outcome.DEFERRED),
    }


def test_unreachable_devices_do_not_halt() -> None:
    effects = Told(dict.fromkeys("ab", Outcome.UNREACHABLE))
    steps = plan(*((name, Action.DEPLOY) for name in "abc"))
    assert results(list(run(steps, Policy(max_parallel=1), effects)))["c"] is Outcome.SUCCEEDED


def test_a_device_that_refuses_by_itself_does_not_halt() -> None:
    effects = Told({"a": Outcome.REFUSED})
    steps = plan(*((name, Action.DEPLOY) for name in "abc"))
    events = list(run(steps, Policy(max_parallel=1, max_failures=0), effects))
    assert results(events) == {"a": Outcome.REFUSED, "b": Outcome.SUCCEEDED, "c": Outcome.SUCCEEDED}
    assert exit_code(results(events).values()) == 1


def test_closing_the_events_cancels_what_is_being_delivered() -> None:
    ended: list[str] = []

    class Endless:
        def deliver(self, step: Step, emit: Emit, cancelled: threading.Event) -> Result:
            emit(Noted(step.device, "begun"))
            assert cancelled.wait(20)
            ended.append(step.device)
            raise Cancelled

    events = run(plan(("a", Action.DEPLOY), ("b", Action.DEPLOY)), Policy(), Endless())
    assert isinstance(next(events), Noted)
    events.close()
    assert sorted(ended) == ["a", "b"]
