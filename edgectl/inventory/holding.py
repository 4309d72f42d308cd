"""The repository's part for what devices' own workers hold: memory that a new release would get back."""

import json
from collections.abc import Mapping

from pydantic import ValidationError
from sqlalchemy import text

from agent_daemon.contract.wire import WorkerStatus
from edgectl.inventory.sessions import Sessions

TOGETHER = 120.0
"""Seconds between a device's facts and its heartbeat within which both are about the same memory: a heartbeat comes
every minute."""

_WORKERS = """
    SELECT d.name, h.workers
      FROM device d
      JOIN device_heartbeat h ON h.device_id = d.id
      JOIN device_facts f ON f.device_id = d.id
     WHERE d.removed_at IS NULL AND h.workers <> '[]'
       AND abs(coalesce(f.sent_at - h.sent_at, f.received_at - h.received_at)) <= :together
    """


class Holding(Sessions):
    def holding(self) -> Mapping[str, tuple[WorkerStatus, ...]]:
        """The workers of each device, by its name, whose memory its facts count as taken. A device is left out whose
        facts and last heartbeat are of different times: what was free before a load says nothing about after it."""
        with self._transaction() as session:
            rows = session.connection().execute(text(_WORKERS), {"together": TOGETHER}).all()
        return {name: _workers(workers) for name, workers in rows}


def _workers(stored: str) -> tuple[WorkerStatus, ...]:
    try:
        return tuple(WorkerStatus.model_validate(worker) for worker in json.loads(stored))
    except ValidationError:
        return ()  # stored by another version, which knew other words
