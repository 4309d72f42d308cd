"""Splices standard input and output to the control socket: how a control side speaks HTTP through one SSH
channel, without any port."""

from __future__ import annotations

import os
import socket
import sys
import threading

from agent_daemon.errors import AgentError, NotFound

_CHUNK = 1024 * 1024
_SOCKET = "agent.sock"


def dial(state_dir: str) -> int:
    """The command: connects to the agent of a state directory; returns the exit code."""
    try:
        dial_stdio(os.path.join(state_dir, _SOCKET))
    except AgentError as error:
        print(error.explained, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"edgectl-agent: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def dial_stdio(path: str) -> None:
    """Returns when the agent has closed its side. Raises NotFound when no agent listens there."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError as error:
        raise NotFound(
            f"no agent answers at {path}: {(error.strerror or str(error)).lower()}",
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
