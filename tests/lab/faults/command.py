"""Commands of the control side that go on while faults happen, and may be killed themselves."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.lab import cgroups
from tests.lab.fleet import ROOT, Lab
from tests.support.agent import wait_until

LONGEST = 240.0
"""Seconds after which a command that has not ended is a failure."""


class Command:
    """One `edgectl` process. What it prints goes to files in `folder`."""

    def __init__(self, lab: Lab, folder: Path, name: str, *arguments: str | Path, tree: Path = ROOT) -> None:
        self.name, self.arguments = name, tuple(map(str, arguments))
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        self._group = f"control-{name}"
        self._lab = lab
        self.began = time.monotonic()
        self.killed = False
        argv = lab.control([sys.executable, "-m", "edgectl", *self.arguments], self._group)
        environment = {**lab.environment(), "PYTHONPATH": str(tree)}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, cwd=lab.home
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """`kill -9` of the process alone. AssertionError when what it had started outlives it."""
        self.killed = self.running
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        group = self._lab.group(self._group)
        try:
            wait_until(lambda: not cgroups.processes(group), 20)
        except AssertionError:
            left = [_argv(pid) for pid in cgroups.processes(group)]
            cgroups.kill(group)
            raise AssertionError(f"{self.name} was killed and left processes behind: {left}") from None

    def wait(self, seconds: float = LONGEST) -> int:
        """Its exit code. AssertionError when it does not end in time; it is killed then."""
        try:
            return self._process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"edgectl {' '.join(self.arguments)} did not end within {seconds:g} s: {self.err[-1000:]}"
            ) from None
        finally:
            if not self.running:
                cgroups.remove(self._lab.group(self._group))

    @property
    def code(self) -> int | None:
        """Its exit code once it has ended; negative for the signal that ended it."""
        return self._process.poll()

    @property
    def out(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="replace")

    @property
    def json(self) -> Any:
        """The last document on its standard output: of a rollout, its result."""
        lines = self.out.rstrip().splitlines()
        first = next(number for number in reversed(range(len(lines))) if lines[number].startswith(("{", "[")))
        return json.loads("\n".join(lines[first:]))

    def outcomes(self) -> dict[str, str]:
        """Device -> outcome."""
        return {row["device"]: row["outcome"] for row in self.json["devices"]}

    def reasons(self) -> str:
        return "; ".join(str(row["reason"]) for row in self.json["devices"])


def _argv(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return str(pid)
