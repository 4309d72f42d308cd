"""Usage by adapter and API key too, how requests finished, and histograms of their times.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NO_COUNTS = "[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]"


def upgrade() -> None:
    # SQLite cannot change a primary key. Rows go out and in again, and no table is renamed: that would fail where
    # a view of the user's own reads one of ours, which are away during a migration.
    op.execute("CREATE TEMP TABLE usage_0003 AS SELECT * FROM usage")
    op.drop_table("usage")
    op.create_table(
        "usage",
        sa.Column("device_id", sa.Integer(), nullable=False),
        sa.Column("minute", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("release_number", sa.Integer(), nullable=False),
        sa.Column("release_digest", sa.String(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("cached_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("ttft_ms", sa.Integer(), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("queue_ms", sa.Integer(), nullable=False),
        sa.Column("finish_stop", sa.Integer(), nullable=False),
        sa.Column("finish_length", sa.Integer(), nullable=False),
        sa.Column("finish_tool_calls", sa.Integer(), nullable=False),
        sa.Column("finish_cancelled", sa.Integer(), nullable=False),
        sa.Column("finish_error", sa.Integer(), nullable=False),
        sa.Column("ttft_histogram", sa.String(), nullable=False),
        sa.Column("inter_token_histogram", sa.String(), nullable=False),
        sa.Column("queue_histogram", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["device_id"], ["device.id"]),
        sa.PrimaryKeyConstraint(
            "device_id", "minute", "model", "adapter", "key_id", "release_number", "release_digest"
        ),
    )
    op.get_bind().execute(
        sa.text(
            "INSERT INTO usage (device_id, minute, model, adapter, key_id, release_number, release_digest, requests, "
            "failures, prompt_tokens, cached_tokens, completion_tokens, ttft_ms, duration_ms, queue_ms, finish_stop, "
            "finish_length, finish_tool_calls, finish_cancelled, finish_error, ttft_histogram, "
            "inter_token_histogram, queue_histogram) "
            "SELECT device_id, minute, model, '', '', release_number, release_digest, requests, failures, "
            "prompt_tokens, 0, completion_tokens, ttft_ms, duration_ms, 0, 0, 0, 0, 0, 0, :none, :none, :none "
            "FROM usage_0003"
        ),
        {"none": _NO_COUNTS},
    )
    op.execute("DROP TABLE usage_0003")
    op.create_index("usage_minute", "usage", ["minute"], unique=False)
