"""GPUs for tests on any machine: builds the NVML stand-in and runs processes that see it.

The library is a double; pynvml and everything above it are real. See nvml_standin/nvml_standin.c for what the
state file may say.
"""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import pytest

SOURCE = Path(__file__).parent / "nvml_standin" / "nvml_standin.c"
LIBRARY = "libnvidia-ml.so.1"

GPU_IS_LOST = 15
DRIVER_NOT_LOADED = 9


@functools.cache
def library_folder() -> Path:
    """The folder that holds the built stand-in; built once per source text, outside the checkout."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the NVML stand-in needs a C compiler: install one that answers to `cc`")
    version = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"edgectl-nvml-standin-{os.getuid()}-{version}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    library = folder / LIBRARY
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / LIBRARY
            flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{LIBRARY}"]
            subprocess.run([compiler, *flags, "-o", str(built), str(SOURCE)], check=True)
            built.replace(library)
    return folder


def environment(state: Path) -> dict[str, str]:
    """What a process must have in its environment to see the GPUs that the file `state` describes."""
    return {"LD_LIBRARY_PATH": _search_path(library_folder()), "NVML_STANDIN": str(state)}


def environment_without_library(folder: Path) -> dict[str, str]:
    """The environment of a machine without NVML, true even where the tests run on one that has it:
    an empty file found first makes the loader give up."""
    (folder / LIBRARY).touch()
    return {"LD_LIBRARY_PATH": _search_path(folder)}


def _search_path(folder: Path) -> str:
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("LD_LIBRARY_PATH", "")]))


def gpu(index: int, total: int | None = None, free: int | None = None, **more: object) -> str:
    """One line of a state file; `name` is put in quotes, other values are written as they are."""
    words = {"total": total, "free": free, **more}
    written = [
        f'{key}="{value}"' if key == "name" else f"{key}={value}"
        for key, value in words.items()
        if value is not None
    ]
    return " ".join(["gpu", str(index), *written])


_CHILD = """
import json, sys
from pathlib import Path
from agent_daemon import facts, gpus, telemetry
for line in sys.stdin:
    value = eval(line)
    print(json.dumps(value, default=lambda model: model.model_dump(mode="json")), flush=True)
"""


class GpuMachine:
    """A Python process on a machine with stand-in GPUs, asked one expression at a time; `set` changes the
    machine under it. `facts`, `gpus`, `telemetry` and `Path` are there for the expressions."""

    def __init__(self, state: Path, variables: dict[str, str] | None = None) -> None:
        self.state = state
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment(state) if variables is None else variables)},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def set(self, *lines: str) -> None:
        """Replaces the machine's state; no lines is a driver without GPUs."""
        fresh = self.state.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in lines))
        fresh.replace(self.state)

    def ask(self, expression: str) -> Any:
        """The value of `expression` in that process, as JSON has it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(expression + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError(f"the process ended with {self._process.wait()} at {expression!r}")
        return json.loads(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
