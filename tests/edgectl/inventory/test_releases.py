from pathlib import Path

import pytest

from edgectl.errors import InventoryError
from edgectl.inventory.repository import Repository
from tests.support.inventory_messages import device_release

CONTENT = {"name": "quickstart", "models": {"chat": {"candidates": ["a", "b"]}}}


@pytest.fixture
def fleet(inventory: Repository) -> Repository:
    for name in ("a", "b"):
        inventory.add_device(name, {"kind": "local"})
    return inventory


def test_releases_are_numbered_from_one(fleet: Repository) -> None:
    first = fleet.record_release("quickstart", CONTENT, {"a": device_release("chat")})
    second = fleet.record_release("quickstart", {**CONTENT, "more": 1}, {"a": device_release("other")})
    assert (first.label, second.label) == ("r1", "r2")
    assert [release.number for release in fleet.releases()] == [1, 2]
    assert fleet.release(1) == first
    assert first.content == CONTENT


def test_a_device_gets_the_release_with_its_number(fleet: Repository) -> None:
    fleet.record_release("quickstart", {"x": 1}, {"a": device_release()})
    fleet.record_release("quickstart", CONTENT, {"a": device_release("other", number=99)})
    stored = fleet.device_release(2, "a")
    assert stored == device_release("other", number=2)
    assert fleet.device_release(2, "b") is None


def test_the_same_content_keeps_its_number_whatever_the_order_of_its_keys(fleet: Repository) -> None:
    first = fleet.record_release("quickstart", {"x": 1, "y": 2}, {"a": device_release()})
    again = fleet.record_release("quickstart", {"y": 2, "x": 1}, {"a": device_release(number=5)})
    other_manifest = fleet.record_release("office", {"x": 1, "y": 2}, {"a": device_release()})
    assert again == first
    assert other_manifest.number == 2


def test_a_device_that_joins_is_added_to_the_release(fleet: Repository) -> None:
    fleet.record_release("quickstart", CONTENT, {"a": device_release()})
    assert fleet.record_release("quickstart", CONTENT, {"b": device_release("chat", "b")}).number == 1
    assert fleet.device_release(1, "a") == device_release()
    assert fleet.device_release(1, "b") == device_release("chat", "b")


def test_a_release_never_changes_under_its_number(fleet: Repository) -> None:
    fleet.record_release("quickstart", CONTENT, {"a": device_release(blob="a")})
    smaller = fleet.record_release("quickstart", CONTENT, {"a": device_release(blob="b")})
    assert smaller.number == 2
    assert fleet.device_release(1, "a") == device_release(blob="a")
    assert fleet.record_release("quickstart", CONTENT, {"a": device_release(blob="a")}).number == 1
    assert fleet.record_release("quickstart", CONTENT, {"a": device_release(blob="b")}).number == 2


def test_unknown_devices_and_numbers_are_named(fleet: Repository, path: Path) -> None:
    with pytest.raises(InventoryError, match="no device 'c'"):
        fleet.record_release("quickstart", CONTENT, {"a": device_release(), "c": device_release()})
    assert fleet.releases() == ()
    with pytest.raises(InventoryError, match="no release r7"):
        fleet.release(7)


def test_many_devices_are_asked_for_at_once_each_under_its_own_number(inventory: Repository) -> None:
    names = [f"d{number}" for number in range(1203)]
    for name in names:
        inventory.add_device(name, {"kind": "local"})
    inventory.record_release("office", {"n": 1}, {name: device_release(f"m-{name}") for name in names})
    inventory.record_release("office", {"n": 2}, {name: device_release("chat") for name in names[:2]})
    wanted = {**dict.fromkeys(names, 1), "d1": 2, "d7": 2, "ghost": 1}
    inventory.remove_device("d9")
    found = inventory.device_releases(wanted)
    # d7 has no part of r2.
    assert set(found) == set(names) - {"d7", "d9"}
    assert found["d0"] == inventory.device_release(1, "d0")
    assert found["d1"] == inventory.device_release(2, "d1")
    assert found["d1202"] == inventory.device_release(1, "d1202")
    assert inventory.device_releases({}) == {}
