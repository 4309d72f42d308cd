"""What has to hold after every fault, asked of real machines."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.lab.faults import logs
from tests.lab.faults.agreement import disagreement, untold, untold_events
from tests.lab.faults.device import Device
from tests.lab.faults.ground import Ground
from tests.lab.faults.report import Failure
from tests.lab.faults.scene import Scene
from tests.lab.host import LabError
from tests.support.agent import wait_until

SETTLES = 60.0
"""Seconds within which one release has to serve, and after them status to say so."""
_PAUSE = 0.25
_SAME = 5


@dataclass
class Findings:
    """What checks found in one round; the looks are kept for whoever wants to understand it."""

    failures: list[Failure] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)
    settled: float | None = None
    told: float | None = None
    took: list[str] = field(default_factory=list)

    def failed(self, check: str, said: object) -> None:
        """Told at most a few times: the same error in every request says nothing more."""
        if sum(failure.check == check for failure in self.failures) < _SAME:
            self.failures.append(Failure(check, str(said)))

    def guard(self, check: str, what: Callable[[], object]) -> bool:
        """Whether `what` came to its end; how it did not is a failure. How long it took is noted."""
        began = time.monotonic()
        try:
            what()
        except Exception as error:
            self.failed(check, f"{type(error).__name__}: {error}")
            return False
        finally:
            self.took.append(f"{check} {time.monotonic() - began:.1f} s")
        return True


def one_serves(device: Device, marks: list[str], findings: Findings) -> bool:
    """Whether, in time, exactly one of these releases served and everything agreed."""
    began, why = time.monotonic(), "nothing was seen"
    while time.monotonic() - began < SETTLES:
        try:
            look = device.look()
            listed = device.names()
            answered = _chat(device, look["journal"]["names"])
            problem = disagreement(look, listed, answered, marks)
            findings.looks.append({"device": device.name, "at": time.time(), "listed": listed, **look})
            if problem is None:
                return True
            why = problem
        except LabError as error:
            why = str(error)
        time.sleep(_PAUSE)
    findings.failed("exactly one release serves", f"{device.name}: not within {SETTLES:g} s: {why}")
    return False


def _chat(device: Device, names: list[str]) -> int:
    """The status of one answer by the name that only the active release has; counted as every other one."""
    client = device.client(next((name for name in names if name != "assistant"), "assistant"))
    client.ask()
    device.count(client)
    if client.seen.answers:
        return 200
    said = client.seen.problems[0]
    return int(said[:3]) if said[:3].isdigit() else 0


def status_tells(ground: Ground, device: Device, findings: Findings, *, refresh: bool) -> bool:
    """Whether, in time, status told the truth about a device: by what arrives at the hub, or by asking it.

    The device is looked at anew each time: a release that waited for it at the hub may come at any moment."""
    began = time.monotonic()
    if refresh:
        done = ground.control.run("status", device.name, "--refresh", "-o", "json")
        if done.code != 0:
            findings.failed("status tells the truth", f"status --refresh ended with {done.code}: {done.err}")
    while True:
        why = _not_told(ground, device, findings)
        if why is None:
            return True
        if time.monotonic() - began > SETTLES:
            how = "after --refresh" if refresh else "by what arrived at the hub"
            findings.failed(
                "status tells the truth", f"{device.name}: {how}, not within {SETTLES:g} s: {why}"
            )
            return False
        time.sleep(_PAUSE)


def _not_told(ground: Ground, device: Device, findings: Findings) -> str | None:
    """What the inventory, or else the command, does not say of the device as it is at this moment."""
    look = device.look()
    if (why := untold(look, ground.told(device.name))) is not None:
        findings.looks.append({"device": device.name, "at": time.time(), "untold": why, **look})
        return why
    if (why := untold(look, ground.control.status(device.name)[device.name])) is not None:
        return f"the command: {why}"
    return None


def nothing_to_look_at(ground: Ground, device: Device, findings: Findings) -> None:
    """Status asks nobody to look at a device that is well."""
    if not _await(lambda: not ground.told(device.name)["attention"]):
        row = ground.told(device.name)
        shown = {key: row.get(key) for key in ("state", "outcome", "outcome_reason", "drift", "problem")}
        findings.failed(
            "status tells the truth", f"{device.name} is well, and somebody is to look at it: {shown}"
        )


def status_says_broken(ground: Ground, device: Device, findings: Findings) -> bool:
    """Where nothing can answer, status has to say that somebody must look."""
    began = time.monotonic()
    row: dict[str, Any] = {}
    while time.monotonic() - began < SETTLES:
        row = ground.told(device.name)
        if row["state"] != "serving" and row["attention"]:
            return True
        time.sleep(_PAUSE)
    findings.failed(
        "status tells the truth", f"{device.name}: its model cannot answer, and status says {row}"
    )
    return False


def reports_arrived(ground: Ground, device: Device, findings: Findings) -> None:
    """Nothing that a client saw whole, and no event of an activation, is missing in the inventory."""
    if not _await(lambda: ground.counted(device.name) >= device.answers):
        findings.failed(
            "no report lost",
            f"{device.name}: clients saw {device.answers} answers whole, {ground.counted(device.name)} are counted",
        )
    counted = ground.counted(device.name)
    if counted > device.answers + device.cut:
        findings.failed(
            "no report counted twice",
            f"{device.name}: {counted} are counted; {device.answers} were seen whole, {device.cut} were cut",
        )
    events = device.look()["journal"]["events"]
    if not _await(lambda: not untold_events(events, ground.events(device.name))):
        lost = untold_events(events, ground.events(device.name))
        findings.failed("no report lost", f"{device.name}: {len(lost)} events did not arrive: {lost[:5]}")


def _await(what: Callable[[], bool]) -> bool:
    try:
        wait_until(what, SETTLES, _PAUSE)
    except AssertionError:
        return False
    return True


def logs_are_clean(scene: Scene, since: float, hub_from: int, findings: Findings) -> None:
    """No error that nobody foresaw: not in the units' journal, not in the agent's own logs, not on the control side."""
    for device in (scene.device, *scene.others):
        text = device.journal_since(since)
        (scene.folder / f"{device.name}.journal").write_text(text)
        for place in logs.exceptions(text):
            findings.failed("no exception", f"{device.name}'s journal: {place}")
        found = device.look()["tracebacks"]
        counts: dict[str, int] = found["counts"]
        more = {name: count for name, count in counts.items() if count > device.tracebacks.get(name, 0)}
        device.tracebacks = counts
        if more:
            findings.failed("no exception", f"{device.name}: tracebacks in its logs: {more}: {found['last']}")
    for command in scene.commands:
        for place in (*logs.exceptions(command.out), *logs.exceptions(command.err)):
            findings.failed("no exception", f"edgectl {' '.join(command.arguments)}: {place}")
    with scene.ground.hub_log.open() as file:
        file.seek(hub_from)
        for place in logs.exceptions(file.read()):
            findings.failed("no exception", f"the hub: {place}")
    if not scene.ground.hub_runs:
        findings.failed("no exception", "the hub has ended")


def quarantined(look: dict[str, Any], digest: str | None) -> bool:
    return digest in look["journal"]["quarantine"]


def plain(value: object) -> str:
    return json.dumps(value, indent=1, default=str)
