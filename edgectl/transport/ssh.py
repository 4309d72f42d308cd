"""Devices over SSH."""

import random
import shlex
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgectl.errors import Unreachable, UsageError
from edgectl.transport.host_keys import Trust
from edgectl.transport.protocols import Ask, Completed, Shell, Spec, Transport
from edgectl.transport.ssh_config import Line, matching_hosts, read_config
from edgectl.transport.ssh_dial import as_root, dial_command, receive_command, silence
from edgectl.transport.ssh_hosts import Asked, Endpoint, resolve
from edgectl.transport.ssh_keys import Keyring
from edgectl.transport.ssh_link import Link, open_link
from edgectl.transport.ssh_session import LinkLost, run, start
from edgectl.transport.ssh_stream import ChannelStream
from edgectl.transport.ssh_wire import Traffic, Wire, commanded, direct, through

_TIMEOUT = 30.0
"""Seconds for a connection that nobody gave a limit."""
_STARTS = 16
"""Handshakes at the same time: sshd itself begins to drop logins at ten that have not ended (MaxStartups), and most take
less than a quarter of a second."""
_LONGEST_TURN = 5.0
_JITTER = 0.1
"""Seconds by which a start that had to wait its turn is put off further, at most."""


@dataclass(eq=False)
class _Slot:
    """Where the one connection to an endpoint is kept; whoever makes or replaces it holds the lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    link: Link | None = None
    traffic: Traffic = field(default_factory=Traffic)


class SshConnections:
    """One connection for each device and each jump host, made when first needed and shared by threads."""

    def __init__(self, ask: Ask | None = None, config: Path | None = None) -> None:
        """`config` defaults to ~/.ssh/config; relative Includes start at its folder. It is read when first needed."""
        self._keyring = Keyring(ask)
        self._config = config
        self._lock = threading.Lock()
        self._lines: tuple[Line, ...] | None = None
        self._slots: dict[Endpoint, _Slot] = {}
        self._closed = False
        self._starting = threading.BoundedSemaphore(_STARTS)

    def transport(self, spec: Spec) -> Transport:
        """Raises nothing: connecting does."""
        return SshTransport(self, spec)

    def shell(self, spec: Spec) -> Shell:
        """Raises Unreachable, LoginRefused and HostKeyError."""
        endpoint, trust = self.endpoint(spec), Trust(spec.get("host_keys") or {})
        self._link(endpoint, trust, _TIMEOUT)
        return SshShell(self, endpoint, trust)

    def learn(self, spec: Spec) -> dict[str, Any]:
        """Connects, accepts keys that nobody knew, and returns `spec` with them in `host_keys` (jump hosts' too).
        Raises HostKeyError for a key that differs from the known one, Unreachable and LoginRefused."""
        pinned, learned = dict(spec.get("host_keys") or {}), dict[str, str]()
        self._link(self.endpoint(spec), Trust(pinned, learned), _TIMEOUT)
        return {**spec, "host_keys": {**pinned, **learned}} if learned else dict(spec)

    def hosts(self, pattern: str) -> tuple[str, ...]:
        """The aliases in the SSH configuration that a shell pattern matches, in their order. Raises UsageError for a
        configuration that cannot be read."""
        return matching_hosts(self._configuration(), pattern)

    def traffic(self, spec: Spec) -> Traffic:
        """Bytes on the wire to a device so far, with what SSH adds; what a jump host carries for it is within them."""
        slot = self._slot(self.endpoint(spec))
        return Traffic(slot.traffic.sent, slot.traffic.received)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            slots = sorted(self._slots.items(), key=lambda item: -_depth(item[0]))
        # Those behind a jump host first, so that each can still say goodbye.
        for _, slot in slots:
            if slot.link is not None:
                slot.link.close()

    def _configuration(self) -> tuple[Line, ...]:
        with self._lock:
            if self._lines is None:
                if self._config is not None and not self._config.exists():
                    raise UsageError(
                        f"there is no SSH configuration at {self._config}", "name another file, or none"
                    )
                path = self._config or Path.home() / ".ssh" / "config"
                self._lines = read_config(path, path.parent)
            return self._lines

    def endpoint(self, spec: Spec) -> Endpoint:
        """Where a spec leads, by what it says itself and the SSH configuration. Raises UsageError."""
        identity = spec.get("identity")
        asked = Asked(
            str(spec["host"]),
            spec.get("user"),
            spec.get("port"),
            Path(identity).expanduser() if identity else None,
        )
        return resolve(self._configuration(), asked)

    def _slot(self, endpoint: Endpoint) -> _Slot:
        with self._lock:
            return self._slots.setdefault(endpoint, _Slot())

    def _link(self, endpoint: Endpoint, trust: Trust, timeout: float) -> Link:
        """The connection to an endpoint, made now if there is none that lives."""
        slot = self._slot(endpoint)
        with slot.lock:
            if slot.link is not None and slot.link.alive:
                slot.link.check(trust)
                return slot.link
            if slot.link is not None:
                slot.link.close()
                slot.link = None
            if self._closed:
                raise Unreachable(f"{endpoint.label}: the connections were closed")
            if endpoint.via is not None:
                # Beforehand, so that the time this takes (a passphrase typed) is not the endpoint's.
                self._link(endpoint.via, trust, timeout)

            def reach(deadline: float) -> tuple[Wire, Link | None]:
                if endpoint.via is not None:
                    jump = self._link(endpoint.via, trust, timeout)
                    return through(jump.transport, endpoint, deadline, slot.traffic), jump
                if endpoint.command is not None:
                    return commanded(endpoint, endpoint.command, slot.traffic), None
                return direct(endpoint, deadline, slot.traffic), None

            with self._turn():
                slot.link = open_link(endpoint, reach, trust, self._keyring, timeout)
            return slot.link

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A bounded number of handshakes at the same time, and where some have to wait, not all at the same moment: they
        are the costliest thing that an SSH connection does, and jump hosts drop what comes in a burst."""
        ours = self._starting.acquire(blocking=False)
        if not ours:
            # Not for ever: those at work may be waiting for a jump host that this one is about to connect to.
            ours = self._starting.acquire(timeout=_LONGEST_TURN)
            time.sleep(random.uniform(0, _JITTER))  # noqa: S311
        try:
            yield
        finally:
            if ours:
                self._starting.release()

    def start(self, endpoint: Endpoint, trust: Trust, command: str, timeout: float) -> tuple[Link, Any]:
        """A command's channel, on a new connection where the old one turns out to be dead."""
        for last in (False, True):
            link = self._link(endpoint, trust, timeout)
            try:
                return link, start(link, command, timeout)
            except LinkLost:
                link.close()
                if last:
                    break
        raise Unreachable(f"{endpoint.label}: it hangs up after the login", "is its sshd being restarted?")


@dataclass(frozen=True)
class SshTransport:
    """The way to one device's agent."""

    connections: SshConnections
    spec: Spec

    def connect(self, timeout: float) -> ChannelStream:
        return self._stream(dial_command(self.spec, self._endpoint().user), timeout)

    def receive(self, digest: str, size: int, offset: int, timeout: float) -> ChannelStream:
        return self._stream(receive_command(self.spec, self._endpoint().user, digest, size, offset), timeout)

    def _endpoint(self) -> Endpoint:
        return self.connections.endpoint(self.spec)

    def _stream(self, command: str, timeout: float) -> ChannelStream:
        endpoint, trust = self._endpoint(), Trust(self.spec.get("host_keys") or {})
        link, channel = self.connections.start(endpoint, trust, command, timeout)
        stream = ChannelStream(channel, lambda status, said: silence(endpoint, status, said), link.close)
        stream.settimeout(timeout)
        return stream


@dataclass(frozen=True)
class SshShell:
    """Commands on one device."""

    connections: SshConnections
    endpoint: Endpoint
    trust: Trust

    @property
    def login(self) -> str:
        return self.endpoint.user

    def run(
        self,
        command: Sequence[str],
        *,
        stdin: bytes | Iterable[bytes] = b"",
        root: bool = False,
        timeout: float = 60.0,
    ) -> Completed:
        text = shlex.join(as_root(command, self.login) if root else command)
        link, channel = self.connections.start(self.endpoint, self.trust, text, min(timeout, _TIMEOUT))
        return run(link, channel, command[0], stdin, timeout)


def _depth(endpoint: Endpoint) -> int:
    return 0 if endpoint.via is None else 1 + _depth(endpoint.via)
