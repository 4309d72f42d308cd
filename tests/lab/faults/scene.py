"""What a fault may do to a device, and what it leaves for the checks that follow."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.faults.command import Command
from tests.lab.faults.device import Device
from tests.lab.faults.ground import Ground
from tests.lab.faults.wanted import Wanted, pair
from tests.lab.fleet import ROOT

SLOW = 30
"""Megabits a second of a slow link: a release's file takes about three seconds."""
_ATTEMPTS = 6
_DELAYS = {
    "staging": 1.5,
    "staged": 0.25,
    "activating": 0.3,
    "probing": 0.8,
    "committed": 0.2,
    "reverting": 0.01,
}
"""The longest time that is let pass in each state before something happens there; some pass quickly."""
_NEVER_FAST_ENOUGH = 1e6
"""Tokens a second that no model makes: such a release is loaded, found too slow and reverted."""


class Missed(Exception):
    """The moment for a fault did not come: the campaign could not do what it wanted."""


@dataclass
class Scene:
    """One round. `device` is the one that the fault is about, `others` come along where it takes more."""

    ground: Ground
    step: int
    device: Device
    others: tuple[Device, ...]
    chance: random.Random
    folder: Path
    wanted: list[Wanted] = field(default_factory=list)
    """Releases that this round asked for, the last one last."""
    commands: list[Command] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    broken: bool = False
    """Set by a fault after which nothing can answer until somebody deploys: status has to say so."""
    repair: bool = False
    """Set by a fault that damages what is there: the next deploy is asked to mend it."""
    over: float = 0.0
    """When the fault was over, on the monotonic clock."""
    _marks: int = 0
    _slow: int = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def between(self, least: float, most: float) -> float:
        return self.chance.uniform(least, most)

    def pause(self, least: float, most: float) -> None:
        seconds = self.between(least, most)
        self.note(f"waited {seconds:.2f} s")
        time.sleep(seconds)

    # Releases and deploys

    def release(self, *, both: bool = False, **how: Any) -> Wanted:
        """A new release for the device, or for it and the other one as well."""
        of = f"{pair((self.device.name, self.others[0].name))}=yes" if both else f"name={self.device.name}"
        return self._release(of, **how)

    def release_for(self, device: Device) -> Wanted:
        """A new release for one of the devices alone."""
        return self._release(f"name={device.name}")

    def _release(self, selector: str, **how: Any) -> Wanted:
        self._marks += 1
        how.setdefault("strategy", self.chance.choice(("auto", "auto", "replace")))
        mark = f"m{self.step}-{self._marks}-{self.device.name}"
        made = self.ground.release(mark, selector, self.chance, **how)
        self.wanted.append(made)
        return made

    def failing_release(self) -> Wanted:
        """One that every device loads, probes and reverts."""
        return self.release(min_tokens_per_second=_NEVER_FAST_ENOUGH, timeout=1, can_serve=False)

    def deploy(self, wanted: Wanted, *more: str) -> Command:
        """Begins a deploy; the round waits for its end."""
        return self.command("deploy", "deploy", "-f", wanted.manifest, "--yes", "-o", "json", *more)

    def command(self, what: str, *arguments: str | Path, tree: Path = ROOT) -> Command:
        """Begins `edgectl ARGUMENTS`, by the edgectl in `tree`; `what` names its files."""
        begun = self.ground.command(self.folder, what, *arguments, tree=tree)
        self.commands.append(begun)
        return begun

    @contextmanager
    def slow_link(self) -> Iterator[None]:
        """The device's link is slow until the outermost of these ends."""
        self._slow += 1
        self.device.machine.link.limit(SLOW)
        try:
            yield
        finally:
            self._slow -= 1
            if self._slow == 0:
                self.device.machine.link.unlimit()

    # The right moment

    def strike(self, state: str, victim: str, *, delay: float | None = None) -> Command:
        """Deploys until the device was struck in `state`; returns the deploy under way. Raises Missed."""
        for attempt in range(_ATTEMPTS):
            wanted = self.failing_release() if state == "reverting" else self.release(min_healthy=1.0)
            longest = _DELAYS[state] / 2**attempt if delay is None else delay
            begun, hit = self._strike(wanted, state, victim, self.between(0, longest))
            if hit:
                return begun
            begun.wait()
        raise Missed(f"{state} passed too quickly on {self.device.name}, {_ATTEMPTS} times")

    def _strike(self, wanted: Wanted, state: str, victim: str, delay: float) -> tuple[Command, bool]:
        operation = self.device.look()["journal"]["operation"]
        asked = {"state": state, "victim": victim, "delay": delay, "after": operation["id"], "seconds": 60}
        watching = self.device.strike(**asked)
        assert watching.stdout is not None
        try:
            if state == "staging":
                with self.slow_link():
                    begun = self.deploy(wanted)
                    answer = watching.stdout.readline()
            else:
                begun = self.deploy(wanted)
                answer = watching.stdout.readline()
            found = json.loads(answer or b"{}")
        finally:
            watching.stdout.close()
            if victim != "power":
                watching.wait()
        self.note(f"{state} after {delay:.3f} s: {found}")
        return begun, bool(found.get("hit"))
