"""Commands on a connection: starting one, and running one to its end."""

import threading
import time
from collections.abc import Iterable
from typing import Any

import paramiko  # type: ignore[import-untyped]

from edgectl.errors import Unreachable
from edgectl.transport import ssh_packets
from edgectl.transport.protocols import Completed
from edgectl.transport.ssh_link import Link

_BUSY_PAUSE = 0.3
_DOUBT = 10.0
"""Seconds in which a connection from before must open a session, or at least say something, to count as alive. A
machine that lost power leaves such connections behind."""
_CHUNK = 1024 * 1024
_LOOK = 0.5
"""Seconds between looks at whether anything still moves."""


class LinkLost(Exception):
    """The connection turned out to be dead before a command was to start: nothing has happened, it can be made anew."""


def start(link: Link, command: str, timeout: float) -> Any:
    """A channel on which a command runs. Waits for a free session where the server allows no more (MaxSessions).
    Raises Unreachable within `timeout` seconds, and LinkLost."""
    deadline = time.monotonic() + timeout
    channel = _session(link, deadline, timeout)
    # paramiko waits for the answer to exec without any limit.
    watch = threading.Timer(max(0.1, deadline - time.monotonic()), link.close)
    watch.daemon = True
    watch.start()
    try:
        channel.exec_command(command)
    except (paramiko.SSHException, OSError, EOFError):
        # Not LinkLost: the command may have been started, and must not be started twice.
        if time.monotonic() >= deadline or not link.alive:
            raise _silent(link, timeout, time.monotonic() >= deadline) from None
        channel.close()
        raise Unreachable(
            f"{link.endpoint.label}: it lets {link.endpoint.user} in but runs no commands",
            "the account needs a shell there, and no ForceCommand or restrict option in the way",
        ) from None
    finally:
        watch.cancel()
    link.used = True
    return channel


def _session(link: Link, deadline: float, timeout: float) -> Any:
    patience = min(_DOUBT, timeout / 3) if link.used else timeout
    while True:
        began, heard = time.monotonic(), link.traffic.received
        try:
            return link.transport.open_session(timeout=max(0.1, min(patience, deadline - began)))
        except paramiko.ChannelException:
            if time.monotonic() + _BUSY_PAUSE >= deadline:
                raise Unreachable(
                    f"{link.endpoint.label}: its sshd allows no more sessions at once",
                    "raise MaxSessions in its sshd_config",
                ) from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            silent = time.monotonic() - began >= patience and link.traffic.received == heard
            if not link.alive or (link.used and silent):
                raise LinkLost from error
            if time.monotonic() + _BUSY_PAUSE >= deadline:
                if silent:
                    link.close()
                raise _silent(link, timeout, True) from None
        time.sleep(_BUSY_PAUSE)


def run(link: Link, channel: Any, what: str, stdin: bytes | Iterable[bytes], timeout: float) -> Completed:
    """Feeds a started command and collects what it writes, until it ends; `what` names it for people. Raises
    Unreachable after `timeout` seconds without a byte in either direction, and what reading `stdin` raises."""
    exchange = _Exchange(channel, timeout)
    channel.settimeout(min(_LOOK, timeout))
    writer = threading.Thread(target=exchange.feed, args=(stdin,), daemon=True)
    listener = threading.Thread(
        target=exchange.collect, args=(channel.recv_stderr, exchange.err), daemon=True
    )
    writer.start()
    listener.start()
    try:
        exchange.collect(channel.recv, exchange.out)
        listener.join()
        exchange.await_status()
    finally:
        # Also wakes the writer of a command that read less than it was given.
        channel.close()
        writer.join(_LOOK + timeout)
        listener.join(_LOOK + timeout)
    if exchange.failure is not None:
        raise exchange.failure
    if exchange.stalled:
        raise Unreachable(
            f"{link.endpoint.label}: {what} did not end, and not a byte came or went for {timeout:g} s",
            "is the device overloaded? Look with: edgectl doctor NAME",
        )
    if channel.exit_status < 0 and not link.alive:
        raise Unreachable(
            f"{link.endpoint.label}: the connection was lost while {what} ran", "run the command again"
        )
    return Completed(channel.exit_status, bytes(exchange.out), bytes(exchange.err))


class _Exchange:
    def __init__(self, channel: Any, timeout: float) -> None:
        self._channel = channel
        self._timeout = timeout
        self._moved = time.monotonic()
        self.out = bytearray()
        self.err = bytearray()
        self.stalled = False
        self.failure: BaseException | None = None

    def feed(self, stdin: bytes | Iterable[bytes]) -> None:
        try:
            for chunk in (stdin,) if isinstance(stdin, bytes) else stdin:
                if not self._send(chunk):
                    return
            self._channel.shutdown_write()
        except (paramiko.SSHException, EOFError):
            return
        except BaseException as error:  # noqa: BLE001
            # Raised again in the thread that asked.
            self.failure = error
            self._channel.close()

    def _send(self, chunk: bytes) -> bool:
        view = memoryview(chunk)
        while view and not self.stalled:
            try:
                sent = ssh_packets.send(self._channel, view)
            except TimeoutError:
                self._look()
                continue
            except (OSError, EOFError, paramiko.SSHException):
                return False
            if sent == 0:
                return False
            self._moved = time.monotonic()
            view = view[sent:]
        return not self.stalled

    def collect(self, receive: Any, into: bytearray) -> None:
        while not self.stalled:
            try:
                data = receive(_CHUNK)
            except TimeoutError:
                self._look()
                continue
            if not data:
                return
            self._moved = time.monotonic()
            into += data

    def await_status(self) -> None:
        while not self.stalled and not self._channel.status_event.wait(_LOOK):
            self._look()

    def _look(self) -> None:
        if time.monotonic() - self._moved >= self._timeout:
            self.stalled = True


def _silent(link: Link, timeout: float, late: bool) -> Unreachable:
    if not late:
        return Unreachable(
            f"{link.endpoint.label}: the connection was lost as a command was to start", "try it again"
        )
    return Unreachable(
        f"{link.endpoint.label}: it is connected but started nothing within {timeout:g} s",
        "is the device overloaded, or gone?",
    )
