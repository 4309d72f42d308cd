from pathlib import Path

import pytest

from agent_daemon.contract.wire import Outcome
from edgectl.errors import InventoryError
from edgectl.inventory import queries
from edgectl.inventory.repository import Repository
from tests.support.inventory_messages import begun, device_release

OK = Outcome.SUCCEEDED


@pytest.fixture
def fleet(inventory: Repository) -> Repository:
    for name in ("a", "b"):
        inventory.add_device(name, {"kind": "local"})
    for number in range(1, 5):
        parts = {name: device_release(f"model-{number}") for name in ("a", "b")}
        assert inventory.record_release("quickstart", {"n": number}, parts).number == number
    return inventory


def roll(fleet: Repository, kind: str, number: int, outcome: Outcome = OK, device: str = "a") -> None:
    rollout = begun(fleet, "deploy" if kind == "deploy" else "rollback", number)
    fleet.record_outcome(rollout.id, device, outcome)
    fleet.set_state(rollout.id, "finished")


@pytest.mark.parametrize(
    ("steps", "current", "previous"),
    [
        ([], None, None),
        ([("deploy", 1, OK)], 1, None),
        ([("deploy", 1, OK), ("deploy", 2, OK)], 2, 1),
        ([("deploy", 1, OK), ("deploy", 2, OK), ("deploy", 2, Outcome.UNCHANGED)], 2, 1),
        ([("deploy", 1, OK), ("deploy", 2, Outcome.REVERTED), ("deploy", 3, Outcome.REFUSED)], 1, None),
        ([("deploy", 1, OK), ("deploy", 2, OK), ("deploy", 3, Outcome.UNREACHABLE)], 2, 1),
        ([("deploy", 1, OK), ("deploy", 2, OK), ("rollback", 1, OK)], 1, None),
        ([("deploy", 1, OK), ("deploy", 2, OK), ("deploy", 3, OK), ("rollback", 2, OK)], 2, 1),
        ([("deploy", 1, OK), ("deploy", 2, OK), ("rollback", 1, OK), ("deploy", 3, OK)], 3, 1),
        ([("deploy", 1, OK), ("rollback", 4, OK)], 4, 1),
        ([("deploy", 1, OK), ("deploy", 2, OK), ("deploy", 1, OK)], 1, 2),
    ],
)
def test_a_rollback_goes_to_what_was_there_before_and_never_back_to_what_was_left(
    fleet: Repository, steps: list[tuple[str, int, Outcome]], current: int | None, previous: int | None
) -> None:
    for kind, number, outcome in steps:
        roll(fleet, kind, number, outcome)
    found = fleet.current_release("a"), fleet.previous_release("a")
    assert tuple(release and release.number for release in found) == (current, previous)
    assert fleet.current_release("b") is None


def test_the_later_word_about_a_device_counts(fleet: Repository) -> None:
    rollout = begun(fleet, "deploy", 2)
    fleet.record_outcome(rollout.id, "a", Outcome.UNREACHABLE, "no answer")
    fleet.record_outcome(rollout.id, "a", OK, bytes_moved=500, seconds=2.5)
    fleet.record_outcome(rollout.id, "b", Outcome.REFUSED, "needs 5 GiB", release_number=3)
    assert [
        (o.device, o.outcome, o.reason, o.bytes_moved, o.release_number) for o in fleet.outcomes(rollout.id)
    ] == [
        ("a", Outcome.SUCCEEDED, None, 500, 2),
        ("b", Outcome.REFUSED, "needs 5 GiB", 0, 3),
    ]


def test_a_rollout_runs_until_it_is_finished_or_interrupted(fleet: Repository) -> None:
    rollout = begun(fleet, "rollback")
    assert (rollout.state, rollout.release_number, rollout.finished_at) == ("running", None, None)
    ended = fleet.set_state(rollout.id, "interrupted")
    assert ended.state == "interrupted"
    assert ended.finished_at is not None
    with pytest.raises(InventoryError, match="no rollout 99"):
        fleet.set_state(99, "finished")


def test_history_is_newest_first_and_by_device_when_asked(fleet: Repository, path: Path) -> None:
    roll(fleet, "deploy", 1, device="a")
    roll(fleet, "deploy", 1, device="b")
    begun(fleet, "deploy", 2)
    with queries.reading(path) as connection:
        everything = queries.history(connection)
        of_a = queries.history(connection, "a")
        newest = queries.history(connection, limit=1)
    assert [(r["rollout"], r["kind"], r["state"], r["release"]) for r in everything] == [
        (3, "deploy", "running", "r2"),
        (2, "deploy", "finished", "r1"),
        (1, "deploy", "finished", "r1"),
    ]
    assert everything[0]["outcomes"] == []
    assert [o["device"] for o in everything[1]["outcomes"]] == ["b"]
    assert [r["rollout"] for r in of_a] == [1]
    assert [r["rollout"] for r in newest] == [3]


def test_a_rollout_to_different_releases_names_none_for_all(fleet: Repository, path: Path) -> None:
    rollout = begun(fleet, "rollback")
    fleet.record_outcome(rollout.id, "a", OK, release_number=1)
    fleet.record_outcome(rollout.id, "b", OK, release_number=2)
    with queries.reading(path) as connection:
        (entry,) = queries.history(connection)
    assert entry["release"] is None
    assert [o["release"] for o in entry["outcomes"]] == ["r1", "r2"]
