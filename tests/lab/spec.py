"""What kind of machine is wanted: values that a test writes down, and how they are laid on a disk."""

from dataclasses import dataclass
from typing import Literal

from tests.support.nvml import gpu

GIB = 2**30
WORKSTATION = gpu(
    0, 24 * GIB, 23 * GIB, name="NVIDIA GeForce RTX 4090", uuid="GPU-lab-workstation", compute="8.9"
)
LAPTOP = gpu(
    0, 4 * GIB, 3 * GIB, name="NVIDIA GeForce RTX 3050 Laptop GPU", uuid="GPU-lab-laptop", compute="8.6"
)

Sudo = Literal["free", "password", "none"]
PASSWORD = "lab"
"""What a user with `sudo="password"` would have to type."""


@dataclass(frozen=True)
class User:
    """A login besides root, reached with the lab's key. `linger` starts its services at boot; `gpu` gives its own
    agent (a systemd user unit) the machine's GPUs."""

    name: str
    sudo: Sudo = "none"
    linger: bool = False
    gpu: bool = False


@dataclass(frozen=True)
class Spec:
    """One machine.

    gpus: lines of the NVML stand-in's state file; () is a driver without a GPU, None a machine without NVIDIA.
    python: `none` has no python3, `old` one that says it is 3.9.
    small_disks: folder to size ("20M"): a file system of its own, soon full and empty after each boot.
    max_startups: sshd's MaxStartups, as sshd_config has it ("2" or "2:100:2").
    systemd: False boots sshd alone, without any service manager.
    hidden: the control side has no direct way to it; other machines do.
    cpus: the processors of this host that it runs on ("0" or "0-1"); None: all of them, as every other machine does.
    """

    name: str
    gpus: tuple[str, ...] | None = None
    python: Literal["debian", "old", "none"] = "debian"
    users: tuple[User, ...] = ()
    small_disks: tuple[tuple[str, str], ...] = ()
    max_startups: str | None = None
    systemd: bool = True
    hidden: bool = False
    cpus: str | None = None
