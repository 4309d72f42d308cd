"""A channel of an SSH connection as the byte stream that HTTP needs."""

import io
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import paramiko  # type: ignore[import-untyped]

from edgectl.errors import EdgectlError
from edgectl.transport import ssh_packets

_BUFFER = 64 * 1024
_PATIENCE = 2.0
"""Seconds that saying goodbye may take before the whole connection counts as dead."""
_EXIT_WAIT = 5.0
_MOST_STDERR = 16 * 1024

Explain = Callable[[int, bytes], EdgectlError]
"""Why there was no answer, from the exit status (-1: none came) and what the command wrote to stderr."""


class ChannelStream:
    """A running command's input and output. One thread writes, one reads; `shutdown` may come from a third and wakes
    both. Reads and writes raise TimeoutError after the seconds of `settimeout` without progress."""

    def __init__(self, channel: Any, explain: Explain, abandon: Callable[[], None]) -> None:
        """`explain` makes the error for a command that ended without a byte; `abandon` closes the connection."""
        self._channel = channel
        self._explain = explain
        self._abandon = abandon
        self._ended_here = False
        self.answered = False

    def sendall(self, data: Any, /) -> None:
        """Raises BrokenPipeError where the other side takes no more."""
        view = memoryview(data).cast("B")
        while view:
            try:
                sent = ssh_packets.send(self._channel, view)
            except TimeoutError:
                raise
            except (OSError, EOFError, paramiko.SSHException):
                sent = 0
            if sent == 0:
                raise BrokenPipeError("the other side has closed the stream")
            view = view[sent:]

    def recv_into(self, buffer: memoryview) -> int:
        data: bytes = self._channel.recv(len(buffer))
        if not data and not self.answered and not self._ended_here:
            raise self._explain(*self._last_words())
        self.answered = self.answered or bool(data)
        buffer[: len(data)] = data
        return len(data)

    def makefile(self, mode: Any, /) -> io.BufferedReader:
        if mode != "rb":
            raise ValueError(f"this stream has files of mode rb only, not {mode}")
        return io.BufferedReader(_Incoming(self), _BUFFER)

    def settimeout(self, seconds: float | None, /) -> None:
        self._channel.settimeout(seconds)

    def shutdown(self, how: int, /) -> None:
        if how == socket.SHUT_WR:
            self._channel.shutdown_write()
        else:
            self.close()

    def close(self) -> None:
        """Wakes whoever reads or writes, at once. Telling the other side happens beside it: on a connection that
        hangs that could take as long as the transfer that is to be ended."""
        self._ended_here = True
        goodbye = threading.Thread(target=self._close_channel, daemon=True)
        goodbye.start()
        goodbye.join(_PATIENCE)
        if goodbye.is_alive():
            self._abandon()

    def _close_channel(self) -> None:
        with suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()

    def _last_words(self) -> tuple[int, bytes]:
        """Exit status and stderr of a command that has ended."""
        self._channel.status_event.wait(_EXIT_WAIT)
        self._channel.settimeout(_EXIT_WAIT)
        said = b""
        with suppress(TimeoutError):
            while len(said) < _MOST_STDERR and (more := self._channel.recv_stderr(_MOST_STDERR)):
                said += more
        return self._channel.exit_status, said


class _Incoming(io.RawIOBase):
    def __init__(self, stream: ChannelStream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        return self._stream.recv_into(memoryview(buffer).cast("B"))
