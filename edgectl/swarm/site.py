"""One blob to the devices of one site: lets them join, introduces them to one another, seeds one of them, and watches."""

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent_daemon.contract.swarm import Endpoint, SwarmProgress, SwarmState
from edgectl.swarm import course as courses
from edgectl.swarm import obstacle
from edgectl.swarm.course import (
    Advanced,
    Completed,
    Course,
    Dropped,
    FallBack,
    Finished,
    Happening,
    Joined,
    Limits,
    SendDirectly,
    Serve,
    Tick,
)
from edgectl.swarm.visit import Member, Visit

if TYPE_CHECKING:
    from edgectl.swarm.seeder import Seeder

_PACE = 0.25
_INTRODUCE_AFTER = 0.3
"""Seconds in which what is new is gathered: on a large site many join at once."""
_LEAVE_SECONDS = 15.0


@dataclass(frozen=True)
class Progress:
    """`done` of `total` bytes are on the device."""

    device: str
    done: int
    total: int


@dataclass(frozen=True)
class Arrived:
    """The blob is in the device's store, verified by its digest. The device still gives pieces to the others."""

    device: str


@dataclass(frozen=True)
class FellBack:
    """The device is to get the blob directly; what arrived without a gap is where that can go on from."""

    device: str
    reason: str


Event = Progress | Arrived | FellBack
Emit = Callable[[Event], None]
SendTo = Callable[[str], None]
"""Brings the blob to one device directly. May raise EdgectlError."""


@dataclass
class _Site:
    """What is known of each device by now."""

    endpoints: dict[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    joined: set[str] = field(default_factory=set)
    out: dict[str, str] = field(default_factory=dict)
    """Those that fall back, with the reason, until they have left the swarm."""
    let_in: dict[str, frozenset[str]] = field(default_factory=dict)
    """Whom each device lets in, as far as it is known."""
    sources: frozenset[str] = frozenset()
    """The addresses of this machine."""
    changed_at: float | None = None
    """When there was something new to tell them first."""

    def changed(self) -> None:
        if self.changed_at is None:
            self.changed_at = time.monotonic()


class SiteSwarm:
    """`path` is the blob's file on this machine. `send_directly`, if given, is used when this machine's own pieces reach
    no device of the site: for one of them, which then has pieces for the others."""

    def __init__(
        self,
        path: Path,
        digest: str,
        size: int,
        members: Sequence[Member],
        limits: Limits | None = None,
        send_directly: SendTo | None = None,
    ) -> None:
        self._path, self._digest, self._size = path, digest, size
        self._members = tuple(members)
        self._limits = limits or Limits()
        self._send_directly = send_directly
        self._heard: queue.SimpleQueue[tuple[str, SwarmProgress | Dropped | None]] = queue.SimpleQueue()
        self._ended: dict[str, Arrived | FellBack] = {}
        self.sent = 0
        """Bytes of the blob that this machine has sent by the swarm."""

    def run(self, emit: Emit, cancelled: threading.Event) -> Mapping[str, Arrived | FellBack]:
        """How it ended for each device; `emit` is told at once, in this thread. Once `cancelled` is set the rest fall
        back, and keep their pieces for a day. Raises EdgectlError when the file cannot be read."""
        problem = obstacle()
        if problem is not None:
            for member in self._members:
                self._end(FellBack(member.device, problem), emit)
            return self._ended
        from edgectl.swarm import torrent
        from edgectl.swarm.seeder import Seeder

        made = torrent.make(self._path, self._digest, self._size)
        visits = {
            member.device: Visit(
                member, made, self._limits.upload_rate, self._send_directly, self._told(member.device)
            )
            for member in self._members
        }
        with Seeder(made, self._path, self._limits.send_rate) as seeder:
            for visit in visits.values():
                visit.start()
            try:
                self._follow(visits, seeder, emit, cancelled)
            finally:
                self.sent = seeder.sent
                for visit in visits.values():
                    visit.leave(keep=cancelled.is_set())
                deadline = time.monotonic() + _LEAVE_SECONDS
                for visit in visits.values():
                    visit.join(max(deadline - time.monotonic(), 0))
        for member in self._members:
            if member.device not in self._ended:
                self._end(FellBack(member.device, "interrupted; its pieces are kept"), emit)
        return self._ended

    def _told(self, device: str) -> Callable[[SwarmProgress | Dropped | None], None]:
        return lambda what: self._heard.put((device, what))

    def _follow(
        self, visits: Mapping[str, Visit], seeder: "Seeder", emit: Emit, cancelled: threading.Event
    ) -> None:
        site = _Site()
        course = Course(
            tuple(visits),
            self._size,
            self._limits,
            directly=self._send_directly is not None,
            now=time.monotonic(),
        )
        served: str | None = None
        finished = False
        while not cancelled.is_set() and not (finished and len(self._ended) == len(visits)):
            for device, what in self._hear():
                for happening in self._happenings(site, visits, device, what, emit):
                    for decision in course.on(happening, time.monotonic()):
                        match decision:
                            case Serve():
                                served = decision.device
                            case SendDirectly():
                                visits[decision.device].send_directly()
                            case FallBack():
                                self._fall_back(site, visits[decision.device], decision)
                            case Finished():
                                finished = True
            self.sent = seeder.sent
            if site.changed_at is not None and time.monotonic() - site.changed_at > _INTRODUCE_AFTER:
                site.changed_at = None
                self._introduce(site, visits)
            # One that does not let this machine in yet would only be asked in vain.
            ready = not site.sources.isdisjoint(site.let_in.get(served or "", frozenset()))
            seeder.serve(site.endpoints.get(served or "", ()) if ready else ())

    def _hear(self) -> Iterable[tuple[str, SwarmProgress | Dropped | None]]:
        """What the devices have said, and after a moment of silence only that time has passed."""
        try:
            yield self._heard.get(timeout=_PACE)
            while True:
                yield self._heard.get_nowait()
        except queue.Empty:
            yield "", None

    def _happenings(
        self,
        site: _Site,
        visits: Mapping[str, Visit],
        device: str,
        what: SwarmProgress | Dropped | None,
        emit: Emit,
    ) -> list[Happening]:
        if not device:
            return [Tick()]
        if what is None:
            # It has left the swarm: now a direct transfer may begin.
            if device in site.out and device not in self._ended:
                self._end(FellBack(device, site.out[device]), emit)
            return []
        if isinstance(what, Dropped):
            return [what]
        if site.endpoints.get(device) != what.endpoints:
            site.endpoints[device] = what.endpoints
            site.changed()
        if site.let_in.get(device) != visits[device].let_in:
            site.let_in[device] = visits[device].let_in
            site.changed()
        return self._progressed(site, device, what, emit)

    def _progressed(self, site: _Site, device: str, what: SwarmProgress, emit: Emit) -> list[Happening]:
        if what.state is SwarmState.FAILED:
            return [Dropped(device, what.problem or "its swarm failed")]
        if what.state is SwarmState.CHECKING:
            return [Tick()]
        happenings: list[Happening] = []
        if device not in site.joined:
            site.joined.add(device)
            happenings.append(Joined(device, what.done))
        if device not in self._ended and device not in site.out:
            emit(Progress(device, what.done, self._size))
        if what.state is SwarmState.COMPLETE:
            if device not in self._ended:
                self._end(Arrived(device), emit)
            happenings.append(Completed(device))
        else:
            happenings.append(Advanced(device, what.done, what.received))
        return happenings

    def _fall_back(self, site: _Site, visit: Visit, decision: FallBack) -> None:
        site.out[decision.device] = decision.reason
        site.endpoints.pop(decision.device, None)
        visit.leave(keep=False)

    def _introduce(self, site: _Site, visits: Mapping[str, Visit]) -> None:
        """Tells every device whom it may talk to, and whom to call: those that let it in by now."""
        trusted = courses.trusted(
            {device: [each.address for each in owned] for device, owned in site.endpoints.items()}
        )
        site.sources = frozenset(
            source
            for owned in site.endpoints.values()
            for each in owned
            if (source := source_address(each.address)) is not None
        )
        known = courses.neighbours(sorted(site.endpoints))
        for device, others in known.items():
            peers = tuple(
                each
                for other in others
                if site.let_in.get(other, frozenset()).issuperset(trusted[device])
                for each in site.endpoints[other]
                if each.address in trusted[other]
            )
            everybody = {address for other in trusted if other != device for address in trusted[other]}
            visits[device].introduce(peers, tuple(sorted(everybody | site.sources)))

    def _end(self, event: Arrived | FellBack, emit: Emit) -> None:
        self._ended[event.device] = event
        emit(event)


def source_address(target: str) -> str | None:
    """The address by which this machine is seen at `target`; None when no way leads there. Sends nothing."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
        except OSError:
            return None
