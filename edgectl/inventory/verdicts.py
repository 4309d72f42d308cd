"""The repository's part for late devices: how the release that was pending for one ended there, and what that does to
its rollout."""

import time

from sqlmodel import Session, col, func, select

from agent_daemon.contract.wire import ActivationEvent, Outcome
from edgectl.inventory import leases
from edgectl.inventory.audits import note
from edgectl.inventory.models import DeviceReleaseRow, RolloutOutcomeRow, RolloutPartRow, RolloutRow
from edgectl.inventory.rollout_rows import find_rollout, put_state
from edgectl.inventory.rollouts import put_outcome
from edgectl.inventory.sessions import Sessions, device_id, find_device
from edgectl.inventory.values import PENDING
from edgectl.rollouts.late import halted_by
from edgectl.rollouts.owner import current
from edgectl.rollouts.policy import Policy

_GOING = ("running", "waiting", "finished")
"""States in which a rollout may be halted, because a hub hands out what is pending."""


class Verdicts(Sessions):
    def rollout_size(self, rollout_id: int) -> int:
        """How many devices a rollout has. Raises InventoryError."""
        with self._transaction() as session:
            return session.exec(
                select(func.count())
                .select_from(RolloutPartRow)
                .where(RolloutPartRow.rollout_id == rollout_id)
            ).one()

    def end_pending(self, rollout_id: int, device: str, outcome: Outcome, reason: str) -> bool:
        """Say how a device has ended for which a rollout has its release pending; False, and nothing changes, when
        nothing is pending there any more. Raises InventoryError."""
        with self._transaction() as session:
            row = _pending(session, device_id(find_device(session, device)), rollout_id)
            if row is None:
                return False
            _end(session, row, outcome, reason)
            return True


def hear_verdict(session: Session, device: int, event: ActivationEvent) -> None:
    """Within a transaction: the last word of an activation. If that very release is pending for the device, this is how
    its rollout ended there."""
    assert event.outcome is not None
    row = _pending(session, device)
    if row is None or row.release_number != event.number:
        return
    part = session.get(DeviceReleaseRow, (row.release_number, device))
    if part is not None and part.digest == event.release:
        _end(session, row, event.outcome, event.detail)


def _pending(session: Session, device: int, rollout_id: int | None = None) -> RolloutOutcomeRow | None:
    """The newest outcome of a device that is pending."""
    wanted = [col(RolloutOutcomeRow.device_id) == device, col(RolloutOutcomeRow.outcome).in_(PENDING)]
    if rollout_id is not None:
        wanted.append(col(RolloutOutcomeRow.rollout_id) == rollout_id)
    return session.exec(
        select(RolloutOutcomeRow).where(*wanted).order_by(col(RolloutOutcomeRow.rollout_id).desc())
    ).first()


def _end(session: Session, row: RolloutOutcomeRow, outcome: Outcome, reason: str | None) -> None:
    rollout = find_rollout(session, row.rollout_id)
    others = _outcomes_of_others(session, row)
    put_outcome(session, rollout, row.device_id, outcome, reason, release_number=row.release_number)
    why = halted_by(Policy.from_json(rollout.policy), others, outcome)
    if why is not None and rollout.state in _GOING:
        _halt(session, rollout, why)


def _outcomes_of_others(session: Session, row: RolloutOutcomeRow) -> list[Outcome | None]:
    found = session.exec(
        select(RolloutOutcomeRow.outcome)
        .select_from(RolloutPartRow)
        .join(
            RolloutOutcomeRow,
            (col(RolloutOutcomeRow.rollout_id) == col(RolloutPartRow.rollout_id))
            & (col(RolloutOutcomeRow.device_id) == col(RolloutPartRow.device_id)),
            isouter=True,
        )
        .where(RolloutPartRow.rollout_id == row.rollout_id, RolloutPartRow.device_id != row.device_id)
    ).all()
    return [Outcome(outcome) if outcome else None for outcome in found]


def _halt(session: Session, rollout: RolloutRow, why: str) -> None:
    """Nothing more is handed out, and whoever leads it is told by the loss of the lease."""
    put_state(rollout, "halted", why, time.time())
    leases.give_back(session, rollout.id or 0)
    note(session, "halt", current(), rollout.id, rollout.manifest, rollout.manifest_digest, why)
