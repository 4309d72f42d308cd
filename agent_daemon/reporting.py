"""What this device tells of itself: everything goes into the spool, from where it is collected."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable

from pydantic import BaseModel

from agent_daemon import telemetry
from agent_daemon.contract.drift import Drift
from agent_daemon.contract.wire import Facts, Fitted, Heartbeat, RecordKind, WorkerEvent, WorkerStatus
from agent_daemon.errors import AgentError
from agent_daemon.free_memory import free_ram
from agent_daemon.journal import Journal
from agent_daemon.spool import Spool

_HEARTBEAT_SECONDS = 60.0
_GATHER_SECONDS = 0.3
"""Events of an activation come close together, while it waits for the same disk: they are told together."""
_MOST_KEPT = 1000
"""Reports that wait in memory while the spool cannot take them; the oldest goes first."""
_log = logging.getLogger(__name__)


class Reporting:
    """`detect` determines the facts anew, `workers` says how they are, `drift` looks, in a thread, what is otherwise
    than it should be; `wake` is called when something has come up that is worth telling at once."""

    def __init__(
        self,
        journal: Journal,
        spool: Spool,
        detect: Callable[[], Awaitable[Facts]],
        workers: Callable[[], tuple[WorkerStatus, ...]],
        wake: Callable[[], None],
        drift: Callable[[], tuple[Drift, ...]] = tuple,
    ) -> None:
        self._journal = journal
        self._spool = spool
        self._detect = detect
        self._workers = workers
        self._wake = wake
        self._drift = drift
        self._began = time.monotonic()
        self._kept: deque[tuple[RecordKind, BaseModel, float]] = deque(maxlen=_MOST_KEPT)
        self._keeping, self._bringing = threading.Lock(), threading.Lock()
        self._events = asyncio.Event()
        self._failing = False

    def worker(self, event: WorkerEvent) -> None:
        """Tells what happened to a worker, here and in the log."""
        level = logging.WARNING if event.what == "crashed" else logging.INFO
        _log.log(
            level, "worker of %s: %s%s", event.model, event.what, f": {event.detail}" if event.detail else ""
        )
        self._report(RecordKind.WORKER, event)

    def fitted(self, record: Fitted) -> None:
        """Tells what a loaded model takes."""
        self._report(RecordKind.FITTED, record)

    async def facts(self) -> None:
        """Reports the facts anew, because something has become known; while the spool cannot be written, with the next
        flush."""
        try:
            await asyncio.to_thread(self._spool.append, RecordKind.FACTS, await self._detect())
        except AgentError as error:
            self._went_wrong(error)
        self._wake()

    def publish(self) -> None:
        """Says that the journal has events to tell. Nobody waits for the disk: `tell` brings them to the spool."""
        self._events.set()

    async def tell(self) -> None:
        """Brings activation events from the journal to the spool, each at least once, in order, until cancelled. What
        cannot be written now, because the disk is full, is brought there later."""
        while True:
            await self._events.wait()
            await asyncio.sleep(_GATHER_SECONDS)
            self._events.clear()
            await asyncio.to_thread(self._bring_events)
            self._wake()

    async def drifted(self) -> None:
        """Tells at once that something is otherwise than before; while the spool cannot be written, with the next
        heartbeat."""
        try:
            await self._append_heartbeat()
        except AgentError as error:
            self._went_wrong(error)
        self._wake()

    async def flush(self) -> None:
        """Everything that could be reported now is in the spool afterwards: facts, heartbeat, the open minute. Raises
        AgentError when the spool cannot be written."""
        await asyncio.to_thread(self._bring_events)
        await asyncio.to_thread(self._bring_kept)
        facts = await self._detect()
        await asyncio.to_thread(self._spool.append, RecordKind.FACTS, facts)
        await self._append_heartbeat()
        await asyncio.to_thread(self._spool.close_minutes, None)

    async def beat(self) -> None:
        """Reports facts once, and then how the device is doing, until cancelled. A spool that cannot be written now is
        tried again."""
        told = False
        while True:
            try:
                if not told:
                    await asyncio.to_thread(self._spool.append, RecordKind.FACTS, await self._detect())
                told = True
                await asyncio.to_thread(self._bring_events)
                await asyncio.to_thread(self._bring_kept)
                await self._append_heartbeat()
                await asyncio.to_thread(self._spool.close_minutes, time.time())
                self._went_well()
            except AgentError as error:
                self._went_wrong(error)
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    # -- while the spool cannot be written -------------------------------------------------------------

    def _report(self, kind: RecordKind, body: BaseModel) -> None:
        """Whoever tells of something has to go on, whether it can be kept on disk or not: then it waits here."""
        with self._keeping:
            self._kept.append((kind, body, time.time()))
        try:
            self._bring_kept()
        except AgentError as error:
            self._went_wrong(error)

    def _bring_kept(self) -> None:
        """What waits in memory is in the spool afterwards, in order. Raises AgentError when that is not possible."""
        with self._keeping:
            while self._kept:
                kind, body, at = self._kept[0]
                self._spool.append(kind, body, at)
                self._kept.popleft()

    def _bring_events(self) -> None:
        try:
            # By one at a time: two would tell the same.
            with self._bringing:
                events = self._journal.unreported()
                if not events:
                    return
                with self._spool.step():
                    for _, at, event in events:
                        self._spool.append(RecordKind.ACTIVATION, event, at)
                with self._journal.step():
                    for identity, _, _ in events:
                        self._journal.reported(identity)
        except AgentError as error:
            self._went_wrong(error)

    def _went_wrong(self, error: Exception) -> None:
        """Said once, however long it lasts."""
        if not self._failing:
            _log.error("reports wait in memory: %s", error)
        self._failing = True

    def _went_well(self) -> None:
        if self._failing:
            _log.info("reports are written again")
        self._failing = False

    async def _append_heartbeat(self) -> None:
        # In a thread, because a GPU that sleeps takes a moment to say how much of it is free.
        gpu_free = await asyncio.to_thread(telemetry.gpu_free)
        drift = await asyncio.to_thread(self._drift)
        heartbeat = self._heartbeat(gpu_free).model_copy(update={"drift": drift})
        await asyncio.to_thread(self._spool.append, RecordKind.HEARTBEAT, heartbeat)

    def _heartbeat(self, gpu_free: tuple[int | None, ...]) -> Heartbeat:
        operation, active = self._journal.latest(), self._journal.active()
        return Heartbeat(
            uptime=time.monotonic() - self._began,
            ram_available=free_ram().free,
            gpu_free=gpu_free,
            active=active,
            active_number=self._journal.release(active).number if active else None,
            state=operation.state if operation else None,
            workers=self._workers(),
        )
