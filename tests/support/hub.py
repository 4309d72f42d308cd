"""A real hub as a process of its own, and a wire to it that can be made to lose answers."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.support.agent import free_port, wait_until


class HubProcess:
    """`edgectl hub serve`. May be killed and started again on the same inventory and port."""

    def __init__(self, database: Path, *arguments: str, interval: int = 1) -> None:
        self.database = database
        self.port = free_port()
        self.log = database.with_name("hub.log")
        self.arguments = ("--listen", f"127.0.0.1:{self.port}", "--interval", str(interval), *arguments)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "HubProcess":
        said = self.log.read_text().count("listening on") if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edgectl", "hub", "serve", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "EDGECTL_DATABASE_URL": f"sqlite:///{self.database}"},
            )

        def listens() -> bool:
            text = self.log.read_text()
            assert self.process is not None
            assert self.process.poll() is None, text
            return text.count("listening on") > said

        wait_until(listens, 60)
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks it to stop and returns its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        """One request: status, JSON body and headers of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return response.status, json.loads(response.read()), response.headers
        finally:
            connection.close()

    def bring(self, token: str | None, body: bytes) -> tuple[int, Any]:
        """One check-in: status and JSON body of the answer."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        status, answer, _ = self.ask("POST", "/v1/check-in", body, headers)
        return status, answer


@contextmanager
def running_hub(database: Path, *arguments: str, interval: int = 1) -> Iterator[HubProcess]:
    """A hub that is gone at the end, whatever happened to it in between."""
    hub = HubProcess(database, *arguments, interval=interval).start()
    try:
        yield hub
    finally:
        assert hub.process is not None
        if hub.process.poll() is None:
            hub.kill()


def dump(database: Path) -> list[str]:
    """Everything that an inventory holds, as SQL."""
    with closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


class LossyWire:
    """A TCP forwarder in front of a port. While `losing` is positive, an answer that comes back is thrown away and
    its connection closed, and `losing` counted down."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.losing = 0
        self.lost = 0
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._accepting.join()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                hub = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            for work in (self._to_hub, self._from_hub):
                thread = threading.Thread(target=work, args=(client, hub))
                thread.start()
                self._threads.append(thread)

    def _to_hub(self, client: socket.socket, hub: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                hub.sendall(data)
        with contextlib.suppress(OSError):
            hub.shutdown(socket.SHUT_WR)

    def _from_hub(self, client: socket.socket, hub: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := hub.recv(65536):
                if self.losing > 0:
                    self.losing -= 1
                    self.lost += 1
                    break
                client.sendall(data)
        for end in (client, hub):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def secrets_in(text: str) -> list[str]:
    """Whatever in a text looks like a device's token."""
    return re.findall(r"edgectl-dev_[A-Za-z0-9_-]{8,}", text)


def certificate(folder: Path) -> None:
    """A key and a certificate of its own for localhost."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
    ]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    name = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    subprocess.run([*command, name, *files], check=True, capture_output=True)
