"""The repository's part for rollouts: what was tried, on which device, and how it ended."""

import time
from typing import cast

from sqlmodel import Session, col, select

from agent_daemon.contract.release import DeviceRelease
from agent_daemon.contract.wire import Outcome
from edgectl.errors import InventoryError
from edgectl.inventory.models import DeviceReleaseRow, DeviceRow, RolloutOutcomeRow, RolloutRow
from edgectl.inventory.releases import stored_release
from edgectl.inventory.sessions import Sessions, device_id, find_device
from edgectl.inventory.values import DeviceOutcome, Rollout, RolloutEnd, RolloutKind

_COMMITTED = (Outcome.SUCCEEDED, Outcome.UNCHANGED)


class Rollouts(Sessions):
    def start_rollout(self, kind: RolloutKind, release_number: int | None = None) -> Rollout:
        """Begin a rollout. `release_number` is None when devices go to different releases."""
        with self._transaction() as session:
            row = RolloutRow(kind=kind, release_number=release_number, started_at=time.time())
            session.add(row)
            session.flush()
            return _value(row)

    def record_outcome(
        self,
        rollout_id: int,
        device: str,
        outcome: Outcome,
        reason: str | None = None,
        bytes_moved: int = 0,
        seconds: float = 0.0,
        release_number: int | None = None,
    ) -> None:
        """Say how the rollout ended on one device; said again, the later word counts. `release_number`
        defaults to the rollout's. Raises InventoryError for an unknown rollout or device."""
        with self._transaction() as session:
            rollout = _rollout(session, rollout_id)
            key = device_id(find_device(session, device))
            number = rollout.release_number if release_number is None else release_number
            row = session.exec(
                select(RolloutOutcomeRow).where(
                    RolloutOutcomeRow.rollout_id == rollout_id, RolloutOutcomeRow.device_id == key
                )
            ).first() or RolloutOutcomeRow(rollout_id=rollout_id, device_id=key, outcome=outcome, at=0.0)
            row.outcome = outcome
            row.reason = reason
            row.bytes_moved = bytes_moved
            row.seconds = seconds
            row.release_number = number
            row.at = time.time()
            session.add(row)
            if number is not None and (part := session.get(DeviceReleaseRow, (number, key))) is not None:
                part.outcome = outcome

    def finish_rollout(self, rollout_id: int, state: RolloutEnd = "finished") -> Rollout:
        """End a rollout. Raises InventoryError for an unknown one."""
        with self._transaction() as session:
            row = _rollout(session, rollout_id)
            row.state = state
            row.finished_at = time.time()
            return _value(row)

    def outcomes(self, rollout_id: int) -> tuple[DeviceOutcome, ...]:
        """How a rollout ended on each device so far, as they ended. Raises InventoryError."""
        with self._transaction() as session:
            _rollout(session, rollout_id)
            rows = session.exec(
                select(RolloutOutcomeRow, DeviceRow.name)
                .join(DeviceRow, col(DeviceRow.id) == col(RolloutOutcomeRow.device_id))
                .where(RolloutOutcomeRow.rollout_id == rollout_id)
                .order_by(col(RolloutOutcomeRow.id))
            ).all()
            return tuple(_outcome(row, name) for row, name in rows)

    def current_release(self, device: str) -> DeviceRelease | None:
        """The release that this inventory last saw committed on the device. Raises InventoryError."""
        return self._release_back(device, 1)

    def previous_release(self, device: str) -> DeviceRelease | None:
        """The release that was committed on the device before its current one: where a rollback goes.

        Rolled back releases are gone from the line: after r1, r2, r3 and a rollback to r2, the previous one
        is r1, so that rolling back twice never returns to what was just left. Raises InventoryError.
        """
        return self._release_back(device, 2)

    def _release_back(self, device: str, place: int) -> DeviceRelease | None:
        with self._transaction() as session:
            key = device_id(find_device(session, device))
            line = _committed_line(session, key)
            return stored_release(session, line[-place], key) if len(line) >= place else None


def _committed_line(session: Session, device: int) -> list[int]:
    """Numbers of the releases that lead to the device's current one, each on top of the one before."""
    steps = session.exec(
        select(RolloutOutcomeRow.release_number, RolloutRow.kind)
        .join(RolloutRow, col(RolloutRow.id) == col(RolloutOutcomeRow.rollout_id))
        .where(
            RolloutOutcomeRow.device_id == device,
            col(RolloutOutcomeRow.outcome).in_([outcome.value for outcome in _COMMITTED]),
            col(RolloutOutcomeRow.release_number).is_not(None),
        )
        .order_by(col(RolloutOutcomeRow.id))
    ).all()
    line: list[int] = []
    for number, kind in steps:
        assert number is not None
        if kind == "rollback" and number in line:
            del line[len(line) - line[::-1].index(number) :]
        elif not line or line[-1] != number:
            line.append(number)
    return line


def _rollout(session: Session, rollout_id: int) -> RolloutRow:
    row = session.get(RolloutRow, rollout_id)
    if row is None:
        raise InventoryError(f"there is no rollout {rollout_id}")
    return row


def _value(row: RolloutRow) -> Rollout:
    assert row.id is not None
    return Rollout(
        id=row.id,
        kind=cast(RolloutKind, row.kind),
        release_number=row.release_number,
        state=cast("RolloutEnd", row.state),
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _outcome(row: RolloutOutcomeRow, device: str) -> DeviceOutcome:
    return DeviceOutcome(
        device=device,
        outcome=Outcome(row.outcome),
        release_number=row.release_number,
        reason=row.reason,
        bytes_moved=row.bytes_moved,
        seconds=row.seconds,
        at=row.at,
    )
