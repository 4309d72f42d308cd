"""Splices standard input and output to the control socket: how a control side speaks HTTP through one SSH
channel, without any port."""

import os
import socket
import threading
from pathlib import Path

from agent_daemon.errors import NotFound

_CHUNK = 1024 * 1024


def dial_stdio(path: Path) -> None:
    """Returns when the agent has closed its side. Raises NotFound when no agent listens there."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError as error:
        raise NotFound(
            f"no agent answers at {path}: {os.strerror(error.errno or 0).lower()}",
            "is it running? edgectl-agent doctor says more",
        ) from None
    threading.Thread(target=_send, args=(connection,), daemon=True).start()
    while chunk := connection.recv(_CHUNK):
        _write_all(chunk)


def _send(connection: socket.socket) -> None:
    while chunk := os.read(0, _CHUNK):
        connection.sendall(chunk)
    connection.shutdown(socket.SHUT_WR)


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
