"""Rollouts that others can follow and take up: their parts, who leads them, who did what. And drift.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_STATES = "'running', 'paused', 'halted', 'waiting', 'finished', 'interrupted', 'aborted'"


def upgrade() -> None:
    _add_drift()
    # SQLite cannot change a check. Rows go out and in again, the referring table's too, and none is renamed (0004).
    op.execute("CREATE TEMP TABLE rollout_0005 AS SELECT * FROM rollout")
    op.execute("CREATE TEMP TABLE rollout_outcome_0005 AS SELECT * FROM rollout_outcome")
    op.drop_table("rollout_outcome")
    op.drop_table("rollout")
    _create_rollout()
    _create_rollout_outcome()
    op.execute(
        "INSERT INTO rollout (id, kind, release_number, state, manifest, policy, started_at, finished_at) "
        "SELECT o.id, o.kind, o.release_number, o.state, r.manifest, '{}', o.started_at, o.finished_at "
        "FROM rollout_0005 o LEFT JOIN release r ON r.number = o.release_number"
    )
    op.execute(
        "INSERT INTO rollout_outcome "
        "(id, rollout_id, device_id, release_number, outcome, reason, bytes_moved, seconds, at) "
        "SELECT id, rollout_id, device_id, release_number, outcome, reason, bytes_moved, seconds, at "
        "FROM rollout_outcome_0005"
    )
    _create_rollout_part()
    op.execute(
        "INSERT INTO rollout_part (rollout_id, device_id, wave, release_number) "
        "SELECT rollout_id, device_id, 0, release_number FROM rollout_outcome_0005"
    )
    op.execute("DROP TABLE rollout_outcome_0005")
    op.execute("DROP TABLE rollout_0005")
    op.create_table(
        "lease",
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("rollout_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"]),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.id"]),
        sa.PrimaryKeyConstraint("device_id"),
    )
    op.create_index("lease_rollout", "lease", ["rollout_id"], unique=False)
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("came_from", sa.String(), nullable=True),
        sa.Column("rollout_id", sa.Integer(), nullable=True),
        sa.Column("manifest", sa.String(), nullable=True),
        sa.Column("manifest_digest", sa.String(), nullable=True),
        sa.Column("detail", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.id"]),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )


def _add_drift() -> None:
    op.add_column("device", sa.Column("agent_build", sa.String(), nullable=True))
    op.add_column("device_facts", sa.Column("agent_build", sa.String(), nullable=True))
    op.add_column("device_heartbeat", sa.Column("drift", sa.String(), nullable=True))


def _create_rollout() -> None:
    op.create_table(
        "rollout",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("release_number", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("state_reason", sa.String(), nullable=True),
        sa.Column("manifest", sa.String(), nullable=True),
        sa.Column("manifest_digest", sa.String(), nullable=True),
        sa.Column("policy", sa.String(), nullable=False),
        sa.Column("owner_user", sa.String(), nullable=True),
        sa.Column("owner_host", sa.String(), nullable=True),
        sa.Column("owner_pid", sa.Integer(), nullable=True),
        sa.Column("owner_came_from", sa.String(), nullable=True),
        sa.Column("owner_boot", sa.String(), nullable=True),
        sa.Column("owner_started", sa.String(), nullable=True),
        sa.Column("heartbeat_at", sa.Float(), nullable=True),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.CheckConstraint("kind IN ('deploy', 'rollback')", name="rollout_kind"),
        sa.CheckConstraint(f"state IN ({_STATES})", name="rollout_state"),
        sa.ForeignKeyConstraint(["release_number"], ["release.number"]),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )


def _create_rollout_outcome() -> None:
    op.create_table(
        "rollout_outcome",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rollout_id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("release_number", sa.Integer(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("bytes_moved", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"]),
        sa.ForeignKeyConstraint(["release_number"], ["release.number"]),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("rollout_id", "device_id", name="rollout_outcome_once"),
        sqlite_autoincrement=True,
    )
    op.create_index("rollout_outcome_device", "rollout_outcome", ["device_id", "id"], unique=False)
    op.create_index(
        "rollout_outcome_pending",
        "rollout_outcome",
        ["device_id", "rollout_id"],
        unique=False,
        sqlite_where=sa.text("outcome IN ('unreachable', 'deferred')"),
    )


def _create_rollout_part() -> None:
    op.create_table(
        "rollout_part",
        sa.Column("rollout_id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("release_number", sa.Integer(), nullable=True),
        sa.Column("previous_number", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"]),
        sa.ForeignKeyConstraint(["release_number"], ["release.number"]),
        sa.ForeignKeyConstraint(["rollout_id"], ["rollout.id"]),
        sa.PrimaryKeyConstraint("rollout_id", "device_id"),
    )
    op.create_index("rollout_part_device", "rollout_part", ["device_id", "rollout_id"], unique=False)
