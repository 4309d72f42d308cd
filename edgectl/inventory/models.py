"""The tables of the inventory. Times are seconds since the epoch (UTC): `at` and `sent_at` by the device's
clock, `received_at` and the rest by ours. Sizes are bytes. JSON is kept as text, exactly as it was validated.

Changing a table means writing a migration; a test compares both.
"""

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel


class DeviceRow(SQLModel, table=True):
    """A device that somebody added. A removed one keeps its row, so that usage and history have a name."""

    __tablename__ = "device"
    __table_args__ = (
        Index("device_name", "name", unique=True, sqlite_where=text("removed_at IS NULL")),
        Index("device_agent_id", "agent_id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    name: str
    agent_id: str | None = None
    transport: str
    labels: str = "{}"
    added_at: float
    removed_at: float | None = None
    last_seen: float | None = None
    unreachable_since: float | None = None
    unreachable_reason: str | None = None
    agent_build: str | None = None


class DeviceTokenRow(SQLModel, table=True):
    """What a device shows to a hub: the SHA-256 of it, in hexadecimal, and never the token."""

    __tablename__ = "device_token"
    __table_args__ = (
        UniqueConstraint("token_hash", name="device_token_hash"),
        Index("device_token_device", "device_id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    device_id: int = Field(foreign_key="device.id")
    token_hash: str
    created_at: float
    expires_at: float


class DeviceFactsRow(SQLModel, table=True):
    """The latest facts of a device, whole and with the columns that views need."""

    __tablename__ = "device_facts"

    device_id: int = Field(primary_key=True, foreign_key="device.id")
    facts: str
    hostname: str | None = None
    os: str | None = None
    cpu_model: str | None = None
    cpu_threads: int | None = None
    ram_total: int | None = None
    ram_available: int | None = None
    vram_total: int | None = None
    vram_free: int | None = None
    gpus: str | None = None
    gpu_note: str | None = None
    backends: str | None = None
    agent_version: str
    agent_build: str | None = None
    gateway_url: str | None = None
    simulated_offload: bool = False
    sent_at: float | None = None
    received_at: float


class DeviceHeartbeatRow(SQLModel, table=True):
    """The latest heartbeat of a device."""

    __tablename__ = "device_heartbeat"
    __table_args__ = (Index("device_heartbeat_active", "active_number", "active_digest"),)

    device_id: int = Field(primary_key=True, foreign_key="device.id")
    sent_at: float
    received_at: float
    uptime: float
    active_number: int | None = None
    active_digest: str | None = None
    state: str | None = None
    models: str | None = None
    memory: str | None = None
    workers: str
    workers_total: int
    workers_ready: int
    predicted_bytes: int | None = None
    measured_bytes: int | None = None
    ram_available: int | None = None
    tokens_per_second: float | None = None
    simulated_offload: bool = False
    problem: str | None = None
    reports_dropped: int = 0
    drift: str | None = None


class ReleaseRow(SQLModel, table=True):
    """A release: what one manifest came to, for all devices that it was resolved for."""

    __tablename__ = "release"
    __table_args__ = (Index("release_content", "manifest", "digest"), {"sqlite_autoincrement": True})

    number: int | None = Field(default=None, primary_key=True)
    manifest: str
    digest: str
    spec: str
    created_at: float


class DeviceReleaseRow(SQLModel, table=True):
    """What one device is asked to serve under one release, and how it last went."""

    __tablename__ = "device_release"
    __table_args__ = (Index("device_release_device", "device_id", "digest"),)

    release_number: int = Field(primary_key=True, foreign_key="release.number")
    device_id: int = Field(primary_key=True, foreign_key="device.id")
    digest: str
    spec: str
    outcome: str | None = None


class RolloutRow(SQLModel, table=True):
    """One deploy or rollback. `release_number` is absent when devices went back to different releases. Whoever leads it
    (or last did) is its owner; one without an owner was made before rollouts could be taken up. `finished_at` is when
    its last process stopped."""

    __tablename__ = "rollout"
    __table_args__ = (
        CheckConstraint("kind IN ('deploy', 'rollback')", name="rollout_kind"),
        CheckConstraint(
            "state IN ('running', 'paused', 'halted', 'waiting', 'finished', 'interrupted', 'aborted')",
            name="rollout_state",
        ),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    kind: str
    release_number: int | None = Field(default=None, foreign_key="release.number")
    state: str = "running"
    state_reason: str | None = None
    manifest: str | None = None
    manifest_digest: str | None = None
    policy: str = "{}"
    owner_user: str | None = None
    owner_host: str | None = None
    owner_pid: int | None = None
    owner_came_from: str | None = None
    owner_boot: str | None = None
    owner_started: str | None = None
    heartbeat_at: float | None = None
    started_at: float
    finished_at: float | None = None


class RolloutPartRow(SQLModel, table=True):
    """One device's place in a rollout: its wave (from 0), the release it is to get and the one it served before."""

    __tablename__ = "rollout_part"
    __table_args__ = (Index("rollout_part_device", "device_id", "rollout_id"),)

    rollout_id: int = Field(primary_key=True, foreign_key="rollout.id")
    device_id: int = Field(primary_key=True, foreign_key="device.id")
    wave: int
    release_number: int | None = Field(default=None, foreign_key="release.number")
    previous_number: int | None = None


class LeaseRow(SQLModel, table=True):
    """The rollout that alone may change a device now. How long that holds is in the rollout's heartbeat."""

    __tablename__ = "lease"
    __table_args__ = (Index("lease_rollout", "rollout_id"),)

    device_id: int = Field(primary_key=True, foreign_key="device.id")
    rollout_id: int = Field(foreign_key="rollout.id")


class AuditRow(SQLModel, table=True):
    """Who did what, when and from where. Never changed, never deleted."""

    __tablename__ = "audit"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: int | None = Field(default=None, primary_key=True)
    at: float
    action: str
    user: str
    host: str
    pid: int
    came_from: str | None = None
    rollout_id: int | None = Field(default=None, foreign_key="rollout.id")
    manifest: str | None = None
    manifest_digest: str | None = None
    detail: str | None = None


class RolloutOutcomeRow(SQLModel, table=True):
    """How one rollout ended on one device; a larger `id` was said later. `seconds` is a duration."""

    __tablename__ = "rollout_outcome"
    __table_args__ = (
        UniqueConstraint("rollout_id", "device_id", name="rollout_outcome_once"),
        Index("rollout_outcome_device", "device_id", "id"),
        Index(
            "rollout_outcome_pending",
            "device_id",
            "rollout_id",
            sqlite_where=text("outcome IN ('unreachable', 'deferred')"),
        ),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    rollout_id: int = Field(foreign_key="rollout.id")
    device_id: int = Field(foreign_key="device.id")
    release_number: int | None = Field(default=None, foreign_key="release.number")
    outcome: str
    reason: str | None = None
    bytes_moved: int = 0
    seconds: float = 0.0
    at: float


class ActivationEventRow(SQLModel, table=True):
    """One transition of an activation, as the device told it."""

    __tablename__ = "activation_event"

    device_id: int = Field(primary_key=True, foreign_key="device.id")
    epoch: str = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    operation: int
    release_digest: str
    release_number: int
    state: str
    detail: str | None = None
    outcome: str | None = None
    at: float
    received_at: float


class WorkerEventRow(SQLModel, table=True):
    """A worker process started, got ready, crashed or stopped."""

    __tablename__ = "worker_event"

    device_id: int = Field(primary_key=True, foreign_key="device.id")
    epoch: str = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    model: str
    what: str
    detail: str | None = None
    at: float
    received_at: float


class FittedRow(SQLModel, table=True):
    """One load of a model on a device: its memory as it was predicted, and as it was measured. A larger `id` was
    received later. `loaded_in` is a duration, `gpus` over how many a model is split."""

    __tablename__ = "fitted"
    __table_args__ = (
        UniqueConstraint("device_id", "epoch", "seq", name="fitted_once"),
        Index("fitted_device", "device_id", "id"),
        Index("fitted_class", "device_class", "memory", "id", sqlite_where=text("measured IS NOT NULL")),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True)
    device_id: int = Field(foreign_key="device.id")
    epoch: str
    seq: int
    device_class: str
    model: str
    engine_key: str
    memory: str
    context: int
    parallel: int
    kv_type: str
    gpu_layers: int
    gpus: int
    predicted: int
    planned: int | None = None
    measured: int | None = None
    loaded_in: float | None = None
    at: float
    received_at: float


class RejectedRecordRow(SQLModel, table=True):
    """A reported record that made no sense here; kept so that its loss is not silent."""

    __tablename__ = "rejected_record"

    device_id: int = Field(primary_key=True, foreign_key="device.id")
    epoch: str = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    kind: str
    reason: str
    received_at: float


class UsageRow(SQLModel, table=True):
    """What one model (or one adapter of it) did on one device for one API key under one release in one minute
    (its start, seconds since the epoch). `ttft_ms`, `duration_ms` and `queue_ms` are sums over the requests, the
    histograms JSON arrays of counts."""

    __tablename__ = "usage"
    __table_args__ = (Index("usage_minute", "minute"),)

    device_id: int = Field(primary_key=True, foreign_key="device.id")
    minute: int = Field(primary_key=True)
    model: str = Field(primary_key=True)
    adapter: str = Field(primary_key=True)
    key_id: str = Field(primary_key=True)
    release_number: int = Field(primary_key=True)
    release_digest: str = Field(primary_key=True)
    requests: int
    failures: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    ttft_ms: int
    duration_ms: int
    queue_ms: int
    finish_stop: int
    finish_length: int
    finish_tool_calls: int
    finish_cancelled: int
    finish_error: int
    ttft_histogram: str
    inter_token_histogram: str
    queue_histogram: str


class DeviceUsageRow(SQLModel, table=True):
    """The sums of a device's usage, kept with it, so that a status need not add up minutes."""

    __tablename__ = "device_usage"

    device_id: int = Field(primary_key=True, foreign_key="device.id")
    requests: int
    failures: int
    prompt_tokens: int
    completion_tokens: int
    ttft_ms: int
    duration_ms: int


class ReportCursorRow(SQLModel, table=True):
    """The highest record number stored for a device's spool. The newest epoch has the highest id."""

    __tablename__ = "report_cursor"
    __table_args__ = (UniqueConstraint("device_id", "epoch", name="report_cursor_spool"),)

    id: int | None = Field(default=None, primary_key=True)
    device_id: int = Field(foreign_key="device.id")
    epoch: str
    seq: int
    received_at: float


class SchemaChangeRow(SQLModel, table=True):
    """Which version of edgectl brought the schema to which revision, so that an older one can name it."""

    __tablename__ = "schema_change"

    id: int | None = Field(default=None, primary_key=True)
    revision: str
    edgectl_version: str
    at: float
