"""Takes the release that a hub wants here, because its turn came while this device was off.

It goes the way of a release that is pushed: staged, its blobs fetched into the store, activated by the activator, whose
events say how it ended. Whoever pushes comes first: then this steps back, and goes on when nobody pushes any more. What
has arrived is kept through cuts and restarts; what is wanted is asked anew with every check-in.
"""

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from agent_daemon.abortable import abortable
from agent_daemon.activator import Activator
from agent_daemon.checkin import Pace, Wanted
from agent_daemon.contract.sizes import format_size
from agent_daemon.contract.wire import (
    ActivationEvent,
    ActivationState,
    Desired,
    Has,
    MissingBlob,
    Outcome,
    RecordKind,
)
from agent_daemon.errors import AgentError, Conflict, DigestMismatch, NoSpace, QuarantinedRelease
from agent_daemon.fetching import Fetch, Stopped
from agent_daemon.hub_connection import HubAddress, HubConnection, HubTrouble, trusted
from agent_daemon.journal import Journal
from agent_daemon.pull_memory import PullMemory, Tries
from agent_daemon.spool import Spool
from agent_daemon.staging import Staging
from agent_daemon.store import Store

_POLL = 0.2
_MOST_BARRED = 200
"""Quarantined releases that a check-in names, the latest."""
_HUB_PACE = Pace(apart=0.2)
_log = logging.getLogger(__name__)
Key = tuple[int, str]
"""A rollout, and the digest of what is to be served."""


@dataclass(frozen=True)
class PullPace:
    """Seconds. `hub`: how to wait after trouble with the hub, without end. `again`: the waits after what went wrong on
    this device; one failure more than these and it gives up. `busy`: while the device does something else. `quiet`: for
    so long after somebody pushed nothing is done."""

    hub: Pace = _HUB_PACE
    again: tuple[float, ...] = (30.0, 300.0)
    busy: float = 5.0
    quiet: float = 60.0


class Puller:
    """`token` may raise OSError or AgentError, as for the check-ins; `publish` brings the journal's events to the
    spool, and wakes the check-ins. Raises UsageProblem for a URL that is none."""

    def __init__(
        self,
        url: str,
        token: Callable[[], str],
        staging: Staging,
        activator: Activator,
        journal: Journal,
        store: Store,
        spool: Spool,
        publish: Callable[[], None],
        memory: PullMemory,
        *,
        pace: PullPace | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._address = HubAddress.parse(url)
        self._trust: ssl.SSLContext | None = trusted(self._address)
        self._token = token
        self._staging = staging
        self._activator = activator
        self._journal = journal
        self._store = store
        self._spool = spool
        self._publish = publish
        self._memory = memory
        self._pace = pace or PullPace()
        # Spreads load over time; nothing secret depends on it.
        self._chance = chance or random.Random()  # noqa: S311
        self._wanted: Desired | None = None
        self._key: Key | None = None
        self._unread: int | None = None
        self._woken = asyncio.Event()
        self._troubles = 0
        self._doubted: set[str] = set()
        self._announced: int | None = None
        self.status: str | None = None
        """What it is at, in a sentence for people; None: nothing."""

    # -- what the check-ins ask for and tell -------------------------------------------------------------

    def has(self) -> Has:
        """What this device tells of itself to be offered a release."""
        return Has(
            active=self._journal.active(),
            quarantine=tuple(each.release for each in self._journal.quarantined()[-_MOST_BARRED:]),
            unread=self._unread,
            over=self._memory.last_over,
        )

    def want(self, wanted: Wanted) -> None:
        """What the hub's latest answer says. Nothing: whatever was wanted is not wanted any more. From the event loop's
        thread only."""
        self._unread = None
        if isinstance(wanted, dict):
            self._unread = _rollout_in(wanted)
            _log.warning("the hub offers a release that this agent is too old to understand")
            wanted = None
        key = (wanted.rollout, wanted.release.digest()) if wanted else None
        if key != self._key:
            self._wanted, self._key, self._troubles = wanted, key, 0
            self._woken.set()

    # -- the loop ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Goes on until it is cancelled. Raises nothing else."""
        wait: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._woken.wait()
            self._woken.clear()
            wait = await self._step()

    async def _step(self) -> float | None:
        """One attempt at what is wanted. Returns after how many seconds to make another; None: none is needed."""
        desired, key = self._wanted, self._key
        if desired is None or key is None or self._memory.of(*key).over:
            self.status = None
            return None
        digest = key[1]
        try:
            return await self._attempt(desired, key)
        except Stopped:
            self.status = f"{desired.release.label} waits: somebody else brings a release"
            return self._pace.busy
        except QuarantinedRelease as error:
            self._give_up(desired, digest, Outcome.REFUSED, error.message)
            return None
        except Conflict as error:
            self.status = f"{desired.release.label} waits: {error.message}"
            return self._pace.busy
        except HubTrouble as error:
            return self._trouble(desired, error)
        except NoSpace as error:
            return self._failed(desired, digest, Outcome.REFUSED, error.message)
        except AgentError as error:
            return self._failed(desired, digest, Outcome.FAILED_UNCHANGED, error.message)
        except OSError as error:
            why = f"the disk: {error.strerror or type(error).__name__}"
            return self._failed(desired, digest, Outcome.FAILED_UNCHANGED, why)
        except Exception as error:  # noqa: BLE001
            # A mistake in here must not end it for good. Its text may hold anything, a token too.
            why = f"the agent made a mistake: {type(error).__name__}"
            return self._failed(desired, digest, Outcome.FAILED_UNCHANGED, why)

    async def _attempt(self, desired: Desired, key: Key) -> float | None:
        if self._somebody_pushes():
            raise Stopped
        release, pushes = desired.release, self._activator.pushes
        staged = await self._staging.stage(release, retry=desired.retry, prune=desired.prune, pulled=True)
        if staged.operation is None:
            # It is served already, and the next check-in says so.
            self.status = None
            return None
        if staged.missing and self._announced != staged.operation.id:
            self._announced = staged.operation.id
            size = format_size(sum(blob.size - blob.offset for blob in staged.missing))
            self._journal.note(staged.operation, f"{size} come from the hub")
            self._publish()
        for blob in staged.missing:
            await self._bring(desired, blob, lambda: self._activator.pushes != pushes or self._key != key)
        if self._activator.pushes != pushes or self._key != key:
            raise Stopped
        operation = self._activator.activate(key[1], desired.retry, pulled=True)
        self.status = f"{release.label} is being activated"
        while not self._activator.settled(operation.id):  # noqa: ASYNC110 (the journal is asked, not this loop)
            await asyncio.sleep(_POLL)
        self._end(desired, key[1])
        return None

    async def _bring(self, desired: Desired, blob: MissingBlob, given_up: Callable[[], bool]) -> None:
        """Fetches one blob. Raises Stopped as soon as it is `given_up`, and what `Fetch.run` does."""
        label, began = desired.release.label, blob.offset

        def arrived(held: int) -> None:
            self.status = f"{label} comes: {format_size(held)} of {format_size(blob.size)}"
            if held > began:
                self._troubles = 0

        token = await asyncio.to_thread(self._read_token)
        connection = HubConnection(self._address, self._trust)
        fetch = Fetch(connection, self._store, token, desired.limit_rate, arrived)
        anew = blob.digest in self._doubted
        self._doubted.discard(blob.digest)
        work = asyncio.create_task(
            abortable(lambda: fetch.run(blob.digest, blob.size, anew=anew), fetch.stop)
        )
        try:
            while not (await asyncio.wait({work}, timeout=_POLL))[0]:
                if given_up():
                    fetch.stop()
            await work
        except DigestMismatch:
            self._doubted.add(blob.digest)
            raise
        finally:
            work.cancel()
            connection.close()

    def _somebody_pushes(self) -> bool:
        """Whether a release is being brought here by somebody else: a moment ago, or a file of it right now."""
        if time.monotonic() - self._activator.pushed_at < self._pace.quiet:
            return True
        latest = self._journal.latest()
        if latest is None or latest.state is not ActivationState.STAGING:
            return False
        lacking = self._activator.missing(self._journal.release(latest.release))
        return any(self._store.receiving(blob.digest) for blob in lacking)

    def _read_token(self) -> str:
        try:
            return self._token().strip()
        except (OSError, UnicodeDecodeError):
            raise HubTrouble("this device's token cannot be read", lasting=True) from None

    # -- what comes of it --------------------------------------------------------------------------------

    def _trouble(self, desired: Desired, trouble: HubTrouble) -> float:
        self._troubles += 1
        said = f"{desired.release.label} waits: {trouble.message}"
        if said != self.status:
            _log.warning("%s", said)
        self.status = said
        return self._pace.hub.after_failure(self._troubles, trouble, self._chance)

    def _failed(self, desired: Desired, digest: str, outcome: Outcome, why: str) -> float | None:
        """After what went wrong on this device: how long to wait, or None when that was the last try."""
        tries = self._memory.of(desired.rollout, digest)
        if tries.failures >= len(self._pace.again):
            self._give_up(desired, digest, outcome, why)
            return None
        self._keep(replace(tries, failures=tries.failures + 1))
        self.status = f"{desired.release.label} waits: {why}"
        _log.warning("%s", self.status)
        return self._pace.again[tries.failures] * self._chance.uniform(0.7, 1.3)

    def _give_up(self, desired: Desired, digest: str, outcome: Outcome, why: str) -> None:
        """Reports that this device does not take the release, so that it is not offered any more."""
        _log.warning("%s from the hub is not taken: %s", desired.release.label, why)
        latest = self._journal.latest()
        if latest is not None and latest.release == digest and latest.state is ActivationState.STAGING:
            self._journal.advance(latest.id, latest.state, reason=why, outcome=outcome)
        else:
            event = ActivationEvent(
                operation=latest.id if latest is not None and latest.release == digest else 0,
                release=digest,
                number=desired.release.number,
                state=ActivationState.STAGING,
                detail=why,
                outcome=outcome,
            )
            self._spool.append(RecordKind.ACTIVATION, event)
        self._publish()
        self._end(desired, digest)

    def _end(self, desired: Desired, digest: str) -> None:
        self._keep(replace(self._memory.of(desired.rollout, digest), over=True))
        self._doubted.clear()
        self.status = None

    def _keep(self, tries: Tries) -> None:
        try:
            self._memory.keep(tries)
        except OSError as error:
            _log.warning("what became of the hub's release cannot be noted: %s", error.strerror)


def _rollout_in(wanted: dict[str, Any]) -> int | None:
    rollout = wanted.get("rollout")
    return rollout if isinstance(rollout, int) else None
