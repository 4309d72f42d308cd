"""Speaks the agent's control API, as HTTP over any byte stream."""

import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ValidationError

from agent_daemon.contract.release import DeviceRelease
from agent_daemon.contract.swarm import SwarmProgress, SwarmRequest
from agent_daemon.contract.versions import SCHEMA_VERSION, NoCommonVersion, agree
from agent_daemon.contract.wire import (
    Ack,
    ActivateRequest,
    Check,
    CheckIn,
    Checks,
    DeviceState,
    EventPage,
    Facts,
    Hello,
    Operation,
    Problem,
    Prunable,
    Pruned,
    PruneRequest,
    Staged,
    StageRequest,
)
from edgectl.errors import DeviceError, Unreachable
from edgectl.transport import Transport

_TIMEOUT = 30.0
"""Seconds without a byte before a device counts as unreachable; an agent answers in milliseconds."""
_SLOW_TIMEOUT = 600.0
"""For the end of a large blob, which the device hashes and syncs before it answers."""
_CHUNK = 1024 * 1024

M = TypeVar("M", bound=BaseModel)


class AgentClient:
    """One device's agent. Raises Unreachable when it does not answer and DeviceError when it says no.
    For one thread at a time."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abort(self) -> None:
        """Ends whatever another thread is waiting for here; that call raises Unreachable. A device that hangs
        in the middle of a transfer would otherwise hold up the person who has given up on it."""
        connection = self._connection
        stream: Any = connection.sock if connection is not None else None
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)

    def hello(self) -> Hello:
        """Who answers. Raises DeviceError when the two do not speak the same version of the messages."""
        hello = self._call(Hello, "GET", "/v1/hello")
        try:
            agree(hello.schema_version, hello.oldest_schema)
        except NoCommonVersion as error:
            raise DeviceError(
                f"the device's agent {hello.agent_version} speaks version {hello.schema_version} of the control"
                f" messages, this edgectl version {SCHEMA_VERSION}",
                "the edgectl is newer: upgrade the agent with: edgectl device bootstrap NAME"
                if error.older == "other"
                else "the agent is newer: upgrade edgectl",
                code="version",
            ) from None
        return hello

    def facts(self) -> Facts:
        return self._call(Facts, "GET", "/v1/facts")

    def checks(self) -> tuple[Check, ...]:
        """What the device's own doctor finds, as the agent sees the device."""
        return self._call(Checks, "GET", "/v1/checks").checks

    def state(self) -> DeviceState:
        return self._call(DeviceState, "GET", "/v1/state")

    def stage(self, release: DeviceRelease, *, retry: bool, prune: bool = False) -> Staged:
        """Raises DeviceError `no_space` where what is missing does not fit on the device's disk. With `prune` the device
        makes room first; an agent without that feature ignores it."""
        asked = StageRequest(release=release, retry=retry, prune=prune)
        return self._call(Staged, "POST", "/v1/releases", asked)

    def prunable(self) -> Prunable:
        """What a prune would delete."""
        return self._call(Prunable, "GET", "/v1/prunable")

    def prune(self, *, dry_run: bool = False) -> Pruned:
        """Deletes what the device keeps for nothing. Raises DeviceError while it changes releases."""
        return self._call(Pruned, "POST", "/v1/prune", PruneRequest(dry_run=dry_run))

    def activate(self, digest: str, *, retry: bool) -> Operation:
        return self._call(Operation, "POST", "/v1/activations", ActivateRequest(release=digest, retry=retry))

    def events(self, operation: int, after: int, wait: float) -> EventPage:
        """Events after a cursor; waits up to `wait` seconds for one."""
        return self._call(EventPage, "GET", f"/v1/operations/{operation}/events?after={after}&wait={wait}")

    def begin_swarm(self, asked: SwarmRequest) -> SwarmProgress:
        """Lets the device take part in a swarm, or tells it who the others are. Raises DeviceError `not_offered` where it
        does not, and `not_found` from an agent that knows no swarms."""
        return self._call(SwarmProgress, "POST", "/v1/swarm", asked)

    def swarm(self, digest: str) -> SwarmProgress:
        return self._call(SwarmProgress, "GET", f"/v1/swarm/{digest}")

    def end_swarm(self, digest: str, *, keep: bool = False) -> None:
        """Without `keep`, what has arrived from the blob's beginning is what a direct transfer goes on from."""
        self._send("DELETE", f"/v1/swarm/{digest}?keep={int(keep)}", None)

    def reports(self, limit: int) -> CheckIn:
        return self._call(CheckIn, "GET", f"/v1/reports?limit={limit}")

    def acknowledge(self, ack: Ack) -> None:
        self._send("POST", "/v1/reports/ack", ack.model_dump_json().encode())

    def logs(self, lines: int) -> str:
        return self._send("GET", f"/v1/logs?lines={lines}", None).decode(errors="replace")

    def follow_logs(self, lines: int) -> Iterator[str]:
        """The last lines, and then what is written, as it is written. Ends when the agent does."""
        connection = self._open(_TIMEOUT)
        stream: Any = connection.sock
        try:
            connection.request("GET", f"/v1/logs?lines={lines}&follow=1")
            response = connection.getresponse()
            # A log may be silent for hours.
            stream.settimeout(None)
            while data := response.read1(_CHUNK):
                yield data.decode(errors="replace")
        except (http.client.HTTPException, OSError) as error:
            raise _lost(error) from None
        finally:
            self.close()

    def put_blob(self, digest: str, size: int, offset: int, path: Path, moved: Callable[[int], None]) -> None:
        """Sends a file from `offset`; `moved` is told the bytes that the device has, after each chunk. Whatever
        `moved` raises ends the transfer; what has arrived stays on the device."""
        target = f"/v1/blobs/{digest}?size={size}&offset={offset}"
        self._send("PUT", target, _chunks(path, offset, moved), size - offset)

    def _call(self, form: type[M], method: str, path: str, message: BaseModel | None = None) -> M:
        body = message.model_dump_json().encode() if message is not None else None
        data = self._send(method, path, body)
        try:
            return form.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DeviceError(
                f"the agent's answer to {method} {path.partition('?')[0]} makes no sense: {where}: {first['msg']}",
                "the agent and this edgectl may be of different versions",
                code="version",
            ) from None

    def _send(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None, length: int | None = None
    ) -> bytes:
        headers = {"Content-Type": "application/json"} if isinstance(body, bytes) else {}
        if length is not None:
            headers = {"Content-Length": str(length), "Content-Type": "application/octet-stream"}
        reused = self._connection is not None
        connection = self._open(_SLOW_TIMEOUT if length else _TIMEOUT)
        try:
            refusal = None
            try:
                connection.request(method, path, body, headers)
            except (BrokenPipeError, ConnectionResetError) as error:
                # An agent that refuses a long body answers before it has read all of it.
                refusal = error
            try:
                response = connection.getresponse()
                data = response.read()
            except (http.client.HTTPException, OSError):
                if refusal:
                    raise refusal from None
                raise
        except (http.client.HTTPException, OSError) as error:
            self.close()
            if reused and _hung_up(error) and not isinstance(body, Iterator):
                # An agent that was started again, or an idle connection that was closed: nothing of it was answered.
                return self._send(method, path, body, length)
            raise _lost(error) from None
        except BaseException:
            self.close()
            raise
        if response.will_close or refusal:
            self.close()
        if response.status >= 400:
            raise _refused(response.status, data)
        return data

    def _open(self, timeout: float) -> http.client.HTTPConnection:
        if self._connection is None:
            connection = http.client.HTTPConnection("agent")
            connection.sock = self._transport.connect(_TIMEOUT)
            self._connection = connection
        stream: Any = self._connection.sock
        stream.settimeout(timeout)
        return self._connection


def _lost(error: Exception) -> Unreachable:
    return Unreachable(
        f"the connection to the agent was lost: {str(error) or type(error).__name__}",
        "the device goes on by itself; ask it again with: edgectl status --refresh",
    )


def _hung_up(error: Exception) -> bool:
    return isinstance(error, http.client.RemoteDisconnected | BrokenPipeError | ConnectionResetError)


def _chunks(path: Path, offset: int, moved: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(offset)
        done = offset
        while chunk := file.read(_CHUNK):
            yield chunk
            done += len(chunk)
            moved(done)


def _refused(status: int, data: bytes) -> DeviceError:
    try:
        problem = Problem.model_validate(json.loads(data))
    except ValueError:
        return DeviceError(f"the agent answered with HTTP status {status} and no explanation")
    return DeviceError(problem.message, problem.hint, code=problem.code)
