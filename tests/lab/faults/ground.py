"""Where a campaign takes place: a lab of machines that report to a hub, each with an agent and a first release."""

import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

from tests.lab import outfit
from tests.lab.control import Control, make_bundle
from tests.lab.faults import wanted
from tests.lab.faults.command import Command
from tests.lab.faults.device import STATE_DIR, Device
from tests.lab.fleet import ROOT, Lab
from tests.lab.spec import Spec
from tests.support import clock
from tests.support.agent import wait_until

SMALL_DISK = 320 * wanted.MIB
CLOCK = f"{outfit.OWN}/clock"
"""The file on a clocked machine that says how far its agent's clock is off, in seconds (`+3600`)."""
_INTERVAL = 2
"""Seconds after which the hub wants to hear of a device again."""


class Ground:
    """The devices of a campaign and their control side. `folder` keeps what is needed to understand a failure."""

    def __init__(self, lab: Lab, devices: Sequence[Device], folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.devices = tuple(devices)
        self.control = Control(lab)
        self.models = folder / "models"
        self.models.mkdir(parents=True, exist_ok=True)
        self._number = 0
        self._lock = threading.Lock()
        self._hub: subprocess.Popen[bytes] | None = None

    # The control side

    def command(self, folder: Path, what: str, *arguments: str | Path, tree: Path = ROOT) -> Command:
        """Begins `edgectl ARGUMENTS`, by the edgectl in `tree`."""
        with self._lock:
            self._number += 1
            name = f"{self._number:04}-{what}"
        return Command(self.lab, folder, name, *arguments, tree=tree)

    def query(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """Rows of the inventory, read here and now without a process for it."""
        path = self.lab.home / ".local/state/edgectl/inventory.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(sql, values)]

    def told(self, device: str) -> dict[str, Any]:
        """What status would say of a device at this moment."""
        (row,) = self.query("SELECT * FROM device_status WHERE name = ?", device)
        return row

    def counted(self, device: str) -> int:
        """Answers of a device as the inventory adds them up."""
        (row,) = self.query(
            "SELECT coalesce(sum(requests - failures), 0) AS answered FROM usage_by_minute WHERE device = ?",
            device,
        )
        return int(row["answered"])

    def events(self, device: str) -> list[list[Any]]:
        """Activation events of a device that have arrived, as on_device/look.py tells those that it has."""
        rows = self.query(
            "SELECT subject, what, outcome FROM events WHERE device = ? AND kind = 'activation'", device
        )
        return [[row["subject"], row["what"], row["outcome"]] for row in rows]

    @property
    def hub_log(self) -> Path:
        return self.lab.home / "hub.log"

    def start_hub(self) -> None:
        listen = f"{self.lab.network.control_address}:8770"
        argv = ("hub", "serve", "--listen", listen, "--interval", str(_INTERVAL))
        self._hub = self.lab.background([sys.executable, "-m", "edgectl", *argv], self.hub_log)
        wait_until(lambda: "listening on" in self.hub_log.read_text(), 60)

    @property
    def hub_runs(self) -> bool:
        return self._hub is not None and self._hub.poll() is None

    # Devices

    def put_agents(self) -> None:
        """From bare machines to devices that report."""
        self.start_hub()
        pairs = [wanted.pair((one.name, two.name)) for one, two in combinations(self.devices, 2)]
        for device in self.devices:
            labels = [
                word
                for pair in pairs
                if device.name in pair.split(".")
                for word in ("--label", pair + "=yes")
            ]
            self.control.add(device.name, *labels)
            if device.clocked:
                _give_clock(device)
        hub = f"http://{self.lab.network.control_address}:8770"
        rows = self.control.bootstrap(
            *(each.name for each in self.devices), "--hub", hub, "--ram-limit", "1GiB"
        )
        assert {row["outcome"] for row in rows} == {"installed"}, rows

    def release(self, mark: str, selector: str, chance: random.Random, **how: Any) -> wanted.Wanted:
        return wanted.write(self.models, mark, selector, chance, **how)


def _give_clock(device: Device) -> None:
    """The agent's own clock can be set from now on."""
    library = f"{outfit.OWN}/{clock.LIBRARY}"
    device.machine.write(library, clock.library().read_bytes(), 0o755)
    device.machine.write(CLOCK, "+0\n")
    lines = (f"Environment={name}={value}\n" for name, value in clock.environment(library, CLOCK).items())
    device.machine.write("/etc/systemd/system/edgectl-.service.d/clock.conf", "[Service]\n" + "".join(lines))
    # For all units of that name's beginning: in a folder of the unit's own it would be drift.
    device.machine.run(["systemctl", "daemon-reload"])


@contextmanager
def prepared(machines: int, folder: Path, say: Callable[[str], object]) -> Iterator[Ground]:
    """A ground with so many machines (2 or more): the first has a clock that can be set, the last a small disk."""
    assert machines >= 2, "one machine has a small disk that a power cut empties, so there must be another"
    make_bundle()
    say("a bundle is there; machines are booted and get agents")
    names = [f"dev{number + 1}" for number in range(machines)]
    small = ((STATE_DIR, f"{SMALL_DISK}"),)
    specs = [Spec(name, small_disks=small if name == names[-1] else ()) for name in names]
    with Lab(specs) as lab:
        devices = [
            Device(name, lab[name], small=name == names[-1], clocked=name == names[0]) for name in names
        ]
        ground = Ground(lab, devices, folder)
        ground.put_agents()
        began = time.time()
        chance = random.Random(0)
        for device in devices:
            first = ground.release(f"first-{device.name}", f"name={device.name}", chance)
            done = ground.control.deploy(first.manifest)
            assert done.code == 0, done.err + done.out
            device.serving = first
            device.tracebacks = device.look()["tracebacks"]["counts"]
            assert "Traceback" not in device.journal_since(began)
        say(f"{machines} machines serve a first release")
        yield ground
