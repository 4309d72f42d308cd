"""Faults: between the control side and a device. Nobody on the device notices any of them."""

from tests.lab.faults.fault import Fault
from tests.lab.faults.scene import Scene


def cut_while_deploying(scene: Scene) -> None:
    with scene.slow_link():
        scene.deploy(scene.release())
        scene.pause(0, 6)
        _cut(scene)


def cut_again_and_again(scene: Scene) -> None:
    with scene.slow_link():
        begun = scene.deploy(scene.release())
        for _ in range(4):
            scene.pause(0.5, 3)
            if begun.running:
                _cut(scene)


def cut_idle(scene: Scene) -> None:
    _cut(scene)


def _cut(scene: Scene) -> None:
    link = scene.device.machine.link
    link.down()
    try:
        scene.pause(0.2, 8)
    finally:
        link.up()


def sshd_restarted(scene: Scene) -> None:
    """Sessions go on with their own process."""
    with scene.slow_link():
        scene.deploy(scene.release())
        scene.pause(0, 6)
        scene.device.machine.run(["systemctl", "restart", "ssh"])


def sshd_killed(scene: Scene) -> None:
    """With all its sessions."""
    with scene.slow_link():
        scene.deploy(scene.release())
        scene.pause(0, 6)
        scene.device.machine.run(["pkill", "-9", "-x", "sshd"], check=False)
        scene.device.machine.run(["systemctl", "reset-failed", "ssh"], check=False)
        scene.device.machine.run(["systemctl", "restart", "ssh"])


FAULTS = (
    Fault("link cut", cut_idle, quiet=True),
    Fault("link cut while deploying", cut_while_deploying, quiet=True),
    Fault("link cut again and again while deploying", cut_again_and_again, quiet=True),
    Fault("sshd restarted while deploying", sshd_restarted, quiet=True),
    Fault("sshd killed with its sessions while deploying", sshd_killed, quiet=True),
)
