"""Drift in the inventory: what a device told, and what only this side can see; in `device_status` and as a note."""

from pathlib import Path
from typing import Any

from agent_daemon.contract.wire import Outcome
from edgectl.cli.fleet_report import note
from edgectl.inventory import queries
from edgectl.inventory.repository import Repository
from tests.support.inventory_messages import begun, check_in, device_release, facts, serving

UNIT = {"kind": "unit", "what": "/etc/systemd/system/edgectl-agent.service", "detail": "was edited"}
FILE = {"kind": "blob", "what": "sha256:aa", "detail": "(m.gguf) of the active release is missing"}


def status(path: Path) -> dict[str, Any]:
    with queries.reading(path) as connection:
        (row,) = queries.device_status(connection)
    return row


def test_what_a_device_tells_needs_attention_while_it_goes_on_serving(desk: Repository, path: Path) -> None:
    desk.ingest("desk", check_in(serving(1)))
    row = status(path)
    assert (row["state"], row["drift"], row["attention"]) == ("serving", None, False)
    desk.ingest("desk", check_in(serving(2, drift=[UNIT, FILE])))
    row = status(path)
    assert (row["state"], row["attention"]) == ("serving", True)
    assert row["drift"] == (
        "/etc/systemd/system/edgectl-agent.service was edited;"
        " sha256:aa (m.gguf) of the active release is missing"
    )
    assert note(row) == f"drift: {row['drift']}; mend it with: edgectl deploy --repair"
    desk.ingest("desk", check_in(serving(3)))
    assert (status(path)["drift"], status(path)["attention"]) == (None, False)


def test_another_agent_than_was_installed_is_drift(desk: Repository, path: Path) -> None:
    desk.ingest("desk", check_in(serving(1)))
    desk.save_facts("desk", facts(agent_build="0.1.0-b"))
    assert status(path)["drift"] is None
    desk.set_agent_build("desk", "0.1.0-a")
    assert status(path)["drift"] == "the agent is 0.1.0-b, installed was 0.1.0-a"
    desk.set_agent_build("desk", "0.1.0-b")
    assert status(path)["drift"] is None


def test_another_release_than_was_brought_is_drift(desk: Repository, path: Path) -> None:
    release = desk.record_release("m", {"x": 1}, {"desk": device_release()})
    rollout = begun(desk, release=release.number)
    desk.record_outcome(rollout.id, "desk", Outcome.SUCCEEDED, release_number=release.number)
    brought = device_release(number=release.number)
    right = serving(1, number=release.number, active=brought.digest())
    desk.ingest("desk", check_in(right))
    assert status(path)["drift"] is None
    desk.ingest("desk", check_in(serving(2, number=7)))
    assert status(path)["drift"] == f"it serves r7, brought was r{release.number}"
    # What a rollout tried and the device took back was never brought.
    desk.ingest("desk", check_in(serving(3, number=release.number, active=brought.digest())))
    again = begun(desk, release=release.number)
    desk.record_outcome(again.id, "desk", Outcome.REVERTED, "too slow", release_number=release.number)
    assert status(path)["drift"] is None
