"""Who is at work, from where, and whether that process still is. Standard library only: readers of the inventory
import this too."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Owner:
    """One process and the person behind it. `came_from` is the address that they logged in from, else their terminal,
    else None (a timer, a service)."""

    user: str
    host: str
    pid: int
    came_from: str | None = None
    boot: str | None = None
    """Which run of which machine's kernel the pid is of, and in which of its pid namespaces. None: not known."""
    started: str | None = None
    """When the process started, in the kernel's own count, so that a pid in use again is not taken for it."""

    def __str__(self) -> str:
        return f"{self.user} on {self.host} (process {self.pid})"


def current(environ: Mapping[str, str] | None = None) -> Owner:
    """This process. `environ` defaults to its own environment."""
    environ = os.environ if environ is None else environ
    return Owner(
        user=_user(environ),
        host=socket.gethostname(),
        pid=os.getpid(),
        came_from=_came_from(environ),
        boot=_boot(),
        started=_started(os.getpid()),
    )


def alive(owner: Owner) -> bool | None:
    """Whether the owner's process is still there; None where that cannot be seen from here (another machine, or
    another container of this one)."""
    if owner.host != socket.gethostname():
        return None
    here = _boot()
    if owner.boot is not None and here is not None and owner.boot != here:
        # Another boot of this machine is over. Another pid namespace of this boot cannot be looked into.
        return False if owner.boot.partition("/")[0] != here.partition("/")[0] else None
    if owner.started is not None:
        return _started(owner.pid) == owner.started
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _user(environ: Mapping[str, str]) -> str:
    # Only root is believed about SUDO_USER: anybody can set it.
    if os.geteuid() == 0 and environ.get("SUDO_USER"):
        return environ["SUDO_USER"]
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _came_from(environ: Mapping[str, str]) -> str | None:
    if address := environ.get("SSH_CONNECTION", "").partition(" ")[0]:
        return address
    for descriptor in (0, 1, 2):
        with suppress(OSError):
            return os.ttyname(descriptor)
    return None


def _boot() -> str | None:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """The start of a running process; None when there is none, or only what its parent has not yet collected."""
    try:
        # The name, in parentheses, may hold anything; what follows it is plain.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
