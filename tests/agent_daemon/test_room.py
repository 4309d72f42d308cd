"""Sums of memory: what a worker's end gives back, and when as much is free again as there can be."""

from typing import Any

import pytest

from agent_daemon.contract.wire import WorkerState, WorkerStatus
from agent_daemon.room import FreeMemory, Need, all_returned, frees, known_short, with_returned

MIB = 1 << 20


def status(**more: Any) -> WorkerStatus:
    return WorkerStatus(models=("m",), engine_key="sha256:" + "0" * 64, state=WorkerState.READY, **more)


def test_a_worker_gives_back_what_was_measured_and_else_what_was_predicted() -> None:
    one, two = Need(10, {"GPU-0": 100}), Need(10, {"GPU-0": 100, "GPU-1": 50})
    assert frees(one, None) == one
    assert frees(one, status()) == one
    assert frees(one, status(ram_bytes=7, vram_bytes=130)) == Need(7, {"GPU-0": 130})
    held = status(ram_bytes=7, vram_bytes=190, gpu_vram={"GPU-0": 130, "GPU-1": 60})
    assert frees(two, held) == Need(7, {"GPU-0": 130, "GPU-1": 60})
    assert frees(two, status(gpu_vram={"GPU-1": 60})) == Need(10, {"GPU-0": 100, "GPU-1": 60})


def test_what_is_returned_adds_to_what_is_known_only() -> None:
    free = FreeMemory(5, {"GPU-0": 7, "GPU-1": None}, each=3)
    given = Need(10, {"GPU-0": 100, "GPU-1": 50, "GPU-2": 9})
    assert with_returned(free, given) == FreeMemory(15, {"GPU-0": 107, "GPU-1": None}, each=3)
    assert with_returned(FreeMemory(None, {}), given) == FreeMemory(None, {})


def test_only_what_is_known_can_be_short() -> None:
    wanted = Need(10, {"GPU-0": 100, "GPU-1": 50})
    assert known_short(wanted, FreeMemory(None, {"GPU-0": None})) is None
    assert known_short(wanted, FreeMemory(10, {"GPU-0": 100, "GPU-1": 50})) is None
    assert known_short(wanted, FreeMemory(4, {"GPU-0": 99, "GPU-1": None})) == Need(6, {"GPU-0": 1})
    assert known_short(wanted, FreeMemory(-5, {})) == Need(15)


@pytest.mark.parametrize(
    ("ram", "vram", "returned"),
    [
        (1000, {"GPU-0": 8000, "GPU-1": None}, True),
        (1001, {"GPU-0": 8001, "GPU-1": 1}, True),
        (999, {"GPU-0": 8000}, False),
        (1000, {"GPU-0": 7999}, False),
        (1000, {"GPU-0": None}, False),
        (1000, {}, False),
        (None, {"GPU-0": 8000}, False),
    ],
)
def test_all_is_returned_when_every_known_memory_has_it(
    ram: int | None, vram: dict[str, int | None], returned: bool
) -> None:
    expected = FreeMemory(1000 * MIB, {"GPU-0": 8000 * MIB, "GPU-1": None})
    now = FreeMemory(
        None if ram is None else ram * MIB,
        {uuid: None if size is None else size * MIB for uuid, size in vram.items()},
    )
    assert all_returned(expected, now) is returned
