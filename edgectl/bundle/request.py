"""What a bundle is wanted for, checked: everything that can be refused before any work is done. Standard library only."""

import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from edgectl.errors import UsageError

INDEX_VARIABLE = "EDGECTL_ENGINE_INDEX"
ARCHITECTURES = ("x86_64", "aarch64")
OLDEST_PYTHON = (3, 11)
_OTHER_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class BundleRequest:
    """A device's Python (`3.12`), architecture and backend, and where the engine comes from.

    Without a wheel or an index the portable engine is compiled here, which `request` allows for `cpu` and
    this machine's own architecture only.
    """

    python: str
    arch: str
    backend: str = "cpu"
    engine_wheel: Path | None = None
    engine_index: str | None = None
    swarm: bool = False
    """With what an agent needs to take part in swarms."""

    @property
    def python_version(self) -> tuple[int, int]:
        major, minor = self.python.split(".")
        return int(major), int(minor)


def request(
    python: str | None = None,
    arch: str | None = None,
    backend: str = "cpu",
    engine_wheel: Path | None = None,
    engine_index: str | None = None,
    swarm: bool = False,
) -> BundleRequest:
    """A request that makes sense; Python and architecture default to this interpreter's.

    A wheel goes before an index, and an index before EDGECTL_ENGINE_INDEX. Raises UsageError.
    """
    wanted = BundleRequest(
        python=_python(python),
        arch=_arch(arch or platform.machine()),
        backend=_backend(backend),
        engine_wheel=engine_wheel,
        engine_index=None if engine_wheel else engine_index or os.environ.get(INDEX_VARIABLE) or None,
        swarm=swarm,
    )
    if wanted.engine_wheel or wanted.engine_index:
        return wanted
    if wanted.backend != "cpu":
        raise UsageError(
            f"--backend {wanted.backend}: only the engine for cpu is compiled here",
            f"name a wheel with --engine-wheel FILE, or upstream's index of them with --engine-index URL"
            f" or {INDEX_VARIABLE}",
        )
    here = _OTHER_NAMES.get(platform.machine().lower(), platform.machine())
    if sys.platform != "linux" or wanted.arch != here:
        raise UsageError(
            f"--arch {wanted.arch}: the engine can only be compiled for this machine's own architecture,"
            f" which is {sys.platform} {here}",
            f"name a wheel for it with --engine-wheel FILE, or make the bundle on a {wanted.arch} machine",
        )
    return wanted


def _python(text: str | None) -> str:
    if text is None:
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    found = re.fullmatch(r"([0-9])\.([0-9]{1,3})", text.strip(), re.ASCII)
    if not found:
        raise UsageError(f"--python {text[:40]!r} is not a version of Python", "give it as 3.12")
    if (int(found[1]), int(found[2])) < OLDEST_PYTHON or found[1] != "3":
        raise UsageError(
            f"--python {found[0]}: the agent needs Python 3.11 or newer",
            "install a newer Python on the device, such as Debian 12's python3",
        )
    return f"3.{int(found[2])}"


def _arch(text: str) -> str:
    name = _OTHER_NAMES.get(text.lower(), text.lower())
    if name not in ARCHITECTURES:
        raise UsageError(f"--arch {text[:40]!r} is not supported", f"one of: {', '.join(ARCHITECTURES)}")
    return name


def _backend(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9.]{0,31}", text, re.ASCII):
        raise UsageError(
            f"--backend {text[:40]!r} is not the name of a backend", "one of: cpu, cuda12, vulkan, …"
        )
    return text
