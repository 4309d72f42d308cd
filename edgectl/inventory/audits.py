"""The repository's part for the audit: who did what, when, from where, with which manifest."""

import time

from sqlmodel import Session

from edgectl.inventory.models import AuditRow
from edgectl.inventory.sessions import Sessions
from edgectl.rollouts.owner import Owner


class Audits(Sessions):
    def audit(
        self,
        action: str,
        owner: Owner,
        rollout_id: int | None = None,
        manifest: str | None = None,
        manifest_digest: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Write down what somebody did. Rollouts that are opened, taken up or aborted write it themselves."""
        with self._transaction() as session:
            note(session, action, owner, rollout_id, manifest, manifest_digest, detail)


def note(
    session: Session,
    action: str,
    owner: Owner,
    rollout_id: int | None,
    manifest: str | None,
    manifest_digest: str | None,
    detail: str | None,
) -> None:
    """Within a transaction: one line of the audit."""
    session.add(
        AuditRow(
            at=time.time(),
            action=action,
            user=owner.user,
            host=owner.host,
            pid=owner.pid,
            came_from=owner.came_from,
            rollout_id=rollout_id,
            manifest=manifest,
            manifest_digest=manifest_digest,
            detail=detail,
        )
    )
