"""Rollouts inside a transaction: their rows, and the values that are made of them."""

from typing import cast

from sqlmodel import Session

from agent_daemon.contract.wire import Outcome
from edgectl.errors import InventoryError
from edgectl.inventory.models import RolloutOutcomeRow, RolloutRow
from edgectl.inventory.values import DeviceOutcome, Rollout, RolloutKind, RolloutState
from edgectl.rollouts.owner import Owner


def find_rollout(session: Session, rollout_id: int) -> RolloutRow:
    """Raises InventoryError for an unknown one."""
    row = session.get(RolloutRow, rollout_id)
    if row is None:
        raise InventoryError(f"there is no rollout {rollout_id}", "see them with: edgectl rollout list")
    return row


def rollout_id_of(row: RolloutRow) -> int:
    """The key of a stored rollout."""
    assert row.id is not None
    return row.id


def owner_of(row: RolloutRow) -> Owner | None:
    """Whoever leads a rollout, or last did; None for one of before there were owners."""
    if row.owner_user is None or row.owner_host is None or row.owner_pid is None:
        return None
    return Owner(
        user=row.owner_user,
        host=row.owner_host,
        pid=row.owner_pid,
        came_from=row.owner_came_from,
        boot=row.owner_boot,
        started=row.owner_started,
    )


def put_owner(row: RolloutRow, owner: Owner, now: float) -> None:
    """Let `owner` lead a rollout from `now` on."""
    row.owner_user = owner.user
    row.owner_host = owner.host
    row.owner_pid = owner.pid
    row.owner_came_from = owner.came_from
    row.owner_boot = owner.boot
    row.owner_started = owner.started
    row.heartbeat_at = now


def put_state(row: RolloutRow, state: RolloutState, reason: str | None, now: float) -> None:
    """Say how a rollout stands. Its leases are the caller's business."""
    row.state = state
    row.state_reason = reason
    row.finished_at = None if state == "running" else now


def rollout_value(row: RolloutRow) -> Rollout:
    return Rollout(
        id=rollout_id_of(row),
        kind=cast(RolloutKind, row.kind),
        release_number=row.release_number,
        state=cast(RolloutState, row.state),
        started_at=row.started_at,
        finished_at=row.finished_at,
        state_reason=row.state_reason,
        manifest=row.manifest,
        manifest_digest=row.manifest_digest,
        policy=row.policy,
        owner=owner_of(row),
        heartbeat_at=row.heartbeat_at,
    )


def outcome_value(row: RolloutOutcomeRow, device: str) -> DeviceOutcome:
    return DeviceOutcome(
        device=device,
        outcome=Outcome(row.outcome),
        release_number=row.release_number,
        reason=row.reason,
        bytes_moved=row.bytes_moved,
        seconds=row.seconds,
        at=row.at,
    )
