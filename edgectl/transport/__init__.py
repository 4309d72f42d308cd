"""Ways to reach a device's agent. Whatever the way, what comes out is a connected byte stream.

    with Transports(ask=passphrase) as transports:
        stream = transports.open(device.transport).connect(timeout=30)

A `Transports` keeps what is costly to make: one SSH connection for each device and each jump host, and every
passphrase that was typed. It may be shared by threads.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from edgectl.errors import InventoryError

if TYPE_CHECKING:
    from edgectl.transport.ssh import SshConnections

Spec = Mapping[str, Any]
"""How to reach a device, as the inventory keeps it; holds no secret.

`{"kind": "local", "state_dir": …}` or `{"kind": "ssh", "host": …}` with, where they were given, `user`, `port`,
`identity` (a file's path), `host_keys` (`host:port` -> `ssh-ed25519 AAAA…`, the keys accepted when it was added) and
`user_home` (the agent is that person's, not the system's).
"""

Ask = Callable[[str], str]
"""Asks the person for a secret, with the question to show. Raises UsageError where nobody can answer."""


class ByteStream(Protocol):
    """The part of a socket that HTTP needs."""

    def sendall(self, data: Any, /) -> None: ...

    def makefile(self, mode: Any, /) -> Any: ...

    def settimeout(self, seconds: float | None, /) -> None: ...

    def shutdown(self, how: int, /) -> None: ...

    def close(self) -> None: ...


class Transport(Protocol):
    def connect(self, timeout: float) -> ByteStream:
        """A new stream to the device's agent. Raises Unreachable within `timeout` seconds."""
        ...


@dataclass(frozen=True)
class Completed:
    """How a command on a device ended: its exit status and what it wrote."""

    status: int
    out: bytes
    err: bytes


class Shell(Protocol):
    """A way to run commands on a device: what installing the agent needs, before there is one."""

    @property
    def login(self) -> str:
        """The user that commands run as."""
        ...

    def run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes | Iterable[bytes] = b"",
        root: bool = False,
        timeout: float = 60.0,
    ) -> Completed:
        """Runs a command to its end, as root where asked (through `sudo -n` unless the login is root). `timeout`
        in seconds without a byte in either direction. Raises Unreachable."""
        ...


class Transports:
    """The open connections of one run of the program. Closing it closes them all."""

    def __init__(self, ask: Ask | None = None, ssh_config: Path | None = None) -> None:
        """`ssh_config` defaults to ~/.ssh/config."""
        self._ask = ask
        self._ssh_config = ssh_config
        self._lock = threading.Lock()
        self._ssh: SshConnections | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._ssh is not None:
            self._ssh.close()

    def open(self, spec: Spec) -> Transport:
        """The transport of a device. Connects to nothing yet. Raises InventoryError for a kind that this version
        does not know."""
        if spec.get("kind") == "local":
            from edgectl.transport.local import LocalTransport

            return LocalTransport.from_spec(spec)
        if spec.get("kind") == "ssh":
            return self.ssh.transport(spec)
        raise InventoryError(
            f"this edgectl knows no transport of kind {spec.get('kind')!r}",
            "upgrade edgectl, or add the device again",
        )

    @property
    def ssh(self) -> "SshConnections":
        """The SSH side: shells, and host keys to be accepted."""
        with self._lock:
            if self._ssh is None:
                from edgectl.transport.ssh import SshConnections

                self._ssh = SshConnections(self._ask, self._ssh_config)
            return self._ssh
