"""A short campaign of faults (see tests/lab/faults; `make faults` plays a long one): devices get over each of them."""

import gc
from pathlib import Path

import pytest

from tests.lab.faults import campaign, report
from tests.lab.faults.ground import prepared
from tests.lab.faults.registry import faults_for

pytestmark = [
    pytest.mark.engine,
    # Clients' connections end wherever a fault finds them.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SEED = 7
CHOSEN = (
    "agent killed while probing",
    "worker killed",
    "power cut while activating",
    "power cut while reverting",
    "suspended while deploying",
    "link cut while deploying",
    "sshd killed with its sessions while deploying",
    "disk full while journalling",
    "idle blob overwritten",
    "source changed after the plan",
    "control process killed while sending",
    "two deploys at once",
    "clock set back",
)


def test_devices_get_over_faults(lab_host: None, tmp_path: Path) -> None:
    said: list[str] = []
    with prepared(2, tmp_path / "kept", said.append) as ground:
        known = {fault.name: fault for fault in faults_for(ground.devices)}
        planned = [(step, known[name]) for step, name in enumerate(CHOSEN, start=1)]
        done = campaign.run(ground, planned, SEED, said.append)
    assert done.passed, report.table(done)
    assert len(done.rounds) == len(CHOSEN)
    # Every one of them was carried out and looked at, and clients were answered all the while.
    assert all(each.settled is not None and each.told is not None for each in done.rounds)
    assert done.answers > len(CHOSEN)
    assert done.answers <= done.counted <= done.answers + done.cut
    gc.collect()  # so that what was cut is not taken for the next test's
