"""Faults: processes of a device that are ended without a word."""

from tests.lab.faults.fault import Fault
from tests.lab.faults.scene import Missed, Scene

STATES = ("staging", "staged", "activating", "probing", "committed", "reverting")


def agent_idle(scene: Scene) -> None:
    pid = scene.device.agent_pid()
    scene.device.machine.run(["kill", "-9", str(pid)])


def agent_in(state: str) -> Fault:
    return Fault(f"agent killed while {state}", lambda scene: _strike(scene, state, "agent"))


def worker_idle(scene: Scene) -> None:
    workers = scene.device.look()["workers"]
    if not workers:
        raise Missed("no worker was there")
    for worker in workers:
        scene.device.machine.run(["kill", "-9", str(worker["pid"])])


def worker_in(state: str) -> Fault:
    return Fault(f"worker killed while {state}", lambda scene: _strike(scene, state, "worker"))


def _strike(scene: Scene, state: str, victim: str) -> None:
    scene.strike(state, victim)


FAULTS = (
    Fault("agent killed", agent_idle),
    *(agent_in(state) for state in STATES),
    Fault("worker killed", worker_idle),
    *(worker_in(state) for state in ("staging", "activating", "probing", "committed")),
)
