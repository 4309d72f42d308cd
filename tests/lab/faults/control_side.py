"""Faults: of the control side, and of people who use it."""

from tests.lab.faults.command import Command
from tests.lab.faults.fault import Fault
from tests.lab.faults.scene import Scene

_BUSY = 4
"""The exit code of a command that finds another one at work on the same device."""


def killed(scene: Scene) -> None:
    """At a random moment, from the first import to after the end."""
    before = _newest_rollout(scene)
    begun = scene.deploy(scene.release())
    scene.pause(0, 6)
    begun.kill()
    _resume(scene, before)


def killed_while_sending(scene: Scene) -> None:
    before = _newest_rollout(scene)
    with scene.slow_link():
        scene.strike("staging", "nobody").kill()
    _resume(scene, before)


def _newest_rollout(scene: Scene) -> int:
    rows = scene.ground.query(
        "SELECT max(rollout) AS rollout FROM rollout_history WHERE device = ?", scene.device.name
    )
    return int(rows[0]["rollout"])


def _resume(scene: Scene, before: int) -> None:
    """The rollout whose process is gone goes on at once, by another one, if it had begun and not ended."""
    number = _newest_rollout(scene)
    (row,) = scene.ground.query("SELECT state FROM rollout_status WHERE rollout = ?", number)
    scene.note(f"rollout {number} (before: {before}) was {row['state']} when its process was killed")
    if number == before or row["state"] not in ("running", "interrupted"):
        return
    resumed = scene.command("resume", "rollout", "resume", str(number), "-o", "json")
    code = resumed.wait()
    assert code == 0, f"rollout resume {number} ended with {code}: {resumed.err}{resumed.out}"
    (row,) = scene.ground.query("SELECT state FROM rollout_status WHERE rollout = ?", number)
    assert row["state"] == "finished", f"rollout {number} was resumed and is {row['state']}"


def source_changed(scene: Scene) -> None:
    """The model's file changes after it was planned with and before it was sent."""
    with scene.slow_link():
        begun = scene.strike("staging", "nobody", delay=0.3)
        model = scene.wanted[-1].model
        whole = model.read_bytes()
        with model.open("r+b") as file:
            file.seek(len(whole) - 4096)
            file.write(b"\0" * 4096)
        try:
            code = begun.wait()
        finally:
            model.write_bytes(whole)
    assert code == 1, f"a deploy of bytes that had changed ended with {code}: {begun.out}"
    assert begun.outcomes()[scene.device.name] in ("failed_unchanged", "refused"), begun.out


def two_at_once(scene: Scene) -> None:
    one = scene.deploy(scene.release())
    scene.pause(0, 2.5)
    other = scene.deploy(scene.release())
    _judge(scene, one, other)


def two_that_overlap(scene: Scene) -> None:
    """One of them is for two devices, the other for one of these."""
    both = scene.deploy(scene.release(both=True))
    scene.pause(0, 2.5)
    one = scene.deploy(scene.release())
    _judge(scene, both, one)


def _judge(scene: Scene, one: Command, other: Command) -> None:
    """Each gets an answer; at least one of them gets what it wants."""
    codes = one.wait(), other.wait()
    scene.note(f"ended with {codes[0]} and {codes[1]}")
    assert 0 in codes, (
        f"two deploys at once, and none succeeded: {codes}: {one.out}{one.err}{other.out}{other.err}"
    )
    for command, code in zip((one, other), codes, strict=True):
        assert code in (0, 1, _BUSY), f"ended with {code}: {command.err}"
        if code == _BUSY:
            assert "rollout" in command.err, f"does not say who is at work: {command.err}"


FAULTS = (
    Fault("control process killed while deploying", killed, quiet=True),
    Fault("control process killed while sending", killed_while_sending, quiet=True),
    Fault("source changed after the plan", source_changed, quiet=True),
    Fault("two deploys at once", two_at_once, quiet=True),
    Fault("two deploys that overlap", two_that_overlap, quiet=True, devices=2),
)
