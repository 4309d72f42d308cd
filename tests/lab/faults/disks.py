"""Faults: a disk that is full, and bytes on it that are not what was written."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.lab.faults.device import STATE_DIR
from tests.lab.faults.fault import Fault
from tests.lab.faults.scene import Missed, Scene
from tests.lab.faults.wanted import MIB

_FILLER = f"{STATE_DIR}/filler"
_FILL = f"cat /dev/zero > {_FILLER} 2>/dev/null; sync; df --output=avail {STATE_DIR} | tail -1"
_RESERVE = 64 * MIB
"""What the store leaves free for everything else."""


@contextmanager
def _full(scene: Scene, leaving: int = 0) -> Iterator[None]:
    """The disk has `leaving` bytes left; on leaving, what it had before."""
    machine = scene.device.machine
    try:
        if leaving:
            shown = machine.run(["df", "--output=avail", "-B1", STATE_DIR]).stdout.split()[-1]
            machine.run(["fallocate", "-l", str(max(4096, int(shown) - leaving)), _FILLER])
        else:
            left = machine.run(["sh", "-c", _FILL]).stdout.strip()
            scene.note(f"{left} KiB left")
        yield
    finally:
        machine.run(["rm", "-f", _FILLER])


def full_before_staging(scene: Scene) -> None:
    """There is room for the model, and none beside it: not one byte may be sent."""
    wanted = scene.release()
    with _full(scene, leaving=_RESERVE + wanted.size - MIB):
        before = scene.device.machine.link.counters().received
        begun = scene.deploy(wanted)
        code = begun.wait()
        received = scene.device.machine.link.counters().received - before
    assert code == 1, f"a deploy to a full disk ended with {code}: {begun.out}"
    assert begun.outcomes()[scene.device.name] in ("failed_unchanged", "refused"), begun.out
    assert "free" in begun.reasons(), f"the reason does not speak of free bytes: {begun.reasons()}"
    assert received < wanted.size / 4, f"{received} bytes were sent, although there was no room"


def full_while_staging(scene: Scene) -> None:
    with scene.slow_link():
        begun = scene.strike("staging", "nobody", delay=0.8)
        with _full(scene):
            code = begun.wait()
    assert code == 1, f"a deploy to a disk that became full ended with {code}: {begun.out}"
    assert begun.outcomes()[scene.device.name] in ("failed_unchanged", "refused"), begun.out
    assert "free" in begun.reasons() or "full" in begun.reasons(), (
        f"nothing of a full disk: {begun.reasons()}"
    )


def full_while_journalling(scene: Scene) -> None:
    state = scene.chance.choice(("staged", "activating", "probing", "committed", "reverting"))
    scene.strike(state, "nobody")
    with _full(scene):
        scene.pause(1, 6)


def full_while_idle(scene: Scene) -> None:
    """Nothing can be counted or reported while it lasts."""
    with _full(scene):
        scene.pause(1, 6)


_PARTIAL = f"find {STATE_DIR}/store \\( -path '*/partial/*' -o -name '*.part' \\) -type f | head -1"


def partial_overwritten(scene: Scene) -> None:
    """Bytes that have arrived change on the disk, the link is cut, and the deploy goes on from what is there."""
    with scene.slow_link():
        scene.strike("staging", "nobody", delay=0.5)
        # The moment is that of the first byte; some are wanted.
        scene.pause(0.6, 1.2)
        machine = scene.device.machine
        path = machine.run(["sh", "-c", _PARTIAL]).stdout.strip()
        if not path:
            raise Missed("nothing of the blob had arrived, or all of it")
        machine.run(
            ["sh", "-c", f"head -c 4096 /dev/urandom | dd of={path} conv=notrunc bs=4096 seek=2 status=none"]
        )
        machine.link.down()
        scene.pause(0.5, 3)
        machine.link.up()


def idle_blob_overwritten(scene: Scene) -> None:
    """A release is here that is not served; its blob changes on the disk, and it is deployed again."""
    first = scene.release()
    assert scene.deploy(first).wait() == 0, scene.commands[-1].out
    (blob,) = scene.device.look()["journal"]["blobs"]
    assert scene.deploy(scene.release()).wait() == 0, scene.commands[-1].out
    _overwrite(scene, blob)
    scene.wanted.append(first)
    again = scene.deploy(first)
    code = again.wait()
    # Brought anew at once, or found out by the device, which then keeps what it serves.
    outcome = again.outcomes()[scene.device.name]
    assert (code, outcome) in ((0, "succeeded"), (1, "reverted"), (1, "refused"), (1, "failed_unchanged")), (
        again.out
    )
    scene.note(f"deployed with a damaged blob: {outcome}")
    scene.repair = True


def served_blob_overwritten(scene: Scene) -> None:
    """The blob that answers come from; what runs goes on or not, what is started anew cannot come up."""
    (blob,) = scene.device.look()["journal"]["blobs"]
    _overwrite(scene, blob)
    for worker in scene.device.look()["workers"]:
        scene.device.machine.run(["kill", "-9", str(worker["pid"])], check=False)
    scene.broken = scene.repair = True


def _overwrite(scene: Scene, blob: str) -> None:
    path = f"{STATE_DIR}/store/blobs/{blob[:2]}/{blob}"
    where = scene.chance.choice((0, 0, 40))
    scene.note(f"overwritten from {where} KiB")
    scene.device.machine.run(
        [
            "sh",
            "-c",
            f"head -c 65536 /dev/urandom | dd of={path} conv=notrunc bs=1024 seek={where} status=none",
        ]
    )


FAULTS = (
    Fault("disk full before staging", full_before_staging, takes="small disk", quiet=True),
    Fault("disk full while staging", full_while_staging, takes="small disk"),
    Fault("disk full while journalling", full_while_journalling, takes="small disk"),
    Fault("disk full while idle", full_while_idle, takes="small disk"),
    Fault("partial overwritten", partial_overwritten, quiet=True),
    Fault("idle blob overwritten", idle_blob_overwritten, quiet=True),
    Fault("served blob overwritten", served_blob_overwritten),
)
