"""Brings one release to one device: stage, send what is missing, activate, follow to the device's own verdict."""

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
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
        moved = _Moved()
        try:
            with AgentClient(self._transports[step.device]) as client:
                outcome, reason = self._deliver(step.device, step.release, client, emit, cancelled, moved)
        except Unreachable as error:
            outcome, reason = Outcome.UNREACHABLE, error.message
        except DeviceError as error:
            refused = error.code == "quarantined"
            outcome, reason = Outcome.REFUSED if refused else Outcome.FAILED_UNCHANGED, error.message
        except CatalogError as error:
            outcome, reason = Outcome.FAILED_UNCHANGED, error.message
        return Result(
            step.device, outcome, reason, moved.bytes, time.monotonic() - began, step.release.number
        )

    def _deliver(
        self,
        device: str,
        release: DeviceRelease,
        client: AgentClient,
        emit: Emit,
        cancelled: threading.Event,
        moved: "_Moved",
    ) -> tuple[Outcome, str | None]:
        staged = client.stage(release, retry=self._retry)
        if staged.operation is None:
            return Outcome.UNCHANGED, None
        for missing in staged.missing:
            self._send_stubbornly(device, release, missing, client, emit, cancelled, moved)
        if cancelled.is_set():
            raise Cancelled
        operation = client.activate(release.digest(), retry=self._retry)
        return _follow(device, client, operation.id, emit, cancelled)

    def _send_stubbornly(
        self,
        device: str,
        release: DeviceRelease,
        missing: MissingBlob,
        client: AgentClient,
        emit: Emit,
        cancelled: threading.Event,
        moved: "_Moved",
    ) -> None:
        """A device takes a moment to notice that an earlier transfer was cut; until then it says that the blob is
        being received. Then it is asked again what it holds."""
        deadline = time.monotonic() + _PATIENCE
        still: MissingBlob | None = missing
        while still is not None:
            try:
                return self._send(device, release, still, client, emit, cancelled, moved)
            except DeviceError as error:
                if error.code != "conflict" or time.monotonic() > deadline:
                    raise
            if cancelled.wait(0.2):
                raise Cancelled
            staged = client.stage(release, retry=self._retry)
            still = next((blob for blob in staged.missing if blob.digest == missing.digest), None)

    def _send(
        self,
        device: str,
        release: DeviceRelease,
        missing: MissingBlob,
        client: AgentClient,
        emit: Emit,
        cancelled: threading.Event,
        moved: "_Moved",
    ) -> None:
        artifact, blob = _find(release, missing.digest)
        path = self._source.path(artifact, blob)

        def arrived(done: int) -> None:
            moved.note(missing.digest, done - missing.offset)
            emit(Moved(device, blob.name, done, blob.size))
            if cancelled.is_set():
                raise Cancelled

        client.put_blob(missing.digest, missing.size, missing.offset, path, arrived)


class _Moved:
    """Bytes sent to one device, over all its files."""

    def __init__(self) -> None:
        self._by_blob: dict[str, int] = {}

    def note(self, digest: str, count: int) -> None:
        self._by_blob[digest] = count

    @property
    def bytes(self) -> int:
        return sum(self._by_blob.values())


def _find(release: DeviceRelease, digest: str) -> tuple[Artifact, BlobRef]:
    for model in release.models:
        for file in model.artifact.files:
            if file.digest == digest:
                return model.artifact, file
    raise DeviceError(f"the device asks for {digest}, which is no part of the release", code="version")


def _follow(
    device: str, client: AgentClient, operation: int, emit: Emit, cancelled: threading.Event
) -> tuple[Outcome, str | None]:
    """The device's verdict. Losing the connection changes nothing there, so it is tried again for a while."""
    cursor = 0
    last: ActivationEvent | None = None
    while True:
        if cancelled.is_set():
            raise Cancelled
        page = _patiently(partial(client.events, operation, cursor, _WAIT), cancelled)
        cursor = page.next
        for event in page.events:
            emit(Noted(device, f"{event.state}: {event.detail}" if event.detail else str(event.state)))
            last = event if event.outcome else last
        if page.done:
            if last is None:
                return Outcome.SUPERSEDED, "another release took its place"
            return last.outcome or Outcome.SUPERSEDED, last.detail


def _patiently(ask: Callable[[], EventPage], cancelled: threading.Event) -> EventPage:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return ask()
        except Unreachable:
            if time.monotonic() > deadline:
                raise
            if cancelled.wait(0.5):
                raise Cancelled from None
