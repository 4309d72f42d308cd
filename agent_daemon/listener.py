"""Sockets, and the HTTP server on them."""

import contextlib
import os
import socket
from collections.abc import Generator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from agent_daemon.errors import UsageProblem
from agent_daemon.settings import Listen, check_socket_path


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the agent, which has two of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def server(app: ASGIApp, finish: int = 5) -> Server:
    """`finish` is how many seconds the answers that are under way have when it is to end."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        http="h11",
        loop="asyncio",
        timeout_graceful_shutdown=finish,
    )
    return Server(config)


def bind_gateway(listen: Listen) -> socket.socket:
    """A listening socket. Raises UsageProblem when the address is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    # The protocol by name: asyncio turns off Nagle's algorithm only for sockets that say TCP, and with it a streamed
    # answer's first token waits for the client's delayed acknowledgement, up to 40 ms.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((listen.host, listen.port))
        bound.listen(512)
    except OSError as error:
        bound.close()
        raise UsageProblem(
            f"--listen {listen.host}:{listen.port}: {os.strerror(error.errno or 0).lower()}",
            "another agent may be running; choose another port, or stop that one",
        ) from None
    return bound


def bind_control(path: Path) -> socket.socket:
    """A listening Unix socket that its owner and group may open. The caller holds the state directory's lock,
    so whatever lies at `path` is left from an agent that is gone."""
    check_socket_path(path)
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        bound.bind(str(path))
    finally:
        os.umask(before)
    bound.listen(64)
    return bound
