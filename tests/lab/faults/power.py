"""Faults: a machine that loses its power, and one whose lid is closed."""

from tests.lab.faults.fault import Fault
from tests.lab.faults.processes import STATES
from tests.lab.faults.scene import Scene

_OFF = 3.0
"""The longest time without power, in seconds."""


def cut_idle(scene: Scene) -> None:
    _cut(scene)


def cut_in(state: str) -> Fault:
    def run(scene: Scene) -> None:
        scene.strike(state, "power")
        _cut(scene)

    return Fault(f"power cut while {state}", run, takes="lasting disk")


def _cut(scene: Scene) -> None:
    scene.device.machine.power_off()
    scene.pause(0, _OFF)
    scene.device.machine.boot()


def suspended_idle(scene: Scene) -> None:
    _suspend(scene, 2, 8)


def suspended_in_a_deploy(scene: Scene) -> None:
    with scene.slow_link():
        scene.deploy(scene.release())
        scene.pause(0, 6)
        _suspend(scene, 2, 10)


def suspended_for_long(scene: Scene) -> None:
    """Longer than a watchdog and a connection have patience."""
    with scene.slow_link():
        scene.deploy(scene.release())
        scene.pause(0, 6)
        _suspend(scene, 40, 130)


def _suspend(scene: Scene, least: float, most: float) -> None:
    scene.device.machine.suspend()
    try:
        scene.pause(least, most)
    finally:
        scene.device.machine.resume()


FAULTS = (
    Fault("power cut", cut_idle, takes="lasting disk"),
    *(cut_in(state) for state in STATES),
    Fault("suspended", suspended_idle),
    Fault("suspended while deploying", suspended_in_a_deploy),
    Fault("suspended for long while deploying", suspended_for_long),
)
