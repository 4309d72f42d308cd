"""All faults there are."""

from collections.abc import Sequence

from tests.lab.faults import clocks, control_side, disks, network, power, processes, upgrades
from tests.lab.faults.device import Device
from tests.lab.faults.fault import Fault

FAULTS: tuple[Fault, ...] = (
    *processes.FAULTS,
    *power.FAULTS,
    *network.FAULTS,
    *disks.FAULTS,
    *control_side.FAULTS,
    *clocks.FAULTS,
    *upgrades.FAULTS,
)


def faults_for(devices: Sequence[Device]) -> tuple[Fault, ...]:
    """All of them. AssertionError when one of them could be done to none of these devices."""
    for fault in FAULTS:
        assert any(fault.suits(device) for device in devices), f"no device suits {fault.name}"
    return FAULTS
