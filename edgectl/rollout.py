"""Decides, device by device, how a rollout goes on. PURE: what happened and when comes in, decisions come out."""

from collections import deque
from collections.abc import Iterable, Sequence

from agent_daemon.contract.health import Health, HealthClock
from agent_daemon.contract.wire import Outcome
from edgectl.rollouts.budgets import FAILED, TRIED, Budgets, broken_by_canary
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
from edgectl.rollouts.policy import OnHalt, Part, Policy
from edgectl.rollouts.progress_clock import LONGEST_GAP, ProgressClock
from edgectl.rollouts.waves import parts

__all__ = ["Control", "Policy", "exit_code", "parts"]

NOT_DONE = FAILED | {Outcome.REFUSED, Outcome.DEFERRED, Outcome.SUPERSEDED}


class _Health:
    """The clocks of one device that has committed."""

    __slots__ = ("good", "silent", "spent")

    def __init__(self, needed: float) -> None:
        self.good = HealthClock(needed, LONGEST_GAP)
        self.spent = ProgressClock()
        """Since the commit, while it could be asked."""
        self.silent = ProgressClock()
        """Since it last said how it is."""


class Control:
    """One run of a rollout. `parts` that have an outcome have ended already. `resumed`: somebody who saw why it was
    paused or halted says to go on, so neither stops it again for what was known then.

    Tell it of every device that is at work, or reverting, at least every POLL seconds (Progressed or Heard, or Lost
    while it does not answer), of every look at one that is watched, and of every end. The same happenings at the same
    times make the same decisions. After Paused or Finished there are none but for ends that come late, of devices that
    were unreachable: those can still halt it."""

    def __init__(self, parts: Sequence[Part], policy: Policy, *, resumed: bool = False) -> None:
        self._parts = parts
        self._policy = policy
        self._resumed = resumed
        self._index = {part.device: place for place, part in enumerate(parts)}
        self._outcomes = [part.outcome for part in parts]
        by_wave: dict[int, list[int]] = {}
        for place, part in enumerate(parts):
            by_wave.setdefault(part.wave, []).append(place)
        self._waves = [(number, by_wave[number]) for number in sorted(by_wave)]
        self._wave = 0
        total = sum(part.outcome is not Outcome.UNCHANGED for part in parts)
        self._at_once = max(1, policy.max_unavailable.of(total))
        self._queue: deque[int] = deque()
        self._going: dict[str, ProgressClock] = {}
        self._cancelled: set[str] = set()
        self._watching: dict[str, _Health] = {}
        self._reverts: deque[int] = deque()
        self._reverting: dict[str, ProgressClock] = {}
        self._reverted: set[int] = set()
        self._halted = self._over = False
        self._unhealthy: set[int] = set()
        self._budgets = Budgets(policy, total)
        for part in parts:
            if part.outcome is not None:
                self._budgets.ended(part.outcome)

    def begin(self, now: float) -> tuple[Decision, ...]:  # noqa: ARG002 - a clock begins with what is heard
        """What to do first."""
        self._wave = self._first_wave()
        if self._resumed:
            self._budgets.forgive()
        decided = self._take_wave(again=not self._resumed)
        return (*decided, *self._go_on())

    def on(self, what: Happening, now: float) -> tuple[Decision, ...]:
        """What to do about it; `now` is never before an earlier one."""
        match what:
            case Progressed(device):
                if clock := self._going.get(device) or self._reverting.get(device):
                    clock.progressed(now)
            case Heard(device):
                return self._heard(device, now)
            case Lost(device):
                if clock := self._going.get(device) or self._reverting.get(device):
                    clock.lost()
                elif device in self._watching:
                    return self._probed(device, Health.UNKNOWN, now)
            case Probed(device, health):
                return self._probed(device, health, now)
            case Ended(device, outcome):
                return self._ended(device, outcome)
            case Tick():
                pass
        return ()

    def _first_wave(self) -> int:
        """Where to go on. A wave that was over may not have been healthy for long enough, or the canary's pause may not
        have been reached: it is looked at again, unless devices of a later one have had their turn."""
        first = next(
            (
                place
                for place, (_, members) in enumerate(self._waves)
                if any(self._outcomes[member] is None for member in members)
            ),
            len(self._waves),
        )
        if self._resumed or first == 0:
            return first
        later = any(self._had_turn(members) for _, members in self._waves[first:])
        return first - 1 if not later and self._had_turn(self._waves[first - 1][1]) else first

    def _had_turn(self, members: Iterable[int]) -> bool:
        return any(self._outcomes[member] in TRIED for member in members)

    def _take_wave(self, *, again: bool = False) -> list[Decision]:
        """Makes ready to start the devices of the current wave; with `again` those that took the release before are
        watched once more."""
        if self._wave == len(self._waves):
            return []
        members = self._waves[self._wave][1]
        self._queue.extend(member for member in members if self._outcomes[member] is None)
        taken = [member for member in members if self._outcomes[member] is Outcome.SUCCEEDED] if again else []
        return [decision for member in taken for decision in self._watch(self._parts[member].device)]

    def _watch(self, device: str) -> tuple[Decision, ...]:
        if self._policy.min_healthy <= 0 or self._halted or self._over:
            return ()
        self._watching[device] = _Health(self._policy.min_healthy)
        return (Watch(device),)

    def _heard(self, device: str, now: float) -> tuple[Decision, ...]:
        clock = self._going.get(device) or self._reverting.get(device)
        if clock is None:
            return ()
        clock.heard(now)
        if clock.counted <= self._policy.progress_deadline or device in self._cancelled:
            return ()
        self._cancelled.add(device)
        return (Cancel(device, f"nothing new within {self._policy.progress_deadline:g} s"),)

    def _probed(self, device: str, health: Health, now: float) -> tuple[Decision, ...]:
        clocks = self._watching.get(device)
        if clocks is None:
            return ()
        if clocks.good.probed(health, now):
            del self._watching[device]
            return (Watched(device), *self._go_on())
        deadline = self._policy.progress_deadline
        if health is Health.UNKNOWN:
            clocks.spent.lost()
            clocks.silent.heard(now)
            if clocks.silent.counted <= deadline:
                return ()
            del self._watching[device]
            return (Watched(device, f"its health could not be asked for {deadline:g} s"), *self._go_on())
        clocks.spent.heard(now)
        clocks.silent.progressed(now)
        if clocks.spent.counted <= deadline + self._policy.min_healthy:
            return ()
        del self._watching[device]
        self._unhealthy.add(self._index[device])
        self._budgets.unhealthy()
        return (Watched(device, f"not healthy within {clocks.spent.counted:g} s"), *self._go_on())

    def _ended(self, device: str, outcome: Outcome) -> tuple[Decision, ...]:
        self._cancelled.discard(device)
        if self._reverting.pop(device, None) is not None:
            return self._go_on()
        place = self._index[device]
        before = self._outcomes[place]
        was_going = self._going.pop(device, None) is not None
        if self._watching.pop(device, None) is not None and outcome is Outcome.UNREACHABLE:
            # it took the release, and nothing bad is known of it
            return (Watched(device, "it cannot be reached any longer"), *self._go_on())
        self._outcomes[place] = outcome
        self._budgets.ended(outcome, before)
        decided: tuple[Decision, ...] = ()
        if outcome is Outcome.SUCCEEDED and was_going:
            decided = self._watch(device)
        if outcome is Outcome.SUCCEEDED and self._halted:
            self._return([place])
        return (*decided, *self._go_on())

    def _go_on(self) -> tuple[Decision, ...]:
        """Everything that follows from what is known now."""
        decided: list[Decision] = []
        if not self._halted and (reason := self._budgets.broken()):
            decided += self._halt(reason)
        while not self._halted and not self._over:
            decided += self._starts()
            if self._queue or self._going or self._watching:
                return tuple(decided)
            decided += self._wave_ended()
        if self._halted:
            decided += self._reverts_to_begin()
            if not (self._over or self._going or self._reverting or self._reverts):
                self._over = True
                decided.append(Finished())
        return tuple(decided)

    def _starts(self) -> Iterable[Decision]:
        while self._queue and len(self._going) < self._at_once:
            place = self._queue.popleft()
            # it may have got it another way meanwhile
            if self._outcomes[place] is None:
                device = self._parts[place].device
                self._going[device] = ProgressClock()
                yield Start(device)

    def _wave_ended(self) -> Iterable[Decision]:
        if self._wave == len(self._waves):
            self._over = True
            yield Finished()
            return
        number, members = self._waves[self._wave]
        yield Waved(number, tuple(self._parts[member].device for member in members))
        canary = self._policy.canary is not None and number == 0
        self._wave += 1
        outcomes = (self._outcomes[member] for member in members)
        unhealthy = len(self._unhealthy.intersection(members)) if canary else 0
        if canary and (reason := broken_by_canary(self._policy, outcomes, unhealthy)):
            self._wave -= 1
            yield from self._halt(reason)
        elif canary and self._policy.pause_after_canary and self._wave < len(self._waves):
            self._over = True
            yield Paused("the canary is done; go on with: edgectl rollout resume")
        else:
            self._take_wave()

    def _halt(self, reason: str) -> Iterable[Decision]:
        self._halted, self._over = True, False
        self._queue.clear()
        taken = [place for place, outcome in enumerate(self._outcomes) if outcome is Outcome.SUCCEEDED]
        staying = self._return(taken)
        if staying:
            reason += f"; {staying} of those that have the new release served none before, and keep it"
        left = tuple(
            part.device
            for part, outcome in zip(self._parts, self._outcomes, strict=True)
            if outcome is None and part.device not in self._going
        )
        yield Halted(reason, left)
        for device in self._watching:
            yield Watched(device, "the rollout was halted")
        self._watching.clear()

    def _return(self, places: Iterable[int]) -> int:
        """Remembers which of these return to what they served before; how many of them cannot."""
        if self._policy.on_halt is OnHalt.HOLD:
            return 0
        staying = 0
        number = self._waves[min(self._wave, len(self._waves) - 1)][0]
        for place in places:
            part = self._parts[place]
            if self._policy.on_halt is OnHalt.REVERT_WAVE and part.wave != number:
                continue
            if part.previous is None:
                staying += 1
            elif place not in self._reverted:
                self._reverted.add(place)
                self._reverts.append(place)
        return staying

    def _reverts_to_begin(self) -> Iterable[Decision]:
        while self._reverts and len(self._going) + len(self._reverting) < self._at_once:
            device = self._parts[self._reverts.popleft()].device
            self._reverting[device] = ProgressClock()
            yield Revert(device)


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """0: every device has what it should; 1: some failed, reverted, were refused or left out; 3: some were
    unreachable and none failed."""
    seen = frozenset(outcomes)
    if seen & NOT_DONE:
        return 1
    return 3 if Outcome.UNREACHABLE in seen else 0
