"""Brings one release to one device: stage, send what is missing, activate, follow to the device's own verdict."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent_daemon.contract.release import Artifact, BlobRef, DeviceRelease
from agent_daemon.contract.wire import ActivationEvent, EventPage, MissingBlob, Outcome
from edgectl import catalog
from edgectl.agent_client import AgentClient
from edgectl.errors import CatalogError, DeviceError, Unreachable
from edgectl.execute import Cancelled, Emit, Moved, Noted, Result
from edgectl.plan import Step
from edgectl.transport import Transport

_WAIT = 2.0
"""Seconds that one question for events waits: short enough for Ctrl-C to be felt."""
_PATIENCE = 30.0
"""Seconds to go on trying when the connection is lost while the device works."""


class WeightSource:
    """Files of artifacts on this machine, fetched when the first device needs them and then shared."""

    def __init__(self, progress: catalog.Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._paths: dict[str, Path] = {}

    def path(self, artifact: Artifact, blob: BlobRef) -> Path:
        """Raises CatalogError when the artifact cannot be had."""
        # One at a time: side by side they would only share the same line, and the same artifact would be
        # fetched once for every device.
        with self._lock:
            if blob.digest not in self._paths:
                for file, path in zip(artifact.files, catalog.fetch(artifact, self._progress), strict=True):
                    self._paths[file.digest] = path
            return self._paths[blob.digest]


class Delivery:
    """The effects behind `execute.run`. `transports` by device name."""

    def __init__(self, transports: Mapping[str, Transport], source: WeightSource, *, retry: bool) -> None:
        self._transports = transports
        self._source = source
        self._retry = retry

    def deliver(self, step: Step, emit: Emit, cancelled: threading.Event) -> Result:
        assert step.release is not None
        began = time.monotonic()
        with AgentClient(self._transports[step.device]) as client:
            threading.Thread(target=_abort_when, args=(cancelled, client), daemon=True).start()
            journey = _Journey(step.device, step.release, client, self._source, self._retry, emit, cancelled)
            try:
                outcome, reason = journey.travel()
            except Unreachable as error:
                if cancelled.is_set():
                    raise Cancelled from None
                outcome, reason = Outcome.UNREACHABLE, error.message
            except DeviceError as error:
                refused = error.code == "quarantined"
                outcome, reason = Outcome.REFUSED if refused else Outcome.FAILED_UNCHANGED, error.message
            except CatalogError as error:
                outcome, reason = Outcome.FAILED_UNCHANGED, error.message
        moved, seconds = sum(journey.moved.values()), time.monotonic() - began
        return Result(step.device, outcome, reason, moved, seconds, step.release.number)


@dataclass
class _Journey:
    """One release on its way to one device. `moved` counts the bytes sent of each blob."""

    device: str
    release: DeviceRelease
    client: AgentClient
    source: WeightSource
    retry: bool
    emit: Emit
    cancelled: threading.Event
    moved: dict[str, int] = field(default_factory=dict)

    def travel(self) -> tuple[Outcome, str | None]:
        """The outcome and its reason. Raises Cancelled, Unreachable, DeviceError and CatalogError."""
        staged = self.client.stage(self.release, retry=self.retry)
        if staged.operation is None:
            return Outcome.UNCHANGED, None
        for missing in staged.missing:
            self._bring(missing)
        self._check_cancelled()
        return self._follow(self.client.activate(self.release.digest(), retry=self.retry).id)

    def _bring(self, missing: MissingBlob) -> None:
        """Sends one blob. A device takes a moment to notice that an earlier transfer was cut, and until then says
        that the blob is being received: then it is asked again what it holds."""
        deadline = time.monotonic() + _PATIENCE
        still: MissingBlob | None = missing
        while still is not None:
            try:
                self._send(still)
                return
            except DeviceError as error:
                if error.code != "conflict" or time.monotonic() > deadline:
                    raise
            self._pause(0.2)
            staged = self.client.stage(self.release, retry=self.retry)
            still = next((blob for blob in staged.missing if blob.digest == missing.digest), None)

    def _send(self, missing: MissingBlob) -> None:
        artifact, blob = _find(self.release, missing.digest)
        path = self.source.path(artifact, blob)

        def arrived(done: int) -> None:
            self.moved[missing.digest] = done - missing.offset
            self.emit(Moved(self.device, blob.name, done, blob.size))
            self._check_cancelled()

        self.client.put_blob(missing.digest, missing.size, missing.offset, path, arrived)

    def _follow(self, operation: int) -> tuple[Outcome, str | None]:
        """The device's verdict."""
        cursor = 0
        last: ActivationEvent | None = None
        while True:
            self._check_cancelled()
            page = self._ask_patiently(operation, cursor)
            cursor = page.next
            for event in page.events:
                text = f"{event.state}: {event.detail}" if event.detail else str(event.state)
                self.emit(Noted(self.device, text))
                last = event if event.outcome else last
            if page.done and last is None:
                return Outcome.SUPERSEDED, "another release took its place"
            if page.done and last is not None:
                return last.outcome or Outcome.SUPERSEDED, last.detail

    def _ask_patiently(self, operation: int, cursor: int) -> EventPage:
        """Losing the connection changes nothing on the device, so it is tried again for a while."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return self.client.events(operation, cursor, _WAIT)
            except Unreachable:
                if time.monotonic() > deadline:
                    raise
                self._pause(0.5)

    def _check_cancelled(self) -> None:
        if self.cancelled.is_set():
            raise Cancelled

    def _pause(self, seconds: float) -> None:
        if self.cancelled.wait(seconds):
            raise Cancelled


def _abort_when(cancelled: threading.Event, client: AgentClient) -> None:
    """A device that hangs must not hold up the person who has given up on it. The event is set at the end of the
    wave at the latest, when there is nothing left to abort."""
    cancelled.wait()
    client.abort()


def _find(release: DeviceRelease, digest: str) -> tuple[Artifact, BlobRef]:
    for model in release.models:
        for artifact in (model.artifact, *(adapter.artifact for adapter in model.adapters)):
            for file in artifact.files:
                if file.digest == digest:
                    return artifact, file
    raise DeviceError(f"the device asks for {digest}, which is no part of the release", code="version")
