"""What one request is counted as: cases as JSON, in tests/cases/metering."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.release import ServedModel
from agent_daemon.gateway.metering import Meter
from agent_daemon.metering import RequestRecord
from agent_daemon.worker_messages import Chunk, Event, parse_event
from tests.support.inventory_messages import device_release, digest

CASES = sorted((Path(__file__).parents[2] / "cases" / "metering").glob("*.json"))


@dataclass(frozen=True)
class Route:
    model: ServedModel
    adapter: str | None = None
    release: str = digest("f")
    number: int = 7


def event(told: dict[str, Any]) -> Event | Chunk:
    return Chunk(1, told["chunk"].encode()) if "chunk" in told else parse_event(json.dumps(told).encode())


def seen(case: dict[str, Any]) -> Meter:
    meter = Meter(case["arrived"])
    for at, told in case["events"]:
        meter.see(event(told), at)
    return meter


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_request_is_counted_as_what_was_seen_of_it(path: Path) -> None:
    case = json.loads(path.read_text())
    (model,) = device_release("assistant").models
    record = seen(case).record(Route(model), "0123456789ab", case.get("finish"), case["ended"])
    expected = RequestRecord(
        **{**case["record"], "model": "assistant", "release": digest("f"), "number": 7, "key": "0123456789ab"}
    )
    assert record == expected
    assert record.failed is case["failed"]
    assert record.inter_token == (None if case["inter_token"] is None else pytest.approx(case["inter_token"]))


def test_a_record_is_named_by_its_route_and_key() -> None:
    (model,) = device_release("assistant").models
    record = Meter(0.0).record(Route(model, adapter="legal"), "", now=1.0)
    assert (record.model, record.adapter, record.key, record.number) == ("assistant", "legal", "", 7)
