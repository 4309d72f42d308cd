"""The inventory kept by a process of its own: the same answers and errors, from any thread, and nothing lost at its end."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgectl.errors import EdgectlError, InventoryError
from edgectl.inventory.remote import remote, spawn
from edgectl.inventory.repository import Repository

HERE = {"kind": "local", "state_dir": "/somewhere"}


def test_what_it_is_told_is_written(tmp_path: Path) -> None:
    path = tmp_path / "inventory.db"
    with remote(spawn(), path) as repository:
        added = repository.add_device("desk", HERE, {"role": "desk"})
        assert repository.devices() == (added,)
        assert repository.device("desk") == added
    with Repository(path) as directly:
        assert directly.devices() == (added,)


def test_its_errors_are_those_of_the_repository(tmp_path: Path) -> None:
    with remote(spawn(), tmp_path / "inventory.db") as repository:
        with pytest.raises(InventoryError, match="there is no device 'desk'") as found:
            repository.device("desk")
        assert found.value.hint == "see them with: edgectl device list"
        with pytest.raises(EdgectlError, match="internal error: TypeError in the inventory's device"):
            repository.device(1, 2, 3)  # type: ignore[call-arg, arg-type]
        # It goes on after both.
        assert repository.devices() == ()


def test_one_that_cannot_be_opened_says_so_at_the_first_question(tmp_path: Path) -> None:
    path = tmp_path / "inventory.db"
    path.write_bytes(b"this is no database, and it is longer than a header of one would be" * 20)
    with remote(spawn(), path) as repository, pytest.raises(InventoryError, match=r"inventory\.db"):
        repository.devices()


def test_many_threads_share_it(tmp_path: Path) -> None:
    names = [f"d{number}" for number in range(40)]
    with remote(spawn(), tmp_path / "inventory.db") as repository, ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda name: repository.add_device(name, HERE).name, names))
        assert added == names
        assert {device.name for device in repository.devices()} == set(names)


def test_one_that_dies_is_told_in_a_sentence(tmp_path: Path) -> None:
    spawned = spawn()
    with remote(spawned, tmp_path / "inventory.db") as repository:
        repository.devices()
        os.kill(spawned.process.pid, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(EdgectlError, match="the process that writes the inventory has ended"):
                repository.devices()


def test_ctrl_c_does_not_reach_it(tmp_path: Path) -> None:
    spawned = spawn()
    with remote(spawned, tmp_path / "inventory.db") as repository:
        repository.devices()
        os.kill(spawned.process.pid, signal.SIGINT)
        assert repository.devices() == ()
