"""A courier process (`edgectl.beside`, or `python -m edgectl.couriers.courier FD [FD…]`). Each descriptor is a socket to the
main process; for every one beyond the first a copy of this process serves it, made before anything else runs in it."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

# First of all: what follows is many imports, everything that a courier will need before it is copied.
import edgectl.startup  # isort: skip
import edgectl.transport.ssh  # noqa: F401
from agent_daemon.contract.release import Artifact, BlobRef
from agent_daemon.contract.wire import Outcome
from edgectl.agent_client import AgentClient
from edgectl.couriers.delivery import Cancellation, Cancelled, deliver
from edgectl.couriers.messages import (
    Answer,
    Asked,
    Call,
    Cancel,
    Deliver,
    Happened,
    Reply,
    Settings,
    Wanted,
    Watch,
)
from edgectl.couriers.watching import look
from edgectl.errors import EdgectlError
from edgectl.inventory.values import Device
from edgectl.observe import check_identity, sight_with
from edgectl.rollouts.events import Result
from edgectl.transport import Transport, Transports
from edgectl.transport.pace import Pace

if TYPE_CHECKING:
    from edgectl.couriers.sharing import Site

_AT_ONCE = 32
"""Devices that are asked at the same time."""
_LOOK_SECONDS = 2.0


class Courier:
    """Serves one connection to the main process until that closes it."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[threading.Event, list[Reply]]] = {}
        self._next_id = 0
        self._cancellations: dict[str, set[Cancellation]] = {}
        self._paces: dict[float | None, Pace] = {}
        self._transports: Transports | None = None
        self._clients: dict[str, tuple[threading.Lock, AgentClient]] = {}
        self._devices: dict[str, Device] = {}
        self._sites: dict[int, Site] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ask")

    def serve(self) -> None:
        """Returns when the main process is gone, or says so."""
        try:
            while True:
                self._take(self._connection.recv())
        except (EOFError, OSError):
            self._cancel(None, "the control side has ended")

    def _take(self, message: Any) -> None:
        match message:
            case Settings():
                self._transports = Transports(self._ask, message.ssh_config)
            case Call():
                self._pool.submit(self._answer, message)
            case Deliver():
                self._begin(message.device.name, lambda stop: self._deliver(message, stop))
            case Watch():
                self._begin(message.device.name, lambda stop: self._watch(message, stop))
            case Cancel():
                self._cancel(message.device, message.reason)
            case Reply():
                event, answers = self._waiting.pop(message.id)
                answers.append(message)
                event.set()

    # -- work ------------------------------------------------------------------------------------------

    def _begin(self, device: str, work: Callable[[Cancellation], None]) -> None:
        cancellation = Cancellation()
        with self._lock:
            self._cancellations.setdefault(device, set()).add(cancellation)

        def run() -> None:
            try:
                work(cancellation)
            finally:
                with self._lock:
                    self._cancellations[device].discard(cancellation)

        threading.Thread(target=run, name=device, daemon=True).start()

    def _cancel(self, device: str | None, reason: str) -> None:
        with self._lock:
            chosen = [
                each for name, them in self._cancellations.items() if device in (None, name) for each in them
            ]
        for cancellation in chosen:
            cancellation.cancel(reason)

    def _deliver(self, message: Deliver, stop: Cancellation) -> None:
        with self._lock:
            pace = self._paces.setdefault(message.rate, Pace(message.rate))
        name, release = message.device.name, message.step.release
        site = self._site(message)
        share = None
        if site is not None and release is not None:
            share = lambda missing: site.fetch(name, release, missing, stop)  # noqa: E731
        try:
            with self._client(message.device) as client:
                result = deliver(
                    message.step,
                    client,
                    self._ways().open(message.device.transport),
                    self._path,
                    message.terms,
                    pace,
                    self._tell,
                    stop,
                    share,
                )
        except EdgectlError as error:
            result = Result(name, Outcome.FAILED_UNCHANGED, error.message)
        except Exception as error:  # noqa: BLE001
            # Whatever it is, somebody waits for an end of this device. Only its kind: the text may hold anything.
            result = Result(name, Outcome.DEFERRED, f"internal error: {type(error).__name__}")
        finally:
            if site is not None:
                site.leave(name)
        self._send(Happened(replace(result, number=release.number if release else None)))

    def _tell(self, event: Any) -> None:
        self._send(Happened(event))

    def _site(self, message: Deliver) -> "Site | None":
        """The site of a device that is to fetch from its neighbours; the first of them makes it."""
        if message.site is None:
            return None
        from edgectl.couriers.sharing import Site

        with self._lock:
            self._devices[message.device.name] = message.device
            if message.site.number not in self._sites:
                self._sites[message.site.number] = Site(
                    message.site.size,
                    self._path,
                    self._own_client,
                    self._transport_of,
                    self._tell,
                    message.rate,
                )
            return self._sites[message.site.number]

    def _own_client(self, device: str) -> AgentClient:
        return AgentClient(self._transport_of(device))

    def _transport_of(self, device: str) -> Transport:
        return self._ways().open(self._devices[device].transport)

    def _watch(self, message: Watch, stop: Cancellation) -> None:
        try:
            while not stop.is_set():
                with self._client(message.device) as client:
                    self._send(Happened(look(message.device.name, message.digest, client)))
                stop.pause(_LOOK_SECONDS)
        except Cancelled:
            return

    def _answer(self, call: Call) -> None:
        try:
            self._send(Answer(call.id, self._call(call)))
        except EdgectlError as error:
            self._send(Answer(call.id, error=error))
        except Exception as error:  # noqa: BLE001
            self._send(Answer(call.id, error=EdgectlError(f"internal error: {type(error).__name__}")))

    def _call(self, call: Call) -> Any:
        with self._client(call.device) as client:
            match call.what:
                case "sight":
                    return sight_with(call.device, client)
                case "reports":
                    check_identity(call.device, client.hello())
                    return client.reports(call.argument)
                case "acknowledge":
                    return client.acknowledge(call.argument)

    @contextmanager
    def _client(self, device: Device) -> Iterator[AgentClient]:
        """The one connection to a device's agent, for one thread at a time: starting its other end costs the device more
        than most questions do."""
        with self._lock:
            if device.name not in self._clients:
                client = AgentClient(self._ways().open(device.transport))
                self._clients[device.name] = (threading.Lock(), client)
            lock, client = self._clients[device.name]
        with lock:
            yield client

    def _ways(self) -> Transports:
        assert self._transports is not None, "the settings come first"
        return self._transports

    # -- what only the main process can do -------------------------------------------------------------

    def _ask(self, question: str) -> str:
        return str(self._from_main(lambda number: Asked(number, question)))

    def _path(self, artifact: Artifact, blob: BlobRef) -> Path:
        path = self._from_main(lambda number: Wanted(number, artifact, blob))
        assert isinstance(path, Path)
        return path

    def _from_main(self, message: Callable[[int], Any]) -> Any:
        event, answers = threading.Event(), list[Reply]()
        with self._lock:
            self._next_id += 1
            number = self._next_id
            self._waiting[number] = (event, answers)
        self._send(message(number))
        event.wait()
        if answers[0].error is not None:
            raise answers[0].error
        return answers[0].value

    def _send(self, message: Any) -> None:
        with self._sending:
            try:
                self._connection.send(message)
            except OSError:
                # Nobody is there any more; `serve` finds the same.
                return


def main(descriptors: list[int]) -> None:
    # Ctrl-C goes to every process of the terminal; what it means here the main process says.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    mine = descriptors[0]
    for other in descriptors[1:]:
        if os.fork() == 0:
            mine = other
            break
    for each in descriptors:
        if each != mine:
            os.close(each)
    connection: Connection[Any, Any] = Connection(socket.socket(fileno=mine).detach())
    Courier(connection).serve()
    # Threads may hang in connections to devices that do: nothing here is worth waiting for.
    os._exit(0)


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]])
