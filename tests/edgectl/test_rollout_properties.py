"""What holds for every rollout, whatever devices do: any order of events, at any times."""

from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_daemon.contract.health import Health
from agent_daemon.contract.wire import Outcome
from edgectl.rollout import Control
from edgectl.rollouts.decisions import (
    Cancel,
    Decision,
    Ended,
    Finished,
    Halted,
    Happening,
    Heard,
    Lost,
    Paused,
    Probed,
    Progressed,
    Revert,
    Start,
    Tick,
    Watch,
    Watched,
    Waved,
)
from edgectl.rollouts.policy import Amount, Budget, OnHalt, Part, Policy
from edgectl.rollouts.progress_clock import LONGEST_GAP
from edgectl.rollouts.waves import parts

ENDS = st.sampled_from(
    [Outcome.SUCCEEDED] * 6
    + [
        Outcome.UNREACHABLE,
        Outcome.REFUSED,
        Outcome.FAILED_UNCHANGED,
        Outcome.REVERTED,
        Outcome.REVERT_FAILED,
    ]
)
AMOUNTS = st.one_of(
    st.integers(1, 6).map(lambda count: Amount(count=count)),
    st.sampled_from([1.0, 10.0, 34.0, 100.0]).map(lambda percent: Amount(percent=percent)),
)
BUDGETS = st.fixed_dictionaries(
    {
        outcome: st.builds(Budget, st.none() | st.just(Amount(count=0)) | AMOUNTS, st.integers(1, 8))
        for outcome in (
            Outcome.REVERTED,
            Outcome.FAILED_UNCHANGED,
            Outcome.REFUSED,
            Outcome.UNREACHABLE,
        )
    }
)
POLICIES = st.builds(
    Policy,
    canary=st.none() | AMOUNTS,
    max_unavailable=AMOUNTS,
    order_by=st.sampled_from([(), ("ring",)]),
    pause_after_canary=st.booleans(),
    budgets=BUDGETS,
    on_halt=st.sampled_from(OnHalt),
    progress_deadline=st.sampled_from([5.0, 60.0, 600.0]),
    min_healthy=st.sampled_from([0.0, 10.0]),
)


@st.composite
def rollouts(draw: st.DrawFn, policies: st.SearchStrategy[Policy] = POLICIES) -> tuple[list[Part], Policy]:
    policy = draw(policies)
    rings = draw(st.lists(st.sampled_from(["1", "2", "10", ""]), max_size=20))
    devices = [(f"d{place}", {"ring": ring} if ring else {}) for place, ring in enumerate(rings)]
    return [
        replace(part, previous=draw(st.sampled_from([None, 1]))) for part in parts(devices, policy)
    ], policy


@dataclass
class Fleet:
    """Devices that do anything at all, and what was decided about them."""

    control: Control
    draw: st.DrawFn
    now: float = 0.0
    going: set[str] = field(default_factory=set)
    watched: set[str] = field(default_factory=set)
    reverting: set[str] = field(default_factory=set)
    begun: Counter[str] = field(default_factory=Counter)
    reverts: Counter[str] = field(default_factory=Counter)
    ended: dict[str, Outcome] = field(default_factory=dict)
    decided: list[Decision] = field(default_factory=list)
    most_at_once: int = 0

    def take(self, decisions: tuple[Decision, ...]) -> None:
        for decision in decisions:
            assert not (self.halted and isinstance(decision, Start | Waved | Paused | Watch)), decision
            match decision:
                case Start(device):
                    assert device not in self.ended
                    self.going.add(device)
                    self.begun[device] += 1
                case Watch(device):
                    self.watched.add(device)
                case Watched(device):
                    self.watched.remove(device)
                case Revert(device):
                    assert self.halted
                    assert self.ended[device] is Outcome.SUCCEEDED
                    self.reverting.add(device)
                    self.reverts[device] += 1
                case Cancel(device):
                    assert device in self.going | self.reverting
                case Waved(_, devices):
                    assert not (self.going | self.watched) & set(devices)
                case Halted(_, devices):
                    assert not set(devices) & (self.begun.keys() | self.ended.keys())
                case _:
                    pass
            self.decided.append(decision)
        self.most_at_once = max(self.most_at_once, len(self.going) + len(self.reverting))

    @property
    def halted(self) -> bool:
        return any(isinstance(decision, Halted) for decision in self.decided)

    @property
    def over(self) -> bool:
        return any(isinstance(decision, Finished | Paused) for decision in self.decided)

    def happens(self) -> Happening:
        """Something happens: to one of the devices at random, or nothing but time."""
        busy = sorted(self.going | self.reverting)
        kind = self.draw(st.sampled_from(["end", "end", "progress", "hear", "lose", "look", "tick"]))
        if kind == "look" and self.watched:
            return Probed(
                self.draw(st.sampled_from(sorted(self.watched))), self.draw(st.sampled_from(Health))
            )
        if not busy or kind in ("look", "tick"):
            return Tick()
        device = self.draw(st.sampled_from(busy))
        if kind == "end":
            return self.end(device, self.draw(ENDS))
        return {"progress": Progressed, "hear": Heard, "lose": Lost}[kind](device)

    def end(self, device: str, outcome: Outcome) -> Ended:
        if device in self.reverting:
            self.reverting.remove(device)
        else:
            self.going.discard(device)
            self.ended[device] = outcome
        return Ended(device, outcome)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            if self.over:
                return
            self.now += self.draw(st.sampled_from([0.0, 1.0, 9.0, LONGEST_GAP, 7200.0]))
            self.take(self.control.on(self.happens(), self.now))

    def settle(self) -> None:
        """Everything that is under way comes to an end, and every device that is watched is well."""
        for _ in range(10_000):
            if self.over:
                return
            if busy := sorted(self.going | self.reverting):
                self.take(self.control.on(self.end(busy[0], self.draw(ENDS)), self.now))
            for device in sorted(self.watched):
                self.now += 1.0
                self.take(self.control.on(Probed(device, Health.GOOD), self.now))
        raise AssertionError("it never comes to an end")


def begun(parts: list[Part], policy: Policy, draw: st.DrawFn, *, resumed: bool = False) -> Fleet:
    fleet = Fleet(Control(parts, policy, resumed=resumed), draw)
    fleet.ended = {part.device: part.outcome for part in parts if part.outcome is not None}
    fleet.take(fleet.control.begin(0.0))
    return fleet


@settings(deadline=None)
@given(rollouts(), st.data())
def test_every_device_starts_once_and_ends_or_is_left_by_a_halt(
    rollout: tuple[list[Part], Policy], data: st.DataObject
) -> None:
    made, policy = rollout
    fleet = begun(made, policy, data.draw)
    fleet.run(60)
    fleet.settle()
    assert all(count == 1 for count in fleet.begun.values())
    assert all(count == 1 for count in fleet.reverts.values())
    assert fleet.most_at_once <= max(1, policy.max_unavailable.of(len(made)))
    assert isinstance(fleet.decided[-1], Finished | Paused)
    assert fleet.begun.keys() == fleet.ended.keys()
    left = {device for d in fleet.decided if isinstance(d, Halted) for device in d.devices}
    names = {part.device for part in made}
    if isinstance(fleet.decided[-1], Finished):
        assert fleet.ended.keys() | left == names
        assert not fleet.ended.keys() & left
    else:
        canary = {part.device for part in made if part.wave == 0}
        assert fleet.ended.keys() == canary
    waves = [decision.number for decision in fleet.decided if isinstance(decision, Waved)]
    assert waves == list(range(len(waves)))


@settings(deadline=None)
@given(rollouts(), st.data())
def test_waves_begin_one_after_the_other(rollout: tuple[list[Part], Policy], data: st.DataObject) -> None:
    made, policy = rollout
    wave_of = {part.device: part.wave for part in made}
    fleet = begun(made, policy, data.draw)
    fleet.run(40)
    fleet.settle()
    done = -1
    for decision in fleet.decided:
        if isinstance(decision, Start):
            assert wave_of[decision.device] == done + 1
        elif isinstance(decision, Waved):
            done = decision.number
            assert all(wave_of[device] == done for device in decision.devices)


@settings(deadline=None)
@given(rollouts(), st.data(), st.integers(0, 40), st.booleans())
def test_going_on_from_the_parts_starts_each_device_at_most_once_more(
    rollout: tuple[list[Part], Policy], data: st.DataObject, steps: int, resumed: bool
) -> None:
    made, policy = rollout
    first = begun(made, policy, data.draw)
    first.run(steps)
    kept = [replace(part, outcome=first.ended.get(part.device)) for part in made]
    second = begun(kept, policy, data.draw, resumed=resumed)
    second.run(40)
    second.settle()
    assert all(count == 1 for count in second.begun.values())
    assert second.begun.keys().isdisjoint(first.ended.keys())
    if isinstance(second.decided[-1], Finished) and not second.halted:
        # whoever had not ended is begun again, and nobody else
        assert second.begun.keys() == {part.device for part in kept if part.outcome is None}


@settings(deadline=None)
@given(rollouts(), st.data())
def test_who_resumes_is_not_stopped_at_once(rollout: tuple[list[Part], Policy], data: st.DataObject) -> None:
    made, policy = rollout
    first = begun(made, policy, data.draw)
    first.run(30)
    first.settle()
    kept = [replace(part, outcome=first.ended.get(part.device)) for part in made]
    again = begun(kept, policy, data.draw, resumed=True)
    assert not any(isinstance(decision, Halted | Paused) for decision in again.decided)
    assert bool(again.begun) == any(part.outcome is None for part in kept)


@settings(deadline=None)
@given(
    rollouts(st.builds(Policy, max_unavailable=AMOUNTS, progress_deadline=st.floats(0.1, 100))),
    st.lists(st.floats(LONGEST_GAP + 0.01, 1e5), min_size=1, max_size=30),
)
def test_suspended_time_never_fires_a_deadline(rollout: tuple[list[Part], Policy], gaps: list[float]) -> None:
    made, policy = rollout
    control, now = Control(made, policy), 0.0
    started = [each.device for each in control.begin(now) if isinstance(each, Start)]
    for gap in gaps:
        now += gap
        for device in started:
            assert control.on(Heard(device), now) == ()


@settings(deadline=None)
@given(rollouts(), st.data())
def test_the_same_happenings_make_the_same_decisions(
    rollout: tuple[list[Part], Policy], data: st.DataObject
) -> None:
    made, policy = rollout
    fleet = begun(made, policy, data.draw)
    other = Control(made, policy)
    assert list(other.begin(0.0)) == fleet.decided
    for _ in range(30):
        fleet.now += 5.0
        happening = fleet.happens()
        decided = fleet.control.on(happening, fleet.now)
        assert other.on(happening, fleet.now) == decided
        fleet.take(decided)
