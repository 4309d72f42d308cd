"""The machines that everybody is measured on, and how they get back to where they were before the first deploy."""

import compileall
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgectl.layout import SERVICE, SYSTEM
from tests.bench.deploy import peers, processes
from tests.bench.deploy.processes import Ran
from tests.e2e import manifests
from tests.lab.control import Control, make_bundle
from tests.lab.fleet import ROOT, Lab
from tests.lab.machine import Machine
from tests.lab.spec import Spec
from tests.support.agent import wait_until

EDGECTL = (sys.executable, "-m", "edgectl")
_FRESH = f"{SYSTEM.state_dir}.fresh"
_TO_FRESH = f"systemctl stop {SERVICE} && rm -rf {_FRESH} && cp -a {SYSTEM.state_dir} {_FRESH} && systemctl start {SERVICE}"
_FROM_FRESH = (
    f"systemctl stop {SERVICE} && rm -rf {SYSTEM.state_dir}/* && cp -a {_FRESH}/. {SYSTEM.state_dir}/"
    f" && systemctl start {SERVICE}"
)
_QUIET, _LONGEST_WAIT = 0.15, 30.0
"""The part of the processors that may be busy before a measurement begins, and seconds that are waited for it."""


@dataclass
class Stage:
    """Machines whose agents serve nothing yet, and the control side that knows them. `patient`: waits for quiet."""

    lab: Lab
    folder: Path
    patient: bool

    @property
    def names(self) -> list[str]:
        return list(self.lab.machines)

    def peers(self, model: Path) -> peers.Peers:
        return peers.Peers(self.lab, self.folder, model)

    def manifest(self, name: str, model: Path, devices: str = "all") -> Path:
        """One model in a small context, and the shortest probe, one token: what is measured is the way there, not the
        time for which a manifest wants a model to be watched."""
        return manifests.write(
            self.folder / f"{name}.yaml",
            {"assistant": manifests.model(model)},
            probe={"timeout": 300, "max_tokens": 1, "min_healthy": 0},
            name=name,
            devices=devices,
        )

    def deploy(self, manifest: Path) -> list[str]:
        return [*EDGECTL, "deploy", "-f", str(manifest), "--yes", "-o", "json"]

    def rollback(self, release: str) -> list[str]:
        return [*EDGECTL, "rollback", "--to", release, "--yes", "-o", "json"]

    def run(self, *commands: list[str]) -> Ran:
        """Commands side by side, once nothing else is going on. Files are hashed anew in every cold round."""
        self.settle()
        return processes.run(self.lab, *commands, env={"EDGECTL_CACHE_DIR": str(self._cache)})

    def fresh(self) -> None:
        """As after the bootstrap: no release, no blob, no peer's file, nothing known of files on the control side."""
        self.everywhere(lambda machine: machine.run(["sh", "-c", _FROM_FRESH]))
        self.everywhere(lambda machine: machine.run(peers.forget()))
        shutil.rmtree(self._cache, ignore_errors=True)
        shutil.rmtree(self._inventory)
        shutil.copytree(self._inventory_kept, self._inventory)

    def keep(self) -> None:
        """What `fresh` returns to."""
        self.everywhere(lambda machine: machine.run(["sh", "-c", _TO_FRESH]))
        shutil.copytree(self._inventory, self._inventory_kept)

    def loaded_in(self) -> dict[str, float]:
        """Seconds that the newest load took on each device, by its own account."""
        rows: list[dict[str, Any]] = (
            Control(self.lab)
            .ok(*("query", "-o", "json"), "select device, loaded_in, sent_at from fits order by sent_at")
            .json
        )
        return {row["device"]: row["loaded_in"] for row in rows}

    def everywhere(self, do: Callable[[Machine], object]) -> None:
        """On all machines side by side."""
        with ThreadPoolExecutor(len(self.lab.machines)) as pool:
            list(pool.map(do, self.lab.machines.values()))

    def settle(self) -> None:
        """Returns once what was written is on the disk and the processors have nothing to do, or after a while."""
        os.sync()
        deadline = time.monotonic() + (_LONGEST_WAIT if self.patient else 0)
        while time.monotonic() < deadline and _busy(1.0) > _QUIET:
            pass

    @property
    def _cache(self) -> Path:
        return self.lab.home / "cache"

    @property
    def _inventory(self) -> Path:
        return self.lab.home / ".local" / "state" / "edgectl"

    @property
    def _inventory_kept(self) -> Path:
        return self.lab.home / "inventory.fresh"


@contextmanager
def stage(*, patient: bool, machines: int = 4) -> Iterator[Stage]:
    """Boots machines and brings agents to them. As root."""
    for package in ("edgectl", "agent_daemon"):
        # As pip does where it installs: a checkout may never have been, and no peer compiles itself at every start.
        compileall.compile_dir(ROOT / package, quiet=1)
    make_bundle()
    names = [f"dev{number}" for number in range(1, machines + 1)]
    # As many processors as this machine has, dealt out: else every model would be computed by all of them at once,
    # each machine's threads spinning where those of another one should run.
    specs = [Spec(name, cpus=str(number % (os.cpu_count() or 1))) for number, name in enumerate(names)]
    with TemporaryDirectory() as folder, Lab(specs) as lab:
        made, control = Stage(lab, Path(folder), patient), Control(lab)
        control.ok("device", "add", "--from-ssh-config", "dev*")
        control.bootstrap("-l", "all", "--ram-limit", "2GiB")
        # An agent measures how fast memory is read, once, in its first quiet moment: not in one of ours.
        for machine in lab.machines.values():
            wait_until(lambda machine=machine: machine.exists(f"{SYSTEM.state_dir}/bandwidth.json"), 120)
        made.keep()
        yield made


def _busy(seconds: float) -> float:
    """The part of all processors that was busy for so long."""
    idle, total = _processor_times()
    time.sleep(seconds)
    idle_then, total_then = _processor_times()
    return 1 - (idle_then - idle) / max(1, total_then - total)


def _processor_times() -> tuple[int, int]:
    with open("/proc/stat") as stat:
        times = [int(word) for word in stat.readline().split()[1:9]]
    return times[3] + times[4], sum(times)
