"""One writer per device: which rollout may change which device, for as long as its owner gives signs of life.

A lease is a row for each device; the sign of life is the rollout's heartbeat, so that renewing costs the same for
ten devices and for ten thousand.
"""

import sqlite3
import time
from collections.abc import Collection
from contextlib import closing

import sqlalchemy as sa
from sqlmodel import Session, col, delete, select

from edgectl.errors import Busy, InventoryError, LeaseLost
from edgectl.inventory import database
from edgectl.inventory.models import DeviceRow, LeaseRow, RolloutRow
from edgectl.inventory.rollout_rows import find_rollout, owner_of, put_state, rollout_id_of
from edgectl.inventory.sessions import Sessions
from edgectl.inventory.values import LEASE_SECONDS
from edgectl.rollouts.owner import Owner, alive

_LOOK_UP = """
SELECT state, state_reason, owner_user, owner_host, owner_pid, owner_came_from, owner_boot, owner_started
FROM rollout WHERE id = ?
"""


class Leases(Sessions):
    def renew(self, rollout_id: int, owner: Owner) -> None:
        """A sign of life from the one who leads a rollout. Raises LeaseLost when it is no longer theirs to lead."""
        with self._transaction() as session:
            row = find_rollout(session, rollout_id)
            must_lead(row, owner)
            row.heartbeat_at = time.time()

    def check_lease(self, rollout_id: int, owner: Owner) -> None:
        """What `renew` would say, without writing. Raises LeaseLost and InventoryError."""
        try:
            with closing(database.read_only(self._path)) as connection:
                found = connection.execute(_LOOK_UP, (rollout_id,)).fetchone()
        except sqlite3.Error as error:
            raise database.unusable(self._path, error) from None
        if found is None:
            raise InventoryError(f"there is no rollout {rollout_id}")
        state, reason, *leader = found
        _must_lead(rollout_id, state, reason, Owner(*leader) if leader[0] else None, owner)


def in_force(row: RolloutRow, now: float) -> bool:
    """Within a transaction: whether somebody still leads a rollout. A process that can be looked for decides at once;
    one elsewhere is taken for gone when its heartbeat is too old, or from the future (a clock was set)."""
    owner = owner_of(row)
    if row.state != "running" or owner is None or row.heartbeat_at is None:
        return False
    seen = alive(owner)
    return abs(now - row.heartbeat_at) <= LEASE_SECONDS if seen is None else seen


def take(session: Session, row: RolloutRow, devices: Collection[int], *, force: bool) -> str | None:
    """Within a transaction: lease devices (by their keys) to a rollout. Rollouts that nobody leads any more lose
    theirs, and with `force` those too that somebody leads; both then stand as interrupted. Returns what was taken
    from whom by force. Raises Busy."""
    now, own = time.time(), rollout_id_of(row)
    taken: list[str] = []
    for other, names in _conflicts(session, own, frozenset(devices)):
        number = rollout_id_of(other)
        if not in_force(other, now):
            put_state(other, "interrupted", f"its process was gone when rollout {own} began", now)
        elif force:
            what = f"{_few(names)} from rollout {number} of {owner_of(other)}"
            put_state(
                other, "interrupted", f"rollout {own} of {owner_of(row)} took {_few(names)} by force", now
            )
            taken.append(what)
        else:
            raise busy(other, names, now)
        give_back(session, number)
    session.flush()
    if devices:
        session.connection().execute(
            sa.insert(LeaseRow), [{"device_id": device, "rollout_id": own} for device in devices]
        )
    return f"took by force: {'; '.join(taken)}" if taken else None


def give_back(session: Session, rollout_id: int) -> None:
    """Within a transaction: end all leases of a rollout."""
    session.exec(delete(LeaseRow).where(col(LeaseRow.rollout_id) == rollout_id))


def busy(row: RolloutRow, names: list[str], now: float) -> Busy:
    """What the second of two people is told. `names` are the devices that both want."""
    number = rollout_id_of(row)
    since = max(0, round(now - row.started_at))
    age = f"{since} s" if since < 90 else f"{since // 60} min" if since < 5400 else f"{since // 3600} h"
    return Busy(
        f"rollout {number} of {owner_of(row)} is at work on {_few(names)} since {age}; nothing was changed",
        f"follow it with: edgectl rollout watch {number}; try again when it has ended, "
        "or take over with --force (it is then interrupted)",
    )


def must_lead(row: RolloutRow, owner: Owner) -> None:
    """Within a transaction: raises LeaseLost unless `owner` leads this rollout now."""
    _must_lead(rollout_id_of(row), row.state, row.state_reason, owner_of(row), owner)


def _conflicts(session: Session, own: int, devices: frozenset[int]) -> list[tuple[RolloutRow, list[str]]]:
    """Other rollouts that have leases on any of these devices, with the names of those, oldest rollout first."""
    leases = session.exec(
        select(LeaseRow.rollout_id, LeaseRow.device_id, DeviceRow.name)
        .join(DeviceRow, col(DeviceRow.id) == col(LeaseRow.device_id))
        .where(LeaseRow.rollout_id != own)
        .order_by(col(LeaseRow.rollout_id), col(DeviceRow.name))
    ).all()
    wanted: dict[int, list[str]] = {}
    for rollout, device, name in leases:
        if device in devices:
            wanted.setdefault(rollout, []).append(name)
    return [(find_rollout(session, rollout), names) for rollout, names in wanted.items()]


def _few(names: list[str]) -> str:
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more:,} more" if more > 0 else "")


def _must_lead(rollout_id: int, state: str, reason: str | None, leader: Owner | None, owner: Owner) -> None:
    if state != "running":
        because = f": {reason}" if reason else ""
        raise LeaseLost(
            f"rollout {rollout_id} is {state} now{because}",
            f"see it with: edgectl rollout status {rollout_id}",
        )
    if leader != owner:
        raise LeaseLost(
            f"rollout {rollout_id} was taken up by {leader or 'somebody else'}",
            f"follow it with: edgectl rollout watch {rollout_id}",
        )
