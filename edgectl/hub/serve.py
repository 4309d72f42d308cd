"""Runs the hub in the foreground until a signal asks it to stop."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgectl.errors import UsageError
from edgectl.hub.app import Hub, build
from edgectl.hub.files import Files
from edgectl.hub.journal import Journal
from edgectl.hub.sources import Sources
from edgectl.inventory.repository import Repository

_log = logging.getLogger(__name__)
_CONNECTIONS = 1000
"""Open at the same time; whoever comes when it is full is told to come again."""
_HEAD_SECONDS = 10.0
"""Within which a connection has to bring the head of its first request."""
_GRACE = 5
"""Seconds that what is being answered has when the hub stops."""


@dataclass(frozen=True)
class Address:
    """Where to listen. Port 0 lets the system choose one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Certificate:
    """Files in PEM form; the key is not encrypted."""

    chain: Path
    key: Path


def parse_address(text: str) -> Address:
    """`HOST:PORT` or `[HOST]:PORT`. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not (colon and host and port.isdecimal() and int(port) < 65536) or (":" in host and not bracketed):
        raise UsageError(f"--listen {text}: expected HOST:PORT", "for instance 127.0.0.1:8770, or [::1]:8770")
    return Address(host, int(port))


def serve(
    database: Path,
    address: Address,
    certificate: Certificate | None,
    interval: float,
    limit_rate: int | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what has begun. `interval` in seconds; `limit_rate`: bytes a second
    of files, for all devices together. Raises UsageError when the address or the certificate cannot be used, and
    InventoryError."""
    _talk()
    config = _config(certificate)
    with Repository(database) as repository, contextlib.closing(_bind(address)) as bound:
        journal = Journal()
        hub = Hub(repository, interval, journal)
        files = Files(repository, hub.owner, journal, Sources(), limit_rate)
        with contextlib.closing(hub), contextlib.closing(files):
            config.app = build(hub, files, journal)
            asyncio.run(_run(_Server(config), bound, _announcement(bound, certificate)))
    _log.info("stopped")


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to us: its own way ends the process as if it had been killed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _Impatient(H11Protocol):
    """Hangs up on whoever connects and then does not come to the point, as uvicorn does not by itself: a thousand of
    those would keep every device out."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(_HEAD_SECONDS, self._look)

    def _look(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


async def _run(server: _Server, bound: socket.socket, announcement: str) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    # The socket listens already, so whoever reads this may connect.
    _log.info(announcement)
    await server.serve(sockets=[bound])


def _announcement(bound: socket.socket, certificate: Certificate | None) -> str:
    host, port = bound.getsockname()[:2]
    address = Address(host, port)
    said = f"listening on {'https' if certificate else 'http'}://{address}"
    if not address.loopback and certificate is None:
        said += "; without --tls-cert, tokens and reports travel unencrypted"
    return said


def _bind(address: Address) -> socket.socket:
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"--listen {address}: {error.strerror}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(target)
        bound.listen(512)
    except OSError as error:
        bound.close()
        why = os.strerror(error.errno).lower() if error.errno else str(error)
        raise UsageError(
            f"--listen {address}: {why}", "another hub may be running; choose another port, or stop that one"
        ) from None
    return bound


def _config(certificate: Certificate | None) -> uvicorn.Config:
    if certificate is not None:
        _check(certificate)
    return uvicorn.Config(
        _nothing_yet,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        http=_Impatient,
        loop="asyncio",
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE,
        ssl_certfile=certificate.chain if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
    )


async def _nothing_yet(*_: object) -> None:
    raise AssertionError("the application is set before the server starts")


def _check(certificate: Certificate) -> None:
    """Before anything starts; without a password, which OpenSSL would ask for on the terminal."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate.chain, certificate.key, password=lambda: b"")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else None
        raise UsageError(
            f"--tls-cert {certificate.chain} and --tls-key {certificate.key} cannot be used: "
            f"{why or 'they are no PEM certificate and its unencrypted key'}"
        ) from None


def _talk() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    ours = logging.getLogger("edgectl.hub")
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    # Of a mistake uvicorn would print the traceback; the application says what there is to say.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
