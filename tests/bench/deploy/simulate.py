"""A rollout over simulated devices with real sleeping patterns, through the real control.

    python -m tests.bench.deploy.simulate [--devices 100000] [--intervals 1m,15m,1h,4h] [--json FILE]

The control side pushes to the devices of a wave that are awake. One that sleeps is unreachable in its wave and gets the
release later, when it checks in with the hub: by its own timer, which runs only while it is awake. What the fleet does
is in `sleepers`. Further assumptions: the work on a device (bytes, load, probe) takes 6 minutes of being awake, as a
median of a log-normal distribution (sigma 0.7); 0.2 % of devices revert, 0.3 % fail without a change, 0.5 % refuse.

It ends with 1 when the decisions of one rollout took longer than a minute in total, or when a rollout was halted.
"""

import argparse
import heapq
import json
import random
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import exp
from pathlib import Path
from typing import Any

from agent_daemon.contract.health import Health
from agent_daemon.contract.wire import Outcome
from edgectl.form_values import seconds
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
    Probed,
    Progressed,
    Start,
    Watch,
    Watched,
    Waved,
)
from edgectl.rollouts.policy import Amount, Budget, Policy
from edgectl.rollouts.waves import parts
from tests.bench.deploy.sleepers import DAY, HOUR, Fleet, chance, normal

BOUND = 60.0
"""Seconds of a processor that all decisions of one rollout may take."""
BEGINS = 8 * HOUR
"""Monday 08:00 UTC."""
POLL = 15.0
PATIENCE = 120.0
"""Seconds for which a device that does not answer is tried."""
AGENT_START = 30.0
"""An agent's first check-in is within so many seconds of its start."""
POLICY = Policy(
    canary=Amount(percent=1),
    max_unavailable=Amount(percent=5),
    budgets={
        Outcome.REVERTED: Budget(Amount(percent=2), 50),
        Outcome.FAILED_UNCHANGED: Budget(Amount(percent=2), 50),
    },
    min_healthy=60.0,
)


@dataclass(frozen=True)
class Found:
    """One rollout. Days and hours count from its begin; None where it did not come so far within two months."""

    interval: float
    devices: int
    happenings: int
    decisions: int
    decision_seconds: float
    waves: int
    wave_hours: float
    halted: str | None
    pushed: int
    checked_in: int
    days_to: dict[int, float | None]
    outcomes: dict[str, int]


@dataclass
class _Work:
    """A device that is at work: seconds of being awake that it still needs, and when it will go to sleep."""

    left: float
    until: float | None
    lost_since: float | None = None


@dataclass
class Simulation:
    """One rollout over a fleet whose devices check in every `interval` seconds."""

    fleet: Fleet
    interval: float
    policy: Policy = POLICY
    spent: float = 0.0
    happenings: int = 0
    decisions: int = 0
    waves: int = 0
    halted: str | None = None
    waves_end: float = BEGINS
    pushed: int = 0
    checked_in: int = 0
    taken: list[float] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)

    def run(self) -> Found:
        names = [(str(device), {}) for device in range(self.fleet.size)]
        began = time.thread_time()
        self._control = Control(parts(names, self.policy), self.policy)
        decided = self._control.begin(BEGINS)
        self.spent += time.thread_time() - began
        self._any = random.Random(self.fleet.seed)
        self._working: dict[int, _Work] = {}
        self._watched: dict[int, float | None] = {}
        self._late: set[int] = set()
        # (time, device): each device has one next moment at a time
        self._agenda: list[tuple[float, int]] = []
        self._do(decided, BEGINS)
        while self._agenda:
            now, device = heapq.heappop(self._agenda)
            self._moment(device, now)
        self.taken.sort()
        size = self.fleet.size
        return Found(
            self.interval,
            size,
            self.happenings,
            self.decisions,
            self.spent,
            self.waves,
            (self.waves_end - BEGINS) / HOUR,
            self.halted,
            self.pushed,
            self.checked_in,
            {percent: self._days_to(percent) for percent in (50, 90, 95)},
            dict(sorted(self.outcomes.items())),
        )

    def _days_to(self, percent: int) -> float | None:
        needed = -(-self.fleet.size * percent // 100)
        return (self.taken[needed - 1] - BEGINS) / DAY if needed <= len(self.taken) else None

    def _tell(self, what: Happening, now: float) -> None:
        began = time.thread_time()
        decided = self._control.on(what, now)
        self.spent += time.thread_time() - began
        self.happenings += 1
        if decided:
            self._do(decided, now)

    def _do(self, decided: Sequence[Decision], now: float) -> None:
        self.decisions += len(decided)
        for decision in decided:
            match decision:
                case Start(name):
                    self._start(int(name), now)
                case Watch(name):
                    self._watched[int(name)] = None
                    self._later(int(name), now + POLL)
                case Watched(name):
                    self._watched.pop(int(name), None)
                case Cancel(name):
                    self._working.pop(int(name), None)
                    self._end(int(name), Outcome.FAILED_UNCHANGED, now)
                case Waved():
                    self.waves += 1
                    self.waves_end = now
                case Halted(reason):
                    self.halted = reason
                    # the hub hands out nothing of a rollout that was halted
                    self._late.clear()
                case Finished():
                    pass
                case _:
                    raise AssertionError(decision)

    def _later(self, device: int, at: float) -> None:
        heapq.heappush(self._agenda, (at, device))

    def _start(self, device: int, now: float) -> None:
        work = min(2 * HOUR, exp(normal(5.886, 0.7, self.fleet.seed, device, 40)))
        until = self.fleet.until(device, now)
        self._working[device] = _Work(work, until, None if until else now)
        self._later(device, now + POLL)

    def _moment(self, device: int, now: float) -> None:
        """What one device does next: the end of what it fetched itself, a look at its health, or a poll."""
        if device in self._late:
            self._late.remove(device)
            self.checked_in += 1
            self._end(device, self._verdict(device), now)
        elif device in self._watched:
            self._look(device, now)
        elif device in self._working:
            self._poll(device, self._working[device], now)

    def _look(self, device: int, now: float) -> None:
        drawn = self._any.random()
        health = Health.BAD if drawn < 0.001 else Health.UNKNOWN if drawn < 0.01 else Health.GOOD
        if self._sleeps(device, now):
            health = Health.UNKNOWN
        self._later(device, now + POLL)
        self._tell(Probed(str(device), health), now)

    def _sleeps(self, device: int, now: float) -> bool:
        until = self._watched[device]
        if until is None or now >= until:
            until = self._watched[device] = self.fleet.until(device, now)
        return until is None

    def _poll(self, device: int, work: _Work, now: float) -> None:
        if work.until is None or now >= work.until:
            work.until = self.fleet.until(device, now)
        if work.until is None:
            work.lost_since = now if work.lost_since is None else work.lost_since
            if now - work.lost_since < PATIENCE:
                self._later(device, now + POLL)
                self._tell(Lost(str(device)), now)
                return
            del self._working[device]
            self._check_in_later(device, work.left, now)
            self._tell(Ended(str(device), Outcome.UNREACHABLE), now)
            return
        work.lost_since = None
        work.left -= POLL
        if work.left > 0:
            self._later(device, now + POLL)
            # most polls find new bytes; loading and probing are silent for a while
            new = self._any.random() < 0.8
            self._tell(Progressed(str(device)) if new else Heard(str(device)), now)
            return
        del self._working[device]
        self.pushed += 1
        self._end(device, self._verdict(device), now)

    def _check_in_later(self, device: int, left: float, now: float) -> None:
        """It asks the hub when its timer has run out, and works on what is left."""
        drawn = chance(self.fleet.seed, device, 43)
        timer = drawn * (self.interval if self.fleet.keeps_time(device) else AGENT_START)
        at = self.fleet.awake_for(device, now, timer + left)
        if at is not None:
            self._late.add(device)
            self._later(device, at)

    def _verdict(self, device: int) -> Outcome:
        drawn = chance(self.fleet.seed, device, 44)
        for outcome, share in (
            (Outcome.REVERTED, 0.002),
            (Outcome.FAILED_UNCHANGED, 0.003),
            (Outcome.REFUSED, 0.005),
        ):
            drawn -= share
            if drawn < 0:
                return outcome
        return Outcome.SUCCEEDED

    def _end(self, device: int, outcome: Outcome, now: float) -> None:
        self.outcomes[outcome.value] = self.outcomes.get(outcome.value, 0) + 1
        if outcome is Outcome.SUCCEEDED:
            self.taken.append(now)
        self._tell(Ended(str(device), outcome), now)


def peak_memory() -> float:
    """MiB that this process has had at most; everything the simulation itself holds is in it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(found: Sequence[Found]) -> str:
    """Times until so many percent of the devices had the release, by check-in interval."""
    heads = ("check-in", "waves", "pushed", "fetched", "50 %", "90 %", "95 %", "decisions")
    lines = [heads]
    for each in found:
        at = [f"{each.interval / 60:g} min" if each.interval < HOUR else f"{each.interval / HOUR:g} h"]
        at += [f"{each.wave_hours:.1f} h", str(each.pushed), str(each.checked_in)]
        at += ["-" if days is None else f"{days:.2f} d" for days in each.days_to.values()]
        lines.append((*at, f"{each.decision_seconds:.1f} s"))
    return "\n".join(" ".join(f"{cell:>9}" for cell in line) for line in lines)


def measure(devices: int = 100_000, intervals: str = "1m,15m,1h,4h", seed: int = 0) -> dict[str, Any]:
    """All figures, as JSON. `seconds`: what the decisions of the slowest of the rollouts took."""
    fleet = Fleet(devices, seed)
    found = []
    for interval in intervals.split(","):
        began = time.perf_counter()
        found.append(Simulation(fleet, seconds(interval)).run())
        print(f"{interval}: simulated in {time.perf_counter() - began:.0f} s", file=sys.stderr)
    each = [rollout.decision_seconds for rollout in found]
    print(f"{devices} devices\n{table(found)}")
    print(
        f"decisions of one rollout: at most {max(each):.1f} s (bound {BOUND:g} s), of all {sum(each):.1f} s;",
        end="",
    )
    print(f" peak memory {peak_memory():.0f} MiB, the fleet's included")
    return {
        "devices": devices,
        "seconds": max(each),
        "seconds_of_all": sum(each),
        "bound_seconds": BOUND,
        "peak_memory_mib": peak_memory(),
        "rollouts": [asdict(rollout) for rollout in found],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--intervals", default="1m,15m,1h,4h", help="check-in intervals, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go")
    given = parser.parse_args(arguments)
    found = measure(given.devices, given.intervals, given.seed)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    halted = any(rollout["halted"] for rollout in found["rollouts"])
    return 1 if found["seconds"] > BOUND or halted else 0


if __name__ == "__main__":
    sys.exit(main())
