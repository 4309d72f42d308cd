"""Messages and releases for tests of the inventory, with only what a test does not care about filled in."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from agent_daemon.contract.release import (
    Artifact,
    BlobRef,
    DeviceRelease,
    Placement,
    Predicted,
    ServedModel,
)
from agent_daemon.contract.wire import CheckIn, Facts, GpuFacts, Record, RecordKind, RuntimeFacts
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import Rollout, RolloutKind
from edgectl.rollouts import owner

GIB = 1 << 30


def select(path: Path, sql: str) -> list[tuple[object, ...]]:
    """The rows of a query of the database file, as anybody may ask it."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def digest(letter: str) -> str:
    """A well-formed digest that a test can tell from others."""
    return "sha256:" + letter * 64


def facts(agent_id: str = "agent-1", **more: Any) -> Facts:
    return Facts(agent_id=agent_id, agent_version="0.1.0", **more)


def gpu_facts(backends: tuple[str, ...]) -> Facts:
    card = GpuFacts(index=0, vendor="nvidia", name="RTX 4060", vram_total=8 * GIB, vram_free=7 * GIB)
    return facts(gpus=(card,), runtime=RuntimeFacts(backends=backends), ram_total=16 * GIB)


def device_release(model: str = "chat", blob: str = "a", number: int = 1) -> DeviceRelease:
    file = BlobRef(digest=digest(blob), size=100, name="model.gguf")
    placement = Placement(
        memory="ram",
        gpu_layers=0,
        layers=31,
        context=2048,
        parallel=1,
        kv_type="f16",
        predicted=Predicted(weights=90, kv_cache=5, compute=5, total=100),
    )
    artifact = Artifact(ref="file:/models/model.gguf", digest=digest(blob), files=(file,))
    return DeviceRelease(
        number=number,
        manifest="quickstart",
        models=(ServedModel(name=model, artifact=artifact, placement=placement),),
    )


def worker(**more: Any) -> dict[str, Any]:
    known = {"models": ["chat"], "engine_key": digest("e"), "state": "ready", "predicted_bytes": 100}
    return {**known, "ram_bytes": 120, **more}


def heartbeat(seq: int, **more: Any) -> Record:
    return Record(seq=seq, at=1000.0 + seq, kind=RecordKind.HEARTBEAT, body={"uptime": 5.0, **more})


def serving(seq: int, *workers: dict[str, Any], number: int = 1, **more: Any) -> Record:
    """A heartbeat of a device on which release `number` is committed."""
    active = {"active": digest("d"), "active_number": number, "state": "committed"}
    return heartbeat(seq, **{**active, "workers": list(workers) or [worker()], **more})


def usage(seq: int, requests: int = 1, minute: int = 60, **more: Any) -> Record:
    body = {"minute": minute, "model": "chat", "release": digest("d"), "number": 1, "requests": requests}
    return Record(seq=seq, at=1000.0 + seq, kind=RecordKind.USAGE, body={**body, **more})


def record(seq: int, kind: RecordKind, **body: Any) -> Record:
    return Record(seq=seq, at=1000.0 + seq, kind=kind, body=body)


def check_in(*records: Record, epoch: str = "e1", agent_id: str = "agent-1") -> CheckIn:
    return CheckIn(agent_id=agent_id, epoch=epoch, sent_at=2000.0, records=records)


def begun(inventory: Repository, kind: RolloutKind = "deploy", release: int | None = None) -> Rollout:
    """A rollout that leases no device: those become parts of it by their outcomes."""
    return inventory.open_rollout(
        kind, release, manifest=None, manifest_digest=None, policy="{}", parts=(), owner=owner.current()
    )
