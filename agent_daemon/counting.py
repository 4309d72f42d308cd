"""Counts every request, durably for the inventory and in passing for a scrape, and answers the scrapes."""

import asyncio
import time

from agent_daemon.errors import WorkerFailure
from agent_daemon.metering import RequestRecord, usage_of
from agent_daemon.metrics import Metrics
from agent_daemon.spool import MINUTE, Spool
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_messages import Stats

_PATIENCE = 5.0
"""Seconds that a scrape waits for a worker: its step on a long prompt may take a while, a page must come."""


class Counting:
    """Where finished requests go. `count` may be called from several threads."""

    def __init__(self, spool: Spool, supervisor: Supervisor) -> None:
        self._spool = spool
        self._supervisor = supervisor
        self._metrics = Metrics()

    def count(self, record: RequestRecord) -> None:
        """Counts one request. Durable on return. Raises NoSpace and AgentError as the spool does."""
        self._spool.count(usage_of(record, int(time.time() // MINUTE) * MINUTE))
        self._metrics.observe(record)

    async def scrape(self) -> str:
        """The page for Prometheus, of the type `exposition.CONTENT_TYPE`. A worker that does not answer in time is
        on it without what only itself could say."""
        workers = self._supervisor.status()
        keys = [worker.engine_key for worker in workers]
        answers = await asyncio.gather(*(self._inspect(key) for key in keys))
        stats = {key: answer for key, answer in zip(keys, answers, strict=True) if answer is not None}
        return self._metrics.text(stats, workers)

    async def _inspect(self, key: str) -> Stats | None:
        process = self._supervisor.process(key)
        try:
            return None if process is None else await asyncio.wait_for(process.inspect(), _PATIENCE)
        except (WorkerFailure, TimeoutError):
            return None
