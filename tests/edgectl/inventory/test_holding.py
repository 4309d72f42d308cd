"""Whose workers' memory counts as taken in what a device told of itself."""

from agent_daemon.contract.wire import RecordKind
from edgectl.inventory.holding import TOGETHER
from edgectl.inventory.repository import Repository
from tests.support.inventory_messages import check_in, facts, heartbeat, record, serving, worker


def test_workers_of_about_the_time_of_the_facts(inventory: Repository) -> None:
    inventory.add_device("desk", {"kind": "local"})
    inventory.ingest("desk", check_in(serving(1, worker(ram_private_bytes=70))), received_at=5000.0)
    inventory.save_facts("desk", facts(), received_at=5000.0 + TOGETHER)
    (found,) = inventory.holding()["desk"]
    assert (found.models, found.ram_private_bytes) == (("chat",), 70)


def test_facts_of_another_time_say_nothing_about_them(inventory: Repository) -> None:
    inventory.add_device("desk", {"kind": "local"})
    inventory.save_facts("desk", facts(), received_at=4000.0)
    inventory.ingest("desk", check_in(serving(1)), received_at=4000.1 + TOGETHER)
    assert inventory.holding() == {}


def test_the_devices_own_clock_tells_where_both_came_in_one_report(inventory: Repository) -> None:
    """Facts from before a model was loaded, and a heartbeat from after it, handed over together."""
    inventory.add_device("desk", {"kind": "local"})
    told = facts().model_dump(mode="json")
    inventory.ingest("desk", check_in(record(1, RecordKind.FACTS, **told), serving(900)), received_at=9000.0)
    assert inventory.holding() == {}
    inventory.ingest("desk", check_in(record(901, RecordKind.FACTS, **told)), received_at=9999.0)
    assert len(inventory.holding()["desk"]) == 1


def test_who_serves_nothing_or_is_gone_is_not_there(inventory: Repository) -> None:
    for name, agent in (("idle", "agent-1"), ("gone", "agent-2")):
        inventory.add_device(name, {"kind": "local"})
        inventory.save_facts(name, facts(agent), received_at=5000.0)
    inventory.ingest("idle", check_in(heartbeat(1)), received_at=5000.0)
    inventory.ingest("gone", check_in(serving(1), agent_id="agent-2"), received_at=5000.0)
    inventory.remove_device("gone")
    assert inventory.holding() == {}
