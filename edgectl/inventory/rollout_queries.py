"""The read side for rollouts and the audit: rows of the views `rollout_status`, `rollout_history` and `audit_log`.

The views know whether a rollout's owner gave a sign of life lately. Where its process is on this machine, it is looked for
besides, so that one that was killed is not said to run for another minute, and one that slept is not said to be gone.
"""

import json
import sqlite3
from typing import Any

from edgectl.errors import InventoryError
from edgectl.rollouts.owner import Owner, alive

Row = dict[str, Any]

OUTCOMES = (
    *("succeeded", "unchanged", "failed_unchanged", "reverted", "revert_failed"),
    *("refused", "unreachable", "deferred", "superseded"),
)
"""The columns of `rollout_status` that count devices by outcome."""

_OPEN = ("running", "paused", "halted", "interrupted", "waiting")
_RECENT = 100


def rollouts(connection: sqlite3.Connection, limit: int = 20) -> list[Row]:
    """The newest `limit` rollouts, newest first, as rows of `rollout_status`; the policy as a mapping."""
    rows = _select(
        connection,
        "SELECT * FROM rollout_status WHERE rollout IN (SELECT id FROM rollout ORDER BY id DESC LIMIT ?) "
        "ORDER BY rollout DESC",
        limit,
    )
    return _looked_for(connection, rows)


def rollout(connection: sqlite3.Connection, number: int | None = None) -> Row:
    """One rollout (default: the newest), as `rollouts` gives it. Raises InventoryError when it is not there."""
    if number is None:
        newest = connection.execute("SELECT max(id) FROM rollout").fetchone()[0]
        if newest is None:
            raise InventoryError("there is no rollout yet", "begin one with: edgectl deploy -f FILE")
        number = int(newest)
    rows = _select(connection, "SELECT * FROM rollout_status WHERE rollout = ?", number)
    if not rows:
        raise InventoryError(f"there is no rollout {number}", "see them with: edgectl rollout list")
    return _looked_for(connection, rows)[0]


def to_resume(connection: sqlite3.Connection) -> Row:
    """The newest rollout that has not come to its end, among the newest `_RECENT`; where all have, the newest. Raises
    InventoryError when there is none."""
    open_ones = (row for row in rollouts(connection, _RECENT) if row["state"] in _OPEN)
    return next(open_ones, None) or rollout(connection)


def rollout_devices(connection: sqlite3.Connection, number: int) -> list[Row]:
    """The devices of a rollout by wave and name: device, wave, release, previous, outcome (None: not ended), reason,
    bytes_moved, seconds and at."""
    return _select(
        connection,
        "SELECT device, wave, release, previous, outcome, reason, bytes_moved, seconds, at FROM rollout_history "
        "WHERE rollout = ? AND device IS NOT NULL ORDER BY wave, device",
        number,
    )


def audit(connection: sqlite3.Connection, device: str | None = None, limit: int = 20) -> list[Row]:
    """The newest `limit` rows of `audit_log`, newest first; only of rollouts on one device, if it is named."""
    return _select(
        connection,
        "SELECT * FROM audit_log WHERE ?1 IS NULL OR rollout IN (SELECT rollout FROM rollout_history WHERE device = ?1) "
        "ORDER BY id DESC LIMIT ?2",
        device,
        limit,
    )


def _looked_for(connection: sqlite3.Connection, rows: list[Row]) -> list[Row]:
    running = connection.execute(
        "SELECT id, owner_user, owner_host, owner_pid, owner_came_from, owner_boot, owner_started FROM rollout "
        "WHERE state = 'running' AND owner_user IS NOT NULL"
    )
    seen = {number: alive(Owner(*owner)) for number, *owner in running}
    for row in rows:
        there = seen.get(row["rollout"])
        if there is not None:
            row["state"] = "running" if there else "interrupted"
        if row["state"] == "interrupted" and row["state_reason"] is None and row["owner_user"] is not None:
            row["state_reason"] = "its process is gone"
        row["policy"] = json.loads(row["policy"])
    return rows


def _select(connection: sqlite3.Connection, sql: str, *values: object) -> list[Row]:
    cursor = connection.execute(sql, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
