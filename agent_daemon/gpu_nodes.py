"""Waits for a GPU's device nodes, so that a machine that boots faster than its driver loads does not serve from
RAM until somebody notices. Runs before the agent, as a unit of its own; when the nodes do not come, the agent
starts all the same."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent_daemon.gpus import SYSFS

DEV = Path("/dev")
_DISPLAY = "0x03"
"""PCI class of display controllers; https://pci-ids.ucw.cz/read/PD/"""
_POLL = 0.25


@dataclass(frozen=True)
class _Kind:
    """A vendor whose kernel driver, once it is bound, makes these nodes (glob patterns below /dev)."""

    vendor: str
    driver: str
    nodes: tuple[str, ...]


_KINDS = (
    _Kind("0x10de", "nvidia", ("nvidiactl", "nvidia[0-9]*", "nvidia-uvm")),
    _Kind("0x1002", "amdgpu", ("kfd", "dri/renderD*")),
)


def missing_nodes(sysfs: Path = SYSFS, dev: Path = DEV) -> tuple[str, ...]:
    """Nodes that a GPU of this machine should have and has not (yet). A GPU that another driver holds, such as
    nouveau, is none of ours; one without a driver may be about to get it."""
    return tuple(
        dict.fromkeys(
            node
            for folder in sorted((sysfs / "bus/pci/devices").glob("*"))
            for kind in _kinds(folder)
            for node in kind.nodes
            if not any(dev.glob(node))
        )
    )


def wait(seconds: float, sysfs: Path = SYSFS, dev: Path = DEV) -> tuple[str, ...]:
    """Waits until no node is missing, for `seconds` at most, and returns those that still are."""
    deadline = time.monotonic() + seconds
    if "nvidia-uvm" in missing_nodes(sysfs, dev) and (loader := shutil.which("nvidia-modprobe")):
        # The driver makes this node only when somebody asks, and asking needs root: the agent has none.
        subprocess.run([loader, "-u", "-c", "0"], check=False, timeout=seconds, stdin=subprocess.DEVNULL)
    while (missing := missing_nodes(sysfs, dev)) and time.monotonic() < deadline:
        time.sleep(_POLL)
    return missing


def _kinds(device: Path) -> Iterator[_Kind]:
    if not _text(device / "class").startswith(_DISPLAY):
        return
    try:
        driver = (device / "driver").readlink().name
    except OSError:
        driver = None
    for kind in _KINDS:
        if _text(device / "vendor") == kind.vendor and driver in (None, kind.driver):
            yield kind


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
