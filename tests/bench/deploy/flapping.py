"""A slow link that is cut again and again: what is sent twice."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent_daemon.partial import Places
from edgectl.layout import SYSTEM
from tests.bench.deploy import events, processes
from tests.bench.deploy.figures import Bound, Found, Row, resent
from tests.bench.deploy.stage import Stage
from tests.lab.machine import Machine

MEGABITS, EVERY, AWAY = 100, 3.0, 1.0
"""The link, and seconds: from one cut to the next, and that nothing gets through."""
MOST = 5.0
"""Percent of a blob that may be sent twice."""
_TRIES = 20
_HANG_UP = ["sh", "-c", "pkill -KILL -f '^sshd: root@notty' || true"]


def flapping(stage: Stage, model: Path) -> Found:
    """One device behind such a link: undisturbed, then cut, then cut with every connection lost at each cut."""
    name = stage.names[0]
    manifest = stage.manifest("flapping", model, devices=f"name={name}")
    machine, size = stage.lab[name], model.stat().st_size
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    blob = Places(f"{SYSTEM.state_dir}/store").blob(f"sha256:{digest}")
    machine.link.limit(MEGABITS)
    try:
        taken = {
            "undisturbed": _bring(stage, machine, manifest, blob, None),
            "cut every 3 s": _bring(stage, machine, manifest, blob, False),
            "cut and hung up every 3 s": _bring(stage, machine, manifest, blob, True),
        }
    finally:
        machine.link.unlimit()
    quiet = taken["undisturbed"].received
    bounds = tuple(
        Bound(f"sent twice, {how}", resent(each.received, quiet, size), MOST, "%")
        for how, each in taken.items()
        if how != "undisturbed"
    )
    rows = tuple(Row(how, (round(each.seconds, 2),)) for how, each in taken.items())
    more = {"size": size} | {
        f"{what}, {how}": getattr(each, what)
        for how, each in taken.items()
        for what in ("received", "cuts", "commands")
    }
    return Found(rows, bounds, more)


class _Taken:
    """What one way there came to: bytes at the machine's interface, cuts, and deploys that it took."""

    def __init__(self, received: int, seconds: float, cuts: int, commands: int) -> None:
        self.received, self.seconds, self.cuts, self.commands = received, seconds, cuts, commands


def _bring(stage: Stage, machine: Machine, manifest: Path, blob: str, hang_up: bool | None) -> _Taken:
    """Until the device has committed; a deploy that gives the device up is made again, as a person would."""
    stage.fresh()
    stage.settle()
    before, began = machine.link.counters().received, time.monotonic()
    with _cuts(machine, blob, hang_up) as cuts:
        commands, outcomes = 0, {"unreachable": 1}
        while not outcomes.keys() <= {"succeeded", "unchanged"}:
            commands += 1
            assert commands <= _TRIES, f"not there after {_TRIES} deploys: {outcomes}"
            ran = processes.run(stage.lab, stage.deploy(manifest), codes=(0, 3))
            outcomes = events.summary(ran.lines)["outcomes"]
    received = machine.link.counters().received - before
    return _Taken(received, time.monotonic() - began, len(cuts), commands)


@contextmanager
def _cuts(machine: Machine, blob: str, hang_up: bool | None) -> Iterator[list[float]]:
    """Cuts the link until the file `blob` is whole; None: does not. With `hang_up` the connections that there are end
    as well."""
    done, cuts = threading.Event(), list[float]()

    def cut() -> None:
        while not done.wait(EVERY - AWAY) and not machine.exists(blob):
            machine.link.down()
            cuts.append(time.monotonic())
            if hang_up:
                machine.run(_HANG_UP)
            done.wait(AWAY)
            machine.link.up()

    thread = threading.Thread(target=cut)
    if hang_up is not None:
        thread.start()
    try:
        yield cuts
    finally:
        done.set()
        if hang_up is not None:
            thread.join()
