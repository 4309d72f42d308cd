"""What lies under an SSH connection: something like a socket, counted, that does not wait for ever."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import paramiko  # type: ignore[import-untyped]

from edgectl.errors import Unreachable
from edgectl.transport.ssh_hosts import Endpoint

_STALLED = 60.0
"""Seconds in which not one byte could be sent before a connection is given up: paramiko itself would try for ever."""
_PROHIBITED = 1
"""The reason of a channel that policy refuses, RFC 4254 section 5.1."""


class HungUp(Exception):
    """The other side closed before it said anything: how an sshd with too many logins at once (MaxStartups) drops."""


@dataclass
class Traffic:
    """Bytes on the wire of a connection and of those made again in its place, with all that SSH adds."""

    sent: int = 0
    received: int = 0


class Wire:
    """The socket, or the channel through a jump host, that paramiko's Transport reads and writes."""

    def __init__(self, below: Any, traffic: Traffic, helper: "subprocess.Popen[bytes] | None" = None) -> None:
        self._below = below
        self.traffic = traffic
        self._helper = helper
        self._blocked_since: float | None = None

    def send(self, data: bytes) -> int:
        try:
            sent: int = self._below.send(data)
        except TimeoutError:
            now = time.monotonic()
            self._blocked_since = self._blocked_since or now
            if now - self._blocked_since > _STALLED:
                raise ConnectionAbortedError("nothing could be sent") from None
            raise
        self._blocked_since = None
        self.traffic.sent += sent
        return sent

    def recv(self, size: int) -> bytes:
        data: bytes = self._below.recv(size)
        self.traffic.received += len(data)
        return data

    def settimeout(self, seconds: float | None) -> None:
        self._below.settimeout(seconds)

    def getpeername(self) -> Any:
        return self._below.getpeername()

    @property
    def _closed(self) -> bool:
        """paramiko asks every socket for this."""
        return bool(self._below._closed)

    def close(self) -> None:
        with suppress(OSError, EOFError, paramiko.SSHException):
            self._below.close()
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.kill()
            helper.wait()


def direct(endpoint: Endpoint, deadline: float, traffic: Traffic) -> Wire:
    """A TCP connection. Raises Unreachable, and HungUp for one that is reset at once."""
    seconds = max(0.1, deadline - time.monotonic())
    if endpoint.connect_timeout:
        seconds = min(seconds, endpoint.connect_timeout)
    try:
        sock = socket.create_connection((endpoint.host, endpoint.port), timeout=seconds)
    except socket.gaierror:
        raise Unreachable(
            f"{endpoint.label}: the name {endpoint.host} does not resolve",
            "check the name, or give the address as HostName in the SSH configuration",
        ) from None
    except TimeoutError:
        raise Unreachable(
            f"{endpoint.label}: no answer within {seconds:.3g} s", "is it on, and is the address right?"
        ) from None
    except ConnectionResetError as error:
        raise HungUp from error
    except (OSError, UnicodeError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        refused = isinstance(error, ConnectionRefusedError)
        hint = "is sshd running there, on that port?" if refused else "is it on, and is the address right?"
        raise Unreachable(f"{endpoint.label}: {why}", hint) from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # With the keepalives this finds a peer that has vanished within about a minute, not a quarter of an hour.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_STALLED * 1000))
    return Wire(sock, traffic)


def commanded(endpoint: Endpoint, command: str, traffic: Traffic) -> Wire:
    """The input and output of a ProxyCommand."""
    near, far = socket.socketpair()
    with far:
        shell = os.environ.get("SHELL") or shutil.which("sh") or "/bin/sh"
        try:
            process = subprocess.Popen(
                [shell, "-c", f"exec {command}"],
                stdin=far.fileno(),
                stdout=far.fileno(),
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            near.close()
            raise Unreachable(
                f"{endpoint.label}: its ProxyCommand cannot be started: {error.strerror}"
            ) from None
    return Wire(near, traffic, process)


def through(jump: Any, endpoint: Endpoint, deadline: float, traffic: Traffic) -> Wire:
    """A connection that a jump host makes; `jump` is the paramiko Transport to it. Raises Unreachable and HungUp."""
    assert endpoint.via is not None
    name = endpoint.via.name
    try:
        channel = jump.open_channel(
            "direct-tcpip",
            (endpoint.host, endpoint.port),
            ("127.0.0.1", 0),
            timeout=max(0.1, deadline - time.monotonic()),
        )
    except paramiko.ChannelException as error:
        if error.code == _PROHIBITED:
            raise Unreachable(
                f"{endpoint.label}: the jump host {name} forwards no connections there",
                "allow it with AllowTcpForwarding and PermitOpen in its sshd_config",
            ) from None
        raise Unreachable(
            f"{endpoint.label}: the jump host {name} cannot reach it: connection refused, no route, or no such name",
            f"try it there: ssh {name} nc -vz {endpoint.host} {endpoint.port}",
        ) from None
    except (paramiko.SSHException, OSError, EOFError) as error:
        if "timeout" in str(error).lower():
            raise Unreachable(
                f"{endpoint.label}: the jump host {name} got no answer from it in time", "is it on?"
            ) from None
        raise HungUp from error
    return Wire(channel, traffic)
