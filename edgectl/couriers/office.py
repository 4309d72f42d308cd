"""The main process's side of its couriers: which device is whose, and everything that comes back."""

import contextlib
import os
import queue
import socket
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from agent_daemon.contract.wire import Outcome
from edgectl.couriers.delivery import Source, Terms
from edgectl.couriers.messages import (
    Answer,
    Asked,
    Call,
    Cancel,
    Deliver,
    Happened,
    Reply,
    Settings,
    SiteOf,
    Wanted,
    Watch,
)
from edgectl.couriers.spawn import Spawned
from edgectl.errors import EdgectlError
from edgectl.inventory.values import Device
from edgectl.observe import Sighting
from edgectl.plan import Step
from edgectl.rollouts.events import DeviceEvent, Result
from edgectl.transport.protocols import Ask


class Couriers:
    """Closing it ends them, and everything that they have open."""

    def __init__(self, spawned: Spawned, ask: Ask | None = None, ssh_config: Path | None = None) -> None:
        """`ask` asks the person for a secret; `ssh_config` defaults to ~/.ssh/config."""
        self._process = spawned.process
        self._ask = ask
        self._source: Source | None = None
        self._events: queue.SimpleQueue[DeviceEvent] = queue.SimpleQueue()
        self._calls: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._next_id = 0
        self._homes: dict[str, int] = {}
        self._early: dict[str, Future[Any]] = {}
        self._answers: dict[str, tuple[int, str]] = {}
        self._under_way: dict[str, int] = {}
        self._asking = threading.Lock()
        self._fetching = ThreadPoolExecutor(1, thread_name_prefix="fetch")
        self._closing = False
        self._sockets = spawned.sockets
        self._connections = [Connection(os.dup(each.fileno())) for each in spawned.sockets]
        self._sending = [threading.Lock() for _ in self._connections]
        for index, connection in enumerate(self._connections):
            self._send(index, Settings(ssh_config))
            threading.Thread(target=self._listen, args=(index, connection), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the couriers: what devices have begun they finish alone."""
        self._closing = True
        for each in self._sockets:
            # Closing alone would not wake the threads that read, nor be seen on the other side while they do.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._process.wait()
        self._fetching.shutdown(wait=False, cancel_futures=True)

    # -- asking ----------------------------------------------------------------------------------------

    def foresee(self, devices: Iterable[Device]) -> None:
        """Begins to observe devices that will be asked for soon."""
        for device in devices:
            self._early[device.name] = self._call(device, "sight")

    def observe(self, devices: Sequence[Device]) -> tuple[Sighting, ...]:
        """One sighting for each device, in the same order. Raises nothing: a silent device is a sighting too."""
        early, self._early = self._early, {}
        futures = [early.get(device.name) or self._call(device, "sight") for device in devices]
        return tuple(_seen(future, device) for future, device in zip(futures, devices, strict=True))

    def reports(self, device: Device, limit: int) -> Any:
        """A page of what a device has to report. Raises EdgectlError."""
        return self._call(device, "reports", limit).result()

    def acknowledge(self, device: Device, ack: Any) -> None:
        """Raises EdgectlError."""
        self._call(device, "acknowledge", ack).result()

    def _call(
        self, device: Device, what: Literal["sight", "reports", "acknowledge"], argument: Any = None
    ) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            self._next_id += 1
            number = self._next_id
            self._calls[number] = future
        if not self._send(self._home(device.name), Call(number, device, what, argument)):
            self._settle(Answer(number, error=_gone()))
        return future

    # -- delivering ------------------------------------------------------------------------------------

    def supply(self, source: Source) -> None:
        """Where the files come from that couriers ask for."""
        self._source = source

    def deliver(
        self, step: Step, device: Device, terms: Terms, rate: float | None, site: SiteOf | None = None
    ) -> None:
        """Begins; the events of it come out of `next`, a Result last. `rate` is in bytes a second and for all devices
        together. Devices of one `site` fetch from one another."""
        # What was weighed is of no use there, and there can be a lot of it.
        slim = replace(step, choices=(), details=(), notes=())
        # A bound is kept by one process, and a site is led by one: those it is for are then all its own.
        home = 0 if rate is not None or site is not None else self._home(device.name)
        with self._lock:
            self._under_way[device.name] = home
        if not self._send(home, Deliver(slim, device, terms, rate, site)):
            self._lost(home)

    def watch(self, device: Device, digest: str) -> None:
        """Begins to look at a device every few seconds; Looked events come out of `next` until `cancel`."""
        self._send(self._home(device.name), Watch(device, digest))

    def cancel(self, device: str | None, reason: str) -> None:
        """Ends what goes on with one device, or with all (None)."""
        for index in range(len(self._connections)):
            self._send(index, Cancel(device, reason))

    def next(self, seconds: float) -> DeviceEvent | None:
        """The next event, or None when there was none for so long."""
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            return None

    # -- what comes back -------------------------------------------------------------------------------

    def _home(self, device: str) -> int:
        return self._homes.setdefault(device, len(self._homes) % len(self._connections))

    def _send(self, index: int, message: Any) -> bool:
        with self._sending[index]:
            try:
                self._connections[index].send(message)
            except OSError:
                return False
        return True

    def _listen(self, index: int, connection: "Connection[Any, Any]") -> None:
        try:
            while True:
                self._take(index, connection.recv())
        except (EOFError, OSError, TypeError):
            # TypeError: closed by us while it was being read.
            self._lost(index)

    def _take(self, index: int, message: Any) -> None:
        match message:
            case Happened():
                if isinstance(message.event, Result):
                    with self._lock:
                        self._under_way.pop(message.event.device, None)
                self._events.put(message.event)
            case Answer():
                self._settle(message)
            case Asked():
                threading.Thread(target=self._answer, args=(index, message), daemon=True).start()
            case Wanted():
                self._fetching.submit(self._fetch, index, message)

    def _settle(self, answer: Answer) -> None:
        with self._lock:
            future = self._calls.pop(answer.id)
        if answer.error is not None:
            future.set_exception(answer.error)
        else:
            future.set_result(answer.value)

    def _lost(self, index: int) -> None:
        """A courier that ends before it is told to: whoever waits for it hears so."""
        if self._closing:
            return
        with self._lock:
            calls, self._calls = self._calls, {}
            devices = [device for device, home in self._under_way.items() if home == index]
            for device in devices:
                del self._under_way[device]
        for future in calls.values():
            future.set_exception(_gone())
        for device in devices:
            self._events.put(Result(device, Outcome.DEFERRED, _gone().message))

    def _fetch(self, index: int, wanted: Wanted) -> None:
        assert self._source is not None, "nothing is delivered before there is a source"
        try:
            reply = Reply(wanted.id, self._source(wanted.artifact, wanted.blob))
        except EdgectlError as error:
            reply = Reply(wanted.id, error=error)
        self._send(index, reply)

    def _answer(self, index: int, asked: Asked) -> None:
        """Asks the person, once for all couriers; the same courier asking again means that the answer was wrong."""
        with self._asking:
            known = self._answers.get(asked.question)
            try:
                if known is None or known[0] == index:
                    if self._ask is None:
                        raise EdgectlError(f"{asked.question}: nobody is there to type it")
                    known = (index, self._ask(asked.question))
                    self._answers[asked.question] = known
                reply = Reply(asked.id, known[1])
            except (EdgectlError, KeyboardInterrupt) as error:
                reply = Reply(asked.id, error=error if isinstance(error, EdgectlError) else _gone())
        self._send(index, reply)


def _seen(future: "Future[Any]", device: Device) -> Sighting:
    try:
        sighting: Sighting = future.result()
    except EdgectlError as error:
        return Sighting(device, error=error)
    # The one that was asked may have been read without its facts.
    return replace(sighting, device=device)


def _gone() -> EdgectlError:
    return EdgectlError(
        "a process that held the connections to devices has ended unexpectedly",
        "run the same command again; what has arrived on devices is kept",
    )
