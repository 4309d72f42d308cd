"""The repository's part for rollouts: what was tried, on which device, and how it ended."""

import time

from sqlmodel import Session, col, delete, select

from agent_daemon.contract.release import DeviceRelease
from agent_daemon.contract.wire import Outcome
from edgectl.inventory.models import (
    DeviceReleaseRow,
    DeviceRow,
    RolloutOutcomeRow,
    RolloutPartRow,
    RolloutRow,
)
from edgectl.inventory.releases import stored_release
from edgectl.inventory.rollout_rows import find_rollout, outcome_value, rollout_id_of
from edgectl.inventory.sessions import Sessions, device_id, find_device
from edgectl.inventory.superseding import overtaken, settle
from edgectl.inventory.values import PENDING, DeviceOutcome

_COMMITTED = (Outcome.SUCCEEDED, Outcome.UNCHANGED)


class Rollouts(Sessions):
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
        """Say how the rollout ended on one device; said again, the later word counts. `release_number` defaults to what
        the device is to get in this rollout. What is pending (`unreachable`, `deferred`) is `superseded` where a newer
        rollout has the device; a waiting rollout of which nothing is pending any more has finished. Raises
        InventoryError for an unknown rollout or device."""
        with self._transaction() as session:
            rollout = find_rollout(session, rollout_id)
            key = device_id(find_device(session, device))
            put_outcome(session, rollout, key, outcome, reason, bytes_moved, seconds, release_number)

    def outcomes(self, rollout_id: int) -> tuple[DeviceOutcome, ...]:
        """How a rollout ended on each device so far, as they ended. Raises InventoryError."""
        with self._transaction() as session:
            find_rollout(session, rollout_id)
            rows = session.exec(
                select(RolloutOutcomeRow, DeviceRow.name)
                .join(DeviceRow, col(DeviceRow.id) == col(RolloutOutcomeRow.device_id))
                .where(RolloutOutcomeRow.rollout_id == rollout_id)
                .order_by(col(RolloutOutcomeRow.id))
            ).all()
            return tuple(outcome_value(row, name) for row, name in rows)

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


def put_outcome(
    session: Session,
    rollout: RolloutRow,
    device: int,
    outcome: Outcome,
    reason: str | None = None,
    bytes_moved: int = 0,
    seconds: float = 0.0,
    release_number: int | None = None,
) -> None:
    """Within a transaction: what `record_outcome` does, for a device by its key."""
    rollout_id = rollout_id_of(rollout)
    number = _number_in(session, rollout, device, release_number)
    if outcome in PENDING and overtaken(session, rollout_id, device):
        outcome = Outcome.SUPERSEDED
    # A later word is a later row: the newest row of a device is what it last came to.
    session.exec(
        delete(RolloutOutcomeRow).where(
            col(RolloutOutcomeRow.rollout_id) == rollout_id, col(RolloutOutcomeRow.device_id) == device
        )
    )
    session.add(
        RolloutOutcomeRow(
            rollout_id=rollout_id,
            device_id=device,
            release_number=number,
            outcome=outcome.value,
            reason=reason,
            bytes_moved=bytes_moved,
            seconds=seconds,
            at=time.time(),
        )
    )
    if number is not None and (part := session.get(DeviceReleaseRow, (number, device))) is not None:
        part.outcome = outcome
    settle(session, rollout_id)


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


def _number_in(session: Session, rollout: RolloutRow, device: int, said: int | None) -> int | None:
    """The release that an outcome is about. A device that the rollout did not know of becomes a part of it."""
    assert rollout.id is not None
    part = session.get(RolloutPartRow, (rollout.id, device))
    if part is None:
        part = RolloutPartRow(rollout_id=rollout.id, device_id=device, wave=0)
        part.release_number = rollout.release_number if said is None else said
        session.add(part)
        session.flush()
        return part.release_number
    if said is not None:
        return said
    return rollout.release_number if part.release_number is None else part.release_number
