from pathlib import Path

import pytest

from edgectl.errors import InventoryError
from edgectl.inventory import queries
from edgectl.inventory.repository import Repository
from tests.support.inventory_messages import GIB, facts, gpu_facts

LOCAL = {"kind": "local", "state_dir": "/srv/agent"}


def test_a_device_comes_back_as_it_was_added(inventory: Repository) -> None:
    told = facts("agent-7", ram_total=16 * GIB)
    added = inventory.add_device("desk", LOCAL, {"role": "desk"}, told)
    assert inventory.device("desk") == added
    assert (added.name, added.transport, added.labels) == ("desk", LOCAL, {"role": "desk"})
    assert (added.agent_id, added.facts) == ("agent-7", told)
    assert added.last_seen == added.facts_at == added.added_at


def test_devices_are_listed_by_name(inventory: Repository) -> None:
    for name in ("b", "c", "a"):
        inventory.add_device(name, LOCAL)
    assert [device.name for device in inventory.devices()] == ["a", "b", "c"]


def test_one_name_is_one_device_and_one_agent_has_one_name(inventory: Repository) -> None:
    inventory.add_device("desk", LOCAL, facts=facts("agent-1"))
    with pytest.raises(InventoryError, match="there is a device 'desk'"):
        inventory.add_device("desk", LOCAL, facts=facts("agent-2"))
    with pytest.raises(InventoryError, match="is the device 'desk' already"):
        inventory.add_device("other", LOCAL, facts=facts("agent-1"))
    assert [device.name for device in inventory.devices()] == ["desk"]


def test_a_removed_device_is_gone_and_its_name_and_agent_are_free(inventory: Repository) -> None:
    inventory.add_device("desk", LOCAL, {"old": "yes"}, facts("agent-1"))
    inventory.remove_device("desk")
    assert inventory.devices() == ()
    with pytest.raises(InventoryError, match="no device 'desk'"):
        inventory.remove_device("desk")
    assert inventory.add_device("desk", LOCAL, facts=facts("agent-1")).labels == {}


def test_renaming_keeps_everything_else(inventory: Repository) -> None:
    before = inventory.add_device("desk", LOCAL, {"role": "desk"}, facts())
    inventory.add_device("taken", LOCAL)
    after = inventory.rename_device("desk", "bench")
    assert (after.name, after.labels, after.facts) == ("bench", before.labels, before.facts)
    with pytest.raises(InventoryError, match="'taken'"):
        inventory.rename_device("bench", "taken")
    assert inventory.rename_device("bench", "bench").name == "bench"


def test_labels_are_set_and_taken_away_one_by_one(inventory: Repository) -> None:
    inventory.add_device("desk", LOCAL, {"role": "desk", "site": "lab"})
    device = inventory.label_device("desk", {"site": None, "floor": "2"})
    assert device.labels == {"role": "desk", "floor": "2"}


@pytest.mark.parametrize(
    ("backends", "note"),
    [
        (("cpu", "cuda"), None),
        (("cpu",), "the runtime cannot use the GPU (it was built with: cpu); models go to RAM"),
    ],
)
def test_a_gpu_counts_only_when_the_runtime_can_use_it(
    inventory: Repository, path: Path, backends: tuple[str, ...], note: str | None
) -> None:
    inventory.add_device("desk", LOCAL)
    inventory.save_facts("desk", gpu_facts(backends), received_at=77.0)
    with queries.reading(path) as connection:
        (row,) = queries.devices(connection)
    assert (row["gpus"], row["vram_total"], row["vram_free"]) == ("RTX 4060", 8 * GIB, 7 * GIB)
    assert (row["backends"], row["gpu_note"]) == (",".join(backends), note)
    assert (row["facts_at"], row["last_seen"], row["transport"]) == (77.0, 77.0, LOCAL)


def test_facts_of_many_are_saved_together(inventory: Repository) -> None:
    names = [f"d{number}" for number in range(230)]
    for name in names:
        inventory.add_device(name, {"kind": "local"})
    seen = {name: gpu_facts(("cuda",)).model_copy(update={"agent_id": f"agent-{name}"}) for name in names}
    inventory.save_all_facts(seen)
    assert {device.name: device.facts for device in inventory.devices()} == seen
    with pytest.raises(InventoryError, match="no device 'ghost'"):
        inventory.save_all_facts({"ghost": gpu_facts(("cuda",))})
