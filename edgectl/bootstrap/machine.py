"""What a device is before it has an agent, and what speaks against giving it one. PURE."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgectl.bundle.manifest import BundleManifest
from edgectl.errors import BootstrapError
from edgectl.layout import Layout, Scope
from edgectl.sizes import format_size

OLDEST_PYTHON = (3, 11)
_MARGIN = 256 * 1024 * 1024
"""Bytes that stay free beside the unpacked bundle: the agent keeps its state somewhere too."""


@dataclass(frozen=True)
class Interpreter:
    """A Python on the device."""

    path: str
    version: tuple[int, int, int]

    @property
    def minor(self) -> str:
        """The version that compiled modules are built for: `3.11`."""
        return f"{self.version[0]}.{self.version[1]}"


@dataclass(frozen=True)
class Machine:
    """A device as it says it is. Sizes are bytes; `free`, `installed` and `settings` by scope."""

    interpreter: Interpreter
    arch: str
    glibc: str
    systemd: bool
    user_manager: bool
    lingers: bool
    home: str
    missing_modules: Sequence[str]
    free: Mapping[Scope, int]
    installed: Mapping[Scope, Sequence[str]]
    """Versions, the current one first."""
    settings: Mapping[Scope, str]
    """Text of the agent's settings file, empty when there is none."""
    gpus: Sequence[str]
    clock: float
    """Seconds since the epoch, by the device's clock."""

    @classmethod
    def read(cls, interpreter: Interpreter, told: Mapping[str, Any]) -> "Machine":
        return cls(
            interpreter, **{name: told[name] for name in cls.__dataclass_fields__ if name != "interpreter"}
        )


def choose_interpreter(lines: str) -> Interpreter:
    """The first Python that is new enough, from lines of `PATH MAJOR.MINOR.MICRO`. Raises BootstrapError."""
    found = [
        Interpreter(match[1], (int(match[2]), int(match[3]), int(match[4])))
        for match in re.finditer(r"^(/\S+) (\d+)\.(\d+)\.(\d+)$", lines, re.MULTILINE)
    ]
    for interpreter in found:
        if interpreter.version[:2] >= OLDEST_PYTHON:
            return interpreter
    wanted = ".".join(map(str, OLDEST_PYTHON))
    if not found:
        raise BootstrapError(
            f"it has no python3; {wanted} or newer is needed", "install the package python3 there"
        )
    newest = max(found, key=lambda interpreter: interpreter.version)
    raise BootstrapError(
        f"its newest Python is {'.'.join(map(str, newest.version))} ({newest.path}); {wanted} or newer is needed",
        f"install one beside it, such as the package python{wanted}; it is found by its name",
    )


def check(machine: Machine, layout: Layout, login: str) -> None:
    """Raises BootstrapError for the first thing that is in the way, whatever the bundle."""
    if machine.missing_modules:
        raise BootstrapError(
            f"its Python {machine.interpreter.minor} is not complete: it lacks {', '.join(machine.missing_modules)}",
            "install the package python3 there, not only python3-minimal",
        )
    if not machine.systemd:
        raise BootstrapError(
            "its service manager is not systemd, which has to start and watch the agent",
            "run edgectl-agent there under the service manager it has, and add it as a device by its socket",
        )
    if layout.scope == "user" and not (machine.lingers and machine.user_manager):
        raise BootstrapError(
            f"services of {login} end with the last login there, so the agent would too",
            f"let them linger, once, as an administrator of that device: loginctl enable-linger {login}",
        )


def check_bundle(machine: Machine, scope: Scope, manifest: BundleManifest, present: bool) -> None:
    """Raises BootstrapError when the device cannot hold or run this bundle. `present`: it is there already."""
    needed = manifest.unpacked_bytes + _MARGIN
    if not present and machine.free[scope] < needed:
        raise BootstrapError(
            f"it has too little space for the agent: {format_size(needed)} needed, {format_size(machine.free[scope])} free",
            "free some there, and run the same command again",
        )
    if _numbers(machine.glibc) < _numbers(manifest.glibc):
        raise BootstrapError(
            f"its C library (glibc {machine.glibc or 'unknown'}) is older than what the bundle's engine was built with"
            f" ({manifest.glibc})",
            "name an engine built on an older system with --engine-wheel, or upgrade that device",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
