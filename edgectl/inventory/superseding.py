"""What is still to come to a device, and what a newer rollout overtakes. The newest rollout on a device alone may have
anything pending there: opening one ends what older ones have left open."""

import time

from sqlalchemy import text
from sqlmodel import Session

_OLDER_OPEN = """
INSERT INTO rollout_outcome (rollout_id, device_id, release_number, outcome, reason, bytes_moved, seconds, at)
SELECT p.rollout_id, p.device_id, p.release_number, 'superseded', :reason, 0, 0, :now
FROM rollout_part n
JOIN rollout_part p ON p.device_id = n.device_id
 AND p.rollout_id = (SELECT max(q.rollout_id) FROM rollout_part q
                     WHERE q.device_id = n.device_id AND q.rollout_id < :new)
WHERE n.rollout_id = :new
  AND NOT EXISTS (SELECT 1 FROM rollout_outcome o WHERE o.rollout_id = p.rollout_id AND o.device_id = p.device_id)
RETURNING rollout_id, release_number, device_id
"""
_OLDER_PENDING = """
UPDATE rollout_outcome SET outcome = 'superseded', reason = :reason, at = :now
WHERE outcome IN ('unreachable', 'deferred') AND rollout_id < :new
  AND device_id IN (SELECT device_id FROM rollout_part WHERE rollout_id = :new)
RETURNING rollout_id, release_number, device_id
"""
_DEVICE_RELEASE = """
UPDATE device_release SET outcome = 'superseded' WHERE release_number = :number AND device_id = :device
"""
_SETTLE = """
UPDATE rollout SET state = 'finished', state_reason = NULL, finished_at = :now
WHERE id = :rollout AND state IN ('waiting', 'paused')
  AND NOT EXISTS (
    SELECT 1 FROM rollout_part p
    LEFT JOIN rollout_outcome o ON o.rollout_id = p.rollout_id AND o.device_id = p.device_id
    WHERE p.rollout_id = :rollout AND coalesce(o.outcome, 'deferred') IN ('unreachable', 'deferred'))
"""
_NEWER = "SELECT 1 FROM rollout_part WHERE device_id = :device AND rollout_id > :rollout LIMIT 1"


def supersede(session: Session, rollout_id: int) -> None:
    """Within a transaction: on the devices of a new rollout, end what older ones have not ended."""
    told = {"new": rollout_id, "now": time.time(), "reason": f"rollout {rollout_id} came after it"}
    connection = session.connection()
    ended = [
        *connection.execute(text(_OLDER_PENDING), told).all(),
        *connection.execute(text(_OLDER_OPEN), told).all(),
    ]
    parts = [{"number": number, "device": device} for _, number, device in ended if number is not None]
    if parts:
        connection.execute(text(_DEVICE_RELEASE), parts)
    for older in sorted({rollout for rollout, _, _ in ended}):
        settle(session, older)


def settle(session: Session, rollout_id: int) -> None:
    """Within a transaction: a rollout that waits, for its last devices or for a person, has finished when nothing is
    pending."""
    session.flush()
    session.connection().execute(text(_SETTLE), {"rollout": rollout_id, "now": time.time()})


def overtaken(session: Session, rollout_id: int, device: int) -> bool:
    """Within a transaction: whether a newer rollout has this device."""
    found = session.connection().execute(text(_NEWER), {"rollout": rollout_id, "device": device})
    return found.first() is not None
