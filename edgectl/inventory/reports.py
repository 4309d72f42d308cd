"""The repository's part for reports: what devices tell, stored once however often it is told."""

import time
from typing import Any

from sqlmodel import Session, col, select

from agent_daemon.contract.histogram import EMPTY, Histogram
from agent_daemon.contract.wire import (
    USAGE_HISTOGRAMS,
    USAGE_SUMS,
    Ack,
    ActivationEvent,
    CheckIn,
    Facts,
    Fitted,
    Heartbeat,
    Record,
    Usage,
    WorkerEvent,
)
from edgectl.inventory.devices import hear, store_facts
from edgectl.inventory.fits import forget_old, stored_fit
from edgectl.inventory.models import (
    ActivationEventRow,
    DeviceHeartbeatRow,
    DeviceRow,
    DeviceUsageRow,
    RejectedRecordRow,
    ReportCursorRow,
    UsageRow,
    WorkerEventRow,
)
from edgectl.inventory.records import LARGEST_INTEGER, Body, Rejected, ReportRefused, read
from edgectl.inventory.sessions import Sessions, device_id, find_device
from edgectl.inventory.summaries import heartbeat_columns
from edgectl.inventory.verdicts import hear_verdict


class Reports(Sessions):
    def ingest(self, device_name: str, check_in: CheckIn, received_at: float | None = None) -> Ack:
        """Store a check-in, in one transaction, and say how far the device may forget.

        A record whose `seq` is not above what is stored for this device and epoch is skipped, so taking a
        check-in twice, or parts of it again in other batches, changes nothing. A record that makes no sense
        is set aside (the view `events` shows it) and never holds up those behind it. `received_at` defaults
        to now. Raises InventoryError for an unknown device, and ReportRefused for another device's report or
        for numbers that make no sense.
        """
        now = time.time() if received_at is None else received_at
        if any(not 0 <= record.seq <= LARGEST_INTEGER for record in check_in.records):
            raise ReportRefused(
                f"{device_name} sent a report whose numbering makes no sense; nothing was stored"
            )
        with self._transaction() as session:
            device = find_device(session, device_name)
            if device.agent_id not in (None, check_in.agent_id):
                raise ReportRefused(
                    f"the report is not {device_name}'s: it is of agent {check_in.agent_id}, expected "
                    f"{device.agent_id}; nothing was stored",
                    "was the device's state lost? Remove it and add it again",
                )
            device.agent_id = check_in.agent_id
            cursor = _cursor(session, device_id(device), check_in.epoch, now)
            intake = _Intake(session, device, cursor, now, current=_is_newest(session, cursor))
            for record in sorted(check_in.records, key=lambda record: record.seq):
                if record.seq > cursor.seq:
                    intake.store(record)
                    cursor.seq = record.seq
            intake.finish()
            cursor.received_at = now
            hear(device, now)
            return Ack(epoch=check_in.epoch, seq=cursor.seq)


class _Intake:
    """One check-in on its way into the tables."""

    def __init__(
        self, session: Session, device: DeviceRow, cursor: ReportCursorRow, now: float, *, current: bool
    ) -> None:
        self._session = session
        self._device = device
        self._id = device_id(device)
        self._epoch = cursor.epoch
        self._now = now
        self._current = current
        """Whether this is the device's newest spool: an older one's facts say nothing about today."""
        self._fitted = False
        self._verdict: ActivationEvent | None = None

    def store(self, record: Record) -> None:
        body = read(record)
        if isinstance(body, Facts) and body.agent_id != self._device.agent_id:
            body = Rejected("these are the facts of another agent")
        if isinstance(body, Rejected):
            self._session.add(
                RejectedRecordRow(
                    device_id=self._id,
                    epoch=self._epoch,
                    seq=record.seq,
                    kind=record.kind,
                    reason=body.reason,
                    received_at=self._now,
                )
            )
        else:
            self._store(record, body)

    def finish(self) -> None:
        """To be called when all records are stored."""
        if self._fitted:
            forget_old(self._session, self._id)
        if self._verdict is not None and self._current:
            # The last one only: what came to its end before it is not what the device came to.
            hear_verdict(self._session, self._id, self._verdict)

    def _store(self, record: Record, body: Body) -> None:
        match body:
            case Usage():
                self._add_usage(body)
            case Heartbeat():
                if self._current:
                    self._session.merge(
                        DeviceHeartbeatRow(
                            device_id=self._id,
                            sent_at=record.at,
                            received_at=self._now,
                            **heartbeat_columns(body),
                        )
                    )
            case Facts():
                if self._current:
                    store_facts(self._session, self._device, body, self._now, record.at)
            case Fitted():
                self._session.add(stored_fit(body, self._id, self._epoch, record, self._now))
                self._fitted = True
            case ActivationEvent():
                self._verdict = body if body.outcome is not None else self._verdict
                self._session.add(
                    ActivationEventRow(
                        device_id=self._id,
                        epoch=self._epoch,
                        seq=record.seq,
                        operation=body.operation,
                        release_digest=body.release,
                        release_number=body.number,
                        state=body.state,
                        detail=body.detail,
                        outcome=body.outcome,
                        at=record.at,
                        received_at=self._now,
                    )
                )
            case WorkerEvent():
                self._session.add(
                    WorkerEventRow(
                        device_id=self._id,
                        epoch=self._epoch,
                        seq=record.seq,
                        model=body.model,
                        what=body.what,
                        detail=body.detail,
                        at=record.at,
                        received_at=self._now,
                    )
                )

    def _add_usage(self, usage: Usage) -> None:
        key: dict[str, Any] = {
            "device_id": self._id,
            "minute": usage.minute,
            "model": usage.model,
            "adapter": usage.adapter,
            "key_id": usage.key,
            "release_number": usage.number,
            "release_digest": usage.release,
        }
        row = self._session.get(UsageRow, key) or UsageRow(**key, **_NOTHING)
        for name in USAGE_HISTOGRAMS:
            sent = Histogram(getattr(usage, name))
            setattr(row, name, (Histogram.parse(getattr(row, name)) + sent).text())
        total = self._session.get(DeviceUsageRow, self._id) or DeviceUsageRow(
            device_id=self._id, **dict.fromkeys(_DEVICE_SUMS, 0)
        )
        for sums, names in ((row, USAGE_SUMS), (total, _DEVICE_SUMS)):
            for name in names:
                setattr(sums, name, getattr(sums, name) + getattr(usage, name))
            self._session.add(sums)
        # The identity map finds only what was flushed: a second row of this minute must find the first.
        self._session.flush()


_DEVICE_SUMS = ("requests", "failures", "prompt_tokens", "completion_tokens", "ttft_ms", "duration_ms")
_NOTHING: dict[str, Any] = {
    **dict.fromkeys(USAGE_SUMS, 0),
    **dict.fromkeys(USAGE_HISTOGRAMS, EMPTY.text()),
}


def _cursor(session: Session, device: int, epoch: str, now: float) -> ReportCursorRow:
    found = session.exec(
        select(ReportCursorRow).where(ReportCursorRow.device_id == device, ReportCursorRow.epoch == epoch)
    ).first()
    if found is not None:
        return found
    # Below every seq, so that a spool may begin at 0.
    row = ReportCursorRow(device_id=device, epoch=epoch, seq=-1, received_at=now)
    session.add(row)
    session.flush()
    return row


def _is_newest(session: Session, cursor: ReportCursorRow) -> bool:
    newest = session.exec(
        select(ReportCursorRow.id)
        .where(ReportCursorRow.device_id == cursor.device_id)
        .order_by(col(ReportCursorRow.id).desc())
    ).first()
    return newest == cursor.id
