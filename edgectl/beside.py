"""Processes beside this one, which keep something for it that would take it long to import."""

import importlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Beside:
    """A child of this process."""

    pid: int

    def wait(self) -> None:
        """Returns when it has ended."""
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def start(module: str, descriptors: Sequence[int]) -> Beside:
    """Calls `main(descriptors)` of a module in a process of its own, which has these descriptors, standard output and
    error, and no terminal: Ctrl-C there is for this process, which says what it means for the other one.

    Where that is safe it is a copy of this process, with all that has been imported so far; else a new interpreter."""
    if sys.platform == "linux" and threading.active_count() == 1:
        pid = os.fork()
        if pid == 0:
            _become(module, descriptors)
        return Beside(pid)
    process = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, descriptors)],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Its end is waited for by its number alone.
    process.returncode = 0
    return Beside(process.pid)


def _become(module: str, descriptors: Sequence[int]) -> None:
    """Never returns: what the process above has begun is not for its copy to finish."""
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # Above all the other ends of the sockets: who holds them never sees that the process above is gone.
        _close_all_but((0, 1, 2, *descriptors))
        importlib.import_module(module).main(list(descriptors))
    except BaseException:  # noqa: BLE001
        # As little as possible: the streams are those of the process above, which sees this one's end.
        os._exit(1)
    os._exit(0)


def _close_all_but(kept: Sequence[int]) -> None:
    ordered = sorted(set(kept))
    for low, high in zip(ordered, [*ordered[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
        os.closerange(low + 1, high)
