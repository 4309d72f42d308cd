"""Usage totals kept with each device, and usage found by its minute.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "device_usage",
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("ttft_ms", sa.Integer(), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"]),
        sa.PrimaryKeyConstraint("device_id"),
    )
    op.create_index("usage_minute", "usage", ["minute"], unique=False)
    op.execute(
        "INSERT INTO device_usage (device_id, requests, failures, prompt_tokens, completion_tokens, ttft_ms, "
        "duration_ms) SELECT device_id, sum(requests), sum(failures), sum(prompt_tokens), "
        "sum(completion_tokens), sum(ttft_ms), sum(duration_ms) FROM usage GROUP BY device_id"
    )
