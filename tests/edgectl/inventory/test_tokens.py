import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from edgectl.errors import InventoryError, UsageError
from edgectl.inventory import queries
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import TokenOwner, TokenRefusal
from tests.support.inventory_messages import facts

LOCAL = {"kind": "local", "state_dir": "/srv/agent"}
DAY = 86400.0


def expiry(path: Path) -> float | None:
    with queries.reading(path) as connection:
        (row,) = queries.devices(connection)
    found: float | None = row["token_expires_at"]
    return found


def test_a_token_names_its_device_until_it_expires(inventory: Repository, path: Path) -> None:
    inventory.add_device("desk", LOCAL, facts=facts("agent-7"))
    assert expiry(path) is None
    token = inventory.mint_token("desk", 30)
    assert re.fullmatch(r"edgectl-dev_[A-Za-z0-9_-]{43}", token)
    assert inventory.device_of_token(token) == TokenOwner("desk", "agent-7")
    end = expiry(path)
    assert end == pytest.approx(time.time() + 30 * DAY, abs=60)
    assert end is not None
    assert inventory.device_of_token(token, end - 0.01) == TokenOwner("desk", "agent-7")
    assert inventory.device_of_token(token, end) is TokenRefusal.EXPIRED
    assert inventory.device_of_token(token + "x") is TokenRefusal.UNKNOWN
    assert inventory.device_of_token("") is TokenRefusal.UNKNOWN


def test_no_token_is_in_the_file(inventory: Repository, path: Path) -> None:
    inventory.add_device("desk", LOCAL)
    token = inventory.mint_token("desk", 1)
    with closing(sqlite3.connect(path)) as connection:
        assert token.removeprefix("edgectl-dev_") not in "".join(connection.iterdump())


def test_tokens_are_dropped_but_the_one_to_keep(inventory: Repository) -> None:
    inventory.add_device("desk", LOCAL)
    inventory.add_device("lap", LOCAL)
    old, new, other = (inventory.mint_token(name, 1) for name in ("desk", "desk", "lap"))
    inventory.drop_tokens("desk", keep=new)
    assert inventory.device_of_token(old) is TokenRefusal.UNKNOWN
    assert inventory.device_of_token(new) == TokenOwner("desk", None)
    inventory.drop_tokens("desk", keep=None)
    assert inventory.device_of_token(new) is TokenRefusal.UNKNOWN
    inventory.withdraw_token("edgectl-dev_nothing")
    assert inventory.device_of_token(other) == TokenOwner("lap", None)
    inventory.withdraw_token(other)
    assert inventory.device_of_token(other) is TokenRefusal.UNKNOWN


def test_a_token_follows_a_new_name_and_dies_with_its_device(inventory: Repository, path: Path) -> None:
    inventory.add_device("desk", LOCAL)
    token = inventory.mint_token("desk", 1)
    inventory.rename_device("desk", "bench")
    assert inventory.device_of_token(token) == TokenOwner("bench", None)
    inventory.remove_device("bench")
    assert inventory.device_of_token(token) is TokenRefusal.UNKNOWN
    inventory.add_device("bench", LOCAL)
    assert inventory.device_of_token(token) is TokenRefusal.UNKNOWN
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM device_token").fetchone() == (0,)


def test_what_makes_no_sense_is_refused(inventory: Repository) -> None:
    inventory.add_device("desk", LOCAL)
    for days in (0, -1, 3651, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="expected more than 0 and at most 3650"):
            inventory.mint_token("desk", days)
    with pytest.raises(InventoryError, match="no device 'nobody'"):
        inventory.mint_token("nobody", 1)
    with pytest.raises(InventoryError, match="no device 'nobody'"):
        inventory.drop_tokens("nobody", None)


def test_looking_a_token_up_waits_for_no_writer(inventory: Repository, path: Path) -> None:
    inventory.add_device("desk", LOCAL)
    token = inventory.mint_token("desk", 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert inventory.device_of_token(token) == TokenOwner("desk", None)
        assert time.monotonic() - began < 5
        other.execute("ROLLBACK")
