"""Devices of one site that fetch a release's blobs from one another, while each goes on with its own delivery.

A delivery says what its device lacks, and waits here until the site's swarm has brought it or given up on it; what is
still missing then is sent directly. A blob that only one device lacks is not worth a swarm.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent_daemon.contract.release import Artifact, BlobRef, DeviceRelease
from agent_daemon.contract.wire import MissingBlob
from edgectl.agent_client import AgentClient
from edgectl.couriers.delivery import Cancellation, Emit, Source, find
from edgectl.couriers.sending import send
from edgectl.errors import EdgectlError
from edgectl.rollouts.events import Moved, Noted
from edgectl.swarm.course import Limits
from edgectl.swarm.site import Arrived, FellBack, Progress, SiteSwarm
from edgectl.swarm.visit import Member
from edgectl.transport import Transport
from edgectl.transport.pace import Pace

_GATHER = 20.0
"""Seconds that the first wait for the others to say what they lack."""
_LOOK = 0.2
_CONNECT = 20.0


@dataclass
class _Wish:
    """What one device lacks: digest -> the blob. `done` when nothing more will come by the swarm."""

    wanted: Mapping[str, MissingBlob]
    done: threading.Event = field(default_factory=threading.Event)
    moved: int = 0


class Site:
    """`size` devices are to say what they lack. `client` makes a connection of its own to a device's agent."""

    def __init__(
        self,
        size: int,
        source: Source,
        client: Callable[[str], AgentClient],
        transport: Callable[[str], Transport],
        emit: Emit,
        rate: float | None,
    ) -> None:
        self._size = size
        self._source = source
        self._client = client
        self._transport = transport
        self._pace = Pace(rate)
        self._emit = emit
        self._limits = Limits(send_rate=int(rate or 0))
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._wishes: dict[str, _Wish] = {}
        self._out: set[str] = set()
        self._files: dict[str, tuple[Artifact, BlobRef]] = {}
        self._stop = threading.Event()
        self._began = False

    def fetch(
        self, device: str, release: DeviceRelease, missing: tuple[MissingBlob, ...], stop: Cancellation
    ) -> int:
        """Returns when the swarm has done for a device what it can; how many bytes it brought. Raises Cancelled."""
        wish = _Wish({blob.digest: blob for blob in missing})
        with self._changed:
            self._wishes[device] = wish
            for blob in missing:
                self._files.setdefault(blob.digest, find(release, blob.digest))
            if not self._began:
                self._began = True
                threading.Thread(target=self._run, name="site", daemon=True).start()
            self._changed.notify_all()
        try:
            while not wish.done.wait(_LOOK):
                stop.check()
        finally:
            self.leave(device)
        return wish.moved

    def leave(self, device: str) -> None:
        """The device takes no part, or not any more."""
        with self._changed:
            self._out.add(device)
            self._changed.notify_all()
            if len(self._out) >= self._size:
                self._stop.set()

    def _run(self) -> None:
        try:
            self._gather()
            for digest in self._shared():
                self._swarm(digest)
        finally:
            for wish in self._wishes.values():
                wish.done.set()

    def _gather(self) -> None:
        deadline = time.monotonic() + _GATHER
        with self._changed:
            while len(self._wishes.keys() | self._out) < self._size and time.monotonic() < deadline:
                self._changed.wait(_LOOK)

    def _shared(self) -> list[str]:
        """Blobs that several devices lack, the largest first. Who lacks none of them need not wait."""
        with self._lock:
            lacking = {
                digest: [name for name, wish in self._wishes.items() if digest in wish.wanted]
                for digest in self._files
            }
            chosen = [digest for digest, names in lacking.items() if len(names) > 1]
            for wish in self._wishes.values():
                if not any(digest in wish.wanted for digest in chosen):
                    wish.done.set()
        return sorted(chosen, key=lambda digest: -self._files[digest][1].size)

    def _swarm(self, digest: str) -> None:
        artifact, blob = self._files[digest]
        with self._lock:
            wishes = {
                name: wish
                for name, wish in self._wishes.items()
                if digest in wish.wanted and name not in self._out
            }
        if len(wishes) < 2:
            return
        members = [Member(name, lambda name=name: self._client(name)) for name in wishes]  # type: ignore[misc]

        def emit(event: Any) -> None:
            match event:
                case Progress():
                    self._emit(Moved(event.device, blob.name, event.done, event.total))
                case Arrived():
                    wish = wishes[event.device]
                    wish.moved += blob.size - wish.wanted[digest].offset
                    self._emit(Moved(event.device, blob.name, blob.size, blob.size))
                case FellBack():
                    self._emit(Noted(event.device, f"{blob.name} is sent directly: {event.reason}"))

        try:
            SiteSwarm(self._source(artifact, blob), digest, blob.size, members, self._limits).run(
                emit, self._stop
            )
        except EdgectlError as error:
            for name in wishes:
                self._emit(Noted(name, f"{blob.name} is sent directly: {error.message}"))

    def _send(self, device: str, digest: str, blob: BlobRef, path: Path) -> None:
        """One copy over SSH, where this machine's own pieces reach nobody at the site. Raises EdgectlError."""
        with self._client(device) as client:
            offset = client.state().arrived.get(digest, 0)

            def arrived(done: int) -> None:
                self._emit(Moved(device, blob.name, done, blob.size))

            stream = self._transport(device).receive(digest, blob.size, offset, _CONNECT)
            if stream is None:
                client.put_blob(digest, blob.size, offset, path, arrived)
            else:
                send(stream, path, offset, self._pace, arrived)
