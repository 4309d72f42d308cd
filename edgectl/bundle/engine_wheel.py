"""Compiles llama-cpp-python, once for each version and flags, into a cache outside the checkout.

Standard library only: setup uses it before anything is installed. Two flavours:

    native     every instruction of this machine's CPU; what this machine itself runs
    portable   any CPU of this architecture: one backend for each instruction set, chosen when it is loaded
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from edgectl.bundle import pins
from edgectl.bundle.cache import cache_root
from edgectl.errors import EdgectlError

Flavour = Literal["native", "portable"]
Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is, and how much there is."""

CMAKE_ARGS = " ".join(
    f"-D{option}=OFF"
    for option in (
        *("LLAVA_BUILD", "LLAMA_BUILD_TOOLS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_TESTS"),
        "LLAMA_BUILD_SERVER",
    )
)
"""Only the library is needed: leaving the rest out halves the time."""
PORTABLE_ARGS = "-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON"
LINES_SHOWN = 40


def cached(flavour: Flavour) -> Path | None:
    """The wheel of this flavour, if it was compiled before."""
    return next(iter(sorted(folder(flavour).glob("*.whl"))), None)


def folder(flavour: Flavour) -> Path:
    """One folder for each version and flags; of the native flavour, for each CPU too."""
    version = pins.engine_version()
    made_of = [version, _flags(flavour), sysconfig.get_platform()]
    if flavour == "native":
        made_of.append(_cpu_features())
    key = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
    return cache_root() / "engine" / f"{version}-{flavour}-{key}"


def obtain(flavour: Flavour, progress: Progress) -> Path:
    """The wheel of this flavour, compiled if it never was. Raises EdgectlError."""
    return cached(flavour) or _build(flavour, progress)


def _flags(flavour: Flavour) -> str:
    own = os.environ.get("CMAKE_ARGS", "")
    return " ".join(filter(None, (CMAKE_ARGS, PORTABLE_ARGS if flavour == "portable" else "", own)))


def _cpu_features() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def _build(flavour: Flavour, progress: Progress) -> Path:
    if not (shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")):
        raise EdgectlError(
            f"{pins.ENGINE} has to be compiled, and there is no C++ compiler",
            "on Debian and Ubuntu install the package build-essential, or set EDGECTL_ENGINE_INDEX to upstream's"
            " index of prebuilt wheels",
        )
    target = folder(flavour)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        _compile(_tools(scratch), flavour, scratch, progress)
        if not list(scratch.glob("*.whl")):
            raise EdgectlError(f"compiling {pins.ENGINE} ended without a wheel")
        _keep(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    wheel = cached(flavour)
    assert wheel is not None
    return wheel


def _keep(scratch: Path, target: Path) -> None:
    shutil.rmtree(scratch / "tools")
    scratch.chmod(0o755)
    try:
        scratch.rename(target)
    except OSError:
        # Somebody else was faster, or left the folder without a wheel.
        target.mkdir(exist_ok=True)
        for wheel in scratch.glob("*.whl"):
            wheel.replace(target / wheel.name)


def _tools(scratch: Path) -> Path:
    """An interpreter with what compiling needs."""
    try:
        venv.create(scratch / "tools", with_pip=True)
    except (OSError, subprocess.CalledProcessError):
        raise EdgectlError(
            "a virtual environment could not be made", "on Debian and Ubuntu install the package python3-venv"
        ) from None
    python = (scratch / "tools" / "bin" / "python").absolute()
    requirements = str(pins.FOLDER / "engine-build.txt")
    command = (*_pip(python), "install", "--quiet", "--require-hashes", "-r", requirements)
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise EdgectlError(
            "what compiling needs could not be installed; pip's reason is above",
            "pip needs a package index: check the network and `pip config list`",
        )
    return python


def _pip(python: Path) -> tuple[str, ...]:
    return (str(python), "-m", "pip", "--disable-pip-version-check")


def _compile(python: Path, flavour: Flavour, scratch: Path, progress: Progress) -> None:
    """`pip wheel` with its output watched: the build says `[12/140]` for each file."""
    what = f"compiling {pins.ENGINE} ({flavour})"
    pin = scratch / "engine.txt"
    pin.write_text(pins.only(pins.text("engine"), pins.ENGINE))
    environment = {**os.environ, "CMAKE_ARGS": _flags(flavour)}
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    command = [
        *(*_pip(python), "wheel", "--verbose", "--no-deps", "--no-build-isolation"),
        # pip keeps wheels that it built by name alone, whatever flags or CPU they were built for.
        *("--no-cache-dir", "--no-binary", pins.ENGINE, "--require-hashes"),
        *("--wheel-dir", str(scratch), "-r", str(pin)),
    ]
    tail: deque[str] = deque(maxlen=LINES_SHOWN)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail.append(line)
            if step := re.match(r"\s*\[(\d+)/(\d+)\]", line):
                progress(what, int(step[1]), int(step[2]))
    if process.returncode:
        sys.stderr.writelines(tail)
        raise EdgectlError(f"compiling {pins.ENGINE} failed; the last lines of the build are above")


class Bar:
    """Progress of a compile on stderr: a bar that moves on a terminal, a line every half minute elsewhere."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown = 0.0
        self._open = False

    def __call__(self, _what: str, done: int, total: int) -> None:
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if done < total and now - self._shown < (0.5 if terminal else 30):
            return
        self._shown, self._open = now, terminal
        filled = 30 * done // max(total, 1)
        text = f"  [{'#' * filled}{'.' * (30 - filled)}] {done}/{total} files, {now - self._began:.0f} s"
        print(text, end="\r" if terminal else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line that the bar was on."""
        if self._open:
            print(file=sys.stderr)
            self._open = False
