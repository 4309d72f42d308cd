"""Devices that do not answer: since when, why, and what was known of them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgectl.errors import InventoryError
from edgectl.inventory import queries
from edgectl.inventory.records import ReportRefused
from edgectl.inventory.repository import Repository
from tests.support.inventory_messages import check_in, facts, serving, usage, worker

LOCAL = {"kind": "local", "state_dir": "/srv/agent"}


def status(path: Path) -> dict[str, Any]:
    with queries.reading(path) as connection:
        (row,) = queries.device_status(connection)
    return row


def test_a_silence_keeps_its_beginning_and_its_newest_reason(inventory: Repository, path: Path) -> None:
    inventory.add_device("desk", LOCAL)
    inventory.ingest("desk", check_in(serving(1, number=3), usage(2, 4)))
    inventory.mark_unreachable("desk", "connection refused", at=5000.0)
    inventory.mark_unreachable("desk", "no route to host", at=6000.0)
    row = status(path)
    assert (row["state"], row["known_state"], row["attention"]) == ("unreachable", "serving", True)
    assert (row["unreachable_since"], row["unreachable_reason"]) == (5000.0, "no route to host")
    assert (row["release"], row["requests"], row["models"]) == ("r3", 4, "chat")
    device = inventory.device("desk")
    assert (device.unreachable_since, device.unreachable_reason) == (5000.0, "no route to host")
    with queries.reading(path) as connection:
        (listed,) = queries.devices(connection)
    assert (listed["unreachable_since"], listed["unreachable_reason"]) == (5000.0, "no route to host")


@pytest.mark.parametrize(
    "hear",
    [
        lambda inventory: inventory.ingest("desk", check_in()),
        lambda inventory: inventory.save_facts("desk", facts()),
        lambda inventory: inventory.heard_from("desk"),
    ],
    ids=["report", "facts", "answer"],
)
def test_whatever_is_heard_ends_it(
    inventory: Repository, path: Path, hear: Callable[[Repository], object]
) -> None:
    inventory.add_device("desk", LOCAL)
    inventory.ingest("desk", check_in(serving(1)))
    inventory.mark_unreachable("desk", "connection refused")
    hear(inventory)
    row = status(path)
    assert (row["state"], row["unreachable_since"], row["unreachable_reason"]) == ("serving", None, None)
    assert row["last_seen"] == pytest.approx(time.time(), abs=60)
    inventory.mark_unreachable("desk", "connection refused", at=7000.0)
    assert status(path)["unreachable_since"] == 7000.0


@pytest.mark.parametrize(
    ("told", "age", "known"),
    [
        (None, 0.0, "unknown"),
        ([], 0.0, "never_deployed"),
        ([serving(1, worker(state="backoff"))], 0.0, "degraded"),
        ([serving(1, state="reverted")], 0.0, "reverted"),
        ([serving(1)], 30 * 86400.0, "serving"),
    ],
)
def test_what_was_known_is_not_lost(
    inventory: Repository, path: Path, told: list[Any] | None, age: float, known: str
) -> None:
    inventory.add_device("desk", LOCAL)
    if told is not None:
        inventory.ingest("desk", check_in(*told), time.time() - age)
    assert status(path)["known_state"] == known
    inventory.mark_unreachable("desk", "timed out")
    row = status(path)
    assert (row["state"], row["known_state"]) == ("unreachable", known)


def test_how_a_device_is_reached_can_change(inventory: Repository) -> None:
    inventory.add_device("desk", LOCAL, {"role": "desk"}, facts())
    spec = {"kind": "ssh", "host": "desk.example", "port": 2222}
    assert inventory.set_transport("desk", spec).transport == spec
    device = inventory.device("desk")
    assert (device.transport, device.labels, device.agent_id) == (spec, {"role": "desk"}, "agent-1")
    for act in (
        lambda: inventory.set_transport("nobody", spec),
        lambda: inventory.mark_unreachable("nobody", "x"),
        lambda: inventory.heard_from("nobody"),
    ):
        with pytest.raises(InventoryError, match="no device 'nobody'"):
            act()


def test_another_agents_report_is_not_taken(inventory: Repository, path: Path) -> None:
    inventory.add_device("desk", LOCAL, facts=facts("agent-1"))
    inventory.mark_unreachable("desk", "timed out", at=5000.0)
    with pytest.raises(ReportRefused, match="it is of agent agent-2, expected agent-1; nothing was stored"):
        inventory.ingest("desk", check_in(usage(1, 5), agent_id="agent-2"))
    row = status(path)
    assert (row["requests"], row["unreachable_since"]) == (0, 5000.0)
    assert inventory.device("desk").agent_id == "agent-1"
