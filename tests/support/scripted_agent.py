"""A device that says what a test has written down for it, over its real control socket: for answers that a real agent
gives only on hardware that is not here."""

import http.server
import json
import re
import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agent_daemon.contract.release import DeviceRelease
from agent_daemon.contract.wire import (
    ActivationEvent,
    ActivationState,
    CheckIn,
    DeviceState,
    EventPage,
    Facts,
    Hello,
    Operation,
    Outcome,
    Record,
    Staged,
)


@dataclass
class Script:
    """`ends` is how an activation ends: state, outcome, reason. `asked` are the releases that were to be activated,
    `state` what the device says of itself, `records` what it reports once."""

    facts: Facts
    state: DeviceState
    ends: tuple[ActivationState, Outcome, str | None] = (
        ActivationState.COMMITTED,
        Outcome.SUCCEEDED,
        None,
    )
    records: Sequence[Record] = ()
    staged: list[DeviceRelease] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, body: bytes) -> BaseModel:
        if path == "/v1/hello":
            return Hello(agent_version="1", agent_id=self.facts.agent_id)
        if path == "/v1/facts":
            return self.facts
        if path == "/v1/state":
            return self.state
        if path == "/v1/releases":
            self.staged.append(DeviceRelease.model_validate(json.loads(body)["release"]))
            return Staged(operation=self._operation())
        if path == "/v1/activations":
            self.asked.append(json.loads(body)["release"])
            return self._operation()
        if re.fullmatch(r"/v1/operations/\d+/events", path):
            return EventPage(events=self._events(), next=2, done=True)
        assert (method, path) == ("GET", "/v1/reports")
        return CheckIn(agent_id=self.facts.agent_id, epoch="e", sent_at=1.0, records=tuple(self.records))

    def _operation(self) -> Operation:
        release = self.staged[-1]
        return Operation(
            id=1, release=release.digest(), number=release.number, state=ActivationState.STAGED, at=1.0
        )

    def _events(self) -> tuple[ActivationEvent, ...]:
        release, (state, outcome, reason) = self.staged[-1], self.ends
        base: dict[str, Any] = {"operation": 1, "release": release.digest(), "number": release.number}
        return (
            ActivationEvent(**base, state=ActivationState.STAGED),
            ActivationEvent(**base, state=state, outcome=outcome, detail=reason),
        )


@contextmanager
def scripted_agent(state_dir: Path, script: Script) -> Iterator[None]:
    """Answers at the control socket in `state_dir`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            path = self.path.partition("?")[0]
            if path == "/v1/reports/ack":
                script.records = ()
                text = b"{}"
            else:
                text = script.answer(self.command, path, body).model_dump_json().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _answer

        def address_string(self) -> str:
            return "the socket"

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    state_dir.mkdir(parents=True, exist_ok=True)
    with Server(str(state_dir / "agent.sock"), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
