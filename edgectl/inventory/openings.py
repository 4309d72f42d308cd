"""The repository's part for beginning a rollout, taking it up again and ending it from outside: each takes or gives
back the leases of its devices in one transaction."""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from agent_daemon.contract.release import DeviceRelease
from agent_daemon.contract.wire import Outcome
from edgectl.errors import InventoryError, UsageError
from edgectl.inventory import database, leases
from edgectl.inventory.audits import note
from edgectl.inventory.models import (
    DeviceReleaseRow,
    DeviceRow,
    RolloutOutcomeRow,
    RolloutPartRow,
    RolloutRow,
)
from edgectl.inventory.rollout_rows import (
    find_rollout,
    owner_of,
    put_owner,
    put_state,
    rollout_id_of,
    rollout_value,
)
from edgectl.inventory.sessions import Sessions
from edgectl.inventory.superseding import supersede
from edgectl.inventory.values import PENDING, Rollout, RolloutKind, RolloutPart, RolloutState
from edgectl.rollouts.owner import Owner

_PENDING = """
SELECT o.rollout_id, s.spec FROM device d
JOIN rollout_outcome o ON o.device_id = d.id AND o.outcome IN ('unreachable', 'deferred')
JOIN rollout r ON r.id = o.rollout_id AND r.state IN ('running', 'waiting', 'finished') AND r.owner_user IS NOT NULL
JOIN device_release s ON s.release_number = o.release_number AND s.device_id = o.device_id
WHERE d.name = ? AND d.removed_at IS NULL
  AND (r.state <> 'running' OR NOT EXISTS (
    SELECT 1 FROM rollout_part own
      JOIN rollout_part before ON before.rollout_id = own.rollout_id AND before.wave < own.wave
     WHERE own.rollout_id = r.id AND own.device_id = d.id
       AND NOT EXISTS (SELECT 1 FROM rollout_outcome e
                        WHERE e.rollout_id = r.id AND e.device_id = before.device_id)))
ORDER BY o.rollout_id DESC LIMIT 1
"""
"""What a device is to get later; while the rollout runs, not before the waves that come first have ended."""


class Openings(Sessions):
    def open_rollout(
        self,
        kind: RolloutKind,
        release_number: int | None,
        *,
        manifest: str | None,
        manifest_digest: str | None,
        policy: str,
        parts: Sequence[RolloutPart],
        owner: Owner,
        force: bool = False,
    ) -> Rollout:
        """Begin a rollout: its record, the leases of all its devices and a line of the audit, or nothing of it.

        `release_number` is None when devices go to different releases; `policy` is JSON. Parts that have an outcome
        already have ended with it. What older rollouts have pending on these devices is superseded. Raises Busy when
        another rollout is at work on one of them (with `force` that one is interrupted), InventoryError for an unknown
        device, and UsageError for a policy that is no JSON or for a device that is named twice."""
        _must_be_json(policy)
        now = time.time()
        with self._transaction() as session:
            keys = _device_keys(session, parts)
            row = RolloutRow(
                kind=kind,
                release_number=release_number,
                manifest=manifest,
                manifest_digest=manifest_digest,
                policy=policy,
                started_at=now,
            )
            put_owner(row, owner, now)
            session.add(row)
            session.flush()
            forced = leases.take(session, row, keys.values(), force=force)
            _add_parts(session, rollout_id_of(row), parts, keys)
            supersede(session, rollout_id_of(row))
            _add_outcomes(session, row, parts, keys, now)
            many = f"{len(parts):,} device{'s' if len(parts) != 1 else ''}"
            detail = many if forced is None else f"{many}; {forced}"
            note(session, kind, owner, row.id, manifest, manifest_digest, detail)
            return rollout_value(row)

    def take_up(
        self, rollout_id: int, owner: Owner, force: bool = False
    ) -> tuple[Rollout, tuple[RolloutPart, ...]]:
        """Go on with a rollout in another process: it runs again, `owner` leads it, and its devices are leased to it.

        Devices that a newer rollout has are left out of the parts: they are that one's. Raises Busy when somebody leads
        it, or leads another on one of its devices (with `force` both are taken over), and InventoryError when there is
        no such rollout or nothing of it can be taken up."""
        now = time.time()
        with self._transaction() as session:
            row = find_rollout(session, rollout_id)
            _must_be_open(row)
            parts = _own_parts(session, rollout_id)
            if not parts:
                raise InventoryError(
                    f"newer rollouts have all devices of rollout {rollout_id}: nothing of it is left to do",
                    "see them with: edgectl rollout list",
                )
            led = leases.in_force(row, now)
            if led and not force:
                raise leases.busy(row, [part.device for _, part in parts], now)
            detail = f"took it over by force from {owner_of(row)}" if led else f"it was {row.state}"
            leases.give_back(session, rollout_id)
            put_owner(row, owner, now)
            put_state(row, "running", None, now)
            forced = leases.take(session, row, [key for key, _ in parts], force=force)
            detail = detail if forced is None else f"{detail}; {forced}"
            note(session, "resume", owner, rollout_id, row.manifest, row.manifest_digest, detail)
            return rollout_value(row), tuple(part for _, part in parts)

    def abort_rollout(self, rollout_id: int, owner: Owner, reason: str | None = None) -> Rollout:
        """End a rollout for good, whoever leads it: that one is told by its next `renew`. What is on its way on a device
        finishes there by itself; what is pending is no longer handed out. Raises InventoryError when there is no such
        rollout, or nothing of it to abort."""
        now = time.time()
        with self._transaction() as session:
            row = find_rollout(session, rollout_id)
            _must_be_open(row)
            if row.state == "finished" and not any(
                _is_open(part) for _, part in _own_parts(session, rollout_id)
            ):
                raise InventoryError(f"rollout {rollout_id} has finished: there is nothing left to abort")
            before = row.state
            put_state(row, "aborted", reason or f"aborted by {owner}", now)
            leases.give_back(session, rollout_id)
            detail = f"it was {before}" + (f"; {reason}" if reason else "")
            note(session, "abort", owner, rollout_id, row.manifest, row.manifest_digest, detail)
            return rollout_value(row)

    def set_state(
        self, rollout_id: int, state: RolloutState, reason: str | None = None, *, owner: Owner | None = None
    ) -> Rollout:
        """Say how a rollout stands now. Any state but `running` gives its leases back; `running` needs `take_up` first.
        With `owner`, only if that one still leads it (raises LeaseLost). Raises InventoryError."""
        with self._transaction() as session:
            row = find_rollout(session, rollout_id)
            if owner is not None:
                leases.must_lead(row, owner)
            if state == "running" and row.state != "running":
                raise InventoryError(f"rollout {rollout_id} is {row.state}: it has to be taken up first")
            put_state(row, state, reason, time.time())
            if state != "running":
                leases.give_back(session, rollout_id)
            return rollout_value(row)

    def rollout(self, rollout_id: int) -> Rollout:
        """Raises InventoryError when there is none of that number."""
        with self._transaction() as session:
            return rollout_value(find_rollout(session, rollout_id))

    def parts(self, rollout_id: int) -> tuple[RolloutPart, ...]:
        """Every device's place in a rollout, by wave and name. Raises InventoryError when there is no such rollout."""
        with self._transaction() as session:
            find_rollout(session, rollout_id)
            return tuple(part for _, part in _all_parts(session, rollout_id))

    def pending(self, device: str) -> tuple[int, DeviceRelease] | None:
        """What a hub may hand out to a device: the rollout and the release that could not be brought to it. Nothing
        while its rollout is paused, halted, interrupted or aborted. Raises InventoryError."""
        try:
            with closing(database.read_only(self._path)) as connection:
                found = connection.execute(_PENDING, (device,)).fetchone()
        except sqlite3.Error as error:
            raise database.unusable(self._path, error) from None
        return (found[0], DeviceRelease.model_validate_json(found[1])) if found else None


def _must_be_json(policy: str) -> None:
    try:
        json.loads(policy)
    except ValueError:
        raise UsageError("the policy of a rollout has to be JSON") from None


def _must_be_open(row: RolloutRow) -> None:
    if row.state == "aborted":
        because = f" ({row.state_reason})" if row.state_reason else ""
        raise InventoryError(f"rollout {row.id} was aborted{because}", "deploy again to begin a new one")
    if owner_of(row) is None:
        raise InventoryError(
            f"rollout {row.id} was made by an older edgectl, which did not record how to go on with it",
            "deploy again to begin a new one",
        )


def _device_keys(session: Session, parts: Sequence[RolloutPart]) -> dict[str, int]:
    twice = [name for name, count in Counter(part.device for part in parts).items() if count > 1]
    if twice:
        raise UsageError(f"{twice[0]} is twice in one rollout")
    found = session.exec(
        select(DeviceRow.name, DeviceRow.id).where(col(DeviceRow.removed_at).is_(None))
    ).all()
    known = {name: key for name, key in found if key is not None}
    for part in parts:
        if part.device not in known:
            raise InventoryError(
                f"there is no device {part.device!r} in the inventory", "see them with: edgectl device list"
            )
    return {part.device: known[part.device] for part in parts}


def _add_parts(session: Session, rollout_id: int, parts: Sequence[RolloutPart], keys: dict[str, int]) -> None:
    rows = [
        {
            "rollout_id": rollout_id,
            "device_id": keys[part.device],
            "wave": part.wave,
            "release_number": part.release_number,
            "previous_number": part.previous_number,
        }
        for part in parts
    ]
    if rows:
        session.connection().execute(sa.insert(RolloutPartRow), rows)


def _add_outcomes(
    session: Session, row: RolloutRow, parts: Sequence[RolloutPart], keys: dict[str, int], now: float
) -> None:
    ended: list[dict[str, Any]] = [
        {
            "rollout_id": row.id,
            "device_id": keys[part.device],
            "release_number": part.release_number,
            "outcome": part.outcome.value,
            "reason": part.reason,
            "bytes_moved": 0,
            "seconds": 0.0,
            "at": now,
        }
        for part in parts
        if part.outcome is not None
    ]
    if not ended:
        return
    connection = session.connection()
    connection.execute(sa.insert(RolloutOutcomeRow), ended)
    table = DeviceReleaseRow
    connection.execute(
        sa.update(table)
        .where(
            col(table.release_number) == sa.bindparam("number"),
            col(table.device_id) == sa.bindparam("device"),
        )
        .values(outcome=sa.bindparam("word")),
        [
            {"number": part["release_number"], "device": part["device_id"], "word": part["outcome"]}
            for part in ended
        ],
    )


def _own_parts(session: Session, rollout_id: int) -> list[tuple[int, RolloutPart]]:
    """The parts that no newer rollout has overtaken, on devices that are still there."""
    connection = session.connection()
    newer = sa.select(col(RolloutPartRow.device_id)).where(col(RolloutPartRow.rollout_id) > rollout_id)
    removed = sa.select(col(DeviceRow.id)).where(col(DeviceRow.removed_at).is_not(None))
    gone = {*connection.execute(newer).scalars(), *connection.execute(removed).scalars()}
    return [(key, part) for key, part in _all_parts(session, rollout_id) if key not in gone]


def _all_parts(session: Session, rollout_id: int) -> list[tuple[int, RolloutPart]]:
    rows = session.exec(
        select(RolloutPartRow, DeviceRow.name, RolloutOutcomeRow.outcome, RolloutOutcomeRow.reason)
        .join(DeviceRow, col(DeviceRow.id) == col(RolloutPartRow.device_id))
        .join(
            RolloutOutcomeRow,
            sa.and_(
                col(RolloutOutcomeRow.rollout_id) == col(RolloutPartRow.rollout_id),
                col(RolloutOutcomeRow.device_id) == col(RolloutPartRow.device_id),
            ),
            isouter=True,
        )
        .where(RolloutPartRow.rollout_id == rollout_id)
        .order_by(col(RolloutPartRow.wave), col(DeviceRow.name))
    ).all()
    return [
        (
            row.device_id,
            RolloutPart(
                device=name,
                wave=row.wave,
                release_number=row.release_number,
                previous_number=row.previous_number,
                outcome=Outcome(outcome) if outcome else None,
                reason=reason,
            ),
        )
        for row, name, outcome, reason in rows
    ]


def _is_open(part: RolloutPart) -> bool:
    return part.outcome is None or part.outcome in PENDING
