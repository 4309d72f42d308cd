"""Which devices a command will ask, from the read side of the inventory: known long before the write side is imported."""

from pathlib import Path

from edgectl.errors import EdgectlError
from edgectl.inventory import queries
from edgectl.inventory.values import Device
from edgectl.selector import parse


def expected(database: Path, query: str) -> tuple[Device, ...]:
    """The devices that a selector matches, without their facts. None at all where the inventory cannot be read or the
    selector makes no sense: whoever needs them for good will say so."""
    try:
        wanted = parse(query)
        return tuple(device for device in registered(database) if wanted.matches(device.labels, device.name))
    except EdgectlError:
        return ()


def registered(database: Path) -> tuple[Device, ...]:
    """All devices, without their facts. Raises InventoryError."""
    with queries.reading(database) as connection:
        rows = queries.devices(connection)
    return tuple(
        Device(row["name"], row["transport"], row["labels"], row["added_at"], row["agent_id"]) for row in rows
    )
