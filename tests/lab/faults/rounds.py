"""One round: a fault, then everything that has to hold, then the next deploy."""

import random
import time
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.asking import Client
from tests.lab.faults import checks
from tests.lab.faults.checks import Findings
from tests.lab.faults.command import Command
from tests.lab.faults.device import Device
from tests.lab.faults.fault import Fault
from tests.lab.faults.ground import Ground
from tests.lab.faults.report import Round
from tests.lab.faults.scene import Missed, Scene
from tests.lab.faults.wanted import Wanted
from tests.support.agent import wait_until

_WAKES = 90.0
"""Seconds after a fault within which a client has to be answered again."""
_SPOKEN = (0, 1, 3, 4)
"""Exit codes of a deploy that say what became of it: all well, some failed, some not reached, somebody else at work."""
_MOST_BLOBS = 6
"""Blobs that a device may hold before those that nothing serves are removed, as nobody would need them."""
_TIDY = """
cd /var/lib/edgectl-agent/store && for path in blobs/*/*; do
  case " $1 " in *" $(basename "$path") "*) ;; *) rm -f "$path" ;; esac
done; find . \\( -path '*/partial/*' -o -name '*.part' \\) -type f -delete
"""


def play(
    ground: Ground, fault: Fault, step: int, devices: tuple[Device, ...], seed: int, folder: Path
) -> Round:
    """Carries out one round. Raises nothing: whatever goes wrong is a failure of the round."""
    folder.mkdir(parents=True, exist_ok=True)
    began, hub_from = time.monotonic(), ground.hub_log.stat().st_size
    since = time.time()
    chance = random.Random(f"{seed}/{step}/{fault.name}")
    scene = Scene(ground, step, devices[0], devices[1:], chance, folder)
    findings = Findings()
    findings.guard("the fault", lambda: _strike(scene, fault, findings))
    for command in scene.commands:
        if command.running:
            findings.guard("a command ends", command.wait)
    for command in scene.commands:
        if not command.killed and command.code not in _SPOKEN:
            said = f"edgectl {' '.join(command.arguments)} ended with {command.code}: {command.err[-500:]}"
            findings.failed("a command says how it ended", said)
    for number, device in enumerate(devices):
        findings.guard("the checks", lambda d=device, n=number: _check(scene, d, findings, n))  # type: ignore[misc]
    findings.guard("the next deploy", lambda: _next_deploys(scene, findings))
    for device in devices:
        findings.guard("the reports", lambda d=device: checks.reports_arrived(ground, d, findings))  # type: ignore[misc]
    findings.guard("the logs", lambda: checks.logs_are_clean(scene, since, hub_from, findings))
    if findings.failures:
        _keep(scene, findings)
    for device in devices:
        findings.guard("tidying", lambda d=device: _tidy(d))  # type: ignore[misc]
    for wanted in scene.wanted:
        wanted.forget()
    return Round(
        step=step,
        fault=fault.name,
        devices=tuple(device.name for device in devices),
        seconds=time.monotonic() - began,
        settled=findings.settled,
        told=findings.told,
        notes=(*scene.notes, ", ".join(findings.took)),
        failures=tuple(findings.failures),
        kept=str(folder) if findings.failures else None,
    )


def _strike(scene: Scene, fault: Fault, findings: Findings) -> None:
    """The fault under traffic; at its end every client is answered again, unless nothing can be."""
    with ExitStack() as stack:
        clients = {}
        for device in (scene.device, *scene.others):
            client = device.client()
            stack.callback(device.count, client)
            clients[device.name] = stack.enter_context(client)
            wait_until(lambda c=client: c.seen.answers or c.seen.problems, 30)  # type: ignore[misc]
        try:
            try:
                fault.run(scene)
            finally:
                scene.over = time.monotonic()
            for command in scene.commands:
                if command.running:
                    command.wait()
        except Missed as missed:
            findings.failed("the fault", missed)
        for name, client in clients.items():
            answered = client.seen.answers
            if not scene.broken and not _answered(client, answered):
                findings.failed("a client is answered again", f"{name}: {client.seen.problems[-1:]}")
            unforeseen = [problem for problem in client.seen.problems if problem.startswith("500")]
            if unforeseen:
                findings.failed("no error that nobody foresaw", f"{name}: {unforeseen[:2]}")
        if fault.quiet:
            for name, client in clients.items():
                if client.seen.problems:
                    findings.failed("no client notices", f"{name}: {client.seen.problems[:3]}")


def _answered(client: Client, before: int) -> bool:
    try:
        wait_until(lambda: client.seen.answers > before, _WAKES)
    except AssertionError:
        return False
    return True


def _check(scene: Scene, device: Device, findings: Findings, number: int) -> None:
    ground = scene.ground
    if scene.broken:
        if checks.status_says_broken(ground, device, findings):
            findings.settled = findings.told = round(time.monotonic() - scene.over, 1)
        return
    assert device.serving is not None
    marks = [device.serving.mark, *(wanted.mark for wanted in scene.wanted)]
    settled = told = None
    if checks.one_serves(device, marks, findings):
        settled = round(time.monotonic() - scene.over, 1)
        if checks.status_tells(ground, device, findings, refresh=scene.chance.random() < 0.3):
            told = round(time.monotonic() - scene.over, 1)
    if number == 0:
        findings.settled, findings.told = settled, told


def _whole_again(scene: Scene, device: Device, findings: Findings) -> None:
    """After a deploy that succeeded nothing is left of the fault, and status says so."""
    if checks.status_tells(scene.ground, device, findings, refresh=False):
        checks.nothing_to_look_at(scene.ground, device, findings)


def _next_deploys(scene: Scene, findings: Findings) -> None:
    """What was asked for last is asked for again, where it can succeed at all; else something new. It has to."""
    for device in (scene.device, *scene.others):
        wanted = _wanted_next(scene, device)
        more = _flags(scene, device)
        client = device.client()
        with client:
            begun: Command = scene.ground.command(
                scene.folder, "next", "deploy", "-f", wanted.manifest, "--yes", "-o", "json", *more
            )
            scene.commands.append(begun)
            code = begun.wait()
        device.count(client)
        if code != 0:
            findings.failed(
                "the next deploy succeeds", f"ended with {code}: {begun.err[-2000:]}{begun.out[-2000:]}"
            )
        elif client.seen.problems and not scene.broken:
            findings.failed(
                "no request fails in the next deploy", f"{device.name}: {client.seen.problems[:3]}"
            )
        if checks.one_serves(device, [wanted.mark], findings):
            device.serving = wanted
            _whole_again(scene, device, findings)


def _wanted_next(scene: Scene, device: Device) -> Wanted:
    """The last release of the round that is for this device alone and can be served; a new one where there is none."""
    if device is scene.device:
        for wanted in reversed(scene.wanted):
            if wanted.can_serve and f"name={device.name}" == wanted.selector:
                return wanted
    return scene.release_for(device)


def _flags(scene: Scene, device: Device) -> list[str]:
    flags = []
    if not scene.broken and device.look()["journal"]["quarantine"]:
        flags.append("--retry")
    if scene.repair:
        flags.append("--repair")
    return flags


def _keep(scene: Scene, findings: Findings) -> None:
    (scene.folder / "failures.json").write_text(
        checks.plain([{"check": failure.check, "said": failure.said} for failure in findings.failures])
    )
    (scene.folder / "looks.json").write_text(checks.plain(findings.looks))
    (scene.folder / "notes.txt").write_text("\n".join(scene.notes) + "\n")


def _tidy(device: Device) -> None:
    if not device.machine.is_on():
        return
    look = device.look()
    shown = device.machine.run(
        ["sh", "-c", "ls /var/lib/edgectl-agent/store/blobs/* | grep -c ."], check=False
    ).stdout
    if int(shown or 0) > _MOST_BLOBS:
        device.machine.run(["sh", "-c", _TIDY, "tidy", " ".join(look["journal"]["blobs"])])
