"""Performs the transition table of `activation.py` on this device. One operation at a time.

The journal is written before each step. Whatever the step does may be done twice: a restart reads the journal
and performs the action of the state that it finds.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable

from agent_daemon import probe
from agent_daemon.activation import Action, Happening, choose_strategy, transition
from agent_daemon.changes import Changes
from agent_daemon.contract.release import DeviceRelease
from agent_daemon.contract.wire import (
    TERMINAL_STATES,
    ActivationState,
    MissingBlob,
    Operation,
    Outcome,
    Staged,
)
from agent_daemon.errors import BlobsMissing, Conflict, JournalUnwritable, NotFound, QuarantinedRelease
from agent_daemon.exchange import Exchange, Failure
from agent_daemon.journal import Journal
from agent_daemon.preflight import Measure, Preflight
from agent_daemon.residency import Residents
from agent_daemon.room import FreeMemory
from agent_daemon.serving import Serving
from agent_daemon.store import Store
from agent_daemon.supervisor import Supervisor

_JUST_NOW = 30.0
"""Seconds for which a release that was brought counts as on its way, whatever comes of it."""
_WRITE_AGAIN = 1.0
"""Seconds until a journal that could not be written is tried again."""
_MOST_STARTS = 3
"""How often an activation that was asked for is begun again by a start of the agent, while nothing was changed yet."""
_FAILED = {
    ActivationState.STAGED: Happening.REFUSED,
    ActivationState.ACTIVATING: Happening.FAILED,
    ActivationState.PROBING: Happening.FAILED,
    ActivationState.REVERTING: Happening.RESTORE_FAILED,
}
"""What an error that nobody foresaw comes to, by the state in which it happened."""
_OUTCOMES = {
    ActivationState.COMMITTED: Outcome.SUCCEEDED,
    ActivationState.REVERTED: Outcome.REVERTED,
    ActivationState.REVERT_FAILED: Outcome.REVERT_FAILED,
}
_log = logging.getLogger(__name__)
_BEFORE = frozenset({ActivationState.STAGING, ActivationState.STAGED})
_BUSY = frozenset({ActivationState.ACTIVATING, ActivationState.PROBING, ActivationState.REVERTING})


class Activator:
    """Owns the switch between releases. `free_memory` measures what is free, in a thread, and `measure` what a model
    would take; `publish` is called after each event, and may not wait."""

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
        self._exchange = Exchange(store, supervisor, residents, serving, self._preflight, free_memory)
        self._measuring: int | None = None
        self._task: asyncio.Task[None] | None = None
        self._unsettled: int | None = None
        self.pushes = 0
        """How often somebody has brought a release: whatever the device fetches by itself steps back then."""
        self.pushed_at = -math.inf
        """When that was last, on the monotonic clock."""
        self.changes = Changes()
        """Told whenever an operation has a new event, or has come to its end."""

    # -- what the control API asks for -----------------------------------------------------------------

    def stage(self, release: DeviceRelease, retry: bool, *, pulled: bool = False) -> Staged:
        """Takes a release and says which blobs are missing. Raises QuarantinedRelease, Conflict. A release that
        is served already begins no operation, and one that is being activated goes on with its own. `pulled`: the
        device takes it from its hub by itself."""
        self._note_push(pulled)
        digest = release.digest()
        if not self.admits(release, retry):
            return Staged(operation=self._running(digest))
        missing = self.missing(release)
        with self._journal.step():
            self._journal.keep_release(release)
            if digest == self._journal.active() and not missing and not self._exchange.stale(release):
                return Staged()
            latest = self._journal.latest()
            if latest and latest.state in _BEFORE and not _ended(latest):
                if latest.release == digest:
                    return Staged(operation=latest, missing=missing)
                self._journal.advance(
                    latest.id, latest.state, reason="another release came first", outcome=Outcome.SUPERSEDED
                )
            operation = self._journal.begin(digest, release.number)
        self._tell()
        return Staged(operation=operation, missing=missing)

    def admits(self, release: DeviceRelease, retry: bool) -> bool:
        """Whether `stage` would take a release as something new. Raises QuarantinedRelease, Conflict."""
        digest = release.digest()
        if self._running(digest):
            return False
        self._refuse_while_busy()
        self._refuse_quarantined(digest, retry)
        return True

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

    def activate(self, digest: str, retry: bool, *, pulled: bool = False) -> Operation:
        """Begins the activation of a release whose blobs are all here and returns its operation; it goes on
        without the caller. Raises NotFound, Conflict, QuarantinedRelease, BlobsMissing."""
        self._note_push(pulled)
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
        with self._journal.step():
            operation = self._journal.latest()
            if operation is None or operation.release != digest or _ended(operation):
                operation = self._journal.begin(digest, release.number)
            if retry:
                self._journal.pardon(digest)
            if operation.state is ActivationState.STAGING:
                operation = self._enter(operation, Happening.BLOBS_COMPLETE)
            self._journal.ask(operation.id)
        self._measuring = operation.id
        self._begin(operation, Happening.ACTIVATE)
        return operation

    def at_work(self) -> bool:
        """Whether a release is on its way here: it was brought a moment ago, its bytes are arriving, or it is being
        exchanged."""
        latest = self._journal.latest()
        if latest is None or _ended(latest):
            return False
        return (
            latest.state in _BUSY
            or latest.id == self._measuring
            or time.monotonic() - self.pushed_at < _JUST_NOW
            or self._store.arriving()
        )

    def stale(self, release: DeviceRelease) -> frozenset[str]:
        """Workers of a release, by engine key, that read files which the store has given up: to activate the release
        again loads them anew."""
        return self._exchange.stale(release)

    def settled(self, operation: int) -> bool:
        """Whether an operation has come to its end and the requests flow accordingly."""
        latest = self._journal.latest()
        if latest is None or latest.id != operation:
            return True
        return _ended(latest) and operation not in (self._unsettled, self._measuring)

    def _note_push(self, pulled: bool) -> None:
        if not pulled:
            self.pushes += 1
            self.pushed_at = time.monotonic()

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
            raise Conflict(f"this device is still at r{latest.number}", "try again in a moment")

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
        await self._exchange.serve(self._active_release())
        if operation := self._journal.latest():
            self._begin(operation, self._taken_up(operation))

    async def close(self) -> None:
        """Stops in the middle of whatever it is; the next start recovers."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._exchange.close()

    def _taken_up(self, operation: Operation) -> Happening:
        """What a start means to the newest operation: one that was asked for is measured again, a few times at most."""
        if operation.state is not ActivationState.STAGED or _ended(operation):
            return Happening.RESTARTED
        if not self._journal.asked_again(operation.id, _MOST_STARTS):
            return Happening.RESTARTED
        if self.missing(self._journal.release(operation.release)):
            return Happening.RESTARTED
        self._measuring = operation.id
        return Happening.RESUMED

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
                try:
                    operation = self._enter(operation, upcoming, reason)
                except JournalUnwritable as error:
                    upcoming, reason = await self._unwritten(step.state, upcoming, reason, error)
                    continue
            try:
                upcoming, reason = await self._perform(step.action, operation)
            except JournalUnwritable as error:
                failed = _FAILED.get(operation.state)
                if failed is None:
                    raise
                _log.error("%s", error)
                upcoming, reason = failed, str(error)
            except Exception as error:
                failed = _FAILED.get(operation.state)
                if failed is None:
                    raise
                _log.exception("%s of r%s went wrong", step.action, operation.number)
                upcoming, reason = failed, f"an error that nobody foresaw: {type(error).__name__}: {error}"

    async def _unwritten(
        self, state: ActivationState, happening: Happening, reason: str | None, error: JournalUnwritable
    ) -> tuple[Happening, str | None]:
        """The journal did not take a state, for a full disk most likely: nothing of it may be done. What is to be
        committed goes back instead; everything else is tried again, with the old release answering."""
        _log.error("%s; trying again", error)
        if state is ActivationState.COMMITTED:
            return Happening.FAILED, str(error)
        if state is not ActivationState.ACTIVATING:
            await self._exchange.serve(self._active_release())
        await asyncio.sleep(_WRITE_AGAIN)
        return happening, reason

    def _enter(self, operation: Operation, happening: Happening, reason: str | None = None) -> Operation:
        state = transition(operation.state, happening).state
        outcome = Outcome.REFUSED if happening is Happening.REFUSED else _OUTCOMES.get(state)
        entered = self._journal.advance(operation.id, state, reason=reason, outcome=outcome)
        if state in TERMINAL_STATES:
            self._unsettled = operation.id
        self._tell()
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
                active = self._active_release()
                await self._exchange.serve(active)
                self._unsettled = None
                self.changes.tell()
                self._exchange.let_go(active)
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
        release = self._journal.release(operation.release)
        free = await asyncio.to_thread(self._free_memory)
        sizes = self._residents.expected()
        strategy = choose_strategy(release, self._supervisor.running(), free, sizes)
        operation = self._journal.choose(operation.id, strategy)
        try:
            await self._exchange.load(release, strategy, lambda text: self._note(operation, text))
        except Failure as failure:
            return Happening.FAILED, str(failure)
        return Happening.LOADED, None

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
        try:
            await self._exchange.restore(self._active_release())
        except Failure as failure:
            return Happening.RESTORE_FAILED, str(failure)
        return Happening.RESTORED, None

    def _active_release(self) -> DeviceRelease | None:
        digest = self._journal.active()
        if digest is None:
            return None
        try:
            return self._journal.release(digest)
        except NotFound:
            return None

    def _tell(self) -> None:
        self._publish()
        self.changes.tell()

    def _note(self, operation: Operation, text: str) -> None:
        """What is only told of a state: an activation does not depend on whether it can be written."""
        try:
            self._journal.note(operation, text)
        except JournalUnwritable as error:
            _log.error("%s", error)
        self._tell()


def _ended(operation: Operation) -> bool:
    """Whether nothing more happens to an operation: one that was refused stays where it was, with a reason."""
    refused = operation.state is ActivationState.STAGED and operation.reason is not None
    return refused or operation.state in TERMINAL_STATES


def _log_failure(task: asyncio.Task[None]) -> None:
    """An error that nobody foresaw leaves the journal as it is: the next start takes it up from there."""
    if not task.cancelled() and (error := task.exception()):
        _log.error("activation stopped by an internal error", exc_info=error)
