"""A real agent as a process of its own, with its state in a folder of the test's."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(what: Callable[[], Any], seconds: float = 60.0, pause: float = 0.05) -> Any:
    """The first true value of `what`; AssertionError when there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := what():
            return value
        time.sleep(pause)
    raise AssertionError(f"did not happen within {seconds:g} s: {what}")


class AgentProcess:
    """`edgectl-agent run`. May be killed and started again on the same state directory and port."""

    def __init__(
        self, state_dir: Path, environment: Mapping[str, str] | None = None, arguments: tuple[str, ...] = ()
    ) -> None:
        self.state_dir = state_dir
        self.port = free_port()
        self.environment = dict(environment or {})
        self.arguments = arguments
        self.program = ("-m", "agent_daemon")
        self.log = state_dir.parent / f"{state_dir.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "AgentProcess":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, *self.program, "run"),
                    *("--state-dir", str(self.state_dir), "--listen", f"127.0.0.1:{self.port}"),
                    *self.arguments,
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        wait_until(self.answers, 30)
        return self

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.control("GET", "/v1/hello")[0] == 200
        except OSError:
            return False

    def kill(self) -> None:
        """`kill -9`, as a crash would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def control(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """One request on the control socket: status and JSON body."""
        connection = http.client.HTTPConnection("agent", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(60)
        try:
            connection.sock.connect(str(self.state_dir / "agent.sock"))
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")
        finally:
            connection.close()

    def state(self) -> dict[str, Any]:
        return dict(self.control("GET", "/v1/state")[1])

    def ask(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """One request to the gateway (POST with a body, else GET): status and JSON body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request("GET" if body is None else "POST", path, data, dict(headers or {}))
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")
        finally:
            connection.close()

    def chat(self, text: str = "Say hello.", model: str = "assistant", **more: Any) -> tuple[int, Any]:
        message = {"role": "user", "content": text}
        body = {"model": model, "messages": [message], "max_tokens": 8, "temperature": 0, **more}
        return self.ask("/v1/chat/completions", body)


@contextmanager
def running_agent(
    state_dir: Path, environment: Mapping[str, str] | None = None, arguments: tuple[str, ...] = ()
) -> Iterator[AgentProcess]:
    """An agent that is stopped at the end, whatever happened to it in between."""
    agent = AgentProcess(state_dir, environment, arguments).start()
    try:
        yield agent
    finally:
        agent.stop()
