"""What a way to a device has to offer, whatever the way."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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

    def receive(self, digest: str, size: int, offset: int, timeout: float) -> ByteStream | None:
        """A new stream to a program on the device that takes a blob's bytes from `offset`; None where blobs go
        through the agent itself. Raises Unreachable."""
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
