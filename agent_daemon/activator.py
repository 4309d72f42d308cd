"""Performs the transition table of `activation.py` on this device. One operation at a time.

The journal is written before each step. Whatever the step does may be done twice: a restart reads the journal
and performs the action of the state that it finds.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from agent_daemon import probe
from agent_daemon.activation import Action, Happening, choose_strategy, needs, resident, transition
from agent_daemon.contract.release import DeviceRelease, Strategy
from agent_daemon.contract.wire import (
    TERMINAL_STATES,
    ActivationState,
    MissingBlob,
    Operation,
    Outcome,
    Staged,
)
from agent_daemon.errors import BlobsMissing, Conflict, NotFound, QuarantinedRelease, WorkerFailure
from agent_daemon.journal import Journal
from agent_daemon.preflight import Measure, Preflight
from agent_daemon.residency import LOAD_SECONDS, Residents
from agent_daemon.room import FreeMemory, Need, all_returned, short, with_returned
from agent_daemon.serving import Serving
from agent_daemon.store import Store
from agent_daemon.supervisor import Supervisor

_DRAIN_SECONDS = 120.0
"""Longest time that a worker may take to finish what it is answering before it is ended."""
_MEMORY_WAIT_SECONDS = 15.0
"""Drivers give memory back some time after a process has ended."""
_OUTCOMES = {
    ActivationState.COMMITTED: Outcome.SUCCEEDED,
    ActivationState.REVERTED: Outcome.REVERTED,
    ActivationState.REVERT_FAILED: Outcome.REVERT_FAILED,
}
_log = logging.getLogger(__name__)
_BUSY = frozenset({ActivationState.ACTIVATING, ActivationState.PROBING, ActivationState.REVERTING})


class Activator:
    """Owns the switch between releases. `free_memory` measures what is free, in a thread, and `measure` what a model
    would take; `publish` is called after each event."""

    def __init__(
        self,
        journal: Journal,
        store: Store,
        supervisor: Supervisor,
        residents: Residents,
        serving: Serving,
        free_memory: Callable[[], FreeMemory],
        publish: Callable[[], None],
        measure: Measure,
    ) -> None:
        self._journal = journal
        self._store = store
        self._supervisor = supervisor
        self._residents = residents
        self._serving = serving
        self._free_memory = free_memory
        self._publish = publish
        self._preflight = Preflight(supervisor, measure, free_memory)
        self._measuring: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._unsettled: int | None = None

    # -- what the control API asks for -----------------------------------------------------------------

    def stage(self, release: DeviceRelease, retry: bool) -> Staged:
        """Takes a release and says which blobs are missing. Raises QuarantinedRelease, Conflict. A release that
        is served already begins no operation, and one that is being activated goes on with its own."""
        digest = release.digest()
        if running := self._running(digest):
            return Staged(operation=running)
        self._refuse_while_busy()
        self._refuse_quarantined(digest, retry)
        self._journal.keep_release(release)
        missing = self.missing(release)
        if digest == self._journal.active() and not missing:
            return Staged()
        latest = self._journal.latest()
        if (
            latest
            and latest.state in (ActivationState.STAGING, ActivationState.STAGED)
            and not _ended(latest)
        ):
            if latest.release == digest:
                return Staged(operation=latest, missing=missing)
            self._journal.advance(
                latest.id, latest.state, reason="another release came first", outcome=Outcome.SUPERSEDED
            )
        operation = self._journal.begin(digest, release.number)
        self._publish()
        return Staged(operation=operation, missing=missing)

    def missing(self, release: DeviceRelease) -> tuple[MissingBlob, ...]:
        """Blobs of a release that are not in the store, and how much of each is."""
        return tuple(
            MissingBlob(digest=blob.digest, size=blob.size, offset=self._store.offset(blob.digest))
            for blob in release.blobs()
            if not self._store.has(blob.digest)
        )

    def held(self) -> tuple[str, ...]:
        """Digests of releases that could be activated without moving a byte, oldest first."""
        return tuple(
            digest for digest, release in self._journal.releases().items() if not self.missing(release)
        )

    def activate(self, digest: str, retry: bool) -> Operation:
        """Begins the activation of a release whose blobs are all here and returns its operation; it goes on
        without the caller. Raises NotFound, Conflict, QuarantinedRelease, BlobsMissing."""
        if running := self._running(digest):
            return running
        self._refuse_while_busy()
        self._refuse_quarantined(digest, retry)
        release = self._journal.release(digest)
        if missing := self.missing(release):
            raise BlobsMissing(
                f"{release.label} cannot be activated: {len(missing)} of {len(release.blobs())} files are missing",
                "send them first; what has arrived is kept",
            )
        operation = self._journal.latest()
        if operation is None or operation.release != digest or _ended(operation):
            operation = self._journal.begin(digest, release.number)
        if retry:
            self._journal.pardon(digest)
        if operation.state is ActivationState.STAGING:
            operation = self._enter(operation, Happening.BLOBS_COMPLETE)
        self._measuring = operation.id
        self._begin(operation, Happening.ACTIVATE)
        return operation

    def settled(self, operation: int) -> bool:
        """Whether an operation has come to its end and the requests flow accordingly."""
        latest = self._journal.latest()
        if latest is None or latest.id != operation:
            return True
        return _ended(latest) and operation not in (self._unsettled, self._measuring)

    def _running(self, digest: str) -> Operation | None:
        """The operation that is bringing up this very release: whoever asks for it again may follow it."""
        latest = self._journal.latest()
        if latest is None or latest.release != digest:
            return None
        underway = latest.state in (ActivationState.ACTIVATING, ActivationState.PROBING)
        return latest if underway or latest.id == self._measuring else None

    def _refuse_while_busy(self) -> None:
        latest = self._journal.latest()
        if latest and latest.state in _BUSY:
            raise Conflict(f"this device is {latest.state} r{latest.number}", "try again when it is done")
        if latest and latest.id == self._measuring:
            raise Conflict(f"this device is measuring r{latest.number}", "try again when it is done")
        if latest and self._task is not None and not self._task.done():
            raise Conflict(
                f"this device is finishing requests of the release before r{latest.number}",
                f"try again; it takes {_DRAIN_SECONDS:g} s at most",
            )

    def _refuse_quarantined(self, digest: str, retry: bool) -> None:
        for barred in self._journal.quarantined():
            if barred.release == digest and not retry:
                raise QuarantinedRelease(
                    f"r{barred.number} was reverted on this device and is quarantined: {barred.reason}",
                    "mend the release, or say --retry to try the same one again",
                )

    # -- running ---------------------------------------------------------------------------------------

    async def recover(self) -> None:
        """Takes up what a restart interrupted, and serves what is to be served."""
        # Whatever was being attempted, the active release is the one to answer: requests wait for its workers.
        await self._serve_active()
        if operation := self._journal.latest():
            self._begin(operation, Happening.RESTARTED)

    async def close(self) -> None:
        """Stops in the middle of whatever it is; the next start recovers."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _begin(self, operation: Operation, happening: Happening) -> None:
        self._task = asyncio.create_task(self._run(operation, happening))
        self._task.add_done_callback(_log_failure)

    async def _run(self, operation: Operation, happening: Happening) -> None:
        """Follows the table from one happening to the next until a state waits for somebody else."""
        reason: str | None = None
        if happening is Happening.RESTARTED and operation.state in _BUSY:
            reason = f"the agent was stopped while it was {operation.state}"
        upcoming: Happening | None = happening
        while upcoming is not None:
            step = transition(operation.state, upcoming)
            if step.state is not operation.state or upcoming is Happening.REFUSED:
                operation = self._enter(operation, upcoming, reason)
            upcoming, reason = await self._perform(step.action, operation)

    def _enter(self, operation: Operation, happening: Happening, reason: str | None = None) -> Operation:
        state = transition(operation.state, happening).state
        outcome = Outcome.REFUSED if happening is Happening.REFUSED else _OUTCOMES.get(state)
        entered = self._journal.advance(operation.id, state, reason=reason, outcome=outcome)
        if state in TERMINAL_STATES:
            self._unsettled = operation.id
        self._publish()
        return entered

    async def _perform(self, action: Action, operation: Operation) -> tuple[Happening | None, str | None]:
        """Does what a state asks for; returns what happened, and why if it went wrong."""
        match action:
            case Action.MEASURE:
                return await self._judge(operation)
            case Action.LOAD:
                return await self._load(operation)
            case Action.PROBE:
                return await self._probe(operation)
            case Action.SERVE_NEW | Action.SERVE_OLD:
                self._residents.keep(frozenset())
                await self._serve_active()
                self._unsettled = None
                await self._end_others()
            case Action.RESTORE_OLD:
                return await self._restore()
            case Action.AWAIT_BLOBS | Action.AWAIT_ACTIVATE:
                pass
        return None, None

    async def _judge(self, operation: Operation) -> tuple[Happening, str | None]:
        """Whether it takes what was predicted and has room now. Nothing on the device changes by it."""
        release = self._journal.release(operation.release)
        try:
            finding = await self._preflight.examine(release, lambda text: self._note(operation, text))
        finally:
            self._measuring = None
        if finding.refusal is not None:
            return Happening.REFUSED, finding.refusal
        self._residents.expect(finding.sizes)
        return Happening.JUDGED, None

    async def _load(self, operation: Operation) -> tuple[Happening, str | None]:
        """Everything that is to be resident. What is loaded on demand is loaded by the probe, each in its turn."""
        release = self._journal.release(operation.release)
        free = await asyncio.to_thread(self._free_memory)
        sizes = self._residents.expected()
        strategy = choose_strategy(release, self._supervisor.running(), free, sizes)
        operation = self._journal.choose(operation.id, strategy)
        staying = frozenset(model.engine_key() for model in resident(release))
        ending = self._supervisor.running() - staying
        if strategy is Strategy.REPLACE and ending:
            self._note(
                operation, "not enough memory for both releases: requests wait while they are exchanged"
            )
            await self._serving.hold()
            held = await asyncio.to_thread(self._preflight.held)
            free = await asyncio.to_thread(self._free_memory)
            back = sum((size for key, size in held.items() if key in ending), Need())
            await self._supervisor.stop(self._supervisor.keys() - staying, drain=_DRAIN_SECONDS)
            await self._wait_for_memory(
                needs(release, staying & self._supervisor.running(), sizes), free, back
            )
        self._residents.keep(staying)
        self._supervisor.start(release.models, restart=False)
        deadline = asyncio.get_running_loop().time() + LOAD_SECONDS
        for model in resident(release):
            try:
                async with asyncio.timeout_at(deadline):
                    await self._residents.bring(model.engine_key())
            except WorkerFailure as error:
                return Happening.FAILED, f"{model.name} could not be loaded: {error}"
            except TimeoutError:
                return Happening.FAILED, f"{model.name} was not loaded within {LOAD_SECONDS:g} s"
        return Happening.LOADED, None

    async def _wait_for_memory(self, wanted: Need, before: FreeMemory, back: Need) -> None:
        """Waits until there is room for `wanted`, or what the ended workers held is `back` beside what was free
        `before`; for a while, because others may take memory meanwhile: then loading has to tell."""
        deadline = time.monotonic() + _MEMORY_WAIT_SECONDS
        whole = with_returned(before, back)
        while time.monotonic() < deadline:
            free = await asyncio.to_thread(self._free_memory)
            if short(wanted, free) is None or all_returned(whole, free):
                return
            await asyncio.sleep(0.2)

    async def _probe(self, operation: Operation) -> tuple[Happening, str | None]:
        release = self._journal.release(operation.release)
        try:
            await probe.hold_probe(
                release, self._supervisor, self._residents, lambda text: self._note(operation, text)
            )
        except probe.ProbeFailed as failure:
            return Happening.FAILED, f"probe failed: {failure}"
        return Happening.PROBE_HELD, None

    async def _restore(self) -> tuple[Happening, str | None]:
        """The old release alone, and answering. Where nothing was served before, nothing is the old state."""
        self._residents.keep(frozenset())
        await self._end_others()
        await self._serve_active()
        active = self._active_release()
        if active is None:
            return Happening.RESTORED, None
        for model in resident(active):
            try:
                await asyncio.wait_for(self._residents.bring(model.engine_key()), active.probe.timeout)
            except (WorkerFailure, TimeoutError) as error:
                reason = str(error) or "it was not ready in time"
                return Happening.RESTORE_FAILED, f"the old release did not come back: {model.name}: {reason}"
        return Happening.RESTORED, None

    async def _serve_active(self) -> None:
        active = self._active_release()
        if active is not None:
            self._supervisor.start(active.models, restart=True)
        await self._serving.switch(active)

    async def _end_others(self) -> None:
        active = self._active_release()
        wanted = {model.engine_key() for model in active.models} if active else set()
        await self._supervisor.stop(self._supervisor.keys() - wanted, drain=_DRAIN_SECONDS)

    def _active_release(self) -> DeviceRelease | None:
        digest = self._journal.active()
        if digest is None:
            return None
        try:
            return self._journal.release(digest)
        except NotFound:
            return None

    def _note(self, operation: Operation, text: str) -> None:
        self._journal.note(operation, text)
        self._publish()


def _ended(operation: Operation) -> bool:
    """Whether nothing more happens to an operation: one that was refused stays where it was, with a reason."""
    refused = operation.state is ActivationState.STAGED and operation.reason is not None
    return refused or operation.state in TERMINAL_STATES


def _log_failure(task: asyncio.Task[None]) -> None:
    """An error that nobody foresaw leaves the journal as it is: the next start takes it up from there."""
    if not task.cancelled() and (error := task.exception()):
        _log.error("activation stopped by an internal error", exc_info=error)
