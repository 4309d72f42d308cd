"""Faults: a device whose clock is set while its agent runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.faults.fault import Fault
from tests.lab.faults.ground import CLOCK
from tests.lab.faults.scene import Scene

_STEPS = (90, 3600, 86400, 400 * 86400)
"""Seconds by which a clock is set."""


def set_clock(scene: Scene, seconds: int) -> None:
    scene.device.machine.write(CLOCK, f"{seconds:+d}\n")
    scene.note(f"the agent's clock is {seconds:+d} s off")


@contextmanager
def _clock(scene: Scene, seconds: int) -> Iterator[None]:
    set_clock(scene, seconds)
    try:
        yield
    finally:
        set_clock(scene, 0)


def _by(direction: int) -> Fault:
    def run(scene: Scene) -> None:
        """Set in a deploy, and right again some time after it."""
        step = direction * scene.chance.choice(_STEPS)
        with scene.slow_link():
            begun = scene.deploy(scene.release())
            scene.pause(0, 6)
            with _clock(scene, step):
                if scene.chance.random() < 0.7:
                    begun.wait()
                scene.pause(0.2, 3)

    return Fault(f"clock set {'forward' if direction > 0 else 'back'}", run, takes="own clock", quiet=True)


FAULTS = (_by(1), _by(-1))
