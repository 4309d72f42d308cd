from collections.abc import Iterator
from pathlib import Path

import pytest

from edgectl.inventory.repository import Repository


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "inventory.db"


@pytest.fixture
def inventory(path: Path) -> Iterator[Repository]:
    with Repository(path) as repository:
        yield repository


@pytest.fixture
def desk(inventory: Repository) -> Repository:
    inventory.add_device("desk", {"kind": "local"})
    return inventory
