"""pip, told to install or fetch for another machine than this one. The only place that runs it for a bundle."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from edgectl.bundle import pins
from edgectl.errors import EdgectlError

LIBRARY_GLIBC = (28, 27, 26, 24, 17, 12, 5)
"""Minor versions of glibc 2 whose wheels are taken for the agent's libraries: nothing newer than Debian 10's."""
ENGINE_GLIBC = (*range(43, 28, -1), *LIBRARY_GLIBC)


def install(python: str, arch: str, target: Path, pinned: str) -> None:
    """The agent's own dependencies, as `pinned`, checked by hash and unpacked into `target`. Raises EdgectlError."""
    target.mkdir(parents=True, exist_ok=True)
    requirements = target.parent / "requirements.txt"
    requirements.write_text(pins.for_target(pinned, python, arch))
    _pip(
        *("install", "--target", str(target), "--no-deps", "--no-compile", "--require-hashes", "--no-user"),
        # Older versions of pip compare it with the interpreter that runs pip; the pins were chosen for the target.
        "--ignore-requires-python",
        *_machine(python, arch, LIBRARY_GLIBC),
        *("--requirement", str(requirements)),
        what="the agent's libraries could not be installed",
    )
    requirements.unlink()
    # Programs of libraries start with the path of the Python that pip ran in.
    shutil.rmtree(target / "bin", ignore_errors=True)


def fetch_engine(python: str, arch: str, index: str, target: Path) -> Path:
    """The prebuilt engine from an index, into the folder `target`. Raises EdgectlError."""
    requirement = f"{pins.ENGINE}=={pins.engine_version()}"
    _pip(
        *("download", "--dest", str(target), "--no-deps", "--no-cache-dir"),
        *(*_machine(python, arch, ENGINE_GLIBC), "--platform", f"linux_{arch}", requirement),
        what=f"{requirement} could not be fetched from the engine's index",
        # Not an argument: the address may hold a password, and arguments are everybody's to read.
        environment={"PIP_INDEX_URL": index},
    )
    found = sorted(target.glob("*.whl"))
    if not found:
        raise EdgectlError(f"{requirement}: the engine's index gave no wheel", "name one with --engine-wheel")
    return found[0]


def _machine(python: str, arch: str, glibc: tuple[int, ...]) -> list[str]:
    platforms = [f"manylinux_2_{minor}_{arch}" for minor in glibc]
    platforms += [f"manylinux2014_{arch}", *([f"manylinux2010_{arch}"] if arch == "x86_64" else [])]
    chosen = [part for name in platforms for part in ("--platform", name)]
    return ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", *chosen]


def _pip(command: str, *arguments: str, what: str, environment: Mapping[str, str] | None = None) -> None:
    if importlib.util.find_spec("pip") is None:
        raise EdgectlError(
            f"{what}: this Python has no pip", f"install it: {sys.executable} -m ensurepip, or python3-pip"
        )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--no-input"),
            *arguments,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
        check=False,
    )
    if done.returncode:
        raise EdgectlError(
            f"{what}: {reason(done.stderr)}",
            "pip needs a package index that has them: check the network and `pip config list`",
        )


def reason(stderr: str) -> str:
    """pip's own reason, in one line and without anybody's password."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    chosen = (errors or lines or ["pip gave no reason"])[-1]
    return re.sub(r"://[^/\s@]*@", "://", chosen)[:400]
