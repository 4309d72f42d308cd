"""Brings one release to one device: stage, send what is missing, activate, follow to the device's own verdict.

A connection that is lost changes nothing on the device: it is made again and the work goes on from what the device has,
until nothing was heard of the device for a while.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from agent_daemon.contract.release import Artifact, BlobRef, DeviceRelease
from agent_daemon.contract.swarm import FEATURE
from agent_daemon.contract.wire import ActivationEvent, EventPage, MissingBlob, Outcome, Staged
from edgectl.agent_client import AgentClient
from edgectl.couriers.sending import send
from edgectl.errors import CatalogError, DeviceError, Unreachable
from edgectl.plan import Step
from edgectl.rollouts.events import DeviceEvent, Heard, Lost, Moved, Noted, Result
from edgectl.transport import ByteStream, Transport
from edgectl.transport.pace import Pace

_WAIT = 2.0
"""Seconds that one question for events waits: short enough for Ctrl-C to be felt."""
_PATIENCE = 30.0
"""Seconds to go on trying when nothing is heard of the device."""
_CONNECT = 20.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 3.0

Emit = Callable[[DeviceEvent], None]
Source = Callable[[Artifact, BlobRef], Path]
"""Where a file of an artifact is on this machine, fetched first where needed. Raises CatalogError."""
Share = Callable[[tuple[MissingBlob, ...]], int]
"""Brings what it can of missing blobs by another way than this connection, and says how many bytes. Raises Cancelled."""
T = TypeVar("T")


class Cancelled(Exception):
    """Raised inside a delivery that is to end. `reason` is for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Cancellation:
    """Whether, and why, what goes on with one device is to end. Set by another thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._reason = ""
        self.finished = False

    def cancel(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._event.set()

    def check(self) -> None:
        if self._event.is_set():
            raise Cancelled(self._reason)

    def pause(self, seconds: float) -> None:
        """Raises Cancelled at once when it comes."""
        if self._event.wait(seconds):
            raise Cancelled(self._reason)

    def wait(self) -> None:
        self._event.wait()

    def finish(self) -> None:
        """It has ended by itself: whoever waits for a cancel need not any more."""
        self.finished = True
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()


@dataclass(frozen=True)
class Terms:
    """How releases are to be delivered. `retry`: also what is quarantined; `prune`: the device may delete what nothing
    refers to where room is short."""

    retry: bool = False
    prune: bool = False


def deliver(
    step: Step,
    client: AgentClient,
    transport: Transport,
    source: Source,
    terms: Terms,
    pace: Pace,
    emit: Emit,
    cancellation: Cancellation,
    share: Share | None = None,
) -> Result:
    """The end of it on one device; whatever goes wrong is an outcome. A cancelled one is deferred: what has arrived is
    kept, and what the device has begun it finishes alone. `client` stays open. `share` is asked for missing blobs first."""
    assert step.release is not None
    began = time.monotonic()
    journey = _Journey(
        step.device, step.release, client, transport, source, terms, pace, emit, cancellation, share
    )
    threading.Thread(target=journey.abort_when_cancelled, daemon=True).start()
    try:
        outcome, reason = journey.travel()
    except Cancelled as error:
        outcome, reason = Outcome.DEFERRED, error.reason
    except Unreachable as error:
        outcome, reason = Outcome.UNREACHABLE, error.message
    except DeviceError as error:
        refused = error.code in ("quarantined", "no_space")
        outcome, reason = Outcome.REFUSED if refused else Outcome.FAILED_UNCHANGED, error.message
    except CatalogError as error:
        outcome, reason = Outcome.FAILED_UNCHANGED, error.message
    finally:
        cancellation.finish()
    return Result(
        step.device,
        outcome,
        reason,
        sum(journey.moved.values()) + journey.shared,
        time.monotonic() - began,
        step.release.number,
    )


@dataclass
class _Journey:
    """One release on its way to one device. `moved` counts the bytes of each blob that arrived by it."""

    device: str
    release: DeviceRelease
    client: AgentClient
    transport: Transport
    source: Source
    terms: Terms
    pace: Pace
    emit: Emit
    cancellation: Cancellation
    share: Share | None = None
    shared: int = 0
    moved: dict[str, int] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)
    """Digest -> what the device held before the first byte of this journey."""
    _stream: ByteStream | None = None
    _receives: bool = False

    def abort_when_cancelled(self) -> None:
        """A device that hangs must not hold up the person who has given up on it."""
        self.cancellation.wait()
        if self.cancellation.finished:
            return
        self.client.abort()
        if self._stream is not None:
            self._stream.close()

    def travel(self) -> tuple[Outcome, str | None]:
        """The outcome and its reason. Raises Cancelled, Unreachable, DeviceError and CatalogError."""
        features = self._patiently(self.client.hello).features
        self._receives = "receive" in features
        staged = self._stage()
        if staged.operation is None:
            return Outcome.UNCHANGED, None
        if staged.missing and self.share is not None and FEATURE in features:
            self.shared = self.share(staged.missing)
            staged = self._stage()
        for missing in staged.missing:
            self._bring(missing)
        self.cancellation.check()
        digest = self.release.digest()
        return self._follow(self._patiently(lambda: self.client.activate(digest, retry=self.terms.retry)).id)

    def _stage(self) -> Staged:
        """A device that is busy, with another release or with reading a blob again, is asked for a while."""
        deadline, told = time.monotonic() + _PATIENCE, False
        while True:
            try:
                return self._patiently(
                    lambda: self.client.stage(self.release, retry=self.terms.retry, prune=self.terms.prune)
                )
            except DeviceError as error:
                if error.code != "conflict" or time.monotonic() > deadline:
                    raise
                if not told:
                    self.emit(Noted(self.device, error.message))
                    told = True
            self.emit(Heard(self.device))
            self.cancellation.pause(1.0)

    def _bring(self, missing: MissingBlob) -> None:
        """Sends one blob, as often as the connection is lost on the way, each time from what the device holds. A device
        takes a moment to notice that an earlier transfer was cut, and until then says that the blob is being received:
        then it is asked again."""
        still: MissingBlob | None = missing
        held, quiet_since, pause = missing.offset, time.monotonic(), _FIRST_PAUSE
        while still is not None:
            if still.offset > held:
                held, quiet_since, pause = still.offset, time.monotonic(), _FIRST_PAUSE
            try:
                self._send(still)
                return
            except DeviceError as error:
                if error.code != "conflict":
                    raise
                last: DeviceError | Unreachable = error
            except Unreachable as error:
                self.cancellation.check()
                self.emit(Lost(self.device, error.message))
                last = error
            held_now = self.begun.get(missing.digest, still.offset) + self.moved.get(missing.digest, 0)
            if held_now > held:
                held, quiet_since, pause = held_now, time.monotonic(), _FIRST_PAUSE
            if time.monotonic() - quiet_since > _PATIENCE:
                raise last
            self.cancellation.pause(pause)
            pause = min(_LONGEST_PAUSE, pause * 1.6)
            still = next((blob for blob in self._stage().missing if blob.digest == missing.digest), None)

    def _send(self, missing: MissingBlob) -> None:
        artifact, blob = find(self.release, missing.digest)
        path = self.source(artifact, blob)
        begun = self.begun.setdefault(missing.digest, missing.offset)

        def arrived(done: int) -> None:
            self.moved[missing.digest] = done - begun
            self.emit(Moved(self.device, blob.name, done, blob.size))
            self.cancellation.check()

        stream = None
        if self._receives:
            stream = self.transport.receive(missing.digest, missing.size, missing.offset, _CONNECT)
        if stream is None:
            taken = missing.offset

            def paced(done: int) -> None:
                nonlocal taken
                self.pace.take(done - taken)
                taken = done
                arrived(done)

            self.client.put_blob(missing.digest, missing.size, missing.offset, path, paced)
            return
        self._stream = stream
        try:
            send(stream, path, missing.offset, self.pace, arrived)
        finally:
            self._stream = None
        arrived(missing.size)

    def _follow(self, operation: int) -> tuple[Outcome, str | None]:
        """The device's verdict."""
        cursor = 0
        last: ActivationEvent | None = None
        while True:
            self.cancellation.check()
            page = self._patiently(lambda: self._events(operation, cursor))  # noqa: B023 (called at once)
            cursor = page.next
            for event in page.events:
                text = f"{event.state}: {event.detail}" if event.detail else str(event.state)
                self.emit(Noted(self.device, text))
                last = event if event.outcome else last
            if page.done and last is None:
                return Outcome.SUPERSEDED, "another release took its place"
            if page.done and last is not None:
                return last.outcome or Outcome.SUPERSEDED, last.detail
            if not page.events:
                self.emit(Heard(self.device))

    def _events(self, operation: int, cursor: int) -> EventPage:
        return self.client.events(operation, cursor, _WAIT)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Losing the connection changes nothing on the device, so it is tried again for a while."""
        deadline, pause = time.monotonic() + _PATIENCE, _FIRST_PAUSE
        while True:
            try:
                return ask()
            except Unreachable as error:
                self.cancellation.check()
                if time.monotonic() > deadline:
                    raise
                self.emit(Lost(self.device, error.message))
                self.cancellation.pause(pause)
                pause = min(_LONGEST_PAUSE, pause * 1.6)


def find(release: DeviceRelease, digest: str) -> tuple[Artifact, BlobRef]:
    """The artifact and the file of a release that a digest is of. Raises DeviceError."""
    for model in release.models:
        for artifact in (model.artifact, *(adapter.artifact for adapter in model.adapters)):
            for file in artifact.files:
                if file.digest == digest:
                    return artifact, file
    raise DeviceError(f"the device asks for {digest}, which is no part of the release", code="version")
