"""What this device tells of itself: everything goes into the spool, from where it is collected."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from agent_daemon import telemetry
from agent_daemon.contract.wire import Facts, Fitted, Heartbeat, RecordKind, WorkerEvent, WorkerStatus
from agent_daemon.free_memory import free_ram
from agent_daemon.journal import Journal
from agent_daemon.spool import Spool

_HEARTBEAT_SECONDS = 60.0
_log = logging.getLogger(__name__)


class Reporting:
    """`detect` determines the facts anew, `workers` says how they are, `wake` is called when something has come
    up that is worth telling at once."""

    def __init__(
        self,
        journal: Journal,
        spool: Spool,
        detect: Callable[[], Awaitable[Facts]],
        workers: Callable[[], tuple[WorkerStatus, ...]],
        wake: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._spool = spool
        self._detect = detect
        self._workers = workers
        self._wake = wake
        self._began = time.monotonic()

    def worker(self, event: WorkerEvent) -> None:
        """Tells what happened to a worker, here and in the log."""
        level = logging.WARNING if event.what == "crashed" else logging.INFO
        _log.log(
            level, "worker of %s: %s%s", event.model, event.what, f": {event.detail}" if event.detail else ""
        )
        self._spool.append(RecordKind.WORKER, event)

    def fitted(self, record: Fitted) -> None:
        """Tells what a loaded model takes."""
        self._spool.append(RecordKind.FITTED, record)

    async def facts(self) -> None:
        """Reports the facts anew, because something has become known."""
        await asyncio.to_thread(self._spool.append, RecordKind.FACTS, await self._detect())
        self._wake()

    def publish(self) -> None:
        """Brings activation events from the journal to the spool: each at least once, in order."""
        for identity, at, event in self._journal.unreported():
            self._spool.append(RecordKind.ACTIVATION, event, at)
            self._journal.reported(identity)
        self._wake()

    async def flush(self) -> None:
        """Everything that could be reported now is in the spool afterwards: facts, heartbeat, the open minute."""
        facts = await self._detect()
        await asyncio.to_thread(self._spool.append, RecordKind.FACTS, facts)
        await self._append_heartbeat()
        await asyncio.to_thread(self._spool.close_minutes, None)

    async def beat(self) -> None:
        """Reports facts once, and then how the device is doing, until cancelled."""
        await asyncio.to_thread(self._spool.append, RecordKind.FACTS, await self._detect())
        while True:
            await self._append_heartbeat()
            await asyncio.to_thread(self._spool.close_minutes, time.time())
            await asyncio.sleep(_HEARTBEAT_SECONDS)

    async def _append_heartbeat(self) -> None:
        # In a thread, because a GPU that sleeps takes a moment to say how much of it is free.
        gpu_free = await asyncio.to_thread(telemetry.gpu_free)
        await asyncio.to_thread(self._spool.append, RecordKind.HEARTBEAT, self._heartbeat(gpu_free))

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
