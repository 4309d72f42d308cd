"""A seeded campaign: which fault comes when, on which device; as many at once as there are devices."""

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.lab.faults import checks
from tests.lab.faults.checks import Findings
from tests.lab.faults.device import Device
from tests.lab.faults.fault import Fault
from tests.lab.faults.ground import Ground
from tests.lab.faults.report import Campaign, Failure, Round
from tests.lab.faults.rounds import play
from tests.support.agent import wait_until

Say = Callable[[str], None]


def schedule(faults: Sequence[Fault], count: int, seed: int) -> list[Fault]:
    """So many faults: all kinds in a random order, then all kinds in another one, and so on."""
    chance = random.Random(seed)
    planned: list[Fault] = []
    while len(planned) < count:
        planned.extend(chance.sample(list(faults), len(faults)))
    return planned[:count]


class Pool:
    """Devices that are at nobody's disposal, given out as faults need them, in the order in which they are asked for."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self._devices = list(devices)
        self._free = list(devices)
        self._changed = threading.Condition()

    def take(self, fault: Fault) -> tuple[Device, ...]:
        """Waits for a device that suits the fault, and as many others as it needs. () when no such device is left."""
        with self._changed:
            while True:
                suiting = [device for device in self._devices if fault.suits(device)]
                if not suiting or len(self._devices) < fault.devices:
                    return ()
                free = [device for device in suiting if device in self._free]
                if free and len(self._free) >= fault.devices:
                    # Those that suit few faults are left for them, where another one will do.
                    first = min(free, key=lambda device: (device.small, device.clocked))
                    rest = [device for device in self._free if device is not first][: fault.devices - 1]
                    for device in (first, *rest):
                        self._free.remove(device)
                    return (first, *rest)
                self._changed.wait()

    def give_back(self, devices: Sequence[Device], *, whole: bool) -> None:
        """Devices that are not whole are given to nobody any more."""
        with self._changed:
            for device in devices:
                (self._free.append if whole else self._devices.remove)(device)
            self._changed.notify_all()


def run(
    ground: Ground,
    planned: Sequence[tuple[int, Fault]],
    seed: int,
    say: Say,
    longest: float = math.inf,
) -> Campaign:
    """Plays all of `planned` (step, fault). A device that cannot be brought back after a failure is left out. After
    `longest` seconds, or Ctrl-C, no further round begins."""
    began, stopped = time.monotonic(), ""
    pool = Pool(ground.devices)
    rounds: list[Round] = []
    left_out: list[str] = []

    def one(step: int, fault: Fault, devices: tuple[Device, ...]) -> None:
        done = play(ground, fault, step, devices, seed, ground.folder / f"step-{step:03}")
        whole = not done.failures or all(_mended(ground, device, step) for device in devices)
        if not whole:
            left_out.extend(device.name for device in devices)
        rounds.append(done)
        pool.give_back(devices, whole=whole)
        verdict = "; ".join(failure.check for failure in done.failures) or "held"
        say(f"{len(rounds):4}/{len(planned)} {time.monotonic() - began:6.0f} s  step {step:3} {fault.name} on"
            f" {', '.join(done.devices)}: {verdict} ({done.seconds:.1f} s)")  # fmt: skip

    with ThreadPoolExecutor(len(ground.devices), thread_name_prefix="round") as executor:
        tasks = []
        try:
            for step, fault in planned:
                if time.monotonic() - began > longest:
                    stopped = f"{longest:.0f} s were over"
                    break
                devices = pool.take(fault)
                if not devices:
                    rounds.append(_not_played(step, fault))
                    continue
                tasks.append(executor.submit(one, step, fault, devices))
            for task in tasks:
                task.result()
        except KeyboardInterrupt:
            stopped = "interrupted"
            say("no further round begins; those that have begun are ended first")
    if left_out:
        stopped = f"{', '.join(sorted(set(left_out)))} could not be brought back"
    devices = ground.devices
    return Campaign(
        seed=seed,
        machines=len(devices),
        seconds=time.monotonic() - began,
        rounds=tuple(sorted(rounds, key=lambda each: each.step)),
        answers=sum(device.answers for device in devices),
        counted=sum(ground.counted(device.name) for device in devices),
        cut=sum(device.cut for device in devices),
        stopped=stopped or None,
    )


def _not_played(step: int, fault: Fault) -> Round:
    failure = Failure("the fault", "no device was left for it")
    return Round(step, fault.name, (), 0.0, None, None, (), (failure,))


def _mended(ground: Ground, device: Device, step: int) -> bool:
    """Brings a device back after a failed round, so that the next one says something of its own."""
    machine = device.machine
    findings = Findings()

    def mend() -> None:
        if not machine.is_on():
            machine.boot()
        machine.run(["systemctl", "restart", "edgectl-agent"])
        machine.run(["rm", "-f", "/var/lib/edgectl-agent/filler"])
        chance = random.Random(f"mend {step}")
        fresh = ground.release(f"mend-{step}-{device.name}", f"name={device.name}", chance)
        wait_until(device.agent_pid, 30)
        done = ground.control.deploy(fresh.manifest, "--retry")
        assert done.code == 0, done.err + done.out
        assert checks.one_serves(device, [fresh.mark], findings), findings.failures
        device.serving = fresh
        device.tracebacks = device.look()["tracebacks"]["counts"]

    return findings.guard("mending", mend)
