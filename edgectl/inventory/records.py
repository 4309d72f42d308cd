"""PURE: one reported record, read or rejected. A device is not trusted to send only what makes sense."""

import math
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from agent_daemon.contract.wire import (
    USAGE_HISTOGRAMS,
    USAGE_SUMS,
    ActivationEvent,
    Facts,
    Fitted,
    Heartbeat,
    Record,
    RecordKind,
    Usage,
    WorkerEvent,
)
from edgectl.errors import InventoryError

Body = Facts | Heartbeat | ActivationEvent | WorkerEvent | Usage | Fitted
LARGEST_INTEGER = 2**63 - 1
"""What a column can hold."""

LARGEST_COUNT = 2**40
"""More than a device can count in one minute, and small enough that sums of it never overflow a column."""

LARGEST_MEMORY = 2**50
"""Bytes: more than any model takes, and small enough that no difference of two overflows a column."""

_MEMORIES = ("predicted", "planned", "measured")
_COUNTS = ("context", "parallel", "gpu_layers", "gpus")
_TYPES: dict[str, type[Body]] = {
    RecordKind.FACTS: Facts,
    RecordKind.HEARTBEAT: Heartbeat,
    RecordKind.ACTIVATION: ActivationEvent,
    RecordKind.WORKER: WorkerEvent,
    RecordKind.USAGE: Usage,
    RecordKind.FITTED: Fitted,
}


class ReportRefused(InventoryError):
    """A check-in of which nothing can be stored, however often it is sent."""


@dataclass(frozen=True)
class Rejected:
    """A record that cannot be stored, and why, in one sentence."""

    reason: str


def read(record: Record) -> Body | Rejected:
    """The record's body as its kind says."""
    if not math.isfinite(record.at):
        return Rejected("its time is not a number")
    if not _storable(record.body):
        return Rejected("it holds a number that no column can hold")
    if record.kind not in _TYPES:
        return Rejected("it is of a kind that this version does not know")
    try:
        body = _TYPES[record.kind].model_validate(record.body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the record"
        return Rejected(f"{where}: {first['msg']}")
    if isinstance(body, Usage):
        for name, value in body.model_dump(
            include={"minute", "number", *USAGE_SUMS, *USAGE_HISTOGRAMS}
        ).items():
            wrong = [count for count in _counts(value) if not 0 <= count <= LARGEST_COUNT]
            if wrong:
                return Rejected(f"{name}: {wrong[0]} is not a count")
    if isinstance(body, Fitted):
        for names, largest in ((_MEMORIES, LARGEST_MEMORY), (_COUNTS, LARGEST_COUNT)):
            for name in names:
                value = getattr(body, name)
                if value is not None and not 0 <= value <= largest:
                    return Rejected(f"{name}: {value} makes no sense")
    return body


def _counts(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _storable(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_storable(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_storable(item) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int):
        return abs(value) <= LARGEST_INTEGER
    return True
